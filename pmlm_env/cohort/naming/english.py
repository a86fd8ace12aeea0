"""Deciding whether an English text asserts, considers or denies that the patient has a condition that it mentions.

The rules follow NegEx (Chapman et al., J Biomed Inform 2001) and ConText (Harkema et al., J Biomed Inform 2009),
in a small reimplementation: cues before and after a mention, phrases that only look like cues ("cannot rule out", "not
only", "no increase in"), and words that end a cue's scope ("but", "except", "due to"). No scope extends beyond its
sentence or line, but that of a heading does to the items of its list.

In parentheses: the categories of the 2010 i2b2 challenge (Uzuner et al., J Am Med Inform Assoc 2011).

- Asserted (present): "has A", "A: yes", "signs of A", "consistent with A", "history of A".
- Possible (possible): "possible A", "suspected A", "may have A", "suggests A", "differential: A, B", "A vs. B", "A?",
  "A cannot be ruled out", "A is not unlikely", "rule out A" as a request. A cue ends at a preposition ("possible
  complications of A"), and a confirmation overrides it ("suspected A, confirmed by ultrasound").
- Denied (absent): "no sign of A", "without A", "A was ruled out", "A: no", "negative screening for A", "B rather than
  A", "A has resolved".
- Other (hypothetical, conditional, associated with someone else): future risk ("the risk of A", "if you develop A",
  "watch for A"), a test "to rule out A", somebody else's condition ("family history: A", "your sister had A"), a
  question ("Do you have A?").

Not recognized: denials that need more than one sentence ("A? The test says otherwise."), irony, most spelling mistakes,
and languages other than English: for Chinese, see ``pmlm_env.cohort.naming.chinese``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from pmlm_env.cohort.naming.items import heading_of
from pmlm_env.cohort.naming.scope import EXISTING, POSSESSIVE, SCOPE_ENDS, VERB, WORD
from pmlm_env.cohort.naming.status import Status

#: Characters examined on either side of a mention: more than any cue with its scope.
_CONTEXT = 160

# --- Text before the mention. Each pattern is matched against the clause that ends where the mention starts.

#: Up to six words of the same clause.
_WORDS = rf"(?:\s+(?!(?:{SCOPE_ENDS})\b){WORD}){{0,6}}(?<!\bher)(?<!\bhis)(?<!\btheir)(?<!\byour)\s*\Z"
#: Items of a list, the last of which is the mention.
_ITEM_WORD = rf"(?!(?:{SCOPE_ENDS}|{VERB}|and|or|nor)\b){WORD}"
_ITEM = rf"\s*{_ITEM_WORD}(?:\s+{_ITEM_WORD}){{0,4}}"
_ITEMS = rf"{_ITEM}(?:\s*,{_ITEM})*(?:\s*,\s*|\s+)(?:(?:and/or|and|or|nor)\s+)?(?:{_ITEM_WORD}\s+){{0,3}}\Z"

#: After "no", these deny something other than the condition, or nothing.
_NO_IGNORED = (
    r"\d|(?:significant\s+|interval\s+)?(?:change|improvement|increase|decrease|worsening|deterioration|progress\w*)\b"
    r"|one\s+doubts|doubt|question|need\b|treatment|medication|therapy|insulin|intervention|surgery|cure"
    r"|complications?\s+(?:of|from|due)\b"
    r"|further\b(?!\s+(?:evidence|signs?)\b)|reason\b(?!\s+to\s+(?:suspect|think|believe|assume|expect)\b)"
)
_TREATMENT = r"(?:therapy|treatments?|medications?|medicines?|antibiotics|anticoagulation|candidate|surgery)"
#: The same after "not".
_NOT_IGNORED = (
    r"only|just|merely|simply|solely|certain|sure|clear|know\w*|to\s+mention"
    r"|(?:\w+ly\s+)?(?:stop|skip|ignore|forget|delay|miss|neglect|underestimate|overlook|discontinue|worry|panic|fear"
    r"|hesitate|wait|need|require|advis\w+|recommend\w+|indicated|allowed|given|necessary|needed|required|enough"
    r"|sufficient|treat\w*|manag\w+|affect(?!ed\s+by)\w*|chang\w+|alter\w*|increas\w+|reduc\w+|worsen\w*|complicat\w+"
    r"|control\w*|caus\w+|help\w*|let|leave|eat|drink\w*|take|taking|use|smok\w+"
    rf"|(?:{WORD}\s+){{0,3}}?{_TREATMENT}\s+(?:for|of))\b"
)
_NOT = r"(?:\bnot|\bcannot|\w+n't|\bnever)\b"
_DENIES = (
    rf"(?:\bno\b(?!\.?\s*(?:{_NO_IGNORED}))|{_NOT}(?!\s+(?:{_NOT_IGNORED}))|\b(?:nor|neither|nil|nothing|none\s+of)\b)"
)
#: Not what a kind of the condition lacks: "triple-negative breast cancer", "culture negative endocarditis".
_NEGATIVE = r"(?<![\w)][-\u2010\u2011])(?<!triple\s)(?<!culture\s)(?<!smear\s)(?<!her2\s)(?<!rh\s)negative"
#: Denials that may themselves be negated: "cannot rule out", "not free of".
_DENIES_UNLESS_NEGATED = (
    r"\b(?:rul(?:e|es|ed|ing)[\s-]+out|r/o(?:'d)?|exclud(?:e|es|ed|ing)|exclusion\s+of"
    r"|without(?!\s+(?:a\s+|any\s+)?(?:doubt|question|treatment|therapy)\b)|w/o|lack(?:s|ed|ing|\s+of)?|absence\s+of"
    r"|(?:low|small)\s+(?:likelihood|probability|suspicion)\s+(?:of|for)|inconsistent\s+with"
    r"|absent|devoid\s+of|(?:free|clear)\s+(?:of|from)|negative\s+for|den(?:y|ies|ied|ying)|denial\s+of|unlikely"
    r"|improbable|(?:less|hardly)\s+likely|more\s+likely\s+than"
    r"|fail(?:s|ed)?\s+to\s+(?:show|reveal|detect|confirm|demonstrate|meet)"
    r"|(?:argu\w+|speaks?|evidence)\s+against"
    rf"|neg\.?\s+for|negative(?:\s+{WORD}){{0,3}}?\s+(?:for|of)|{_NEGATIVE}(?=\s*\Z)|rather\s+than|instead\s+of|as\s+opposed\s+to"
    r"|resolved(?=\s*\Z)|resolution\s+of)\b"
)
#: A negation of a denial, up to four words before it, with no list or clause between.
_NEGATED_DENIAL = re.compile(
    rf"(?:{_NOT}|\b(?:no|nothing|unable|impossible|difficult|hard|too\s+(?:early|soon)|insufficient|without|hardly"
    rf"|fail(?:s|ed|ure)?|false|falsely)\b)(?:\s+(?!(?:{SCOPE_ENDS}|and|or|with)\b){WORD}){{0,4}}\s*\Z",
    re.IGNORECASE,
)
#: Those of them whose negation leaves the condition possible, unlike "does not deny".
_EXCLUSION = re.compile(r"rul(?:e|es|ed|ing)[\s-]+out|r/o|exclu|unlikely|improbable|hardly", re.IGNORECASE)
#: Cues after which a list needs no "or": "denies A, B, C".
_LISTING = r"(?:\bdenie[sd]|\bnegative\s+for|\b(?:free|clear)\s+(?:of|from)|\bneither|\brul(?:es|ed|ing)\s+out)"

_BEFORE = re.compile(rf"{_DENIES}{_WORDS}", re.IGNORECASE)
_BEFORE_UNLESS_NEGATED = re.compile(rf"{_DENIES_UNLESS_NEGATED}{_WORDS}", re.IGNORECASE)
_BEFORE_LIST = re.compile(rf"(?:{_DENIES}|{_DENIES_UNLESS_NEGATED}){_ITEMS}", re.IGNORECASE)
_BEFORE_LISTING = re.compile(rf"{_LISTING}{_ITEMS}", re.IGNORECASE)
_HEADING = re.compile(
    r"\b(?:(?:ruled\s+out|excluded|absent|negative(?:\s+for)?|denies|free\s+(?:of|from)"
    rf"|not\s+(?:found|detected|seen|present))(?:\s+{WORD}){{0,2}}|no\s+(?:evidence|signs?)\s+of)"
    rf"\s*:\s*(?:{WORD}[\s,]+){{0,12}}\Z",
    re.IGNORECASE,
)

#: Future risk or screening, up to a few words before the mention.
_FUTURE_RISK = re.compile(
    r"\b(?:risks?(?:\s+factors?)?\s+(?:of|for)|at\s+(?:\w+\s+)?risk\s+(?:of|for)|prevent(?:s|ed|ing|ion\s+of)?"
    r"|avoid(?:s|ing)?|protects?\s+(?:you\s+)?(?:against|from)|developing"
    r"|(?<!(?<!be\s)complicated\sby\s)(?<!(?<!be\s)complicated\sby\sthe\s)(?<!\bled\sto\s)(?<!\bled\sto\sthe\s)development\s+of"
    r"|(?:may|might|could|can)\s+(?:lead\s+to|develop|cause|result\s+in)"
    r"|(?:watch|look(?:ing)?|monitor(?:ing|ed)?|screen(?:ing|ed|s)?|test(?:ing|ed|s)?|check(?:ing|ed|s)?|evaluat\w+"
    r"|assess\w*|examin\w+)\s+(?:out\s+)?(?:again\s+)?for)"
    rf"(?:\s+(?!(?:{SCOPE_ENDS}|{VERB}|from|by|in|with|{EXISTING})\b){WORD}){{0,3}}\s*\Z",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|whether|should\s+(?:you|s?he|they|the\s+patient)|in\s+(?:the\s+)?(?:case|event)\s+of)\b"
    rf"(?:\s+(?!(?:{SCOPE_ENDS}|{EXISTING})\b){WORD}){{0,7}}\s*\Z",
    re.IGNORECASE,
)
#: "not sure whether A" is not a denial, but "whether A" alone does not assert A.
_UNSURE = re.compile(r"\b(?:not|n't|un)\s*(?:certain|sure|clear|known)\s+(?:if|whether)\b", re.IGNORECASE)
#: Relatives; "the mother" of an obstetric letter is the patient.
_RELATIVE = (
    r"(?:(?:father|sister|brother|sibling|husband|partner|aunt|uncle|grandmother|grandfather|cousin|parent)s?"
    r"|wife)"
)
_OWN_RELATIVE = rf"(?:{POSSESSIVE}|patient's)\s+(?:{_RELATIVE}|mother|sons?|daughters?)"
_FAMILY = r"\b(?:fam(?:ily)?\s+(?:history|hx)|fhx?)"
#: A heading holds for the list behind it: "family history: hypertension, A".
_NO_RELATIVE = rf"{SCOPE_ENDS}|none|non-?contributory|unremarkable|unknown|s?he|you|patient"
_OTHER_PERSON = re.compile(
    rf"{_FAMILY}(?:\s*:\s*(?:(?!(?:{_NO_RELATIVE})\b){WORD}[\s,]+){{0,12}}"
    r"|\s+(?:of|for|includes?|(?:is\s+)?(?:significant|notable|positive|remarkable)\s+for)\s+"
    rf"(?:(?!(?:{_NO_RELATIVE}|{VERB})\b){WORD}[\s,]+){{0,8}})\Z"
    rf"|\b(?:{_OWN_RELATIVE}|(?:the\s+|both\s+)?{_RELATIVE})"
    rf"(?:\s+and\s+(?:{_OWN_RELATIVE}|{_RELATIVE}|mother|sons?|daughters?))?"
    r"(?:\s*:|\s+(?:also\s+)?(?:has|had|have|with|who\s+(?:has|had)|suffer\w*|was|were|is|are|died\s+of))"
    rf"(?:\s+(?!(?:{SCOPE_ENDS})\b){WORD}){{0,4}}\s*\Z",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\s*(?:\W*\d+[.)]\s*)?(?:do|does|did|is|are|was|were|has|have|had|can|could|should|would|will|what|why|how|when)\b"
    rf"(?:[\s,]+(?!(?:{SCOPE_ENDS})\b){WORD})*\s*\Z",
    re.IGNORECASE,
)

# --- Text after the mention.

#: An abbreviation in parentheses and words for tests of the condition: "gestational diabetes (GDM) screening".
_BRIDGE = (
    r"(?:\)|\s*\(\w{2,8}\))?(?:\s+(?:mellitus|screen(?:ing|s)?|tests?|testing|results?|status|serology|carrier|trait"
    r"|antibod(?:y|ies)|work-?up|evaluation|criteria|diagnosis|findings?|currently|today|at\s+this\s+time)){0,3}"
)
_AUXILIARY = (
    r"(?:(?:is|was|are|were|be|been|has|have|had|can|could|may|might|appears?|seems?|looks?|came|comes?|back|returned"
    r"|turned|out|tested|(?:should\s+be\s+)?considered|deemed|felt|thought|to|therefore|thus|also|now|already|very|so|far"
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
_RULED_OUT = rf"(?:ruled\s+out|r/o(?:'d|{_STOP})|excluded|unlikely|absent)"
_PREDICATE = (
    rf"\s*[:=|(\[-]?\s*{_AUXILIARY}(?:(?:suspected|discussed)\s*,?\s*)?(?:(?:but|and|yet)\s+(?:then\s+)?{_AUXILIARY})?"
    rf"(?:{_RULED_OUT}|improbable|doubtful|less\s+likely|denied|disproved|refuted|resolved|disappeared|gone"
    rf"|no\s+longer\s+\w+|neg(?:ative|\.|{_STOP})(?!\s+(?:family|impact|effect|pressure|for)\b)"
    rf"|(?:not|never)\s+(?:\w+ly\s+|been\s+|be\s+)?{_FOUND})(?!\w)"
    rf"|\s*,\s*(?:{_RULED_OUT}|resolved){_STOP}"
    rf"|-free\b|\s+free{_STOP}"
    rf"|\s+(?:is|was|are|were|has|have|had)n't\s+(?:been\s+)?{_FOUND}"
    r"|\s+(?:(?:did|does|do|has|have)(?:\s+not|n't)|never)\s+(?:occur|develop|exist|appear|happen)(?:r?ed)?\b"
)
#: "A and something else were ruled out"
_WITH_OTHERS = (
    rf"(?:\s*,(?:\s+{_ITEM_WORD}){{1,4}}){{0,6}}\s*,?\s+(?:and|or)(?:\s+{_ITEM_WORD}){{1,4}}"
    rf"\s+(?:are|were|have\s+been)\s+(?:{WORD}\s+)?(?:{_RULED_OUT}|negative|not\s+{_FOUND})(?!\w)"
)
_AFTER = re.compile(rf"{_BRIDGE}(?:{_ANSWER}|{_SIGN}|{_PREDICATE}|{_WITH_OTHERS})", re.IGNORECASE)
#: The plural in "A and B were ruled out" refers to all items.
_OF_SEVERAL = re.compile(
    r"\s*(?:are|were|have|both|can|could|seem|appear|ruled|excluded|unlikely|absent)\b", re.IGNORECASE
)
#: "X and A is well controlled": a separate clause, outside the scope of a cue before X.
_OWN_CLAUSE = re.compile(rf"{_BRIDGE}\s+(?:{VERB})\b(?!\s+(?:not|no)\b)", re.IGNORECASE)
_POSITIVE = re.compile(
    rf"{_BRIDGE}\s*[:=(]?\s*{_AUXILIARY}(?:positive|confirmed|detected|found|abnormal|yes|diagnosed|present)\b",
    re.IGNORECASE,
)
_PERSISTS = re.compile(r"\s+(?:worsens|gets?\s+worse|progresses|persists|continues|flares)\b", re.IGNORECASE)
_MORE_OF_LIST = re.compile(rf"(?:\s*,{_ITEM})*(?:\s*,\s*|\s+|\s*(?=/))(?:or|nor|and/or|/)\s*", re.IGNORECASE)
_END_OF_ITEM = re.compile(r"\s*(?:[.,;)\n]|\Z|(?:and|or|nor)\b)", re.IGNORECASE)

# --- Uncertainty, before and after the mention.

#: Up to five words of a noun phrase, which a preposition ends: "possible" is not about A in "possible effects of A".
_PREPOSITIONS = (
    r"about|after|against|at|before|by|despite|during|for|from|if|in|into|of|on|over|through|to|under|until"
    r"|with|without"
)
_CERTAIN = r"confirmed|definite|definitely|documented|established|proven"
_PHRASE_WORD = rf"(?!(?:{SCOPE_ENDS}|{_PREPOSITIONS}|{EXISTING}|{_CERTAIN})\b){WORD}"
_CASE_OF = r"(?:cases?|degree|diagnos[ei]s|evidence|features?|form|onset|presence|signs?|symptoms?)\s+of"
_PHRASE = rf"(?:(?:\s+{_PHRASE_WORD}){{0,2}}\s+{_CASE_OF})?(?:\s+{_PHRASE_WORD}){{0,5}}\s*\Z"
#: "as soon as possible" and "possible to treat" are about something else.
_POSSIBLE = (
    r"(?<!\bas\s)(?<!\bif\s)(?<!\ball\s)(?<!\bbest\s)(?<!\bwhen\s)(?<!\bwhere\s)(?<!\bwhenever\s)\bpossible(?!\s+to\b)"
)
#: "may be discharged" is a permission.
_MAY = (
    r"\b(?:may|might|could)\s+(?:(?:also|even|indeed|perhaps|possibly|still|well)\s+)?(?:have|represent|indicate|suggest"
    r"|reflect|mean|point\s+to|suffer\s+from|be(?!\s+(?:\w+ed|able|given|kept|seen|sent|taken)\b))"
)
_UNCERTAIN_BEFORE = re.compile(
    rf"(?:{_POSSIBLE}|{_MAY}|\b(?:possibly|possibility\s+of|potential(?:ly)?|probabl[ey]|presum(?:ed|ptive|ably)|perhaps"
    r"|maybe|suspect(?:s|ed|ing)?(?:\s+of)?|suspicio(?:n|us)\s+(?:of|for)|suggest(?:s|ed|ing|ive\s+of)?|likely|query|c/f"
    r"|(?<!\bno\s)(?<!\bany\s)(?<!\bout\sa\s)(?<!\bwithout\s)doubt(?:s|ed)?(?!\s+about)(?:\s+that)?"
    r"|questionable|equivocal(?:\s+for)?|concern(?:s|ing)?\s+for|worrisome\s+for|provisional|tentative|consider(?:s|ing)?"
    rf"|(?:appears?|assumed|believed|felt|seems?|thought)\s+to\s+(?:be|have|suffer\s+from))\b):?{_PHRASE}",
    re.IGNORECASE,
)
#: "differential diagnosis: A, B", "possible diagnoses: A, B"
_DIFFERENTIAL = re.compile(
    r"\b(?:differential\s+diagnos[ei]s|differential\s*(?::|includes?)|ddx?\s*:|(?:likely|possible|presumed|preliminary"
    rf"|probable|provisional|suspected|tentative|working)(?:\s+{WORD}){{0,2}}\s*:)[\s:]*(?:{WORD}[\s,]+){{0,12}}\Z",
    re.IGNORECASE,
)
#: "?A" and "B vs. A", in the text before the mention, whose clause such marks would end.
_MARKED_BEFORE = re.compile(
    rf"(?:(?<![\w)\]\"'])\?+|\b(?:vs\b\.?|versus)(?:\s+{_PHRASE_WORD}){{0,2}})\s*\Z", re.IGNORECASE
)
#: "rule out A" and "fever, r/o A" as a request, and as the purpose of a test
_REQUEST = re.compile(
    r"(?:(?:\A\W*|:\s*|\b(?:please|must|should|(?:needs?|has|have)\s+to)\s+)(?:rule\s+out|r/o|exclude)"
    rf"|\A[^,]*,\s*rule\s+out|(?<!\bto\s)(?<!\bor\s)(?<!\bfor\s)\br/o)\b(?!'d):?{_WORDS}",
    re.IGNORECASE,
)
_PURPOSE = re.compile(rf"\b(?:to|or|for)\s+(?:\w+ly\s+)?(?:rule[\s-]+out|r/o|exclude)\b{_WORDS}", re.IGNORECASE)
_REQUEST_AFTER = re.compile(
    rf"{_BRIDGE}\s+(?:still\s+)?(?:should|must|ought\s+to|(?:needs?|has|have|remains?)\s+to|to)\s+(?:still\s+)?be"
    r"\s+(?:\w+ly\s+)?(?:ruled\s+out|excluded|considered|confirmed|suspected|investigated)\b",
    re.IGNORECASE,
)
_CONSIDERED = (
    r"(?:possible|possibility|probable|likely|suspected|considered|conceivable|equivocal|presumed|presumptive|provisional"
    r"|queried|questionable|tentative|uncertain|unclear|unconfirmed)"
    r"(?!\s*,?\s*(?:and|but|then)\s+(?:\w+\s+){0,3}confirmed\b)"
)
_NOT_YET = (
    r"(?:can(?:not|'t|\s+not|\s+hardly)|could(?:\s+not|n't)|(?:is|was|has|have)(?:\s+not|n't)|not)"
    r"(?:\s+(?:yet|be|been|\w+ly)){0,4}\s+(?:ruled\s+out|excluded|unlikely|improbable|impossible|certain|clear"
    r"|(?<=yet\s)(?:confirmed|proven|diagnosed)|(?<=yet\sbeen\s)(?:confirmed|proven|diagnosed))\b"
)
_UNCERTAIN_AFTER = re.compile(
    rf"{_BRIDGE}(?:\s*[(\[]?\s*\?(?!\s*(?:yes|confirmed|positive)\b)|\s*,?\s*\b(?:vs|versus)\b"
    rf"|\s*[:=|(\[,-]?\s*(?:(?:a|most|only|still|strongly|very)\s+){{0,2}}\b{_CONSIDERED}{_STOP}"
    r"|\s+(?:(?:is|was|are|were|be|been|has|have|had|can|may|might|remains?|seems?|appears?|a|the|also|most|now|only|quite"
    rf"|still|therefore|thus|very|\w+ly)\s+){{1,5}}{_CONSIDERED}(?:{_STOP}|(?=\s+(?:although|as|at|based|because|by"
    r"|diagnosis|despite|from|given|here|in|now|on|or|pending|since|though|today|until|with)\b))"
    rf"|\s*[:=|(\[-]?(?:\s+(?:and|or))?(?:\s+{_ITEM_WORD}){{0,2}}\s*\b{_NOT_YET}"
    r"|\s+(?:may|might|could)\s+(?:\w+ly\s+)?(?:be\s+(?:present|there|the\s+(?:cause|diagnosis))|exist|explain)\b"
    r"|\s+(?:(?:is|was|remains)\s+)?(?:in|on|part\s+of)\s+(?:the\s+)?(?:differential|question)\b)"
    rf"|\s+or(?:\s+{_ITEM_WORD}){{1,4}}\s*\?",
    re.IGNORECASE,
)
_CONFIRMED = re.compile(
    rf"{_BRIDGE}\s*[,:(-]?\s*(?:(?:which|and|but|is|was|were|has|have|had|been|then|now|later|since|also|subsequently"
    rf"|already)\s+){{0,4}}(?:{_CERTAIN}|verified)\b",
    re.IGNORECASE,
)

#: Clause boundaries: the end of a sentence or line, a dash with spaces, or a bracket.
_START = re.compile(r"[.!?](?!\d)|[;\n()|\[\]\u3002\uff1b\uff0c]|\s[-\u2013\u2014]+\s")
_MARKUP = re.compile(r"[*`]+")
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4", "'"))
#: Behind a mention only: "A \u2013 ruled out"; before it, a dash may be a clause's end, "no fever\u2014A".
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
#: A line break due to line length or inside a phrase.
_WRAPPED = re.compile(
    r"(?:(?<=[^\n]{60})|(?<=\s(?:of|or|no|to|an))|(?<=\s(?:for|not|any|and|the|was|has)))[^\S\n]*\n[^\S\n]*(?=[a-z])"
)
_JOINED = re.compile(r"\s*,?\s*(?:and/or|and|or|nor|&|/)\s*", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|nor)\b|/", re.IGNORECASE)
#: "a risk of A, B, and C", "no A, B and C"; "no A, and B" may go on about something else.
_AND = {"other": re.compile(r"\s*,?\s+and\s+", re.IGNORECASE), "denied": re.compile(r"\s+and\s+", re.IGNORECASE)}
_LISTED = re.compile(r"\s*(?:[,/]\s*)?(?:(?:or|nor|and/or)\s+)?", re.IGNORECASE)


def status_of(text: str, start: int, end: int) -> Status:
    """Return what the text says of the condition that ``text[start:end]`` mentions.

    Args:
        text: Any text.
        start: Index of the mention's first character.
        end: Index after its last character.
    """
    before, after = _context_of(text, start, end)
    clause = _START.split(heading_of(text, start) or before)[-1]
    if _REQUEST_AFTER.match(after):
        return "possible"
    if _AFTER.match(after):
        return "denied"
    if _OTHER_PERSON.search(clause) or _is_question(clause, after):
        return "other"
    if _FUTURE_RISK.search(clause) and not _POSITIVE.match(after):
        return "other"
    unsure = _UNSURE.search(clause)
    if _CONDITION.search(clause) and not (_PERSISTS.match(after) or unsure):
        return "other"
    if _REQUEST.search(clause):
        return "possible"
    if _denied_before(clause, after):
        return "other" if _PURPOSE.search(clause) else "denied"
    if _HEADING.search(clause):
        return "denied"
    return "possible" if unsure or _is_uncertain(before, clause, after) else "asserted"


def extends_forward(text: str, last_end: int, last: Status, start: int, end: int) -> bool:
    """Whether what is said of the mention that ends at ``last_end`` holds for the next one too: "no A, B or C"."""
    gap, (_, after) = text[last_end:start], _context_of(text, start, end)
    if _LISTED.fullmatch(gap) is None and not (last in _AND and _AND[last].fullmatch(gap)):
        return False
    return _OR.search(gap) is not None or not (_OWN_CLAUSE.match(after) or _POSITIVE.match(after))


def extends_backward(text: str, last_end: int, start: int, end: int) -> bool:
    """Whether what follows a mention also holds for the one that ends at ``last_end``: "A and B were excluded"."""
    gap, (_, after) = text[last_end:start], _context_of(text, start, end)
    if not (_AFTER.match(after) or _UNCERTAIN_AFTER.match(after)) or _JOINED.fullmatch(gap) is None:
        return False
    return bool(_OF_SEVERAL.match(after)) or ("," not in gap and _OR.search(gap) is not None)


@lru_cache(maxsize=256)
def _context_of(text: str, start: int, end: int) -> tuple[str, str]:
    """Return the relevant text before and after a mention, with kinds of apostrophe and dash made one."""
    before, after = text[max(0, start - _CONTEXT) : start + 1], text[end : end + _CONTEXT]
    before, after = (_WRAPPED.sub(" ", _MARKUP.sub("", side).translate(_APOSTROPHES)) for side in (before, after))
    return before[:-1], re.split(r"\n(?![^\S\n]*[a-z])", after, maxsplit=1)[0].translate(_DASHES)


def _denied_before(clause: str, after: str) -> bool:
    found = _last(_BEFORE_UNLESS_NEGATED, clause)
    if found is not None:
        return not _NEGATED_DENIAL.search(clause[: found.start()])
    found = _last(_BEFORE, clause)
    if found is not None:
        apart = re.search(r"\band\b[^,]*\Z", clause[found.start() :], re.IGNORECASE)
        return not (apart and _OWN_CLAUSE.match(after))
    found = _last(_BEFORE_LIST, clause)
    if found is not None and not _NEGATED_DENIAL.search(clause[: found.start()]):
        joined = _OR.search(found[0]) or _MORE_OF_LIST.match(after)
        listing = _BEFORE_LISTING.search(clause) and _END_OF_ITEM.match(after)
        return bool(joined or listing) and not _OWN_CLAUSE.match(after)
    return False


def _is_uncertain(before: str, clause: str, after: str) -> bool:
    if _UNCERTAIN_AFTER.match(after):
        return True
    if _CONFIRMED.match(after):
        return False
    excluded = _last(_BEFORE_UNLESS_NEGATED, clause)  # here it is negated: "cannot rule out"
    if excluded and _EXCLUSION.match(excluded[0]):
        return True
    found = _last(_UNCERTAIN_BEFORE, clause)
    if found is not None:
        apart = re.search(r"\band\b[^,]*\Z", found[0], re.IGNORECASE)
        return not (apart and _OWN_CLAUSE.match(after))
    return bool(_DIFFERENTIAL.search(clause) or _MARKED_BEFORE.search(before))


def _last(pattern: re.Pattern[str], clause: str) -> re.Match[str] | None:
    """Return the match that starts last, so that of two cues the one nearest to the mention counts."""
    found = following = pattern.search(clause)
    while following is not None:
        found, following = following, pattern.search(clause, following.start() + 1)
    return found


def _is_question(clause: str, after: str) -> bool:
    """Whether the mention is part of a longer question ("GDM?" alone is a suspicion)."""
    ends = re.search(r"[.!?\n]", after)
    return ends is not None and ends[0] == "?" and _QUESTION.match(clause) is not None
