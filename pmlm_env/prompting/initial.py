"""Stage 3: the initial prompt of Figure 4, filled from a template file, each word with its role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, cast, get_args

from pmlm_env.episodes import Role

PeerForm = Literal["counted", "listed"]
_FIELDS = ("predicted", "peers", "k")


class InitialPrompt:
    """A template and how it is filled.

    Args:
        template: A template file; the built-in one by default. One part a line, ``role: text``; ``{predicted}``,
            ``{peers}`` and ``{k}`` are filled in; lines that begin with ``#`` are comments.
        peers: ``"counted"`` ("6 of 10 had thalassemia"), which says no more of past patients than needed, or
            ``"listed"``, nearest first, as in the paper.

    Raises:
        ValueError: A line of the template has no known role, or a field that does not exist.
    """

    def __init__(self, template: str | Path | None = None, peers: PeerForm = "counted") -> None:
        """Read and check the template."""
        if peers not in get_args(PeerForm):
            raise ValueError(f"peers is {peers!r}: use one of {get_args(PeerForm)}")
        self.peers = peers
        if template is None:
            name = "the built-in template"
            text = (resources.files(__package__) / "templates" / "initial.txt").read_text(encoding="utf-8")
        else:
            name, text = str(template), Path(template).read_text(encoding="utf-8")
        self.parts = tuple(_parse(text, name))

    def fill(self, predicted: str, peer_labels: Sequence[str]) -> tuple[tuple[str, ...], tuple[Role, ...]]:
        """Fill the template for one patient.

        Args:
            predicted: Her label as stage 1 predicts it.
            peer_labels: Her peers' labels, nearest first.

        Returns:
            The prompt's words, and each word's role.
        """
        form = _counted if self.peers == "counted" else _listed
        fields = {"predicted": predicted, "peers": form(peer_labels), "k": str(len(peer_labels))}
        words: list[str] = []
        roles: list[Role] = []
        for role, text in self.parts:
            new = text.format_map(fields).split()
            words += new
            roles += [role] * len(new)
        return tuple(words), tuple(roles)


def _parse(text: str, name: str) -> list[tuple[Role, str]]:
    parts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        role, colon, rest = line.partition(":")
        if not colon or role.strip() not in get_args(Role):
            raise ValueError(f"{name}, line {number}: {line!r} must begin with one of {get_args(Role)} and a colon")
        try:
            rest.format_map(dict.fromkeys(_FIELDS, ""))
        except (KeyError, ValueError, IndexError) as error:
            raise ValueError(
                f"{name}, line {number}: cannot fill {error}; the fields are "
                f"{', '.join('{' + field + '}' for field in _FIELDS)}"
            ) from None
        parts.append((cast(Role, role.strip()), rest.strip()))
    if not parts:
        raise ValueError(f"{name} has no parts: write lines such as 'instruction: Write a discharge note.'")
    return parts


def _counted(labels: Sequence[str]) -> str:
    """Labels by falling frequency, ties by nearness: "6 of 10 had thalassemia, 4 of 10 had normal"."""
    counts = Counter(labels).most_common()
    return ", ".join(f"{count} of {len(labels)} had {label}" for label, count in counts)


def _listed(labels: Sequence[str]) -> str:
    return "nearest first, had: " + "; ".join(labels)
