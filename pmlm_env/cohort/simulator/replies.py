"""The doctor's reply: diagnosis, findings from the records, and advice (phrases in ``phrases.csv``)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np

from pmlm_env.cohort.simulator.facts import Facts
from pmlm_env.cohort.simulator.tables import LANGUAGES, Language, Said, read_table, word_in

#: Limits of a reply's length in English words and of its number of pieces of advice.
MIN_WORDS, MAX_WORDS = 45, 80
MIN_ADVICE, MAX_ADVICE = 2, 4
#: Applicable phrases of at least this weight are always used.
_ALWAYS = 9.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The parts of a reply, each in all languages."""

    opening: Said
    findings: tuple[Said, ...]
    advice: tuple[Said, ...]

    def text(self, language: Language = "en") -> str:
        """Return the text of the reply."""
        opening, advice = self.opening[language], [each[language] for each in self.advice]
        findings = [each[language] for each in self.findings]
        if language == "zh":
            return "".join((opening, *findings, f"建议：{'；'.join(advice)}。"))
        return " ".join((opening, *findings, f"Advice: {'; '.join(advice)}."))

    @property
    def n_words(self) -> int:
        """The number of words in the English text."""
        return len(self.text().split())


@dataclass(frozen=True, slots=True)
class _Phrase:
    topic: str
    required: frozenset[str]
    excluded: frozenset[str]
    weight: float
    text: Said

    def applies_to(self, facts: Facts) -> bool:
        return self.required <= facts.tags and not self.excluded & facts.tags


def write_reply(facts: Facts, rng: np.random.Generator) -> Reply:
    """Write the reply of the doctor who treated a woman.

    Args:
        facts: What the doctor knows about her.
        rng: Draws among the applicable phrases.

    Returns:
        The reply: it names her label and no other, and quotes no number that is not in her records. What it says, and
        the random numbers that it takes, do not depend on a language.
    """
    diagnosis = _rank("diagnosis", facts, rng)[0]
    opening = _filled(_rank("opening", facts, rng)[0], facts, diagnosis)
    findings = _rank("finding", facts, rng)
    advice = _rank("advice", facts, rng)[:MAX_ADVICE]
    n_findings = min(len(findings), int(rng.integers(1, 4)))
    n_advice = min(len(advice), int(rng.choice([2, 3, 3, 4])))

    def reply() -> Reply:
        chosen = tuple(_filled(text, facts) for text in findings[:n_findings])
        return Reply(opening, chosen, tuple(advice[:n_advice]))

    while reply().n_words < MIN_WORDS and (n_advice < len(advice) or n_findings < len(findings)):
        if n_advice < len(advice):
            n_advice += 1
        else:
            n_findings += 1
    while reply().n_words > MAX_WORDS and (n_findings > 1 or n_advice > MIN_ADVICE):
        if n_findings > 1:
            n_findings -= 1
        else:
            n_advice -= 1
    return reply()


def _filled(text: Said, facts: Facts, diagnosis: Said | None = None) -> Said:
    """Fill a phrase's placeholders, in all languages."""
    return {
        language: text[language].format(
            diagnosis=diagnosis and diagnosis[language],
            **{name: word_in(language, value) for name, value in facts.values.items()},
        )
        for language in LANGUAGES
    }


def _rank(part: str, facts: Facts, rng: np.random.Generator) -> list[Said]:
    """Return the applicable phrases of a part in random weighted order, one per topic."""
    applicable = [phrase for phrase in _phrases()[part, facts.label] if phrase.applies_to(facts)]
    noise = rng.gumbel(0.0, 1.5, len(applicable))
    keys = [p.weight + (100 if p.weight >= _ALWAYS else 0) + x for p, x in zip(applicable, noise, strict=True)]
    chosen: dict[str, Said] = {}
    for index in np.argsort(keys)[::-1]:
        chosen.setdefault(applicable[index].topic, applicable[index].text)
    return list(chosen.values())


@cache
def _phrases() -> defaultdict[tuple[str, str], tuple[_Phrase, ...]]:
    """Return all phrases by part and label."""
    out: defaultdict[tuple[str, str], tuple[_Phrase, ...]] = defaultdict(tuple)
    rows = read_table("phrases.csv")
    labels = {row["label"] for row in rows if row["label"] != "*"}
    for row in rows:
        when = row["when"].split()
        phrase = _Phrase(
            topic=row["topic"],
            required=frozenset(tag for tag in when if not tag.startswith("!")),
            excluded=frozenset(tag[1:] for tag in when if tag.startswith("!")),
            weight=float(row["weight"]),
            text={"en": row["text"], "zh": row["zh"]},
        )
        for label in labels if row["label"] == "*" else {row["label"]}:
            out[row["part"], label] += (phrase,)
    return out
