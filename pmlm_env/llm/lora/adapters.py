"""LoRA adapters: what fine-tuning learns, apart from the model that it was learned for."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from safetensors.torch import save
from transformers import PreTrainedModel

from pmlm_env.device import seeded
from pmlm_env.io.checked_files import file_in, read_object, read_tensors
from pmlm_env.io.files import make_folder, write, write_json

CONFIG_FILE, WEIGHTS_FILE = "adapter.json", "adapter.safetensors"

_CURE = "copy it again, or fine-tune again"
_MAX_RANK = 10_000


@dataclass(frozen=True, eq=False)
class Adapter:
    """What fine-tuning learned for one model.

    Attributes:
        base: ``ModelFiles.identity`` of the model; with the weights of another one, the adapter means nothing.
        rank: The rank r of its matrices.
        alpha: Its output is multiplied by alpha / r.
        tensors: The matrices A and B of each layer, float32, on the CPU.
    """

    base: str
    rank: int
    alpha: int
    tensors: Mapping[str, torch.Tensor]

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the matrices."""
        return hashlib.sha256(save(dict(self.tensors))).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the adapter into a folder, which is created if it does not exist."""
        make_folder(folder)
        write(folder / WEIGHTS_FILE, save(dict(self.tensors)))
        write_json(folder / CONFIG_FILE, {"format": 1, "base": self.base, "rank": self.rank, "alpha": self.alpha})

    @classmethod
    def load(cls, folder: Path, cure: str = _CURE) -> Adapter:
        """Read what ``save`` wrote.

        Args:
            folder: The folder.
            cure: What to do about a damaged file, for messages.

        Raises:
            ValueError: A file is missing or damaged.
        """
        path = file_in(folder, CONFIG_FILE)
        content = read_object(path, cure)
        base, rank, alpha = (content.get(name) for name in ("base", "rank", "alpha"))
        if content.get("format") != 1 or not isinstance(base, str):
            raise ValueError(f"{path} is damaged, or of another version of pmlm-env: {cure}")
        for size in (rank, alpha):
            if type(size) is not int or not 1 <= size <= _MAX_RANK:
                raise ValueError(f"{path} is damaged: rank and alpha should be 1 to {_MAX_RANK:,}: {cure}")
        assert isinstance(rank, int)
        assert isinstance(alpha, int)
        return cls(base, rank, alpha, read_tensors(file_in(folder, WEIGHTS_FILE), None, cure=cure))

    def check_base(self, identity: str) -> None:
        """Check that the adapter was learned for a model.

        Raises:
            ValueError: It was learned for another one.
        """
        if self.base != identity:
            raise ValueError(
                f"the adapter was learned for the model {shortened(self.base)}, and this is {identity}: use that one, "
                "or fine-tune again"
            )

    def put_into(self, model: PreTrainedModel) -> None:
        """Set the adapter's weights in a model that has the layers for them (``add_adapter_layers``).

        Raises:
            ValueError: The model has other layers.
        """
        layers = adapter_weights(model)
        shapes = ({name: weight.shape for name, weight in each.items()} for each in (layers, self.tensors))
        if next(shapes) != next(shapes):
            raise ValueError(f"the adapter does not fit the model {self.base}, whose layers are others: {_CURE}")
        with torch.no_grad():
            for name, weight in layers.items():
                weight.copy_(self.tensors[name])


def add_adapter_layers(model: PreTrainedModel, rank: int, alpha: int) -> None:
    """Add an adapter to each linear layer of a model but the output head; as long as its B is 0, nothing changes.

    The adapters have the model's number format; its own weights are frozen.

    Args:
        model: The model, changed in place.
        rank: The rank r.
        alpha: Their output is multiplied by alpha / r.

    Raises:
        ValueError: peft is not installed, or knows none of the model's layers.
    """
    peft = _peft()
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear")
    try:
        with seeded(0, model.device), warnings.catch_warnings():  # A is drawn from the global generator
            warnings.simplefilter("ignore", UserWarning)  # peft adapts some settings to the layers, and says so
            peft.inject_adapter_in_model(config, model)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ValueError(f"LoRA cannot be applied to {model.config.model_type} models: {_line(error)}") from None
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)


def adapter_weights(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """Return the adapters' weights in a model, by name."""
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ValueError("LoRA needs peft: install it with `pip install 'pmlm-env[lora]'`") from None
    return peft


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
