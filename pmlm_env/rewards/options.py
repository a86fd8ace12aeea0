"""Types of the rewards' settings, in a module that does not load torch."""

from __future__ import annotations

from typing import Literal

#: Treatment of texts that are longer than the scorer's input.
LongTexts = Literal["cut", "chunks"]
