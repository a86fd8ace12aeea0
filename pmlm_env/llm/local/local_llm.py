"""A downstream LLM in this process, run by transformers."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.llm.base import LLM, Completion, FinishReason, LLMError, OnTruncated, Reply, Request
from pmlm_env.llm.local.chat_template import ChatTemplate, Tokens, only_thoughts_message
from pmlm_env.llm.local.generation import FiniteLogits, GumbelSampling, StopRows
from pmlm_env.llm.local.model_files import ModelFiles, find_model
from pmlm_env.llm.lora.adapters import Adapter, add_adapter_layers
from pmlm_env.weights import DEFAULT_LLM, ModelError
from pmlm_env.weights.pretrained import load_model, load_tokenizer

#: Small models may end their turn before the first word.
_MIN_NEW_TOKENS = 4
#: Number of tokens generated to test whether padding affects a model's output.
_PADDING_TEST_TOKENS = 4


class LocalLLM(LLM):
    """Decodes batches of prompts on this machine; no data is sent elsewhere.

    Prompts are sorted by length to minimize padding. Weights are loaded at the first call, once per process, and are
    not pickled. In bfloat16 a reply may depend on its batch if two next tokens are almost equally likely;
    ``dtype=torch.float32`` makes that rare. A batch that does not fit into the device's memory is halved, with a
    warning.

    Args:
        model: An instruction-tuned causal LM: a bundled model's name, a folder, a GGUF file or a hub name.
        max_new_tokens: Maximum number of tokens of a reply.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Number format; by default bfloat16 if the processor supports it, otherwise float32.
        batch_size: Maximum number of prompts per batch.
        temperature: Sampling temperature; 0 = greedy, so that all samples of a prompt are equal. Above 0, each request
            has its own random generator, seeded by ``seed``, the prompt and the sample number.
        seed: Sampling seed; any integer.
        stop: Stop strings; a reply ends before the first of them.
        on_truncated: What to do with a reply that was cut: ``keep`` or ``error``.
        chat_template_kwargs: Further arguments of the model's chat template, such as ``{"enable_thinking": False}``.
        adapter: The folder of a LoRA adapter for this model, which ``Adapter.save`` wrote.

    Raises:
        ValueError: An argument is out of range, or the adapter is damaged or for another model.
        ModelError: The model does not exist, or the format of its files is not supported.
    """

    is_remote = False

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
        adapter: str | Path | None = None,
    ) -> None:
        """Find the model; its weights are loaded at the first call."""
        if max_new_tokens < 1 or batch_size < 1:
            raise ValueError(f"max_new_tokens ({max_new_tokens}) and batch_size ({batch_size}) must be 1 or more")
        if not (temperature >= 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature is {temperature}: use 0 or a positive number")
        if isinstance(stop, str) or not all(stop):
            raise ValueError(f"stop is {stop!r}: give a list of non-empty strings")
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
        self._adapter = None if adapter is None else Adapter.load(Path(adapter))
        if self._adapter is not None:
            self._adapter.check_base(self._files.identity)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format, determined on first use, because this starts CUDA, after which workers cannot be forked."""
        return self._dtype or llm_dtype(self.device)

    @property
    def identity(self) -> str:
        """Model, number format, limits and sampling, as JSON."""
        settings: dict[str, Any] = {
            "local": self._files.identity,
            "dtype": str(self.dtype),
            "max_new_tokens": self.max_new_tokens,
            "min_new_tokens": self._min_new_tokens,
            "on_truncated": self.on_truncated,  # else "error" would find replies cached with "keep"
            "temperature": self.temperature,
        }
        if self._adapter is not None:
            settings["adapter"] = self._adapter.digest
        if self.temperature:
            settings["seed"] = self.seed
        if self.stop:
            settings["stop"] = sorted(self.stop)
        if self.chat_template_kwargs:
            settings["chat_template_kwargs"] = self.chat_template_kwargs
        return json.dumps(settings, sort_keys=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the weights and the tokenizer."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_model", "_chat")}

    @property
    def _min_new_tokens(self) -> int:
        return min(_MIN_NEW_TOKENS, self.max_new_tokens)

    def _load(self) -> None:
        """Load tokenizer and weights now, because an error there affects all requests."""
        for part in ("_chat", "_model"):
            getattr(self, part)

    @cached_property
    def _model(self) -> PreTrainedModel:
        return _load_weights(self._files, self._files.identity, self.device, self.dtype, self._adapter)

    @cached_property
    def _chat(self) -> ChatTemplate:
        with _as_llm_error():
            tokenizer = load_tokenizer(self._files.path, **self._files.where)
        return ChatTemplate(tokenizer, self.model_name, self.chat_template_kwargs)

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request: first the errors of too long prompts, then one batch after another.

        Requests with necessarily equal replies (samples of a prompt at temperature 0) are decoded once.

        Args:
            requests: N requests.

        Yields:
            Replies or errors, by the indices of their requests.

        Raises:
            LLMError: The model cannot be loaded, cannot compute, or has no chat template.
        """
        indices: dict[Request, list[int]] = {}
        for index, request in enumerate(requests):
            indices.setdefault(request if self.temperature else Request(request.prompt), []).append(index)
        if not indices:
            return  # without loading the model
        self._load()
        prompts: dict[Request, Tokens] = {}
        rejected: dict[int, Reply] = {}
        for request in indices:
            try:
                prompts[request] = self._tokens(request.prompt)
            except LLMError as error:
                rejected.update(dict.fromkeys(indices[request], error))
        if rejected:
            yield rejected
        pending = list(prompts)
        # Longest first, so that a lack of memory shows at once. Ties are sorted by tokens, so that the same requests
        # form the same batches whatever their order.
        pending.sort(key=lambda request: (-len(prompts[request]), prompts[request], request.sample))
        size = self.batch_size
        while pending:
            longest = len(prompts[pending[0]])
            same_length = (
                size
                if len(pending) == 1 or self._can_pad
                else sum(len(prompts[request]) == longest for request in pending[:size])
            )
            batch = pending[: min(size, same_length)]
            replies = self._batch(batch, [prompts[request] for request in batch])
            if replies is None:
                size = (len(batch) + 1) // 2
                warnings.warn(
                    f"{self.device} is out of memory with {len(batch)} prompts at once: continuing with {size} "
                    f"(set batch_size={size} to avoid this)",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            pending = pending[len(batch) :]
            yield {index: reply for request, reply in zip(batch, replies, strict=True) for index in indices[request]}

    def _tokens(self, prompt: str) -> Tokens:
        """Return the tokens of a prompt.

        Raises:
            LLMError: The prompt is too long, or the tokenizer does not match the weights.
        """
        tokens, config = self._chat.encode(prompt), self._model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)  # some models have no limit
        if positions is not None and len(tokens) > (limit := positions - self.max_new_tokens):
            raise LLMError(f"a prompt has {len(tokens)} tokens, but {self.model_name} accepts {limit}: shorten it")
        if max(tokens) >= self._model.get_input_embeddings().num_embeddings:
            raise LLMError(f"the tokenizer of {self.model_name} has more tokens than its weights: repair its folder")
        return tokens

    def _batch(self, requests: Sequence[Request], prompts: Sequence[Tokens]) -> list[Reply] | None:
        """Reply to one batch; return None if it does not fit into memory and can be halved."""
        try:
            with self._as_reply_error():
                rows = self._generate(requests, prompts)
        except torch.OutOfMemoryError:
            rows = None  # its memory is freed with the exception, after this block
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
    def _as_reply_error(self) -> Iterator[None]:
        """Convert errors of a model with an invalid configuration to a one-line ``LLMError``."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise LLMError(f"{self.model_name} cannot reply: {' '.join(str(error).split()) or repr(error)}") from None

    def _generate(self, requests: Sequence[Request], prompts: Sequence[Tokens]) -> list[Tokens]:
        """Decode one batch. Rows include the token that ended them; a row with invalid logits is empty."""
        width = max(map(len, prompts))
        finite_logits = FiniteLogits(width)
        processors = LogitsProcessorList([finite_logits])
        if self.temperature:
            processors.append(GumbelSampling(self.temperature, [self._generator(each) for each in requests]))
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self._min_new_tokens,
            do_sample=False,  # ``GumbelSampling`` does the sampling
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
        )
        output = self._model.generate(
            **self._padded(prompts),
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([StopRows(width, self._stopped)] if self.stop else []),
        )
        rows = [self._cut_after_end(row) for row in output[:, width:].tolist()]
        return [
            [] if finite_logits.first_invalid.get(index, len(row)) < len(row) else row for index, row in enumerate(rows)
        ]

    def _padded(self, prompts: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        """Return tokens and attention mask of a batch, each of shape (rows, longest prompt).

        Padding is on the left, so that sliding attention windows see the same tokens as without padding.
        """
        width = max(map(len, prompts))
        tokens = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        return {"input_ids": tokens.to(self.device), "attention_mask": mask.to(self.device)}

    @cached_property
    def _can_pad(self) -> bool:
        """Whether padding leaves replies unchanged; some recurrent models process it as input.

        The change of the logits is compared with their standard deviation. Measured on the bundled models, rounding
        causes 1e-5 of it in float32, 0.01 in float16 and 0.12 in bfloat16; processed padding causes 3.
        """
        prompts = [self._chat.encode("?"), self._chat.encode("Is it so? " * 9)]
        config = GenerationConfig(
            max_new_tokens=_PADDING_TEST_TOKENS,
            do_sample=False,
            pad_token_id=self._pad,
            output_logits=True,
            return_dict_in_generate=True,
        )
        with self._as_reply_error():
            unpadded, padded = (
                [
                    logits[0].double()
                    for logits in self._model.generate(**self._padded(rows), generation_config=config).logits
                ]
                for rows in (prompts[:1], prompts)
            )
        rounding = max(1e-3, 64 * torch.finfo(self.dtype).eps)
        for one, other in zip(unpadded, padded, strict=True):
            if not (one - other).abs().max() < rounding * one.std():
                return False
            if one.argmax() != other.argmax():
                break  # a tie: from here on, the replies differ
        return True

    def _cut_after_end(self, row: Tokens) -> Tokens:
        """Remove the padding that ``generate`` adds after the end of a row."""
        for n in range(1, len(row)):
            if row[n - 1] in self._ends or (self.stop and self._stopped(row[:n])):
                return row[:n]
        return row

    @property
    def _pad(self) -> int:
        return self._ends[0] if self._ends else 0

    @cached_property
    def _ends(self) -> Tokens:
        """The tokens that end a reply, from the model's configuration, the tokenizer and the template."""
        named = self._model.generation_config.eos_token_id, self._model.config.get_text_config().eos_token_id
        lists = [[ends] if isinstance(ends, int) else list(ends or []) for ends in named]
        return sorted({*lists[0], *lists[1], *self._chat.ends})

    def _generator(self, request: Request) -> torch.Generator:
        """Return the random generator of a sample, which does not depend on its batch."""
        key = json.dumps([self.seed, request.prompt, request.sample]).encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big", signed=True)
        device = self.device if self.device.type == "cuda" else "cpu"
        return torch.Generator(device).manual_seed(seed)

    def _without_end(self, row: Tokens) -> Tokens:
        """Remove the token that ends a reply, which need not be a special token."""
        return row[:-1] if row and row[-1] in self._ends else row

    def _stopped(self, reply: Tokens) -> bool:
        """Whether the reply, without thoughts, contains a stop string."""
        text = self._chat.decode(self._without_end(reply)) or ""
        return any(stop in text for stop in self.stop)

    def _reply(self, prompt: Tokens, row: Tokens) -> Reply:
        if not row:
            dtype = str(self.dtype).removeprefix("torch.")
            advice = "choose another model" if dtype == "float32" else "use --llm-dtype float32"
            return LLMError(f"{self.model_name} computes numbers too large for {dtype}: {advice}")
        text = self._chat.decode(self._without_end(row))
        if text is None:
            return LLMError(only_thoughts_message(self.model_name, len(row)))
        cut = min((text.find(stop) for stop in self.stop if stop in text), default=None)
        text = text[:cut].strip()
        finish: FinishReason = "stop" if row[-1] in self._ends or cut is not None else "length"
        if finish == "length" and self.on_truncated == "error":
            return LLMError(
                f"a reply of {self.model_name} was cut at {len(row)} tokens: raise max_new_tokens, or keep "
                "such replies with on_truncated='keep'"
            )
        if not text:
            what = "the prompt or the stop strings" if self.stop else "the prompt"
            return LLMError(f"{self.model_name} gave an empty reply to a prompt of {len(prompt)} tokens: change {what}")
        return Completion(text, len(prompt), len(row), finish)


@lru_cache(maxsize=2)
def _load_weights(
    files: ModelFiles, identity: str, device: torch.device, dtype: torch.dtype, adapter: Adapter | None
) -> PreTrainedModel:
    """Load a model's weights; ``identity`` is a cache key that changes when the files do."""
    with _as_llm_error():
        model = load_model(files.path, "AutoModelForCausalLM", dtype=dtype, **files.where)
        files.check_unchanged()
        if adapter is not None:
            add_adapter_layers(model, adapter.rank, adapter.alpha)
            adapter.put_into(model)
    ends = model.generation_config.eos_token_id
    # Without the model's own sampling settings and penalties.
    model.generation_config = GenerationConfig(eos_token_id=ends)
    # The last position of each prompt is a non-contiguous slice, for which torch's linear copies the head's weights
    # once per row, which on a CPU takes half as long as the prefill.
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    return model.to(device).requires_grad_(False)


@contextmanager
def _as_llm_error() -> Iterator[None]:
    """Convert errors of a model's folder to the ``LLMError`` that callers expect."""
    try:
        yield
    except (ValueError, OSError, ModelError) as error:
        raise LLMError(str(error)) from None
