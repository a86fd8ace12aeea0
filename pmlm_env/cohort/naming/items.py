"""Lists of a text whose items stand in lines of their own, under a heading that says what they are."""

from __future__ import annotations

import re

#: Characters before a mention in which the heading of its list is looked for.
_REACH = 800

#: "- ", "* ", "2. ", "(3) ", "4、"
_ITEM = re.compile(
    r"(?P<indent>\s*)(?:(?P<number>[(\uff08]?\d{1,2}[.)\u3001\uff0e\uff09])|[-*+\u2013\u2022\u25cf]\s)\s*[*\[\]xX ]*"
)
#: The colon of these headings does not end a sentence: "no evidence of:", "come back if you notice:".
_GOES_ON = re.compile(r"\b(?:if|unless)\b|\b(?:develop|experience|for|has|have|notice|of|with)\s*\Z", re.IGNORECASE)
#: "come back if you have any of the following symptoms:", "如出现以下情况，请就诊："
_FOLLOWING = re.compile(
    r"\s*\b(?:(?:any|one|all)\s+of\s+)?(?:the\s+following|these)\b.*|(?:以下|下列).*", re.IGNORECASE
)


def heading_of(text: str, start: int) -> str:
    """Return the heading of the list that a mention is in, and the words before the mention in its item.

    The heading of "Ruled out:", with the items "- pneumonia" and "- acute sepsis" below it, is "Ruled out: acute " for
    "sepsis". A heading ends with a colon; between it and the mention's line are only items and empty lines.

    Args:
        text: Any text.
        start: Index of the mention's first character.

    Returns:
        One line; "" if the mention is not in such a list.
    """
    *lines, last = text[max(0, start - _REACH) : start].split("\n")
    own = _ITEM.match(last)
    if own is None:
        return ""
    for line in reversed(lines):
        item, heading = _ITEM.match(line), line.strip(" \t\r*_#")
        sister = (
            item is not None
            and len(item["indent"]) >= len(own["indent"])
            and bool(item["number"]) == bool(own["number"])
        )
        if heading.endswith((":", "\uff1a")) and not sister:
            words = heading[:-1].rstrip("*_ ")
            start_of_sentence = _FOLLOWING.sub("", words)
            if start_of_sentence not in ("", words) or _GOES_ON.search(words):
                return f"{start_of_sentence} {last[own.end() :]}"
            return f"{words}{heading[-1]} {last[own.end() :]}"
        if heading and item is None:
            return ""
    return ""
