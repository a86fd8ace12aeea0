"""Whether a text says that the patient has a condition that it mentions.

The rules are those of NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., J Biomed Inform 2009),
in a small version of our own: cues before and after a mention, phrases that only look like cues ("cannot rule out",
"not only", "no increase in"), and words that end a cue's reach ("but", "except", "due to"). Nothing reaches beyond its
sentence or line.

- Denied: "no sign of A", "without A", "A was ruled out", "A: no", "negative screening for A", "B rather than A".
- Not said of this patient now: what may come ("the risk of A", "if you develop A", "watch for A"), what somebody else
  has ("family history of A", "her sister had A"), what is over ("A has resolved"), and a question ("Do you have A?").
- Said, though with less certainty: "possible A", "A?", "we cannot rule out A", "A is not unlikely", "history of A".

What they miss: denials that need more than the sentence itself ("A? The test says otherwise."), irony, most spelling
mistakes, and every language but English.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Characters looked at on either side: more than any cue and its reach take.
_REACH = 160

_WORD = r"\w[\w'/%+-]*"

#: Words behind which a cue before the mention no longer counts.
_ENDS = (
    r"but|however|although|though|yet|nevertheless|except|besides|(?:apart|aside)\s+from|other\s+than|whereas|while"
    r"|because|since|who|which|due\s+to|secondary\s+to|caused\s+by|resulting\s+from|owing\s+to"
)
#: A finite verb or participle: a list of findings does not go on behind it.
_VERB = (
    r"is|was|are|were|has|have|had|shows?|showed|remains?|persists?|requires?|needs?|presents?|suffers?|confirms?"
    r"|confirmed|diagnosed|detected|found|present|positive|controlled|treated|on|under"
)

# --- What stands before the mention. Each pattern is matched against the clause that ends where the mention starts.

#: Up to six words of the same clause.
_WORDS = rf"(?:\s+(?!(?:{_ENDS})\b){_WORD}){{0,6}}(?<!\bher)(?<!\byour)\s*\Z"
#: Items of a list, the last of which is the mention.
_ITEM_WORD = rf"(?!(?:{_ENDS}|{_VERB}|and|or|nor)\b){_WORD}"
_ITEM = rf"\s*{_ITEM_WORD}(?:\s+{_ITEM_WORD}){{0,4}}"
_ITEMS = rf"{_ITEM}(?:\s*,{_ITEM})*(?:\s*,\s*|\s+)(?:(?:and/or|and|or|nor)\s+)?(?:{_ITEM_WORD}\s+){{0,3}}\Z"

#: After "no" these deny something else than the condition, or nothing.
_NO_BUT = (
    r"\d|(?:significant\s+|interval\s+)?(?:change|improvement|increase|decrease|worsening|deterioration|progress\w*)\b"
    r"|one\s+doubts|doubt|question|need\b|treatment|medication|therapy|insulin|intervention|surgery|cure"
    r"|complications?\s+(?:of|from|due)\b"
    r"|further\b(?!\s+(?:evidence|signs?)\b)|reason\b(?!\s+to\s+(?:suspect|think|believe|assume|expect)\b)"
)
#: After "not" likewise.
_NOT_BUT = (
    r"only|just|merely|simply|solely|certain|sure|clear|know\w*|to\s+mention"
    r"|(?:\w+ly\s+)?(?:stop|skip|ignore|forget|delay|miss|neglect|underestimate|overlook|discontinue|worry|panic|fear"
    r"|hesitate|wait|need|require|advis\w+|recommend\w+|indicated|allowed|given|necessary|needed|required|enough"
    r"|sufficient|treat\w*|manag\w+|affect(?!ed\s+by)\w*|chang\w+|alter\w*|increas\w+|reduc\w+|worsen\w*|complicat\w+"
    r"|control\w*|caus\w+|help\w*|let|leave|eat|drink|take|taking|use|smoke)\b"
)
_NOT = r"(?:\bnot|\bcannot|\w+n't|\bnever)\b"
_DENIES = rf"(?:\bno\b(?!\.?\s*(?:{_NO_BUT}))|{_NOT}(?!\s+(?:{_NOT_BUT}))|\b(?:nor|neither|nothing|none\s+of)\b)"
#: Denials that may be denied in their turn: "cannot rule out", "not free of".
_DENIES_UNLESS_DENIED = (
    r"\b(?:rul(?:e|es|ed|ing)[\s-]+out|r/o|exclud(?:e|es|ed|ing)|exclusion\s+of"
    r"|without(?!\s+(?:a\s+|any\s+)?(?:doubt|question|treatment|therapy)\b)|lack(?:s|ed|ing|\s+of)?|absence\s+of"
    r"|absent|devoid\s+of|(?:free|clear)\s+(?:of|from)|negative\s+for|den(?:y|ies|ied|ying)|denial\s+of|unlikely"
    r"|improbable|(?:less|hardly)\s+likely|more\s+likely\s+than"
    r"|fail(?:s|ed)?\s+to\s+(?:show|reveal|detect|confirm|demonstrate|meet)"
    r"|(?:argu\w+|speaks?|evidence)\s+against"
    rf"|negative(?:\s+{_WORD}){{0,3}}?\s+(?:for|of)|negative(?=\s*\Z)|rather\s+than|instead\s+of|as\s+opposed\s+to"
    r"|resolved(?=\s*\Z)|resolution\s+of)\b"
)
#: A denial of a denial, up to four words before it, with no list or clause between.
_DENIED_IN_TURN = re.compile(
    rf"(?:{_NOT}|\b(?:no|nothing|unable|impossible|difficult|hard|too\s+(?:early|soon)|insufficient|without|hardly"
    rf"|fail(?:s|ed|ure)?|false|falsely)\b)(?:\s+(?!(?:{_ENDS}|and|or|with)\b){_WORD}){{0,4}}\s*\Z",
    re.IGNORECASE,
)
#: Cues behind which a list may lack its "or": "denies A, B, C".
_LISTING = r"(?:\bdenie[sd]|\bnegative\s+for|\b(?:free|clear)\s+(?:of|from)|\bneither|\brul(?:es|ed|ing)\s+out)"

_BEFORE = re.compile(rf"{_DENIES}{_WORDS}", re.IGNORECASE)
_BEFORE_UNLESS_DENIED = re.compile(rf"{_DENIES_UNLESS_DENIED}{_WORDS}", re.IGNORECASE)
_BEFORE_LIST = re.compile(rf"(?:{_DENIES}|{_DENIES_UNLESS_DENIED}){_ITEMS}", re.IGNORECASE)
_BEFORE_LISTING = re.compile(rf"{_LISTING}{_ITEMS}", re.IGNORECASE)
_HEADING = re.compile(
    r"\b(?:(?:ruled\s+out|excluded|absent|negative(?:\s+for)?|denies|free\s+(?:of|from)"
    rf"|not\s+(?:found|detected|seen|present))(?:\s+{_WORD}){{0,2}}|no\s+(?:evidence|signs?)\s+of)"
    rf"\s*:\s*(?:{_WORD}[\s,]+){{0,12}}\Z",
    re.IGNORECASE,
)

#: What may come, or is looked for, up to a few words before the mention.
_AHEAD = re.compile(
    r"\b(?:risks?(?:\s+factors?)?\s+(?:of|for)|at\s+(?:\w+\s+)?risk\s+(?:of|for)|prevent(?:s|ed|ing|ion\s+of)?"
    r"|avoid(?:s|ing)?|protects?\s+(?:you\s+)?(?:against|from)|develop(?:ing|ment\s+of)"
    r"|(?:may|might|could|can)\s+(?:lead\s+to|develop|cause|result\s+in)"
    r"|(?:watch|look(?:ing)?|monitor(?:ing|ed)?|screen(?:ing|ed|s)?|test(?:ing|ed|s)?|check(?:ing|ed|s)?|evaluat\w+"
    r"|assess\w*|examin\w+)\s+(?:out\s+)?(?:again\s+)?for)"
    rf"(?:\s+(?!(?:{_ENDS}|{_VERB}|from|by|in|with|your|her|my|this|existing|known)\b){_WORD}){{0,3}}\s*\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|whether|should\s+(?:you|she)|in\s+(?:the\s+)?(?:case|event)\s+of)\b"
    rf"(?:\s+(?!(?:{_ENDS}|your|her|my|this|existing|known)\b){_WORD}){{0,7}}\s*\Z",
    re.IGNORECASE,
)
#: "not sure whether A" is no denial, but "whether A" alone says nothing of A.
_UNSURE = re.compile(r"\b(?:not|n't|un)\s*(?:certain|sure|clear|known)\s+(?:if|whether)\b", re.IGNORECASE)
_OTHERS = re.compile(
    r"\b(?:family\s+history\s+(?:of|for|is\s+positive\s+for)"
    r"|(?:her|your|patient's)\s+(?:mother|father|sister|brother|husband|partner|aunt|uncle|grandmother|cousin|parents?)"
    rf"\s+(?:has|had|have|with|who\s+(?:has|had)|suffer\w*|was))(?:\s+(?!(?:{_ENDS})\b){_WORD}){{0,4}}\s*\Z",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\s*(?:\W*\d+[.)]\s*)?(?:do|does|did|is|are|was|were|has|have|had|can|could|should|would|will|what|why|how|when)\b"
    rf"(?:[\s,]+(?!(?:{_ENDS})\b){_WORD})*\s*\Z",
    re.IGNORECASE,
)

# --- What stands behind the mention.

#: A short form in brackets, and what a test of the condition is called: "gestational diabetes (GDM) screening".
_BRIDGE = (
    r"(?:\)|\s*\(\w{2,8}\))?(?:\s+(?:mellitus|screen(?:ing|s)?|tests?|testing|results?|status|serology|carrier|trait"
    r"|antibod(?:y|ies)|work-?up|evaluation|criteria|diagnosis|findings?|currently|today|at\s+this\s+time)){0,3}"
)
_AUXILIARY = (
    r"(?:(?:is|was|are|were|be|been|has|have|had|can|could|may|might|appears?|seems?|looks?|came|comes?|back|returned"
    r"|turned|out|tested|(?:should\s+be\s+)?considered|to|therefore|thus|also|now|already|very|so|far"
    r"|(?!hardly\b)\w+ly)\s+){0,5}"
)
_FOUND = (
    r"(?:found|seen|present|detected|suspected|likely|confirmed|diagnosed|evident|identified|observed|demonstrated"
    r"|noted|supported|established|apparent|there|the\s+(?:case|diagnosis|cause)|met|fulfilled)\b"
)
_STOP = r"(?=\s*(?:[.,;:!?)\]|(\n]|\Z|and\b|but\b))"
#: "A: no", "A (negative)", "A? No."
_ANSWER = (
    rf"\s*(?:[:=|(\[?\t]|\.{{2,}}|\s[-\u2013\u2014]\s)\s*"
    rf"(?:(?:no|none|nil|n|neg|false|absent|denied|never|n/?a){_STOP}"
    r"|no\s+(?:evidence|signs?|indications?)\b|none\s+(?:detected|found|seen)\b|not\s+applicable\b)"
)
#: "A (-)", "A -ve"
_SIGN = r"\s*[:=]?\s*(?:[(\[]\s*[-\u2013\u2014\u2212]\s*[)\]]|-ve\b|[\u2717\u2718\u274c])"
#: "A was ruled out", "A: unlikely", "A was suspected but not confirmed", "A, excluded by ultrasound"
_RULED_OUT = r"(?:ruled\s+out|excluded|unlikely|absent)"
_PREDICATE = (
    rf"\s*[:=|(\[-]?\s*{_AUXILIARY}(?:(?:suspected|discussed)\s*,?\s*)?(?:(?:but|and|yet)\s+(?:then\s+)?{_AUXILIARY})?"
    rf"(?:{_RULED_OUT}|improbable|doubtful|less\s+likely|denied|disproved|refuted|resolved|disappeared|gone"
    r"|no\s+longer\s+\w+|neg(?:ative|\.)(?!\s+(?:family|impact|effect|pressure|for)\b)"
    rf"|(?:not|never)\s+(?:\w+ly\s+|been\s+)?{_FOUND})(?!\w)"
    rf"|\s*,\s*(?:{_RULED_OUT}|resolved){_STOP}"
    rf"|\s+(?:is|was|are|were|has|have|had)n't\s+(?:been\s+)?{_FOUND}"
    r"|\s+(?:(?:did|does|do|has|have)(?:\s+not|n't)|never)\s+(?:occur|develop|exist|appear|happen)(?:r?ed)?\b"
)
#: "A and whatever were ruled out"
_WITH_OTHERS = (
    rf"(?:\s*,(?:\s+{_ITEM_WORD}){{1,4}}){{0,6}}\s*,?\s+(?:and|or)(?:\s+{_ITEM_WORD}){{1,4}}"
    rf"\s+(?:are|were|have\s+been)\s+(?:{_WORD}\s+)?(?:{_RULED_OUT}|negative|not\s+{_FOUND})(?!\w)"
)
_AFTER = re.compile(rf"{_BRIDGE}(?:{_ANSWER}|{_SIGN}|{_PREDICATE}|{_WITH_OTHERS})", re.IGNORECASE)
#: The plural is of all that "A and B were ruled out" names.
_OF_SEVERAL = re.compile(
    r"\s*(?:are|were|have|both|can|could|seem|appear|ruled|excluded|unlikely|absent)\b", re.IGNORECASE
)
#: "X and A is well controlled": a clause of its own, which a cue before X does not reach.
_OWN_CLAUSE = re.compile(rf"{_BRIDGE}\s+(?:{_VERB})\b(?!\s+(?:not|no)\b)", re.IGNORECASE)
_POSITIVE = re.compile(
    rf"{_BRIDGE}\s*[:=(]?\s*{_AUXILIARY}(?:positive|confirmed|detected|found|abnormal|yes|diagnosed|present)\b",
    re.IGNORECASE,
)
_PERSISTS = re.compile(r"\s+(?:worsens|gets?\s+worse|progresses|persists|continues|flares)\b", re.IGNORECASE)
_MORE_OF_LIST = re.compile(rf"(?:\s*,{_ITEM})*(?:\s*,\s*|\s+|\s*(?=/))(?:or|nor|and/or|/)\s*", re.IGNORECASE)
_END_OF_ITEM = re.compile(r"\s*(?:[.,;)\n]|\Z|(?:and|or|nor)\b)", re.IGNORECASE)

#: Where a clause starts at the latest: behind the end of a sentence or line, and behind a spaced dash or a bracket.
_START = re.compile(r"[.!?](?!\d)|[;\n()|\[\]\u3002\uff1b\uff0c]|\s[-\u2013\u2014]+\s")
_MARKUP = re.compile(r"[*`]+")
#: A line that was broken for its length, or within a phrase.
_WRAPPED = re.compile(
    r"(?:(?<=[^\n]{60})|(?<=\s(?:of|or|no|to|an))|(?<=\s(?:for|not|any|and|the|was|has)))[^\S\n]*\n[^\S\n]*(?=[a-z])"
)
_JOINED = re.compile(r"\s*,?\s*(?:and/or|and|or|nor|&|/)\s*", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|nor)\b|/", re.IGNORECASE)
_LISTED = re.compile(r"\s*(?:[,/]\s*)?(?:(?:or|nor|and/or)\s+)?", re.IGNORECASE)


def is_denied(text: str, start: int, end: int) -> bool:
    """Whether the text does not say that the patient has what ``text[start:end]`` mentions.

    Args:
        text: Any text.
        start: Where the mention starts.
        end: Where it ends, exclusive.
    """
    before, after = _sides(text, start, end)
    if _AFTER.match(after):
        return True
    clause = _START.split(before)[-1]
    if _OTHERS.search(clause) or _asked(clause, after):
        return True
    if _AHEAD.search(clause) and not _POSITIVE.match(after):
        return True
    if _CONDITION.search(clause) and not (_PERSISTS.match(after) or _UNSURE.search(clause)):
        return True
    return _denied_before(clause, after) or bool(_HEADING.search(clause))


def runs_on(text: str, last_end: int, start: int, end: int) -> bool:
    """Whether a denial of the mention that ends at ``last_end`` holds for the next one too: "no A, B or C"."""
    gap, (_, after) = text[last_end:start], _sides(text, start, end)
    if _LISTED.fullmatch(gap) is None:
        return False
    return _OR.search(gap) is not None or not (_OWN_CLAUSE.match(after) or _POSITIVE.match(after))


def runs_back(text: str, last_end: int, start: int, end: int) -> bool:
    """Whether what is said behind a mention holds for the one that ends at ``last_end``: "A and B were excluded"."""
    gap, (_, after) = text[last_end:start], _sides(text, start, end)
    if not _AFTER.match(after) or _JOINED.fullmatch(gap) is None:
        return False
    return bool(_OF_SEVERAL.match(after)) or ("," not in gap and _OR.search(gap) is not None)


@lru_cache(maxsize=256)
def _sides(text: str, start: int, end: int) -> tuple[str, str]:
    """Return what stands before and behind a mention, as far as it can matter, with one kind of apostrophe."""
    before, after = text[max(0, start - _REACH) : start + 1], text[end : end + _REACH]
    before, after = (_WRAPPED.sub(" ", _MARKUP.sub("", side).replace("\u2019", "'")) for side in (before, after))
    return before[:-1], re.split(r"\n(?![^\S\n]*[a-z])", after, maxsplit=1)[0]


def _denied_before(clause: str, after: str) -> bool:
    found = _last(_BEFORE_UNLESS_DENIED, clause)
    if found is not None:
        return not _DENIED_IN_TURN.search(clause[: found.start()])
    found = _last(_BEFORE, clause)
    if found is not None:
        apart = re.search(r"\band\b[^,]*\Z", clause[found.start() :], re.IGNORECASE)
        return not (apart and _OWN_CLAUSE.match(after))
    found = _last(_BEFORE_LIST, clause)
    if found is not None and not _DENIED_IN_TURN.search(clause[: found.start()]):
        joined = _OR.search(found[0]) or _MORE_OF_LIST.match(after)
        listing = _BEFORE_LISTING.search(clause) and _END_OF_ITEM.match(after)
        return bool(joined or listing) and not _OWN_CLAUSE.match(after)
    return False


def _last(pattern: re.Pattern[str], clause: str) -> re.Match[str] | None:
    """Return the match that starts last: of two cues the one nearest to the mention."""
    found = following = pattern.search(clause)
    while following is not None:
        found, following = following, pattern.search(clause, following.start() + 1)
    return found


def _asked(clause: str, after: str) -> bool:
    """Whether the mention stands in a question of more than its own words ("GDM?" is a suspicion)."""
    ends = re.search(r"[.!?\n]", after)
    return ends is not None and ends[0] == "?" and _QUESTION.match(clause) is not None
