"""Random models of a few thousand weights, saved as ``from_pretrained`` reads them: no download, no meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from pmlm_env.device import seeded
from pmlm_env.weights import resolve

WORDS = [f"w{i}" for i in range(40)]

#: Sizes by the names that some kinds of model have for them.
_SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
_OTHER_NAMES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 16},
    "albert": {**_SIZES, "embedding_size": 8},
    "electra": {**_SIZES, "embedding_size": 8},
    "deberta-v2": {**_SIZES, "relative_attention": True, "position_biased_input": False},
    "longformer": {**_SIZES, "attention_window": [4] * 4},
    "gpt2": {"n_embd": 16, "n_layer": 4, "n_head": 2},
    "xlnet": {"d_model": 16, "n_layer": 4, "n_head": 2, "d_inner": 16},
    "xlm": {"emb_dim": 16, "n_layers": 4, "n_heads": 2},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 4, "num_heads": 2},
    "bart": {
        "d_model": 16, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
    },
}  # fmt: skip


def save_model(folder: Path, kind: str, positions: int | None, limit: int | None = None, **more: Any) -> Path:
    """Save a random model of four layers with a tokenizer of one piece a word.

    Args:
        folder: Where.
        kind: The model's type, as transformers names it.
        positions: How many positions its table has; None where there is none.
        limit: The tokenizer's own limit; None = it knows of none, as often on the hub.
        more: Other settings.
    """
    sizes = dict(_OTHER_NAMES.get(kind, _SIZES))
    if positions is not None:
        sizes["n_positions" if kind == "gpt2" else "max_position_embeddings"] = positions
    config = AutoConfig.for_model(kind, vocab_size=len(WORDS) + 4, pad_token_id=1, **{**sizes, **more})
    with seeded(0):
        AutoModel.from_config(config).save_pretrained(folder)
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*specials, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind != "gpt2":
        tokenizer.post_processor = processors.TemplateProcessing(
            "<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}
    if kind == "gpt2":
        names = {"unk_token": "<unk>"}
    size = {} if limit is None else {"model_max_length": limit}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **size).save_pretrained(folder)
    return folder


def save_small_bert(folder: Path) -> Path:
    """Save a random BERT that reads what the bundled MiniLM reads: its figures mean nothing, but tell texts apart."""
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm"))
    tokenizer.save_pretrained(folder)
    with seeded(0):
        AutoModel.from_config(AutoConfig.for_model("bert", vocab_size=len(tokenizer), **_SIZES)).save_pretrained(folder)
    return folder


def save_chinese_bert(folder: Path) -> Path:
    """Save a random BERT with a piece for each of 21,000 Chinese characters and each printable one of ASCII."""
    characters = [*map(chr, range(0x4E00, 0x9FA6)), *map(chr, range(33, 127)), *"，。；：（）“”、×α"]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = [*specials, *characters, *(f"##{sign}" for sign in map(chr, range(33, 127)))]
    pieces = models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
    tokenizer = Tokenizer(pieces)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), specials, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    config = AutoConfig.for_model("bert", vocab_size=len(vocabulary), **_SIZES)
    with seeded(0):
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


def text(n: int, seed: int = 0) -> str:
    """Return ``n`` words that the models know."""
    chosen = torch.randint(len(WORDS), (n,), generator=torch.Generator().manual_seed(seed))
    return " ".join(WORDS[i] for i in chosen.tolist())
