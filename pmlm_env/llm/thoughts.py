"""Separating a reply from the reasoning that some models write before it."""

from __future__ import annotations

import re

#: Tags such as ``<think>`` (DeepSeek-R1, Qwen3, GLM, ...), ``thought`` (Gemini), ``reasoning`` (Reka), ``seed:think``.
_TAG = r"(?:\w+[_:])?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|cot)(?:_\w+)?"
#: Opening and closing marks of thoughts.
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
    # The same if the server omits special tokens. "Analysis of the blood shows ..." is a reply.
    (r"(?-i:(?:assistant)?(?:analysis|commentary)(?=[A-Z]))", "(?-i:assistantfinal)"),
    (rf"<\|?{_TAG}(?:\s*|\s[^<>=]*=[^<>]*)\|?>", rf"<\|?/{_TAG}\s*\|?>(?:\s*<(?:answer|response|output)>)?"),
)
# Group 1: the mark begins a line. Then two groups per kind: opening, closing.
_MARK = re.compile(
    rf"(^[ \t\ufeff\u200b]*)?(?:{'|'.join(f'({opening})|({closing})' for opening, closing in _KINDS)})",
    re.IGNORECASE | re.MULTILINE,
)
#: Opening marks that may also be placeholders: "The <reason> for it is unknown."
_PLACEHOLDER = re.compile(r"<(?:analysis|reason(?:ing)?|reflection)[\s>]", re.IGNORECASE)
#: Marks that may end a reply that follows thoughts.
_END = re.compile(
    r"(?:</(?:answer|response|output)>|<\|(?:end_response|end_of_solution|return|end)\|>|\[end[ ]final[ ]response\])\Z",
    re.IGNORECASE,
)
_WHITESPACE = re.compile(r"[\s\ufeff\u200b]*")
_QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”"}


def without_thoughts(text: str) -> str | None:
    """Return the reply that follows a model's thoughts: the text after the last closing mark.

    The marks of all common open models are recognized (``<think>...</think>``, ``[THINK]...[/THINK]``, the channels of
    gpt-oss, ...), ignoring case. A closing mark counts even without an opening one, because chat templates often put
    that in the prompt. Text in quotation marks or backticks is not a mark, nor is an opening mark of plain words
    (``## Thinking``, ``<analysis>``) unless it begins a line, nor are words in angle brackets without ``=``
    (``<reason for visit>``).

    If the prompt opened the thoughts and they were never closed, the text contains no mark. A caller that knows the
    prompt can prepend the opening mark.

    Args:
        text: The model's output.

    Returns:
        The reply without surrounding whitespace; the whole text if there are no thoughts; None if there are only
        thoughts, closed or not.
    """
    start = 0  # of the reply
    begin = _whitespace_end(text, 0)
    thinking: int | None = None  # index in _KINDS of the thoughts that are open
    for mark in _MARK.finditer(text):
        assert mark.lastindex is not None
        kind, closes = divmod(mark.lastindex - 2, 2)
        quoted = text[mark.end() : mark.end() + 1] == _QUOTES.get(text[mark.start() - 1 : mark.start()], "no quote")
        if quoted and not (closes and kind == thinking):
            continue
        in_brackets = mark[0][0] in "<[◁" and not _PLACEHOLDER.match(mark[0])
        is_mark = mark[1] is not None or mark.start() == begin or in_brackets
        if not closes and thinking is None and is_mark:
            thinking = kind
        elif closes and thinking in (None, kind):
            start, thinking = mark.end(), None
            begin = _whitespace_end(text, start)
    if thinking is not None:
        return None
    if start == 0:
        return text.strip()
    return _END.sub("", text[start:].strip()).strip() or None


def _whitespace_end(text: str, start: int) -> int:
    whitespace = _WHITESPACE.match(text, start)
    assert whitespace is not None  # the pattern also matches the empty string
    return whitespace.end()
