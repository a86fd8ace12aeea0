"""Telling a reply from the thoughts that some models write before it."""

from __future__ import annotations

import re

#: ``<think>`` and its like: DeepSeek-R1, Qwen3, GLM, ...; Gemini (``thought``); Reka (``reasoning``); ``seed:think``.
_TAG = r"(?:\w+[_:])?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|cot)(?:_\w+)?"
#: What opens thoughts, and what closes them.
_KINDS = (
    (r"<details\s+type=\W?reasoning[^<>]*>", "</details>"),
    (r"<\|channel>thought", r"<channel\|>"),  # Gemma 4
    (r"\[think(?:ing)?\]", r"\[/think(?:ing)?\]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("<unused94>(?:thought)?", "<unused95>"),  # MedGemma
    (r"<\|start_thinking\|>", r"<\|end_thinking\|>(?:\s*<\|start_response\|>)?"),  # Command A Reasoning
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>(?:\s*<\|begin_of_solution\|>)?"),  # OpenThinker
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"here[ ]is[ ]my[ ]thought[ ]process:", r"here[ ]is[ ]my[ ]response:"),  # Granite 3.2
    (r"here[ ]are[ ]my[ ]reasoning[ ]steps:", r"\[begin[ ]final[ ]response\]"),  # Apriel
    (r"##[ ]thinking[ ]*$", r"##[ ]final[ ]response[ ]*$"),  # HuatuoGPT-o1
    # gpt-oss: https://github.com/openai/harmony
    (
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)",
        r"(?:<\|start\|>assistant)?<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    ),
    # The same where the server leaves special tokens out. "Analysis of the blood shows ..." is a reply.
    (r"(?-i:(?:assistant)?(?:analysis|commentary)(?=[A-Z]))", "(?-i:assistantfinal)"),
    (rf"<\|?{_TAG}(?:\s[^<>]*)?\|?>", rf"<\|?/{_TAG}\s*\|?>(?:\s*<(?:answer|response|output)>)?"),
)
# Group 1: the mark begins a line. Then two groups a kind: opening, closing.
_MARK = re.compile(
    rf"(^[ \t\ufeff\u200b]*)?(?:{'|'.join(f'({opening})|({closing})' for opening, closing in _KINDS)})",
    re.IGNORECASE | re.MULTILINE,
)
#: What may end a reply that follows thoughts.
_END = re.compile(
    r"(?:</(?:answer|response|output)>|<\|(?:end_response|end_of_solution|return|end)\|>|\[end[ ]final[ ]response\])\Z",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"[\s\ufeff\u200b]*")
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”"}


def without_thoughts(text: str) -> str | None:
    """Return the reply that follows a model's thoughts: what comes after the last mark that closes thoughts.

    Knows the marks of all common open models (``<think>...</think>``, ``[THINK]...[/THINK]``, the channels of gpt-oss,
    ...), in upper and lower case. A closing mark counts with or without an opening one before it, for chat templates
    often open thoughts in the prompt. Two things are no marks: what stands between quotation marks or backticks, and
    opening marks that are plain words (``## Thinking``) elsewhere than at the beginning of a line.

    A text whose thoughts were opened by the prompt and never closed has no mark at all. Who knows the prompt can put
    the opening mark in front of the text.

    Args:
        text: What a model wrote.

    Returns:
        The reply, stripped of surrounding white space; ``text``, stripped, where there are no thoughts; None where
        there is nothing but thoughts, closed or not.
    """
    start = 0  # of the reply, as far as is known
    begin = _blanks_end(text, 0)
    thinking: int | None = None  # the kind of the thoughts that are open
    for mark in _MARK.finditer(text):
        assert mark.lastindex is not None
        kind, closes = divmod(mark.lastindex - 2, 2)
        quoted = text[mark.end() : mark.end() + 1] == _QUOTES.get(text[mark.start() - 1 : mark.start()], "no quote")
        if quoted and not (closes and kind == thinking):
            continue
        counts = mark[1] is not None or mark.start() == begin or mark[0][0] in "<[◁"
        if not closes and thinking is None and counts:
            thinking = kind
        elif closes and thinking in (None, kind):
            start, thinking = mark.end(), None
            begin = _blanks_end(text, start)
    if thinking is not None:
        return None
    if start == 0:
        return text.strip()
    return _END.sub("", text[start:].strip()).strip() or None


def _blanks_end(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    assert blanks is not None  # it matches nothing, too
    return blanks.end()
