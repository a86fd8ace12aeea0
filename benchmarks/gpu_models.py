"""Models with random weights in the sizes of real ones, for benchmarks of speed: nothing is downloaded or stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from pmlm_env.device import seeded
from pmlm_env.weights.pretrained import load_config

#: The modules of the measured classes, by what they load.
_LOADERS = {
    "load_model": ("pmlm_env.encoders.bert", "pmlm_env.llm.local.local_llm", "pmlm_env.llm.lora.tunable"),
    "load_tokenizer": ("pmlm_env.encoders.bert", "pmlm_env.rewards.bertscore", "pmlm_env.llm.local.local_llm"),
}

_BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_LLM_SPECIAL = ("<|endoftext|>", "<|unknown|>", "<|im_start|>", "<|im_end|>")

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class ModelSize:
    """The sizes of a transformer.

    Attributes:
        kind: transformers' name of the architecture: ``bert``, or that of a causal LM with gated MLPs.
        layers: Number of layers.
        hidden: Length of a hidden state.
        heads: Number of attention heads.
        kv_heads: Number of heads of keys and values.
        intermediate: Width of the MLPs.
        vocabulary: Number of tokens.
    """

    kind: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    @property
    def kv_hidden(self) -> int:
        """Length of a token's keys, and of its values, in a layer."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def linear_shapes(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each linear layer of a transformer layer."""
        hidden, kv, wide = self.hidden, self.kv_hidden, self.intermediate
        mlp = [(hidden, wide)] * (1 if self.kind == "bert" else 2) + [(wide, hidden)]
        return [(hidden, hidden), (hidden, kv), (hidden, kv), (hidden, hidden), *mlp]

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration."""
        sizes = {
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
        }
        if self.kind == "bert":
            return AutoConfig.for_model("bert", max_position_embeddings=512, pad_token_id=0, **sizes)
        return AutoConfig.for_model(
            self.kind,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=8_192,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=_LLM_SPECIAL.index("<|im_end|>"),
            pad_token_id=0,
            **sizes,
        )

    def save(self, folder: Path) -> str:
        """Write configuration and tokenizer, and a file of weights without weights, and return the folder's name.

        The tokenizer knows the words w0, w1, ... and a comma. Load the model inside ``random_weights``.
        """
        self.config.save_pretrained(folder)
        _tokenizer(self).save_pretrained(folder)
        save_file({}, folder / "model.safetensors")  # a folder without such a file is refused
        return str(folder)


def _tokenizer(size: ModelSize) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word or comma, and as many words as the model has tokens left."""
    is_bert = size.kind == "bert"
    special = _BERT_SPECIAL if is_bert else _LLM_SPECIAL
    # With random weights and one table for inputs and outputs, the first new token is often the last of the prompt.
    known = [*special, ",", "user", "assistant"]
    words = [*known, *(f"w{i}" for i in range(size.vocabulary - len(known)))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if not is_bert:
        tokenizer.add_special_tokens(list(special))
        llm = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=special[0], eos_token=special[3])
        llm.chat_template = _CHATML
        return llm
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in special[2:]]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


@contextmanager
def random_weights(device: torch.device) -> Iterator[None]:
    """Inside this context, models are not read from files but made on the device, from their configurations."""

    def load_model(path: str, auto: str = "AutoModel", *, dtype: torch.dtype, **_: Any) -> PreTrainedModel:
        config = load_config(path)
        with seeded(0, device), device:
            return getattr(transformers, auto).from_config(config, dtype=dtype, trust_remote_code=False).eval()

    def load_tokenizer(path: str, **_: Any) -> PreTrainedTokenizerFast:
        # AutoTokenizer would choose the architecture's own class, which splits words in its own way.
        return PreTrainedTokenizerFast.from_pretrained(path)

    ours = {"load_model": load_model, "load_tokenizer": load_tokenizer}
    with ExitStack() as stack:
        for name, modules in _LOADERS.items():
            for module in modules:
                stack.enter_context(patch(f"{module}.{name}", ours[name]))
        yield
