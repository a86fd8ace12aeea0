"""A downstream LLM in this process, through transformers."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteriaList,
)

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.llm.base import LLM, Completion, FinishReason, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.local.chat_template import ChatTemplate, Tokens, only_thoughts
from pmlm_env.llm.local.generation import Draw, FiniteLogits, StopRows
from pmlm_env.llm.local.model_files import ModelFiles, find_model
from pmlm_env.weights import DEFAULT_LLM, ModelError
from pmlm_env.weights.pretrained import load_model, load_tokenizer

#: A small model may end its turn before it has said a word.
_MIN_NEW_TOKENS = 4
#: So many tokens show whether padding reaches a model's states.
_PROBED = 4


class LocalLLM(LLM):
    """Decoding of whole batches on this machine: nothing leaves it.

    Prompts are sorted by length, so that little is padded. Weights load at the first call, once a process, and do
    not travel in a pickle. In bfloat16 a prompt's reply may depend on the batch it is in, where two next words are
    all but equally likely; ``dtype=torch.float32`` makes that rare. Where the device's memory is too small for a
    batch, it is halved, with a warning.

    Args:
        model: An instruction-tuned causal LM: a bundled model's name, a directory, a GGUF file or a hub name.
        max_new_tokens: Where a reply is cut; ``finish_reason`` says so.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Number format; by default bfloat16 where the processor computes in it, else float32.
        batch_size: Most prompts in one pass.
        temperature: 0 takes the likeliest token each time, so that all samples of a prompt are one reply; above it,
            each request draws from a generator of its own, made of ``seed``, the prompt and the sample's number.
        seed: Where the samples begin; any integer.
        stop: Strings; a reply ends before the first of them.
        on_truncated: What becomes of a reply that is cut: ``keep`` or ``error``.
        chat_template_kwargs: More arguments for the model's chat template, such as ``{"enable_thinking": False}``.

    Raises:
        ValueError: An argument is out of its range.
        ModelError: The model is not to be found, or its files are of a kind that cannot be loaded.
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
        chat_template_kwargs: Mapping[str, Any] | None = None,
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
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        self._files = find_model(model)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format; found out late, for the question starts CUDA, and workers may yet be forked."""
        return self._dtype or llm_dtype(self.device)

    @property
    def identity(self) -> str:
        """Model, number format, limits and sampling, as JSON."""
        settings: dict[str, Any] = {
            "local": self._files.identity,
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
        if self.chat_template_kwargs:
            settings["chat_template_kwargs"] = self.chat_template_kwargs
        return json.dumps(settings, sort_keys=True)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the weights and the tokenizer behind."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_model", "_chat")}

    @property
    def _min_new_tokens(self) -> int:
        return min(_MIN_NEW_TOKENS, self.max_new_tokens)

    def _load(self) -> None:
        """Load what is not loaded yet: an error in there concerns all requests, not one."""
        for part in ("_chat", "_model"):
            getattr(self, part)

    @cached_property
    def _model(self) -> PreTrainedModel:
        return _load_weights(self._files, self._files.identity, self.device, self.dtype)

    @cached_property
    def _chat(self) -> ChatTemplate:
        with _as_llm_error():
            tokenizer = load_tokenizer(self._files.path, **self._files.where)
        return ChatTemplate(tokenizer, self.model_name, self.chat_template_kwargs)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request: a lot for every batch, and one before them for prompts that are too long.

        Requests that must have the same reply (a prompt's samples at temperature 0) are decoded once, and each gets
        that reply, token counts included.

        Args:
            requests: N of them.

        Yields:
            Replies, or errors that say what to change, by their requests' places.

        Raises:
            LLMError: The model cannot be loaded, or cannot compute, or has no chat template.
        """
        places: dict[Request, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request if self.temperature else Request(request.prompt), []).append(place)
        if not places:
            return  # and load nothing
        self._load()
        prompts: dict[Request, Tokens] = {}
        refused: dict[int, Reply] = {}
        for request in places:
            try:
                prompts[request] = self._tokens(request.prompt)
            except LLMError as error:
                refused.update(dict.fromkeys(places[request], error))
        if refused:
            yield refused
        waiting = list(prompts)
        # The longest first: if memory is short, that shows at once. Among equals in the order of their tokens, so that
        # the same requests make the same batches in whatever order they come.
        waiting.sort(key=lambda request: (-len(prompts[request]), prompts[request], request.sample))
        size = self.batch_size
        while waiting:
            longest = len(prompts[waiting[0]])
            alike = (
                size
                if len(waiting) == 1 or self._pads
                else sum(len(prompts[request]) == longest for request in waiting[:size])
            )
            batch = waiting[: min(size, alike)]
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
        """Return the tokens of a prompt that the model can take.

        Raises:
            LLMError: It cannot.
        """
        tokens, config = self._chat.encode(prompt), self._model.config.get_text_config()
        most = getattr(config, "max_position_embeddings", None)  # some models take prompts of any length
        if most is not None and len(tokens) > most - self.max_new_tokens:
            takes = most - self.max_new_tokens
            raise LLMError(f"a prompt has {len(tokens)} tokens, but {self.model_name} takes {takes}: shorten it")
        if max(tokens) >= self._model.get_input_embeddings().num_embeddings:
            raise LLMError(f"the tokenizer of {self.model_name} has tokens that its weights lack: repair its folder")
        return tokens

    def _batch(self, requests: Sequence[Request], prompts: Sequence[Tokens]) -> list[Reply] | None:
        """Reply to one batch; None where it is too large for the memory and can be halved."""
        try:
            with self._computing():
                rows = self._generate(requests, prompts)
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

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Tell in one line what a model raises whose configuration allows no reply."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise LLMError(f"{self.model_name} cannot reply: {' '.join(str(error).split()) or repr(error)}") from None

    def _generate(self, requests: Sequence[Request], prompts: Sequence[Tokens]) -> list[Tokens]:
        """Decode one batch; each row with the token that ended it, if one did, or empty where logits are not finite."""
        width = max(map(len, prompts))
        numbers = FiniteLogits(width)
        processors = LogitsProcessorList([numbers])
        if self.temperature:
            draws = torch.from_numpy(np.stack([self._draws(request) for request in requests]))
            processors.append(Draw(self.temperature, draws.to(self.device), width))
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self._min_new_tokens,
            do_sample=False,  # what is drawn, ``Draw`` draws
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
        )
        output = self._model.generate(
            **self._padded(prompts),
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([StopRows(width, self._stopped)] if self.stop else []),
        )
        rows = [self._until_its_end(row) for row in output[:, width:].tolist()]
        return [[] if numbers.missing.get(place, len(row)) < len(row) else row for place, row in enumerate(rows)]

    def _padded(self, prompts: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Return tokens and mask of a batch, (rows, longest prompt) each.

        Padding stands before the prompts, not within: so windows hold what they would hold without it.
        """
        width = max(map(len, prompts))
        tokens = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        return {"input_ids": tokens.to(self.device), "attention_mask": mask.to(self.device)}

    @cached_property
    def _pads(self) -> bool:
        """Whether padding leaves a reply as it is: the states of some recurrent models take it for words.

        To tell that from rounding, it is compared with how far logits are spread. (Measured on the bundled models:
        rounding is 1e-5 of their standard deviation in float32, 0.01 in float16, 0.12 in bfloat16; such states, 3.)
        """
        prompts = [self._chat.encode("?"), self._chat.encode("Is it so? " * 9)]
        config = GenerationConfig(
            max_new_tokens=_PROBED,
            do_sample=False,
            pad_token_id=self._pad,
            output_logits=True,
            return_dict_in_generate=True,
        )
        with self._computing():
            alone, padded = (
                [
                    logits[0].double()
                    for logits in self._model.generate(**self._padded(rows), generation_config=config).logits
                ]
                for rows in (prompts[:1], prompts)
            )
        rounding = max(1e-3, 64 * torch.finfo(self.dtype).eps)
        for one, other in zip(alone, padded, strict=True):
            if not (one - other).abs().max() < rounding * one.std():
                return False
            if one.argmax() != other.argmax():
                break  # a tie: from here on they reply to different words
        return True

    def _until_its_end(self, row: Tokens) -> Tokens:
        """Leave out what ``generate`` puts after a row's end to make all rows of one length."""
        for n in range(1, len(row)):
            if row[n - 1] in self._ends or (self.stop and self._stopped(row[:n])):
                return row[:n]
        return row

    @property
    def _pad(self) -> int:
        return self._ends[0] if self._ends else 0

    @cached_property
    def _ends(self) -> Tokens:
        """The tokens that end a reply: what the model's configuration names, and the tokenizer and the template."""
        named = self._model.generation_config.eos_token_id, self._model.config.get_text_config().eos_token_id
        lists = [[ends] if isinstance(ends, int) else list(ends or []) for ends in named]
        return sorted({*lists[0], *lists[1], *self._chat.ends})

    def _draws(self, request: Request) -> npt.NDArray[np.float64]:
        """What decides the tokens of a sample, in [0, 1), (max_new_tokens,): the same in whatever batch it is."""
        key = json.dumps([self.seed, request.prompt, request.sample]).encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest(), "big")).random(self.max_new_tokens)

    def _said(self, row: Tokens) -> Tokens:
        """Leave out the token that ends a reply, which may not be a special one."""
        return row[:-1] if row and row[-1] in self._ends else row

    def _stopped(self, reply: Tokens) -> bool:
        """Whether a stop string is in the reply; in the thoughts before it, it does not count."""
        text = self._chat.decode(self._said(reply)) or ""
        return any(stop in text for stop in self.stop)

    def _reply(self, prompt: Tokens, row: Tokens) -> Reply:
        if not row:
            kind = str(self.dtype).removeprefix("torch.")
            cure = "choose another model" if kind == "float32" else "use --llm-dtype float32"
            return LLMError(f"{self.model_name} computes numbers too large for {kind}: {cure}")
        text = self._chat.decode(self._said(row))
        if text is None:
            return LLMError(only_thoughts(self.model_name, len(row)))
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
def _load_weights(files: ModelFiles, identity: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """Load a model's weights; ``identity`` tells those that have been overwritten meanwhile from the old ones."""
    with _as_llm_error():
        model = load_model(files.path, "AutoModelForCausalLM", dtype=dtype, **files.where)
        files.check_unchanged()
    ends = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=ends)  # else its sampling and penalties would come in
    # A prompt's last position is a slice with gaps, and for such torch's linear copies the head's weights once for
    # every row of the batch, which on a CPU takes as long as half of the prefill.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0].contiguous(),))
    return model.to(device).requires_grad_(False)


@contextmanager
def _as_llm_error() -> Iterator[None]:
    """Whoever asks for replies expects an ``LLMError`` where none can be had, also because of a folder's fault."""
    try:
        yield
    except (ValueError, OSError, ModelError) as error:
        raise LLMError(str(error)) from None
