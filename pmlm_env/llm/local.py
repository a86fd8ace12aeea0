"""A downstream LLM in this process, through transformers."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Generator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.llm.base import LLM, Completion, FinishReason, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.decoding import Tokens, decode
from pmlm_env.weights import DEFAULT_LLM, resolve

#: A small model may end its turn before it has said a word.
_MIN_NEW_TOKENS = 4


class LocalLLM(LLM):
    """Decoding of whole batches on this machine: nothing leaves it.

    Prompts are sorted by length, so that little is padded. Weights load at the first call, once a process, and do
    not travel in a pickle. In bfloat16 a prompt's reply may depend on the batch it is in, where two next words are
    all but equally likely; ``dtype=torch.float32`` makes that rare. Where the device's memory is too small for a
    batch, it is halved, with a warning.

    Args:
        model: A bundled model's name, a directory or a hub name of an instruction-tuned causal LM.
        max_new_tokens: Where a reply is cut; ``finish_reason`` says so.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Number format; by default bfloat16 where the processor computes in it, else float32.
        batch_size: Most prompts in one pass.
        temperature: 0 takes the likeliest token each time, so that all samples of a prompt are one reply; above it,
            each request draws from a generator of its own, made of ``seed``, the prompt and the sample's number.
        seed: Where the samples begin; any integer.
        stop: Strings; a reply ends before the first of them.
        on_truncated: What becomes of a reply that is cut: ``keep`` or ``error``.

    Raises:
        ValueError: An argument is out of its range.
        FileNotFoundError: The model is not to be found.
    """

    def __init__(
        self,
        model: str = DEFAULT_LLM,
        max_new_tokens: int = 128,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        batch_size: int = 64,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_truncated: OnTruncated = "keep",
    ) -> None:
        """Find the model; its weights come at the first call."""
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(f"max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be 1 or more")
        if not (temperature >= 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}: use 0, or a number above it")
        if isinstance(stop, str) or not all(stop):
            raise ValueError(f"stop is {stop!r}: give a list of strings, none of them empty")
        if on_truncated not in ("error", "keep"):
            raise ValueError(f"on_truncated is {on_truncated!r}: use error or keep")
        self.model_name = model
        self.max_new_tokens = max_new_tokens
        self.device = choose_device(device)
        self._dtype = dtype
        self.batch_size = batch_size
        self.temperature = temperature
        self.seed = seed
        self.stop = tuple(stop)
        self.on_truncated = on_truncated
        self._path = resolve(model)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format; found out late, for the question starts CUDA, and workers may yet be forked."""
        return self._dtype or llm_dtype(self.device)

    @property
    def identity(self) -> str:
        """Model, number format, limits and sampling, as JSON."""
        settings: dict[str, Any] = {
            "local": self.model_name,
            "dtype": str(self.dtype),
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self._min_new_tokens,
            "on_truncated": self.on_truncated,  # or a run that refuses cut replies would find those another kept
            "temperature": self.temperature,
        }
        if self.temperature:
            settings["seed"] = self.seed
        if self.stop:
            settings["stop"] = sorted(self.stop)
        return json.dumps(settings, sort_keys=True)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the weights and the tokenizer behind."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_model", "_tokenizer")}

    @property
    def _min_new_tokens(self) -> int:
        return min(_MIN_NEW_TOKENS, self.max_new_tokens)

    @cached_property
    def _model(self) -> PreTrainedModel:
        return _load(self._path, self.device, self.dtype)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = AutoTokenizer.from_pretrained(self._path)
        if tokenizer.chat_template is None:
            raise LLMError(f"{self.model_name} has no chat template: choose an instruction-tuned model")
        return tokenizer

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request: a lot for every batch, and one before them for prompts that are too long.

        Requests that must have the same reply (a prompt's samples at temperature 0) are decoded once, and each gets
        that reply, token counts included.

        Args:
            requests: N of them.

        Yields:
            Replies, or errors that say what to change, by their requests' places.

        Raises:
            LLMError: The model has no chat template.
        """
        places: dict[Request, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request if self.temperature else Request(request.prompt), []).append(place)
        if not places:
            return  # and load nothing
        prompts = {request: self._tokens(request.prompt) for request in places}
        room = self._model.config.get_text_config().max_position_embeddings - self.max_new_tokens
        refused: dict[int, Reply] = {
            place: LLMError(f"a prompt has {len(ids)} tokens, but {self.model_name} takes {room}: shorten it")
            for request, ids in prompts.items()
            if len(ids) > room
            for place in places[request]
        }
        if refused:
            yield refused
        waiting = [request for request, ids in prompts.items() if len(ids) <= room]
        # The longest first: if memory is short, that shows at once. Among equals in the order of their tokens, so that
        # the same requests make the same batches in whatever order they come.
        waiting.sort(key=lambda request: (-len(prompts[request]), prompts[request], request.sample))
        size = self.batch_size
        while waiting:
            batch = waiting[:size]
            replies = self._batch(batch, [prompts[request] for request in batch])
            if replies is None:
                size = (len(batch) + 1) // 2
                warnings.warn(
                    f"{self.device} is out of memory with {len(batch)} prompts at once: going on with {size} "
                    f"(batch_size={size} spares the attempt)",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            waiting = waiting[len(batch) :]
            yield {place: reply for request, reply in zip(batch, replies, strict=True) for place in places[request]}

    def _tokens(self, prompt: str) -> Tokens:
        """A user's turn in the model's own template."""
        turn = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return self._tokenizer.encode(turn, add_special_tokens=False)

    def _batch(self, requests: Sequence[Request], prompts: Sequence[Tokens]) -> list[Reply] | None:
        """Reply to one batch; None where it is too large for the memory and can be halved."""
        draws = None
        if self.temperature:
            draws = torch.from_numpy(np.stack([self._draws(request) for request in requests])).to(self.device)
        try:
            rows = decode(
                self._model,
                prompts,
                ends=self._ends,
                max_new_tokens=self.max_new_tokens,
                min_new_tokens=self._min_new_tokens,
                temperature=self.temperature,
                draws=draws,
                ended=self._stopped,
            )
        except torch.OutOfMemoryError:
            rows = None  # what the failed attempt held is let go with the exception, after this block
        if rows is not None:
            return [self._reply(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(requests) > 1:
            return None
        return [
            LLMError(
                f"{self.device} is out of memory with one prompt of {len(prompts[0])} tokens: "
                "shorten it, lower max_new_tokens, choose a smaller model, or device='cpu'"
            )
        ]

    @property
    def _ends(self) -> Tokens:
        ends = self._model.generation_config.eos_token_id
        return [ends] if isinstance(ends, int) else list(ends or [])

    def _draws(self, request: Request) -> npt.NDArray[np.float64]:
        """What decides the tokens of a sample, in [0, 1), (max_new_tokens,): the same in whatever batch it is."""
        key = json.dumps([self.seed, request.prompt, request.sample]).encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest(), "big")).random(self.max_new_tokens)

    def _stopped(self, reply: Tokens) -> bool:
        """Whether the last token completed a stop string."""
        if not self.stop:
            return False
        # A character is at most 4 tokens, those of its bytes; of a long reply, the end is enough.
        end = reply[-4 * max(map(len, self.stop)) - 4 :]
        text = self._tokenizer.decode(end, skip_special_tokens=True)
        return any(stop in text for stop in self.stop)

    def _reply(self, prompt: Tokens, row: Tokens) -> Reply:
        text = self._tokenizer.decode(row, skip_special_tokens=True)
        cut = min((text.find(stop) for stop in self.stop if stop in text), default=None)
        text = text[:cut].strip()
        finish: FinishReason = "stop" if row[-1] in self._ends or cut is not None else "length"
        if finish == "length" and self.on_truncated == "error":
            return LLMError(
                f"a reply of {self.model_name} was cut at {len(row)} tokens: raise max_new_tokens, or keep "
                "such replies (on_truncated='keep')"
            )
        if not text:
            what = "the prompt or the stop strings" if self.stop else "the prompt"
            return LLMError(f"{self.model_name} gave an empty reply to a prompt of {len(prompt)} tokens: change {what}")
        return Completion(text, len(prompt), len(row), finish)


@lru_cache(maxsize=2)
def _load(path: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval().requires_grad_(False)
    # A prompt's last position is a slice with gaps, and for such torch's linear copies the head's weights once for
    # every row of the batch, which on a CPU takes as long as half of the prefill.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    return model
