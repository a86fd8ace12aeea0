"""Stage 3: the initial prompt of Figure 4, filled from a template file, each word with its role."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from reprlib import repr as shortened
from string import Formatter
from typing import Any, cast, get_args

from pmlm_env.cohort.schema import Patient
from pmlm_env.core.episodes import Role
from pmlm_env.io.text import printable
from pmlm_env.prompting.fields import FORMS, Labs, PeerForm, Peers, Probabilities

#: The templates that come with the package, by name.
TEMPLATES = ("default", "short", "paper", "raw")

#: What a template may hold besides the columns of the patients' table.
FIELDS = ("predicted", "probabilities", "peers", "k", "labs")

#: What stands where a patient's column is empty.
_UNKNOWN = "unknown"

#: Bytes of a template and characters of a filled prompt, at most: more than small LLMs read.
_MOST_BYTES, _MOST_CHARACTERS = 2**16, 50_000

#: Characters of a field that an error quotes.
_SHOWN = 60


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
        ValueError: There is no such template, or it is too large, or a line of it has no known role, a field that
            cannot be filled, or a character that nobody would see.
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

    def check(self, patients: Iterable[Patient]) -> None:
        """See that the prompts of all patients can be made, before anything is fitted for them.

        Raises:
            ValueError: The patients' table lacks a column that the template needs, or a prompt would be too long.
        """
        patients = list(patients)
        self.check_columns({column for patient in patients for column in patient.extra})
        for patient in patients:
            self.fill("", (), {"": 1.0}, patient)

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
            ValueError: The template has a field for which nothing was given, or the prompt is too long.
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
        room = _MOST_CHARACTERS
        for role, text in self.parts:
            pieces: list[str] = []
            for literal, name, form, _ in Formatter().parse(text):
                if name and name not in fields:
                    raise ValueError(f"template {self.name}: nothing was given to fill {{{name}}} with")
                pieces += [literal, format(fields[name], form or "") if name else ""]
                room -= len(literal) + len(pieces[-1])
                if room < 0:  # before a template that repeats a long field has filled the memory
                    whose = "" if patient is None else f" of patient {patient.patient_id}"
                    raise ValueError(
                        f"template {self.name}: the prompt{whose} is longer than {_MOST_CHARACTERS:,} characters"
                    )
            new = "".join(pieces).split()
            words += new
            roles += [role] * len(new)
        return tuple(words), tuple(roles)


def _read(template: str | Path) -> str:
    if template in TEMPLATES:
        return (resources.files(__package__) / "templates" / "en" / f"{template}.txt").read_text(encoding="utf-8")
    path = Path(template)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device read for ever
            raise ValueError(f"template {template} is not a file: use {', '.join(TEMPLATES)} or a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"template {template} is larger than {_MOST_BYTES // 2**10} KiB: no LLM reads so much")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"template {template} is not UTF-8 text") from None
    except OSError as error:
        if path.exists():
            raise ValueError(f"template {template} cannot be read: {error.strerror}") from None
        raise ValueError(f"there is no template {str(template)!r}: use {', '.join(TEMPLATES)} or a file") from None


def _parse(text: str, name: str) -> list[tuple[Role, str]]:
    parts = []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        where = f"template {name}, line {number}"
        if (seen := printable(line)) != line:
            raise ValueError(f"{where}: {shortened(seen)} has a character that nobody would see, here as its escape")
        if not line.strip() or line.startswith("#"):
            continue
        role, colon, rest = line.partition(":")
        if not colon or role.strip() not in get_args(Role):
            raise ValueError(f"{where}: {shortened(line)} must begin with one of {get_args(Role)} and a colon")
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
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        if not name.strip() or name[0].isdigit() or any(sign in name for sign in ".[]{}") or conversion:
            raise ValueError(
                f"{where}: cannot fill {shown}; the fields are {', '.join(FIELDS)} and columns of the patients' table"
            )
        if form and not (name in FORMS and FORMS[name].fullmatch(form)):
            raise ValueError(f"{where}: {shown} has an unknown form; {{peers:listed}} and {{labs:5}} are examples")
