"""A causal LM with frozen weights and exchangeable adapters."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from pmlm_env.device import choose_device, llm_dtype
from pmlm_env.llm.base import LLMError
from pmlm_env.llm.local.chat_template import ChatTemplate, Tokens
from pmlm_env.llm.local.model_files import ModelFiles, find_model
from pmlm_env.llm.lora.adapters import Adapter, add_adapter_layers
from pmlm_env.weights import ModelError
from pmlm_env.weights.pretrained import load_model, load_tokenizer

#: Replies whose likelihoods are computed at once: bounds the memory that copies of the prompt's keys and values take.
_CHUNK = 16


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """A prompt and its completion in tokens.

    Attributes:
        prompt: The conversation up to the completion.
        completion: The completion, with the token that ends the model's turn.
    """

    prompt: Tokens
    completion: Tokens


class TunableLM:
    """A causal LM in this process whose weights are frozen, with an adapter in each linear layer.

    Prompts and completions are turns of the model's own chat template. The weights are loaded at the first use. Each
    sequence is computed by itself, without padding, so that no result depends on a batch.

    Args:
        files: The model (``find_model``).
        name: Its name for messages.
        device: Where it runs.
        rank: The adapters' rank.
        alpha: Their output is multiplied by alpha / rank.

    Attributes:
        dtype: The number format of weights and adapters: bfloat16 where the device is fast with it, otherwise float32.
    """

    def __init__(self, files: ModelFiles, name: str, device: torch.device, rank: int, alpha: int) -> None:
        """Store the arguments."""
        self.files, self.name, self.device, self.rank, self.alpha = files, name, device, rank, alpha
        dtype = llm_dtype(device)
        self.dtype = torch.float32 if dtype == torch.float16 else dtype  # whose small gradients would become 0

    @property
    def identity(self) -> str:
        """Everything that determines what training it gives, besides examples, settings and seed, as JSON."""
        parts = {"base": self.files.identity, "dtype": str(self.dtype), "device": self.device.type}
        return json.dumps({**parts, "rank": self.rank, "alpha": self.alpha}, sort_keys=True)

    @cached_property
    def network(self) -> PreTrainedModel:
        """The model with adapters; frozen weights take no gradient."""
        model = load_model(self.files.path, "AutoModelForCausalLM", dtype=self.dtype, **self.files.where)
        self.files.check_unchanged()
        model.to(self.device)
        add_adapter_layers(model, self.rank, self.alpha)
        return model

    @cached_property
    def chat(self) -> ChatTemplate:
        """The chat template."""
        return ChatTemplate(load_tokenizer(self.files.path, **self.files.where), self.name, {})

    @property
    def limit(self) -> int | None:
        """The number of tokens that the model reads, at most; None = any."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None)

    def use(self, adapter: Adapter) -> None:
        """Replace the present adapter.

        Raises:
            ValueError: The adapter was learned for another model, or has another rank or alpha.
        """
        adapter.check_base(self.files.identity)
        if (adapter.rank, adapter.alpha) != (self.rank, self.alpha):
            raise ValueError(
                f"the adapter has rank {adapter.rank} and alpha {adapter.alpha}, expected {self.rank} and "
                f"{self.alpha}: copy it again, or fine-tune again"
            )
        adapter.put_into(self.network)

    def tokenize(self, prompt: str, completion: str) -> TokenizedExample:
        """Return the tokens of a prompt, as the user's turn, and of the model's turn after it.

        Raises:
            LLMError: They are more than the model reads, or the tokenizer does not match the weights.
        """
        example = TokenizedExample(self.chat.encode(prompt), self.chat.encode_reply(completion))
        tokens = [*example.prompt, *example.completion]
        if self.limit is not None and len(tokens) > self.limit:
            raise LLMError(f"a prompt and its completion have {len(tokens)} tokens; {self.name} reads {self.limit}")
        if max(tokens) >= self.network.get_input_embeddings().num_embeddings:
            raise LLMError(f"the tokenizer of {self.name} has more tokens than its weights: repair its folder")
        return example

    def loss(self, example: TokenizedExample) -> torch.Tensor:
        """Return the negative log-likelihood of a completion given its prompt, summed over its tokens, as a scalar."""
        n = len(example.completion)
        logits = self._logits([[*example.prompt, *example.completion[:-1]]], n)[0]
        return functional.cross_entropy(logits, self._tensor(example.completion), reduction="sum")

    def mean_loss(self, examples: Sequence[TokenizedExample]) -> float:
        """Return the negative log-likelihood per token of the completions.

        Raises:
            LLMError: It is not finite.
        """
        self.network.eval()
        with torch.inference_mode():
            total = sum(self.loss(example).item() for example in examples)
        self._check_finite(total)
        return total / sum(len(example.completion) for example in examples)

    def log_likelihoods(self, prompt: Tokens, completions: Sequence[Tokens]) -> npt.NDArray[np.float64]:
        """Return the log-likelihood of each completion given the prompt, whose keys and values are computed once.

        Args:
            prompt: The prompt.
            completions: Completions with the token that ends the model's turn (``tokenize``).

        Returns:
            Shape (completions,).

        Raises:
            LLMError: One of them is not finite.
        """
        self.network.eval()
        with torch.inference_mode():
            output = self.network(input_ids=self._tensor([prompt]), use_cache=True, **self._last(1))
            cache, first = getattr(output, "past_key_values", None), output.logits[:, -1:].float()
            found: list[float] = []
            if not isinstance(cache, DynamicCache):  # models without keys and values
                found = [-self.loss(TokenizedExample(prompt, each)).item() for each in completions]
            else:
                for start in range(0, len(completions), _CHUNK):
                    found += self._continue(first, cache, completions[start : start + _CHUNK])
        self._check_finite(sum(found))
        return np.array(found)

    def _check_finite(self, log_likelihood: float) -> None:
        if not math.isfinite(log_likelihood):
            raise LLMError(f"{self.name} computes numbers that are not finite: fine-tune it at a lower learning rate")

    def _continue(self, first: torch.Tensor, cache: DynamicCache, completions: Sequence[Tokens]) -> list[float]:
        """Return the log-likelihoods of completions, given the prompt's last logits and its keys and values.

        Shorter completions are followed by padding, which no earlier token sees.
        """
        n, width = len(completions), max(map(len, completions))
        rows = [[*tokens, *[tokens[-1]] * (width - len(tokens))] for tokens in completions]
        logits = first.expand(n, -1, -1)
        if width > 1:
            copied = copy.deepcopy(cache)
            copied.batch_repeat_interleave(n)
            logits = torch.cat([logits, self._logits([row[:-1] for row in rows], width - 1, copied)], dim=1)
        chosen = logits.log_softmax(-1).gather(2, self._tensor(rows)[:, :, None])[:, :, 0].double().cpu()
        return [chosen[row, : len(tokens)].sum().item() for row, tokens in enumerate(completions)]

    def _logits(self, rows: list[Tokens], n: int, cache: DynamicCache | None = None) -> torch.Tensor:
        """Return the logits after each of the last ``n`` tokens, shape (rows, n, vocabulary), float32."""
        output = self.network(
            input_ids=self._tensor(rows), past_key_values=cache, use_cache=cache is not None, **self._last(n)
        )
        return output.logits[:, -n:].float()

    def _last(self, n: int) -> dict[str, int]:
        """Return the argument that saves the computation of all but the last ``n`` logits, if the model has one."""
        return {"logits_to_keep": n} if self._can_skip_logits else {}

    @cached_property
    def _can_skip_logits(self) -> bool:
        return "logits_to_keep" in inspect.signature(self.network.forward).parameters

    def _tensor(self, tokens: Any) -> torch.Tensor:
        return torch.tensor(tokens, device=self.device)


def tunable_lm(
    model: str, device: str = "auto", *, rank: int = 8, alpha: int = 16, revision: str | None = None
) -> TunableLM:
    """Return a model to be tuned; it is loaded once per process and shared, so set its adapter before each use.

    Args:
        model: An instruction-tuned causal LM: a bundled model's name, a folder, a GGUF file or a hub name.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        rank: The adapters' rank.
        alpha: Their output is multiplied by alpha / rank.
        revision: The commit of a hub model; None = the newest.

    Raises:
        ValueError: The model or the device does not exist.
    """
    try:
        files = find_model(model)
        if revision is not None and files.name == files.path:
            files = replace(files, commit=revision)
        return _shared(files, files.identity, model, choose_device(device), rank, alpha)
    except ModelError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=1)
def _shared(files: ModelFiles, identity: str, name: str, device: torch.device, rank: int, alpha: int) -> TunableLM:
    """Make a ``TunableLM``; ``identity`` is a cache key that changes when the files do."""
    return TunableLM(files, name, device, rank, alpha)
