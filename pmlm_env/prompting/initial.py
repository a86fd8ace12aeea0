"""Stage 3: filling the initial prompt (Figure 4) from a template file, with a role for each word."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, get_args

from pmlm_env.cohort.parsing import is_given
from pmlm_env.cohort.schema import OBSTETRIC, Patient, Schema
from pmlm_env.core.words import Prompt, Role, Word, split
from pmlm_env.prompting.fields import FORMS, Labs, PeerForm, Peers, Probabilities, Values
from pmlm_env.prompting.template_files import BREAK, parse, read_template
from pmlm_env.prompting.wording import wording_in

#: Names of the built-in templates; each family of templates has all of them.
TEMPLATES = ("default", "short", "paper", "raw", "personal")

#: The fields that a template may have besides the columns of the patients' table.
FIELDS = ("predicted", "probabilities", "peers", "k", "labs", "values")

#: Those that put values of a patient's records into the prompt.
_OF_RECORDS = {"labs", "values"}

_SPACE = re.compile(r"\s+")

#: Limit on the characters of a filled prompt: more than small LLMs read.
_MOST_CHARACTERS = 50_000

#: Number of characters of a field that an error message quotes.
_SHOWN = 60


class InitialPrompt:
    """A prompt template that can be filled for a patient.

    A template is a text file with one part per line, ``role: text``; lines that start with ``#`` are comments. A
    backslash and an n in the text are a line break in the prompt. The text may contain fields in braces:

    | field | replaced by |
    |---|---|
    | ``{predicted}`` | the label that stage 1 predicts |
    | ``{probabilities}`` | the most probable labels, at most three, with their probabilities |
    | ``{peers}`` | the peers' labels, in the form that ``peers`` sets; ``{peers:listed}`` overrides it |
    | ``{peers:likeness}`` | the peers' labels, each with its likeness, nearest first |
    | ``{k}`` | the number of peers |
    | ``{labs}`` | the last two check-ups, with units; ``{labs:5}``: the last five; ``{labs:all}``: all |
    | ``{values}`` | each indicator's latest value; ``{values:9}``: at most nine; ``{values:abnormal}``: see below |
    | ``{COLUMN}`` | that column of the patients' table; ``unknown`` if the cell is empty |

    Values outside their reference range come first and are marked, "(low)" or "(high)"; ``abnormal`` shows them alone.

    Args:
        template: One of ``TEMPLATES``, in the schema's language and of its family, or the path of a template file.
        peers: ``"counted"`` ("6 of 10 had thalassemia"), which reveals less about past patients, or ``"listed"``,
            nearest first, as in the paper.
        schema: What the patients' cohort measures, and the language of the prompts; ``obstetric`` by default.

    Attributes:
        name: The template's name or path.
        parts: The role and the text of each part.
        columns: The columns of the patients' table that the template uses.
        of_records: The fields that put values of a patient's records into the prompt: ``labs``, ``values``, and the
            columns.

    Raises:
        ValueError: The template does not exist, or not in the schema's language, or is too large, or a line has an
            unknown role, a field that cannot be filled, or an invisible character.
    """

    def __init__(
        self, template: str | Path = "default", peers: PeerForm = "counted", schema: Schema | None = None
    ) -> None:
        """Read and check the template."""
        if peers not in get_args(PeerForm):
            raise ValueError(f"peers is {peers!r}: use one of {get_args(PeerForm)}")
        self.peers, self.schema = peers, schema or Schema.load(OBSTETRIC)
        self.name, self._words = str(template), wording_in(self.schema.language)
        titles = (self._words.title(indicator) for indicator in self.schema.indicators)
        self._names = (*(label.name for label in self.schema.labels), *titles)  # never split into words
        self.parts = parse(read_template(template, self.schema, TEMPLATES), self.name, _check_fields)
        fields = (field for _, text in self.parts for _, field, _, _ in Formatter().parse(text) if field)
        used = {*fields}
        self.columns = tuple(sorted(used - {*FIELDS}))
        self.of_records = (*sorted(used & _OF_RECORDS), *self.columns)

    @property
    def text(self) -> str:
        """The template without comments: a file that makes the same prompts."""
        return "\n".join(f"{role}:{text}" for role, text in self.parts)

    def check(self, patients: Iterable[Patient]) -> None:
        """Check that the prompts of all patients can be filled, before anything is fitted.

        Raises:
            ValueError: The patients' table lacks a column that the template needs, or a prompt would be too long.
        """
        patients = list(patients)
        self.check_columns({column for patient in patients for column in patient.extra})
        for patient in patients:
            self._filled("", (), {"": 1.0}, patient)

    def check_columns(self, columns: Collection[str]) -> None:
        """Check that the patients' table has the columns that the template needs.

        Raises:
            ValueError: A column is missing.
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
        likeness: Sequence[float] = (),
    ) -> Prompt:
        """Fill the template for one patient.

        Args:
            predicted: The label that stage 1 predicts.
            peer_labels: The peers' labels, nearest first.
            probabilities: Probability of each label, for a template with ``{probabilities}``.
            patient: The patient, for a template with ``{labs}``, ``{values}`` or columns.
            likeness: How similar each peer is, for a template with ``{peers:likeness}``.

        Returns:
            The prompt. Runs of white space, in the template and in the values of its fields, become single spaces, or
            the line breaks that the template has there.

        Raises:
            ValueError: The value of a field was not given, or the prompt is too long.
        """
        parts = self._filled(predicted, peer_labels, probabilities, patient, likeness)
        names = {predicted, *peer_labels, *self._names}
        words: list[Word] = []
        roles: list[Role] = []
        for role, text in parts:  # each by itself, because a word never goes on in the next part
            found = split(text, self.schema.language, names)
            before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
            if words:
                words[-1] = Word(words[-1].text, words[-1].space + self._words.between + before)
            if found:
                words += [*found[:-1], Word(found[-1].text, after)]
                roles += [role] * len(found)
        words = [Word(text, _SPACE.sub(lambda run: "\n" * run[0].count("\n") or " ", space)) for text, space in words]
        words[-1:] = [Word(last.text, "") for last in words[-1:]]
        return Prompt(tuple(words), tuple(roles), self.schema.language)

    def _filled(
        self,
        predicted: str,
        peer_labels: Sequence[str],
        probabilities: Mapping[str, float] | None,
        patient: Patient | None,
        likeness: Sequence[float] = (),
    ) -> list[tuple[Role, str]]:
        """Fill the parts in turn, their line breaks included; see ``fill``."""
        fields: dict[str, Any] = {
            "predicted": predicted,
            "peers": Peers(peer_labels, self.peers, likeness, self._words),
            "k": len(peer_labels),
        }
        if probabilities is not None:
            fields["probabilities"] = Probabilities(probabilities, self._words)
        if patient is not None:
            fields["labs"] = Labs(patient, self.schema.indicators, self._words)
            fields["values"] = Values(patient, self.schema.indicators, self._words)
            extra = {column: patient.extra.get(column, "").strip() for column in self.columns}
            unknown = self._words.unknown
            fields |= {name: text if is_given(text, words=True) else unknown for name, text in extra.items()}
        parts: list[tuple[Role, str]] = []
        room = _MOST_CHARACTERS
        for role, text in self.parts:
            pieces: list[str] = []
            for literal, name, form, _ in Formatter().parse(text):
                if name and name not in fields:
                    raise ValueError(f"template {self.name}: no value was given for {{{name}}}")
                try:
                    value = format(fields[name], form or "") if name else ""
                except ValueError as error:
                    raise ValueError(f"template {self.name}: {error}") from None
                pieces += [literal.replace(BREAK, "\n"), _SPACE.sub(" ", value)]
                room -= len(literal) + len(value)
                if room < 0:  # checked here because a template may repeat a long field until memory is full
                    whose = "" if patient is None else f" of patient {patient.patient_id}"
                    raise ValueError(
                        f"template {self.name}: the prompt{whose} is longer than {_MOST_CHARACTERS:,} characters"
                    )
            parts.append((role, "".join(pieces)))
        return parts


def _check_fields(text: str, where: str) -> None:
    """Check the name and format of every field in a line.

    Raises:
        ValueError: A field is not known.
    """
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{where}: {error}: write {{{{ and }}}} for literal braces") from None
    for name, form, conversion in fields:
        shown = "{" + name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        if not name.strip() or name.isdigit() or any(sign in name for sign in ".[]{}") or conversion:
            raise ValueError(
                f"{where}: cannot fill {shown}; the fields are {', '.join(FIELDS)} and columns of the patients' table "
                "whose names are not numbers and have none of . [ ] { } ! :"
            )
        if form and not (name in FORMS and FORMS[name].fullmatch(form)):
            raise ValueError(
                f"{where}: {shown} has an unknown format; valid examples are {{peers:listed}}, {{labs:5}} and "
                "{values:9}"
            )
