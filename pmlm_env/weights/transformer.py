"""What differs between pretrained transformers: how many pieces they take at once, and where their layers are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def input_limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    """Return how many pieces, special tokens among them, a model takes at once.

    The tokenizer's limit or that of the table of positions, whichever is less. RoBERTa and its kin (XLM-RoBERTa,
    CamemBERT, MPNet, Longformer) count positions from behind the padding's on, so that of 514 they have 512.
    """
    limits = [tokenizer.model_max_length]
    positions = getattr(model.config, "max_position_embeddings", None)
    positions = getattr(model.config, "max_encoder_position_embeddings", positions)  # LED
    if isinstance(positions, int) and positions > 0:  # T5, XLNet and others have relative positions alone
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        paddings = [index for table in tables if (index := getattr(table, "padding_idx", None)) is not None]
        limits.append(positions - (paddings[0] + 1 if paddings else 0))
    return min(limits)


def check_layer(layer: int, depth: int, model: str) -> None:
    """See that a model has a layer.

    Raises:
        ValueError: It has not; told in words for the command line and for ``gym.make``.
    """
    if not isinstance(layer, int) or isinstance(layer, bool) or not 1 <= layer <= depth:
        raise ValueError(
            f"scorer layer {layer!r}: {model} has layers 1 to {depth} (--scorer-layer, or scorer_layer in gym.make)"
        )


def first_layers(model: PreTrainedModel, layer: int) -> PreTrainedModel:
    """Return a model's encoder without what comes after a layer, so that nothing is computed in vain.

    A model whose layers are not one list (ALBERT's share their weights) is left whole; see ``states_of``.
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
        encoder.config.num_hidden_layers = layer
    return encoder


def states_of(model: PreTrainedModel, layer: int, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a layer's states of a model that ``first_layers`` returned, (rows, pieces, H)."""
    if model.config.num_hidden_layers == layer:
        return model(**inputs).last_hidden_state
    return model(**inputs, output_hidden_states=True).hidden_states[layer]
