"""Letters about a woman's own latest values: remarks in place of some findings and advice (``personal.csv``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from pmlm_env.cohort.simulator.labs import DECIMALS
from pmlm_env.cohort.simulator.replies import MAX_WORDS, MIN_ADVICE, MIN_WORDS, Reply
from pmlm_env.cohort.simulator.tables import LANGUAGES, SCHEMA, Floats, Said, read_table, word_in


@dataclass(frozen=True, slots=True)
class Remark:
    """What a doctor says about one value.

    Attributes:
        indicator: The indicator.
        finding: The sentence.
        advice: The piece of advice.
        unless: A letter in whose English text this pattern is found does not get the remark, because it would say the
            same twice or contradict itself.
    """

    indicator: str
    finding: Said
    advice: Said
    unless: re.Pattern[str]


def personalize(reply: Reply, values: Floats, share: float, dither: float) -> tuple[Reply, tuple[str, ...]]:
    """Replace some of a letter's findings and advice by remarks on the woman's latest values.

    A remark is a finding with its piece of advice. The findings and advice that the letter has last are replaced first.

    Args:
        reply: The letter.
        values: Her check-ups, shape (n, 35).
        share: Share of findings and advice to replace, from 0 to 1.
        dither: Added to the number of remarks before it is rounded down, from 0 to 1, so that the share is right on
            average over letters with few findings.

    Returns:
        The letter, and the indicators that the remarks are about, the most unusual value first. There are more remarks
        than asked for if the letter would be too short, fewer if it would be too long, and none if too little was
        measured.
    """
    n_findings, n_advice = len(reply.findings), len(reply.advice)
    n_remarks = int(share * (n_findings + n_advice) / 2 + dither)
    if not n_remarks:
        return reply, ()
    letter = replace(
        reply,
        findings=reply.findings[: n_findings - _rounded(share * n_findings)],
        advice=reply.advice[: n_advice - _rounded(share * n_advice)],
    )
    about: list[str] = []
    for remark in remarks(values):
        longer = replace(letter, findings=(*letter.findings, remark.finding), advice=(*letter.advice, remark.advice))
        enough = len(about) >= n_remarks and letter.n_words >= MIN_WORDS and len(letter.advice) >= MIN_ADVICE
        if enough or longer.n_words > MAX_WORDS:
            break
        if not remark.unless.search(letter.text()):
            letter, about = longer, [*about, remark.indicator]
    return (letter, tuple(about)) if about and len(letter.advice) >= MIN_ADVICE else (reply, ())


def remarks(values: Floats) -> list[Remark]:
    """Return the remarks on a woman's latest values, the most unusual value first.

    A value is the more unusual, the farther it is from the middle of its reference range, in widths of the range.

    Args:
        values: Her check-ups, shape (n, 35).
    """
    found = []
    for column, indicator in enumerate(SCHEMA.indicators):
        measured = values[~np.isnan(values[:, column]), column]
        if indicator.reference_high is None or not len(measured):
            continue
        low, high, value = indicator.reference_low or 0.0, indicator.reference_high, float(measured[-1])
        distance = (value - (low + high) / 2) / (high - low)
        side = "high" if distance > 0 else "low"
        row = _rows().get((indicator.name, side))
        if row is not None:
            level = side if indicator.excess(value) else f"{side}-normal"
            printed = f"{value:.{DECIMALS[indicator.name]}f}"
            texts = {"en": row["finding"], "zh": row["finding_zh"]}
            finding = {each: texts[each].format(value=printed, level=word_in(each, level)) for each in LANGUAGES}
            advice: Said = {"en": row["advice"], "zh": row["advice_zh"]}
            unless = re.compile(rf"\b(?:{row['unless']})", re.IGNORECASE)
            found.append((abs(distance), Remark(indicator.name, finding, advice, unless)))
    return [remark for _, remark in sorted(found, key=lambda item: -item[0])]


@cache
def _rows() -> Mapping[tuple[str, str], Mapping[str, str]]:
    """Return the rows of ``personal.csv`` by indicator and side."""
    return {(row["indicator"], row["side"]): row for row in read_table("personal.csv")}


def _rounded(number: float) -> int:
    return int(number + 0.5)
