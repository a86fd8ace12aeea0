"""What depends on a text's language alone: its primary tag, Han characters, and words that no space separates."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

#: Han characters, as part of a regular expression's character class.
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

_OPENING = "\uff08\u3010\u3014\u300a\u3008\u300c\u300e\u201c\u2018"
_CLOSING = "\uff09\u3011\u3015\u300b\u3009\u300d\u300f\u201d\u2019\uff0c\u3002\uff1b\uff1a\uff01\uff1f\u3001\u2026"
_OTHER = f"[^\\s{HAN}{_OPENING}{_CLOSING}]"

#: What is counted or measured in Chinese, after a number: weeks, years of age, days, beats a minute, cases ...
_COUNTED = (
    "周岁|周|岁|天|日|个月|月|年|小时|分钟|秒|次/分钟?|次|例|名|位|个|倍|毫克|微克|千克|公斤|克|毫升|升|厘米|毫米汞柱|毫米"
    "|片|粒|支|度"
)
#: Gravidity and parity, a number with what it counts, anything else but Chinese, Chinese, and punctuation.
_PARTS = (
    rf"孕\d+产\d+|{_OTHER}*\d(?:{_COUNTED})|{_OTHER}+|[{HAN}]+|[{_OPENING}{_CLOSING}]"  # in this order of preference
)


def primary(language: str) -> str:
    """Return the primary subtag of a BCP 47 tag: ``zh`` of ``zh-Hans-CN``."""
    return language.lower().partition("-")[0]


def is_chinese(language: str) -> bool:
    """Whether a BCP 47 tag says Chinese, whichever script or region."""
    return primary(language) == "zh"


def n_words(text: str) -> int:
    """Return the number of words in a text, where a Han character counts as one."""
    return len(re.findall(f"[{HAN}]|[^\\s{HAN}]+", text))


def language_of(text: str) -> str:
    """Return the language of a text that comes without one: ``zh`` if half of its letters are Han, or else ``en``."""
    letters = sum(sign.isalpha() for sign in text)
    return "zh" if letters and 2 * len(re.findall(f"[{HAN}]", text)) >= letters else "en"


def chinese_words(text: str, whole: Collection[str] = ()) -> list[str]:
    """Split Chinese text without white space into words that join to exactly the same text.

    Words of Han characters are those of jieba's dictionary and hidden Markov model (jieba-rs, exact mode). These stay
    whole: the texts in ``whole``; a number with its unit or what it counts ("88g/L", "37+2周", "98次/分"); anything
    between Han characters that is not Chinese ("GDM"). Punctuation belongs to the word before it, and an opening
    bracket or quotation mark to the word after it, as in a language with spaces.

    Args:
        text: A text without white space.
        whole: Names of labels and the like; those without a Han character have no effect.

    Raises:
        ValueError: The package rjieba is not installed.
    """
    words: list[str] = []
    opening = ""  # what belongs to the next word
    for part in _parts(tuple(sorted(whole))).findall(text):
        for piece in _cut(part) if re.fullmatch(f"[{HAN}]+", part) and part not in whole else [part]:
            if any(sign.isalnum() for sign in piece):
                words.append(opening + piece)
                opening = ""
            elif opening or not words or piece[-1] in f"{_OPENING}([{{<":
                opening += piece
            else:
                words[-1] += piece
    return [*words, opening] if opening else words


@lru_cache(maxsize=64)
def _parts(whole: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern whose matches cover a text without white space."""
    names = sorted((name for name in whole if re.search(f"[{HAN}]", name)), key=len, reverse=True)
    alternatives = "|".join(re.escape(name) for name in names)
    # A run of Han characters ends where a name begins.
    before = f"(?:(?!{alternatives})[{HAN}])+" if names else f"[{HAN}]+"
    parts = _PARTS.replace(f"[{HAN}]+", before)
    return re.compile(f"{alternatives}|{parts}" if names else parts)


def _cut(text: str) -> list[str]:
    try:
        import rjieba
    except ImportError:
        raise ValueError("Chinese words need rjieba: install it with `pip install 'pmlm-env[zh]'`") from None
    return rjieba.cut(text, True)
