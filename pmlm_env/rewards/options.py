"""Types of the rewards' settings, in a module that does not load torch."""

from __future__ import annotations

from typing import Literal

#: Treatment of texts that are longer than the scorer's input.
LongTexts = Literal["cut", "chunks"]

#: Which components of replies the env computes: those that the reward uses, or all.
ShownComponents = Literal["reward", "all"]
