"""Stage 3: the initial prompt of Figure 4, filled from a template file, each word with its role."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Any, cast, get_args

from pmlm_env.cohort.schema import Patient
from pmlm_env.episodes import Role
from pmlm_env.prompting.fields import FORMS, Labs, PeerForm, Peers, Probabilities

#: The templates that come with the package, by name.
TEMPLATES = ("default", "short", "paper", "raw")

#: What a template may hold besides the columns of the patients' table.
FIELDS = ("predicted", "probabilities", "peers", "k", "labs")

#: What stands where a patient's column is empty.
_UNKNOWN = "unknown"


class InitialPrompt:
    """A template and how it is filled.

    A template is a text file with one part a line, ``role: text``; lines that begin with ``#`` are comments. The text
    may hold fields in braces:

    | field | becomes |
    |---|---|
    | ``{predicted}`` | the label that stage 1 predicts |
    | ``{probabilities}`` | its likeliest labels, three at most, with their probabilities |
    | ``{peers}`` | the peers' labels, in the form that ``peers`` names; ``{peers:listed}`` whatever that is |
    | ``{k}`` | the number of peers |
    | ``{labs}`` | the last two check-ups, with units; ``{labs:5}`` the last five, ``{labs:all}`` all of them |
    | ``{COLUMN}`` | that column of the patients' table; ``unknown`` where the patient has no value |

    Args:
        template: A name of ``TEMPLATES``, or a template file.
        peers: ``"counted"`` ("6 of 10 had thalassemia"), which says no more of past patients than needed, or
            ``"listed"``, nearest first, as in the paper.

    Attributes:
        name: The template's name, or its file.
        parts: The role and the text of each part.
        columns: The columns of the patients' table that it needs.

    Raises:
        ValueError: There is no such template, or a line of it has no known role or a field that cannot be filled.
    """

    def __init__(self, template: str | Path = "default", peers: PeerForm = "counted") -> None:
        """Read and check the template."""
        if peers not in get_args(PeerForm):
            raise ValueError(f"peers is {peers!r}: use one of {get_args(PeerForm)}")
        self.peers = peers
        self.name = str(template)
        self.parts = tuple(_parse(_read(template), self.name))
        fields = (field for _, text in self.parts for _, field, _, _ in Formatter().parse(text) if field)
        self.columns = tuple(sorted({*fields} - {*FIELDS}))

    def check_columns(self, columns: Collection[str]) -> None:
        """See that the patients' table has the columns that the template needs.

        Raises:
            ValueError: It lacks one.
        """
        missing = [column for column in self.columns if column not in columns]
        if missing:
            there = ", ".join(sorted(columns)) or "none"
            raise ValueError(
                f"template {self.name}: cannot fill {{{missing[0]}}}; the fields are {', '.join(FIELDS)} and the "
                f"further columns of the patients' table ({there})"
            )

    def fill(
        self,
        predicted: str,
        peer_labels: Sequence[str],
        probabilities: Mapping[str, float] | None = None,
        patient: Patient | None = None,
    ) -> tuple[tuple[str, ...], tuple[Role, ...]]:
        """Fill the template for one patient.

        Args:
            predicted: The label that stage 1 predicts.
            peer_labels: The peers' labels, nearest first.
            probabilities: What stage 1 makes of each label, for a template with ``{probabilities}``.
            patient: Check-ups and further columns, for a template with ``{labs}`` or a column.

        Returns:
            The prompt's words, and each word's role.

        Raises:
            ValueError: The template has a field for which nothing was given.
        """
        fields: dict[str, Any] = {
            "predicted": predicted,
            "peers": Peers(peer_labels, self.peers),
            "k": len(peer_labels),
        }
        if probabilities is not None:
            fields["probabilities"] = Probabilities(probabilities)
        if patient is not None:
            fields["labs"] = Labs(patient)
            fields |= {column: patient.extra.get(column, "").strip() or _UNKNOWN for column in self.columns}
        words: list[str] = []
        roles: list[Role] = []
        for role, text in self.parts:
            try:
                new = text.format_map(fields).split()
            except KeyError as error:
                raise ValueError(f"template {self.name}: nothing was given to fill {{{error.args[0]}}} with") from None
            words += new
            roles += [role] * len(new)
        return tuple(words), tuple(roles)


def _read(template: str | Path) -> str:
    if template in TEMPLATES:
        return (resources.files(__package__) / "templates" / "en" / f"{template}.txt").read_text(encoding="utf-8")
    try:
        return Path(template).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"template {template} is not UTF-8 text") from None
    except OSError:
        raise ValueError(f"there is no template {str(template)!r}: use {', '.join(TEMPLATES)} or a file") from None


def _parse(text: str, name: str) -> list[tuple[Role, str]]:
    parts = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"template {name}, line {number}"
        role, colon, rest = line.partition(":")
        if not colon or role.strip() not in get_args(Role):
            raise ValueError(f"{where}: {line!r} must begin with one of {get_args(Role)} and a colon")
        if not rest.strip():
            raise ValueError(f"{where}: nothing stands behind {role.strip()}:")
        _check_fields(rest, where)
        parts.append((cast(Role, role.strip()), rest.strip()))
    if not parts:
        raise ValueError(f"template {name} has no parts: write lines such as 'instruction: Write a discharge note.'")
    return parts


def _check_fields(text: str, where: str) -> None:
    """See that every field of a line is a name with a form that there is.

    Raises:
        ValueError: One is not.
    """
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{where}: {error}: write {{{{ and }}}} for braces that are no field") from None
    for name, form, conversion in fields:
        shown = "{" + name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
        if not name.strip() or name[0].isdigit() or any(sign in name for sign in ".[]{}") or conversion:
            raise ValueError(
                f"{where}: cannot fill {shown}; the fields are {', '.join(FIELDS)} and columns of the patients' table"
            )
        if form and not (name in FORMS and FORMS[name].fullmatch(form)):
            raise ValueError(f"{where}: {shown} has an unknown form; {{peers:listed}} and {{labs:5}} are examples")
