"""Finding label mentions in a text: whole words, longest match first, each with what the text says of it.

A module per language decides what counts as asserted, possible or denied: ``pmlm_env.cohort.naming.english`` and
``pmlm_env.cohort.naming.chinese``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from pmlm_env.cohort.naming import chinese, english
from pmlm_env.cohort.naming.status import NAMED, STATUSES, Status
from pmlm_env.core.languages import HAN, is_chinese

# A match may touch a Han character, because Chinese has no spaces, but no letter: "PROM" is not in "compromise".
_LETTER = f"[^\\W{HAN}]"
_HAN = f"[{HAN}]"
# LLMs write "pre-eclampsia" with various hyphens, and "steroid-induced" also without one.
_HYPHEN = "[-\u2010\u2011\u2012\u2013\\s]"
# "Crohn's disease" has a straight apostrophe in one text, and a curly one in another.
_APOSTROPHE = "['`\u00b4\u2018\u2019\u02bc]"
_ALIKE = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013", "-") | dict.fromkeys("`\u00b4\u2018\u2019\u02bc", "'"))
# Another condition: "pre-diabetes" is no diabetes, "non-Hodgkin lymphoma" no Hodgkin lymphoma, "gout-like" not gout.
_OTHER_BEFORE = "".join(f"(?<!\\b{prefix}{_HYPHEN})" for prefix in ("non", "pre", "pseudo"))
_OTHER_AFTER = "(?![-\u2010\u2011]like\\b)"
_PARENTHESES = {sign: r"\s*[(\uff08]\s*" for sign in "(\uff08"} | {sign: r"\s*[)\uff09]" for sign in ")\uff09"}
#: How near to a mention a Chinese text has a Han character, if the mention is part of a Chinese sentence.
_NEAR = 20


@dataclass(frozen=True, slots=True)
class Mention:
    """One mention of a label in a text.

    Attributes:
        label: The label's name.
        start: Index of the phrase's first character.
        end: Index after its last character.
        status: Whether the text says that the patient has the condition, considers it, denies it, or (``other``) does
            not speak of this patient now.
    """

    label: str
    start: int
    end: int
    status: Status

    @property
    def named(self) -> bool:
        """Whether the text names the condition as a diagnosis, even if only as a possibility."""
        return self.status in NAMED


def find_mentions(text: str, phrases: Mapping[str, Sequence[str]], language: str = "en") -> list[Mention]:
    """Return all mentions of labels in ``text``, in order.

    A phrase within a longer one is not a mention: "gestational diabetes" does not mention "diabetes" where both
    are labels. Case, amount of whitespace, kind of hyphen and width of parentheses are ignored. A phrase that two
    labels share mentions both.

    Args:
        text: Any text.
        phrases: The phrases that name each label; blank ones are ignored.
        language: A BCP 47 tag. In a Chinese text, mentions far from any Han character are judged as English ones; the
            texts of all other languages are judged as English.
    """
    pattern, owners = _compile(tuple((label, tuple(names)) for label, names in phrases.items()))
    mentions: list[Mention] = []
    spans: list[tuple[int, int, Status]] = []
    found: list[list[str]] = []
    for match in pattern.finditer(text):
        group = match.lastindex or 0
        start, end = match.span(group)
        if spans and end <= spans[-1][1]:
            continue  # inside a longer phrase that starts earlier
        rules = chinese if is_chinese(language) and _is_in_chinese(text, start, end) else english
        status = rules.status_of(text, start, end)
        if spans and status in NAMED and rules.extends_forward(text, *spans[-1][1:], start, end):
            status = _weaker(status, spans[-1][2])
        if status != "asserted" and spans and rules.extends_backward(text, spans[-1][1], start, end):
            _weaken_items(text, spans, status)
        spans.append((start, end, status))
        found.append(owners[group - 1])
    for (start, end, status), labels in zip(spans, found, strict=True):
        mentions += [Mention(label, start, end, status) for label in labels]
    return mentions


def _is_in_chinese(text: str, start: int, end: int) -> bool:
    """Whether a Han character is in or near a mention."""
    return re.search(_HAN, text[max(0, start - _NEAR) : end + _NEAR]) is not None


def _weaken_items(text: str, spans: list[tuple[int, int, Status]], status: Status) -> None:
    """Apply the status of a list's last item to the earlier ones: "A, B and C were ruled out"."""
    for index in reversed(range(len(spans))):
        first, last, before = spans[index]
        spans[index] = (first, last, _weaker(before, status))
        if index and text[spans[index - 1][1] : first].strip() not in (",", "\u3001"):
            break


def _weaker(one: Status, other: Status) -> Status:
    return max(one, other, key=STATUSES.index)


@lru_cache(maxsize=64)
def _compile(phrases: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[re.Pattern[str], list[list[str]]]:
    """Return a pattern with one group per phrase, by first letter, longest first, and the labels of each group.

    The groups are in a lookahead, so that overlapping phrases are all found.
    """
    owners: dict[str, list[str]] = {}
    for label, names in phrases:
        for name in names:
            key = " ".join(name.lower().translate(_ALIKE).split())
            if key and label not in owners.setdefault(key, []):
                owners[key].append(label)
    ordered = sorted(owners, key=lambda phrase: (phrase[0], -len(phrase)))
    han = [phrase for phrase in ordered if re.match(_HAN, phrase)]
    spaced = [phrase for phrase in ordered if not re.match(_HAN, phrase)]
    pattern = f"(?<!{_LETTER}){_OTHER_BEFORE}(?={_alternatives(spaced)})|(?={_alternatives(han)})"
    return re.compile(pattern, re.IGNORECASE), [owners[phrase] for phrase in (*spaced, *han)]


def _alternatives(phrases: Sequence[str]) -> str:
    """Return the phrases' groups; most are passed over by their first letter, which saves time where there are many."""
    by_letter = [
        f"(?={_body(letter)})(?:{'|'.join(f'({_to_regex(phrase)})' for phrase in group)})"
        for letter, group in groupby(phrases, key=itemgetter(0))
    ]
    return "|".join(by_letter) or "(?!)"


def _to_regex(phrase: str) -> str:
    return _body(phrase) if re.match(_HAN, phrase[-1]) else f"{_body(phrase)}(?!{_LETTER}){_OTHER_AFTER}"


def _body(phrase: str) -> str:
    special = {" ": r"\s+", "-": _HYPHEN, "'": _APOSTROPHE, **_PARENTHESES}
    return "".join(special.get(letter) or re.escape(letter) for letter in phrase)
