"""Differences between pretrained transformers: maximum input length and location of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


#: Names of the normalization after the last layer of a decoder, such as Llama, Qwen and GPT-2.
_FINAL_NORMS = {"norm", "ln_f"}

#: The layer of a bundled decoder whose states stand for words and are compared by BERTScore. On simulated Chinese
#: letters, layers 1 to 24 of 24 distinguish conditions equally well (docs/chinese.md), and the first layers cost least.
DECODER_LAYERS = {"qwen2.5-coder-0.5b": 4, "qwen2.5-coder-1.5b": 4}


def input_limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Return the maximum input length of a model in tokens, including special tokens.

    This is the smaller of the tokenizer's limit and the number of position embeddings. RoBERTa and related models
    (XLM-RoBERTa, CamemBERT, MPNet, Longformer) start positions after the padding index, so 514 embeddings allow 512.
    """
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    positions = getattr(model.config, "max_encoder_position_embeddings", positions)  # LED
    if isinstance(positions, int) and positions > 0:  # not in models with only relative positions, such as T5 and XLNet
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        paddings = [index for table in tables if (index := getattr(table, "padding_idx", None)) is not None]
        limits.append(positions - (paddings[0] + 1 if paddings else 0))
    return min(limits)


def check_layer(layer: int, depth: int, model: str) -> None:
    """Check that a model has a layer.

    Raises:
        ValueError: It does not; the message is for both the command line and ``gym.make``.
    """
    if not isinstance(layer, int) or isinstance(layer, bool) or not 1 <= layer <= depth:
        raise ValueError(f"scorer layer {layer!r}: {model} has layers 1 to {depth} (--scorer-layer)")


def first_layers(model: PreTrainedModel, layer: int) -> PreTrainedModel:
    """Return a model's encoder without the layers after ``layer``, to save computation.

    A model whose layers are not in one list (such as ALBERT, with shared weights) is left unchanged; see ``states_of``.
    """
    encoder: Any = model.get_encoder() if model.config.is_encoder_decoder else model
    depth = encoder.config.num_hidden_layers
    found = [
        (module, name)
        for module in encoder.modules()
        for name, child in module.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == depth
    ]
    if len(found) == 1:
        module, name = found[0]
        setattr(module, name, getattr(module, name)[:layer])
        if layer < depth and not model.config.is_encoder_decoder:
            for norm in _FINAL_NORMS & {name for name, _ in module.named_children()}:
                setattr(module, norm, torch.nn.Identity())  # it is for the last layer's states
        encoder.config.num_hidden_layers = layer
    return encoder


def states_of(model: PreTrainedModel, layer: int, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a layer's hidden states, shape (rows, tokens, H), from a model that ``first_layers`` returned."""
    if model.config.num_hidden_layers == layer:
        return model(**inputs).last_hidden_state
    return model(**inputs, output_hidden_states=True).hidden_states[layer]
