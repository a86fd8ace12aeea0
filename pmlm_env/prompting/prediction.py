"""The prompt of predictors that are LLMs (paper, Figure 3): the task, the check-ups, the list of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter

from pmlm_env.cohort.schema import Schema
from pmlm_env.prompting.template_files import BREAK, parse, read_template
from pmlm_env.prompting.wording import wording_in

#: Names of the built-in templates; each family of templates has all of them.
PREDICTION_TEMPLATES = ("predict", "predict-short")

_FIELDS = ("history", "levels", "labels")


class PredictionPrompt:
    """A template of prompts that ask for a patient's label; its files are like those of ``InitialPrompt``.

    Its fields are:

    | field | replaced by |
    |---|---|
    | ``{history}`` | the check-ups by date, with units; as many as there is room for |
    | ``{levels}`` | the indicators that are high or low in the mean of all check-ups |
    | ``{labels}`` | the labels to choose from |

    Args:
        text: The text of a template.
        name: Its name, for messages.
        language: The prompts' language as a BCP 47 tag.

    Attributes:
        text: The template without comments.
        language: The given language.
        words: What the fields say in it.
        has_history: Whether it has ``{history}``.

    Raises:
        ValueError: A line has an unknown role, another field, or an invisible character, or no line has ``{history}``
            or ``{levels}``.
    """

    def __init__(self, text: str, name: str, language: str = "en") -> None:
        """Check the template."""
        if not isinstance(text, str):
            raise ValueError(f"template {name} is not text")
        parts = parse(text, name, _check_fields)
        self.text = "\n".join(f"{role}:{part}" for role, part in parts)
        self.language, self.words = language, wording_in(language)
        self._filled = (
            self.words.between.join(part for _, part in parts).replace(f" {BREAK} ", "\n").replace(BREAK, "\n")
        )
        fields = {field for _, field, _, _ in Formatter().parse(self._filled)}
        self.has_history = "history" in fields
        if not fields & {"history", "levels"}:
            raise ValueError(f"template {name} has neither {{history}} nor {{levels}}: add one")

    @classmethod
    def load(cls, template: str | Path, schema: Schema) -> PredictionPrompt:
        """Read a template.

        Args:
            template: One of ``PREDICTION_TEMPLATES``, in the schema's language and of its family, or the path of a
                file.
            schema: What the patients' cohort measures.

        Raises:
            ValueError: The template does not exist, or not in the schema's language, or is not valid.
        """
        option = '--predictor-kwargs \'{"template": "FILE"}\''
        return cls(read_template(template, schema, PREDICTION_TEMPLATES, option), str(template), schema.language)

    def fill(self, history: str, levels: str, labels: Sequence[str]) -> str:
        """Return the prompt of one patient."""
        return self._filled.format(history=history, levels=levels, labels=self.words.semicolon.join(labels))


def _check_fields(text: str, where: str) -> None:
    try:
        fields = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{where}: {error}: write {{{{ and }}}} for literal braces") from None
    for name, form, conversion in fields:
        if name not in _FIELDS or form or conversion:
            raise ValueError(f"{where}: it has a field that cannot be filled: use {{{'}, {'.join(_FIELDS)}}}")
