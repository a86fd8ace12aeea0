"""A downstream LLM in this process, through vLLM: for large models and many prompts on a GPU."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from typing import Any

from pmlm_env.llm.base import LLM, Completion, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.local.chat_template import ChatTemplate, Tokens, only_thoughts
from pmlm_env.llm.local.model_files import find_model

#: Most requests in one lot: what a kill may lose. How many of them run at once is vLLM's affair.
_LOT = 1024


class VLLMEngine(LLM):
    """vLLM's offline engine, on this machine: nothing leaves it.

    vLLM's wheels pin torch, so it wants an environment of its own. The engine starts at the first request, takes most
    of the GPU's memory, and does not travel in a pickle. Where this process has used CUDA before, vLLM spawns its
    worker: the program then needs ``if __name__ == "__main__"``. Even a greedy reply may depend on the batch it is in,
    where two next words are all but equally likely.

    Args:
        model: A bundled model's name, a directory or a hub name of an instruction-tuned causal LM.
        max_new_tokens: Where a reply is cut.
        temperature: Sampling temperature; 0 = greedy.
        seed: Seed of the first reply to a prompt; the second has the next one, and so on.
        on_truncated: What becomes of a reply cut at ``max_new_tokens``: ``"error"``, or ``"keep"`` it as it is.
        chat_template_kwargs: More arguments for the model's chat template, such as ``{"enable_thinking": False}``.
    """

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
        """Leave the engine behind."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_engine", "_chat")}

    @cached_property
    def _engine(self) -> Any:
        path = self._files.path if self._files.gguf is None else f"{self._files.path}/{self._files.gguf}"
        return _vllm().LLM(path, revision=self._files.revision, trust_remote_code=False)

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self._engine.get_tokenizer(), self.model, self.chat_template_kwargs)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply in lots; too long a prompt is found before vLLM sees it, for it would refuse the whole lot."""
        for start in range(0, len(requests), _LOT):
            lot: dict[int, Reply] = {}
            fit: dict[int, Tokens] = {}
            for place in range(start, min(start + _LOT, len(requests))):
                try:
                    fit[place] = self._tokens(requests[place].prompt)
                except LLMError as error:
                    lot[place] = error
            if fit:
                prompts = [{"prompt_token_ids": tokens} for tokens in fit.values()]
                sampling = [self._sampling(requests[place].sample) for place in fit]
                outputs = self._engine.generate(prompts, sampling, use_tqdm=False)
                lot.update({place: self._reply(output) for place, output in zip(fit, outputs, strict=True)})
            yield lot

    def _sampling(self, sample: int) -> Any:
        return _vllm().SamplingParams(
            temperature=self.temperature,
            max_tokens=self.max_new_tokens,
            seed=self.seed + sample,
            stop_token_ids=self._chat.ends,
        )

    def _tokens(self, prompt: str) -> Tokens:
        tokens = self._chat.encode(prompt)
        room = self._engine.llm_engine.model_config.max_model_len - self.max_new_tokens
        if len(tokens) > room:
            raise LLMError(f"a prompt has {len(tokens)} tokens, but {self.model} takes {room}: shorten it")
        return tokens

    def _reply(self, output: Any) -> Reply:
        best, n_prompt = output.outputs[0], len(output.prompt_token_ids)
        if best.finish_reason not in ("stop", "length"):
            return LLMError(f"{self.model} broke off a reply ({best.finish_reason}): ask again")
        ended = best.token_ids and best.token_ids[-1] in self._chat.ends
        text = self._chat.decode(best.token_ids[:-1] if ended else best.token_ids)
        if text is None:
            return LLMError(only_thoughts(self.model, len(best.token_ids)))
        if best.finish_reason == "length" and self.on_truncated == "error":
            return LLMError(f"{self.model}'s reply was cut: raise max_new_tokens, or ask for on_truncated=keep")
        if not text:
            return LLMError(f"{self.model} gave an empty reply to a prompt of {n_prompt} tokens")
        return Completion(text, n_prompt, len(best.token_ids), best.finish_reason)


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as error:
        raise LLMError(f"vLLM cannot be used ({error}): pip install 'pmlm-env[vllm]'") from None
    return vllm
