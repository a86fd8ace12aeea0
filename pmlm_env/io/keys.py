"""Recognition of vendors' API keys in texts, so that they are neither shown nor stored."""

from __future__ import annotations

import re

#: Keys of many vendors, recognized by their prefixes; JSON web tokens; Zhipu's keys.
_KEY = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|hf|xai|pplx|nvapi|r8|gh[pousr]|github_pat)[-_](?=[\w-]{0,200}\d)[\w-]{12,}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{10,}\.eyJ[\w.-]*|[0-9a-f]{32}\.\w{16,})"
)


def holds_key(text: str) -> bool:
    """Whether a text contains what looks like a vendor's key and should not be shown."""
    return _KEY.search(text) is not None


def without_keys(text: str) -> str:
    """Replace everything in a text that looks like a vendor's key by ***."""
    return _KEY.sub("***", text)
