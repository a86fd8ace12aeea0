"""Encoders by name: a BERT-family model, or somebody's own class."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pmlm_env.core.task import Encoder
from pmlm_env.registry import Registry

if TYPE_CHECKING:
    import torch

    from pmlm_env.encoders.bert import WordEncoder
    from pmlm_env.encoders.once import OnceEncoder

_BUILT_IN = {"minilm": "pmlm_env.encoders.bert:WordEncoder", "once": "pmlm_env.encoders.once:OnceEncoder"}

#: A name that is neither registered nor a path is a model's, for ``WordEncoder``.
ENCODERS = Registry("encoder", "pmlm.encoders", _BUILT_IN, ["encode"])


def load_encoder(
    name: str, kwargs: Mapping[str, Any] | None = None, device: str = "auto"
) -> WordEncoder | OnceEncoder | CheckedEncoder:
    """Make an encoder.

    Args:
        name: A name that ``WordEncoder`` accepts, ``once``, that of an installed plugin, or ``package.module:Class``.
        kwargs: Arguments of ``OnceEncoder``, or for the class of a plugin or path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a class gets it if it has a parameter ``device``.

    Raises:
        ModelError: The model is not found.
        ValueError: There is no such encoder, or it lacks a part of its interface or does not take these arguments.
    """
    if name == "minilm" or not ENCODERS.knows(name):
        from pmlm_env.encoders.bert import WordEncoder

        if kwargs:
            raise ValueError(
                f"--encoder-kwargs has no effect with the model {name}: it is for once and classes of your own"
            )
        return WordEncoder(name, device)
    encoder = ENCODERS.make(name, kwargs=kwargs, offered={"device": device})
    return encoder if name in ENCODERS.builtin else CheckedEncoder(name, encoder)


class CheckedEncoder:
    """Somebody's encoder, whose embeddings are checked.

    Args:
        name: Its name in ``ENCODERS``.
        encoder: The encoder.

    Attributes:
        model_name: The name.
        hidden_size: H, the length of an embedding.
        seconds: Wall time spent in ``encode`` so far.

    Raises:
        ValueError: It lacks an attribute of the interface ``Encoder``.
    """

    def __init__(self, name: str, encoder: Encoder) -> None:
        """Check that the attributes are there."""
        size = getattr(encoder, "hidden_size", None)
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"the encoder {name} has no hidden_size, the length of an embedding, of 1 or more")
        if not hasattr(encoder, "device"):
            raise ValueError(f"the encoder {name} has no device, the torch device of its embeddings")
        self.model_name, self.hidden_size = name, int(size)
        self.seconds = 0.0
        self._encoder = encoder

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        import torch

        return torch.device(self._encoder.device)

    def encode(self, words: Sequence[Sequence[str]], kept: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Embed the words left in B prompts: float32 (B, W, H), zeros elsewhere.

        Raises:
            ValueError: The encoder returned something else.
        """
        import torch

        started = time.perf_counter()
        found = self._encoder.encode(words, kept.copy())
        shape = (*kept.shape, self.hidden_size)
        if not isinstance(found, torch.Tensor) or found.dtype != torch.float32 or found.shape != shape:
            what = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"the encoder {self.model_name} returned {what}, not a torch.float32 tensor {shape}")
        if found.device.type != self.device.type:
            raise ValueError(
                f"the encoder {self.model_name} returned a tensor on {found.device}, but its device is {self.device}"
            )
        # A copy: the encoder may fill the same tensor again, or have made it with a gradient or in inference mode.
        found = found.detach().clone()
        if not found.isfinite().all():
            raise ValueError(f"the encoder {self.model_name} returned numbers that are not finite")
        if found[torch.from_numpy(~kept).to(found.device)].any():
            raise ValueError(
                f"the encoder {self.model_name} returned numbers other than zero where no word is left: policies tell "
                "by the zeros which words are left"
            )
        self.seconds += time.perf_counter() - started
        return found
