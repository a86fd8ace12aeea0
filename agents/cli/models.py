"""List or download the bundled models: ``pmlm models``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from pmlm_env.weights import BUNDLED, SMALL, describe, fetch


@dataclass(frozen=True)
class ModelsConfig:
    """List the bundled models, or download some.

    Attributes:
        fetch: Models to download, verify and unpack; without a name, those that the tests and the setup need.
    """

    fetch: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="[NAME ...]")] = None


Config = ModelsConfig


def run(config: ModelsConfig) -> int:
    """Download models if asked to, and list the bundled models."""
    if config.fetch is not None:
        fetch(*(config.fetch or SMALL))
    for name in BUNDLED:
        print(f"{name:18} {describe(name)}")
    print("Any other name is a directory, or a model on the Hugging Face hub.")
    return 0
