"""Advice in letters: which of a letter's sentences are advice, and which of that advice a reply gives too."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pmlm_env.encoders.sentences import SentenceEncoder

#: Least cosine of two pieces that advise the same, from ``python -m benchmarks.advice``.
THRESHOLD = 0.61

#: The number of pieces whose embeddings are kept, 1.5 KiB each: of a patient's replies most are alike.
_KEPT = 10_000

#: Words before a full stop that does not end a sentence.
_ABBREVIATIONS = ("Dr", "Mr", "Mrs", "Ms", "Prof", "St", "No", "vs", "approx", "e.g", "i.e", "cf", "min", "tab", "inj")
_NOT_ABBREVIATED = "".join(rf"(?<!\b{re.escape(word)}\.)" for word in _ABBREVIATIONS)
_END = re.compile(
    rf"(?<=[.!?]){_NOT_ABBREVIATED}[\"')\]]*\s+(?=[\"'(\[*_-]*[A-Z0-9])"
    r"|(?<=[\u3002\uff01\uff1f])|[;\uff1b\n]+|\s+[\u2022\u25cf]\s+"  # the first three: stops of Chinese sentences
)
#: A line break due to the length of a line.
_WRAPPED = re.compile(r"(?<=[^\n]{60})[^\S\n]*\n[^\S\n]*(?=[a-z])")
_MARKUP = re.compile(r"[*`#]+")
_LIST_MARKER = re.compile(r"\A\s*(?:[-\u2013\u2022\u25cf+]|\(?\d{1,2}[.)](?=\s))+\s*")

_HEADING_OF_ADVICE = re.compile(
    r"(?:\A|\n|[.!?;])\s*(?:(?:discharge|follow-?up|general|home|lifestyle|medical|patient|post\w*)\s+)?"
    r"(?:advice|follow[\s-]?up(?:\s+plan)?|instructions?|plan|recommendations?)(?:\s+(?:at|on)\s+discharge)?\s*:\s*",
    re.IGNORECASE,
)
#: The end of the text under a heading: an empty line, or a line that starts with another heading.
_END_OF_SECTION = re.compile(r"(?<=\S)[^\S\n]*\n\s*\n|\n\s*[A-Z][\w /&-]{1,40}:")

_VERBS = (
    r"adhere|apply|arrange|ask|attend|avoid|bathe|begin|book|breastfeed|bring|call|carry|change|check|clean|come"
    r"|complete(?!\s+(?:blood|count))|consider|consult|contact|continue|count|cut|decrease|deliver|discontinue|discuss|do"
    r"|double|drink|eat|elevate|ensure|exercise|feed|finish|follow|get|give|go|halve|have|hold|increase|inject|keep|learn"
    r"|lie|lift|limit|lose|lower|maintain|make|measure|monitor|nurse|perform|plan|practi[cs]e|prevent|quit|raise|recheck"
    r"|record|reduce|refrain|remember|remove|repeat|report|resume|rest|restart|restrict|return|review|schedule|see|seek"
    r"|sleep|start|stay|stop|swim|take|taper|test|treat|try|use|visit|walk|wash|watch|wear|weigh"
)
#: Before the verb: "please", "if the fever returns, ...", "at home, ...", "Diet: ...".
_LEAD_IN = (
    r"(?:(?:please|kindly|also|always|then|and|or|otherwise|gently|carefully|strictly|immediately)\b[\s,]*"
    r"|(?:if|when|whenever|in\s+case|after|before|until|at|during|for|once|on|to)\b[^.,:]{1,100}[,:]\s*"
    r"|(?:activity|diet|exercise|medications?|next\s+steps?|treatment|wound\s+care)\s*:\s*)*"
)
_APOSTROPHE = "['\u2019]"
_CONJUNCTION = r"after|as|because|before|if|once|so|that|to|unless|until|when|whenever|where|which|while|who"
_FINITE = r"(?:is|was|are|were|has|had|shows?|showed|shown|reveals?|revealed|remains?|remained)"
#: "Repeat the count", but not "Repeat count was normal".
_IMPERATIVE = re.compile(
    rf"\A{_LEAD_IN}(?:(?:do\s+not|don{_APOSTROPHE}?t|never)\s+\w+|no\s+(?:alcohol|driving|exercise|heavy|intercourse|lifting|smoking)"
    rf"|follow[\s-]?up|{_VERBS})\b(?!(?:\s+(?!(?:{_CONJUNCTION})\b)[\w'/%-]+){{0,6}}\s+{_FINITE}\b)",
    re.IGNORECASE,
)
#: "You should rest", "you shouldn't drive", "we recommend rest", "smoking is to be avoided"
_MODAL = re.compile(
    rf"\b(?:(?:should|must|ought\s+to)(?:n{_APOSTROPHE}t)?\b(?!\s+have\b)"
    rf"|(?<!\bno\s)(?<!\bnot\s)(?<!n{_APOSTROPHE}t\s)needs?\s+to|(?:is|are|was|were)\s+(?:\w+ly\s+)?(?:advised"
    r"|encouraged|instructed|recommended|urged|advisable|to\s+(?:avoid|be\s+(?:avoided|continued|repeated|taken)|continue|return"
    r"|take))|(?:i|we|would)\s+(?:\w+ly\s+)?(?:advi[sc]e|recommend|suggest)|please|recommendation\s+is)\b",
    re.IGNORECASE,
)
_NOT_GO_ON = r"(?!(?:delay|discontinue|forget|hesitate|miss|skip|stop)\b)"
#: "Do not drive", "the patient should avoid salt"; but "do not stop" tells to go on.
_AGAINST = re.compile(
    rf"(?:\A{_LEAD_IN}|\b(?:should|must|(?:advi[sc]e|recommend|instruct)\w*(?:\s+to)?)\s+)"
    rf"(?:(?:(?:do\s+)?not|don{_APOSTROPHE}?t|never|no)\s+{_NOT_GO_ON}"
    r"|(?:against|avoid|discontinue|quit|refrain|stop)\b)"
    rf"|\b(?:should|must)n{_APOSTROPHE}t\s+{_NOT_GO_ON}",
    re.IGNORECASE,
)


class Advice:
    """Finds a letter's advice in replies, by likeness of sentence embeddings.

    A piece of a letter's advice is found in a reply if the cosine of its embedding (``SentenceEncoder``) with that of
    any piece of the reply's own advice is at least ``THRESHOLD``; see ``advice_of`` for both. A piece that advises
    against something ("stop", "avoid", "do not") is only compared with others that do.

    The threshold is the best one on 62 pairs of a letter's advice and a sentence of a reply, written (50) or taken from
    replies of the default LLM (12), and labeled by hand (benchmarks/advice_pairs.csv; most of the pairs that differ are
    about the same drug, test or wound, or are as general as "seek medical attention"). It judges 77 % of them as
    labeled: it finds 70 % of the advice that is there, and takes 17 % of other advice for it, mostly another drug or
    another dose. Judged by the best threshold of the other 61 pairs, 26 % are errors; of 30 further pairs, written
    after these rules, 20 %.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    def __init__(self, device: str = "auto") -> None:
        """Find the encoder; its weights are loaded when they are first used."""
        self._encoder = SentenceEncoder(device)
        self._vectors: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()

    def found(self, replies: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the share of each letter's pieces of advice that are found in the reply at the same index.

        Args:
            replies: N texts.
            references: N letters.

        Returns:
            Float64 (N,); NaN where the letter has no advice.
        """
        shares = np.full(len(replies), np.nan)
        for i, (reply, letter) in enumerate(zip(replies, references, strict=True)):
            if advice := advice_of(letter):
                shares[i] = (self.likeness(advice, reply) >= THRESHOLD).mean()
        return shares

    def likeness(self, advice: Sequence[str], reply: str) -> npt.NDArray[np.float64]:
        """Return the highest cosine of each piece of advice with any piece of the reply's own advice, float64 (n,).

        It is -1 where there is none to compare. The latest embeddings are kept.
        """
        pieces = list(dict.fromkeys(advice_of(reply)))
        if not pieces:
            return np.full(len(advice), -1.0)
        cosines = self._embed(advice) @ self._embed(pieces).T
        same_sense = np.equal.outer([_is_against(text) for text in advice], [_is_against(text) for text in pieces])
        return np.where(same_sense, cosines, -1.0).max(axis=1)

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the unit vectors of N texts, float32 (N, H)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(new, self._encoder.encode(new), strict=True))
        for text in texts:
            self._vectors.move_to_end(text)
        rows = np.stack([self._vectors[text] for text in texts])
        while len(self._vectors) > _KEPT:
            self._vectors.popitem(last=False)
        return rows


def pieces_of(text: str) -> tuple[str, ...]:
    """Split a text into sentences, items of lists and parts between semicolons, without markup and list markers."""
    text = _WRAPPED.sub(" ", _MARKUP.sub("", text))
    pieces = (_LIST_MARKER.sub("", piece).strip(" \t\r\"'") for piece in _END.split(text))
    return tuple(piece for piece in pieces if re.search(r"[^\W\d_]", piece))


def advice_of(letter: str) -> tuple[str, ...]:
    """Return a letter's pieces of advice, in order; English only.

    A piece (``pieces_of``) is advice

    - if it stands under a heading of advice ("Advice:", "Recommendations:", "Discharge instructions:", "Plan:",
      "Follow-up:"), which ends at an empty line or at a line with another heading;
    - or if it is an imperative ("Take iron", "If the fever returns, call us", "Do not lift", "Follow-up in two weeks");
    - or if it has a modal of advice ("you should rest", "iron is recommended", "we advise", "please").
    """
    letter = _MARKUP.sub("", letter)
    found: list[str] = []
    before = 0
    for heading in _HEADING_OF_ADVICE.finditer(letter):
        if heading.start() < before:
            continue
        found += filter(_is_advice, pieces_of(letter[before : heading.start() + 1]))
        end = _END_OF_SECTION.search(letter, heading.end())
        before = end.start() if end else len(letter)
        found += pieces_of(letter[heading.end() : before])
    return (*found, *filter(_is_advice, pieces_of(letter[before:])))


def _is_advice(piece: str) -> bool:
    return bool(_IMPERATIVE.search(piece) or _MODAL.search(piece))


def _is_against(piece: str) -> bool:
    return _AGAINST.search(piece) is not None
