import pytest

from pmlm_env.text import printable


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


@pytest.mark.parametrize("text", ["", "37.5 °C\t≥ 2\n", "血红蛋白\u3000低", "12\xa0345", "می\u200cخواهم", "👩\u200d⚕"])  # noqa: RUF001
def test_words_of_any_language_stay_as_they_are(text):
    assert printable(text) == text
