"""Settings of fine-tuning, in a module that does not load torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Settings of ``fine_tune``. The defaults are those of LLaMA-Factory's examples (Zheng et al., ACL 2024).

    Every linear layer but the output head gets an adapter, without dropout. The optimizer is AdamW without weight
    decay; its learning rate rises linearly, then falls to 0 along a cosine.

    Attributes:
        rank: The adapters' rank r.
        alpha: The adapters' output is multiplied by alpha / r.
        learning_rate: The highest learning rate.
        n_epochs: The largest number of epochs.
        warmup: The share of the steps in which the learning rate rises.
        batch_size: Examples per step. Their gradients are computed one after another, so memory does not depend on it.
        max_grad_norm: Gradients with a larger norm are scaled down to it.
        patience: Training ends after as many epochs without a better validation score.
        gradient_checkpointing: Whether to compute the layers' outputs twice instead of storing them: takes less memory
            and about a third more time.

    Raises:
        ValueError: A setting is out of range.
    """

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 1e-4
    n_epochs: int = 3
    warmup: float = 0.1
    batch_size: int = 8
    max_grad_norm: float = 1.0
    patience: int = 2
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("rank", "alpha", "n_epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 10_000:
                raise ValueError(f"{name} is {value!r}: use 1 to 10,000")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}: use a positive number")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup!r}: use 0 to 1")

    def rate(self, step: int, n_steps: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = math.ceil(self.warmup * n_steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising)))
