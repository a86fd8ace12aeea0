import html
import re

import pytest
from markdown_it import MarkdownIt

from pmlm_env.io.text import as_code, as_text, printable


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # ESC [ in one byte, which some terminals obey
        ("abc\u202edef", r"abc\u202edef"),
        ("over\rwritten\b", r"over\rwritten\x08"),
        ("one\u2028two", r"one\u2028two"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),  # an invisible letter
    ],
)
def test_what_a_terminal_would_act_upon_is_written_out(text, safe):
    assert printable(text) == safe


@pytest.mark.parametrize(
    "text",
    [
        "",
        "37.5 °C\t≥ 2\n",
        "血红蛋白\u3000低",
        "12\xa0345",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👩\u200d⚕",
    ],
)
def test_words_of_any_language_stay_as_they_are(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("torch 2.13.0+cpu", "torch 2.13.0+cpu"),
        ("<script>&", "&lt;script>&amp;"),
        ("[x](javascript:y)", r"\[x](javascript:y)"),
        ("a|b\n# c\x1b", r"a\|b # c\x1b"),
        (r"a\|b \[c](d) e\f", r"a\\\|b \\\[c](d) e\f"),
        (
            "**Diagnosis:** 2*3*4, `anemia` _now_ wrong_named",
            r"\*\*Diagnosis:\*\* 2\*3\*4, \`anemia\` \_now\_ wrong_named",
        ),
    ],
)
def test_a_line_of_markdown_has_no_tag_no_link_and_no_cells_end(text, line):
    assert as_text(text) == line


@pytest.mark.parametrize(
    "text",
    ["**Diagnosis:** _rest_, `iron` 2*3*4", r"a\|b", r"\[c](d) \*", r"<b>&amp;\<i>", "__init__", r"C:\new\*.csv"],
)
def test_a_line_of_markdown_is_shown_as_it_is(text):
    shown = MarkdownIt("commonmark").enable("table").render(f"| head |\n| --- |\n| {as_text(text)} |")
    (cell,) = re.findall("<td>(.*?)</td>", shown)
    assert html.unescape(cell) == text
    assert "<" not in cell


@pytest.mark.parametrize(("text", "code"), [("word,", "`word,`"), ("a`b|c\nd\x1b", r"`a'b\|c d\x1b`")])
def test_code_in_markdown_is_one_line_that_ends_where_it_should(text, code):
    assert as_code(text) == code
