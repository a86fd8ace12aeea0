"""A downstream LLM in this process, run by vLLM: for large models and many prompts on a GPU."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pmlm_env.llm.base import LLM, Completion, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.local.chat_template import ChatTemplate, Tokens, only_thoughts_message
from pmlm_env.llm.local.model_files import find_model

#: Maximum requests per batch, whose replies a kill loses. vLLM decides how many of them run at once.
_BATCH = 1024


class VLLMEngine(LLM):
    """vLLM's offline engine on this machine; no data is sent elsewhere.

    vLLM pins torch, so install it in a separate environment. The engine starts at the first request, takes most of the
    GPU's memory, and is not pickled. If this process has used CUDA before, vLLM spawns its worker, and the program
    needs ``if __name__ == "__main__"``. Even a greedy reply may depend on its batch if two next tokens are almost
    equally likely.

    Args:
        model: An instruction-tuned causal LM: a bundled model's name, a folder or a hub name.
        max_new_tokens: Maximum number of tokens of a reply.
        temperature: Sampling temperature; 0 = greedy.
        seed: Seed of the first reply to a prompt, plus 1 for each further one.
        on_truncated: What to do with a reply cut at ``max_new_tokens``: ``"error"``, or ``"keep"`` it.
        chat_template_kwargs: Further arguments of the model's chat template, such as ``{"enable_thinking": False}``.
    """

    is_remote = False

    def __init__(
        self,
        model: str,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        on_truncated: OnTruncated = "keep",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Find the model; the engine starts at the first request."""
        if max_new_tokens < 1 or not 0 <= temperature <= 2 or seed < 0:
            raise ValueError("max_new_tokens must be 1 or more, temperature from 0 to 2, and seed 0 or more")
        if on_truncated not in ("error", "keep"):
            raise ValueError(f"on_truncated is {on_truncated!r}: use 'error' or 'keep'")
        self.model, self.max_new_tokens, self.temperature = model, max_new_tokens, temperature
        self.seed, self.on_truncated = seed, on_truncated
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self._files = find_model(model)

    @property
    def identity(self) -> str:
        """Model, limit and sampling, as JSON."""
        parts = ("max_new_tokens", "temperature", "seed", "on_truncated")
        settings = {"vllm": self._files.identity, **{part: getattr(self, part) for part in parts}}
        if self.chat_template_kwargs:
            settings["chat_template_kwargs"] = self.chat_template_kwargs
        return json.dumps(settings, sort_keys=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the engine."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_engine", "_chat")}

    @cached_property
    def _engine(self) -> Any:
        path = self._files.path if self._files.gguf is None else f"{self._files.path}/{self._files.gguf}"
        return _vllm().LLM(path, revision=self._files.revision, trust_remote_code=False)

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self._engine.get_tokenizer(), self.model, self.chat_template_kwargs)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield replies in batches. Too long prompts are not passed to vLLM, which would reject the whole batch."""
        for start in range(0, len(requests), _BATCH):
            batch: dict[int, Reply] = {}
            valid: dict[int, Tokens] = {}
            for index in range(start, min(start + _BATCH, len(requests))):
                try:
                    valid[index] = self._tokens(requests[index].prompt)
                except LLMError as error:
                    batch[index] = error
            if valid:
                prompts = [{"prompt_token_ids": tokens} for tokens in valid.values()]
                sampling = [self._sampling(requests[index].sample) for index in valid]
                outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
                batch.update({index: self._reply(output) for index, output in zip(valid, outputs, strict=True)})
            yield batch

    def _sampling(self, sample: int) -> Any:
        return _vllm().SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_new_tokens,
            seed=self.seed + sample,
            stop_token_ids=self._chat.ends,
        )

    def _tokens(self, prompt: str) -> Tokens:
        tokens = self._chat.encode(prompt)
        limit = self._engine.llm_engine.model_config.max_model_len - self.max_new_tokens
        if len(tokens) > limit:
            raise LLMError(f"a prompt has {len(tokens)} tokens, but {self.model} accepts {limit}: shorten it")
        return tokens

    def _reply(self, output: Any) -> Reply:
        best, n_prompt = output.outputs[0], len(output.prompt_token_ids)
        if best.finish_reason not in ("stop", "length"):
            return LLMError(f"{self.model} did not finish a reply ({best.finish_reason}): try again")
        ended = best.token_ids and best.token_ids[-1] in self._chat.ends
        text = self._chat.decode(best.token_ids[:-1] if ended else best.token_ids)
        if text is None:
            return LLMError(only_thoughts_message(self.model, len(best.token_ids)))
        if best.finish_reason == "length" and self.on_truncated == "error":
            return LLMError(f"{self.model}'s reply was cut: raise max_new_tokens, or use on_truncated=keep")
        if not text:
            return LLMError(f"{self.model} gave an empty reply to a prompt of {n_prompt} tokens")
        return Completion(text, n_prompt, len(best.token_ids), best.finish_reason)


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise LLMError(f"vLLM cannot be used ({error}): pip install 'pmlm-env[vllm]'") from None
    return vllm
