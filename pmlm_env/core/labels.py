"""Label: a condition, and how a text names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Label:
    """A condition and the other names that a reply may use for it.

    Attributes:
        name: The label in data files.
        aliases: Further phrases that name it. A phrase that two labels share names both.
        no_finding: Whether the label means that nothing was found. Its name may then be an everyday word ("a normal
            diet"), so only its aliases name it, and only in a text that names no other label.
    """

    name: str
    aliases: tuple[str, ...] = ()
    no_finding: bool = False
