"""Choices among settings of the rewards, in a module that loads no torch."""

from __future__ import annotations

from typing import Literal

#: What is done with texts that are longer than the scorer's input.
LongTexts = Literal["cut", "chunks"]
