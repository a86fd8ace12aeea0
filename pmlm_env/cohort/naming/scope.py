"""Words that cues of English texts share: how far a cue reaches, as parts of regular expressions."""

from __future__ import annotations

#: A word, with what may be inside it.
WORD = r"\w[\w'/%+-]*"

#: Words before a condition that somebody already has: "does not affect your A".
POSSESSIVE = r"her|his|their|your"
EXISTING = rf"{POSSESSIVE}|my|this|existing|known"

#: Words that end the scope of an earlier cue.
SCOPE_ENDS = (
    r"but|however|although|though|yet|nevertheless|except|besides|(?:apart|aside)\s+from|other\s+than|whereas|while"
    r"|because|since|who|which|due\s+to|secondary\s+to|caused\s+by|resulting\s+from|owing\s+to"
    r"|and\s+(?:was|were|is|are|has|had|have|received|developed|you|your|s?he|they|the\s+patient)"
    r"|after|following|presents|presented|presenting|admitted"
)
#: Finite verbs and participles, which end a list of findings.
VERB = (
    r"is|was|are|were|has|have|had|shows?|showed|remains?|persists?|requires?|needs?|presents?|suffers?|confirms?"
    r"|confirmed|diagnosed|detected|found|present|positive|controlled|treated|on|under"
)
