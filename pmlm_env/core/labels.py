"""Label: a condition, and how a text names it."""

from __future__ import annotations

from dataclasses import dataclass
from reprlib import repr as shortened
from typing import Any


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


def label_from(entry: Any) -> Label:
    """Return the label of an entry in a JSON or TOML file: ``{"name": "gout", "aliases": ["podagra"]}``.

    Raises:
        ValueError: The entry is not a label.
    """
    match {"aliases": [], "no_finding": False, **(entry if isinstance(entry, dict) else {})}:
        case {"name": str(name), "aliases": [*aliases], "no_finding": bool(no_finding), **others}:
            if name.strip() and not others and all(isinstance(alias, str) for alias in aliases):
                return Label(name, tuple(aliases), no_finding)
    raise ValueError(
        f"{shortened(entry)} is not a label: give its name (text) and, where they apply, aliases (a list of texts) "
        "and no_finding (true or false)"
    )
