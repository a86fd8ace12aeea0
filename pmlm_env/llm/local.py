"""A downstream LLM in this process, through transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.llm.base import Completion, FinishReason, LLMError
from pmlm_env.models import resolve


class LocalLLM:
    """Greedy decoding of whole batches on this machine: nothing leaves it.

    Prompts are sorted by length, so that little is padded. Weights load at the first call, once a process, and do
    not travel in a pickle. In bfloat16 a prompt's reply may depend on the batch it is in, where two next words are
    all but equally likely; ``dtype=torch.float32`` makes that rare.

    Args:
        model: A bundled model's name, a directory or a hub name of an instruction-tuned causal LM.
        max_new_tokens: Where a reply is cut; ``finish_reason`` says so.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Number format; by default bfloat16 where the processor computes in it, else float32.
        batch_size: Most prompts in one pass.
    """

    def __init__(
        self,
        model: str = "smollm2-135m",
        max_new_tokens: int = 48,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        batch_size: int = 64,
    ) -> None:
        """Find the model; its weights come at the first call."""
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(f"max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be 1 or more")
        self.model_name = model
        self.max_new_tokens = max_new_tokens
        self.device = choose_device(device)
        self._dtype = dtype
        self.batch_size = batch_size
        self._path = resolve(model)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format; found out late, for the question starts CUDA, and workers may yet be forked."""
        return self._dtype or llm_dtype(self.device)

    @property
    def identity(self) -> str:
        """Model, number format and limit, as JSON."""
        settings = {
            "local": self.model_name,
            "dtype": str(self.dtype),
            "max_new_tokens": self.max_new_tokens,
            "temperature": 0,
        }
        return json.dumps(settings, sort_keys=True)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the weights and the tokenizer behind."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_model", "_tokenizer")}

    @cached_property
    def _model(self) -> PreTrainedModel:
        return _load(self._path, self.device, self.dtype)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = AutoTokenizer.from_pretrained(self._path, padding_side="left")
        if tokenizer.chat_template is None:
            raise LLMError(f"{self.model_name} has no chat template: choose an instruction-tuned model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def generate(self, prompts: Sequence[str]) -> list[Completion]:
        """Reply to each prompt, in order.

        Raises:
            LLMError: A reply is empty, or a prompt does not fit the model's context.
        """
        turns = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts
        ]
        pieces = [self._tokenizer.encode(turn, add_special_tokens=False) for turn in turns]
        room = self._model.config.max_position_embeddings - self.max_new_tokens
        for ids in pieces:
            if len(ids) > room:
                raise LLMError(f"a prompt has {len(ids)} tokens, but {self.model_name} takes {room}: shorten it")
        order = sorted(range(len(prompts)), key=lambda i: len(pieces[i]))
        out: dict[int, Completion] = {}
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            out.update(zip(rows, self._batch([pieces[i] for i in rows]), strict=True))
        return [out[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, pieces: list[list[int]]) -> list[Completion]:
        inputs = self._tokenizer.pad({"input_ids": pieces}, return_tensors="pt").to(self.device)
        tokens = self._model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=min(4, self.max_new_tokens),  # a small model may end its turn before it has said a word
            do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :]
        ends = self._model.generation_config.eos_token_id
        ends = torch.tensor([ends] if isinstance(ends, int) else ends or [-1], device=tokens.device)
        completions = []
        for ids, row in zip(pieces, tokens, strict=True):
            stops = torch.isin(row, ends).nonzero()
            n_new = int(stops[0]) + 1 if len(stops) else len(row)
            finish: FinishReason = "stop" if len(stops) else "length"
            text = self._tokenizer.decode(row[:n_new], skip_special_tokens=True).strip()
            if not text:
                raise LLMError(f"{self.model_name} gave an empty reply to a prompt of {len(ids)} tokens")
            completions.append(Completion(text, len(ids), n_new, finish))
        return completions


@lru_cache(maxsize=2)
def _load(path: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval().requires_grad_(False)
