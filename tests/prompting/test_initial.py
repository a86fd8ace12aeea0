from __future__ import annotations

from pathlib import Path

import pytest

from pmlm_env.prompting import InitialPrompt

PEERS = ["thalassemia", "normal", "thalassemia", "uterine scar", "normal", "thalassemia"]


def _text(prompt: InitialPrompt, role: str) -> str:
    filled = prompt.fill("gestational diabetes", PEERS)
    return " ".join(word for word, r in zip(filled.texts, filled.roles, strict=True) if r == role)


def test_every_word_has_the_role_of_its_part() -> None:
    roles = InitialPrompt().fill("gestational diabetes", PEERS).roles
    assert [role for i, role in enumerate(roles) if i == 0 or roles[i - 1] != role] == [
        "background", "self", "peer", "instruction",
    ]  # fmt: skip


def test_her_predicted_label_is_in_her_own_part_alone() -> None:
    assert "gestational diabetes" in _text(InitialPrompt(), "self")
    assert "diabetes" not in _text(InitialPrompt(), "peer")


def test_peers_are_counted_most_frequent_first_ties_by_nearness() -> None:
    assert "3 of 6 had thalassemia, 2 of 6 had normal, 1 of 6 had uterine scar." in _text(InitialPrompt(), "peer")


def test_peers_are_listed_nearest_first() -> None:
    assert "; ".join(PEERS) in _text(InitialPrompt(peers="listed"), "peer")


def test_a_template_of_ones_own_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# mine\n\ninstruction: Say {predicted} and {k}: ok\n", encoding="utf-8")
    prompt = InitialPrompt(path).fill("thalassemia", PEERS)
    assert prompt.texts == ("Say", "thalassemia", "and", "6:", "ok")
    assert prompt.text == "Say thalassemia and 6: ok"
    assert set(prompt.roles) == {"instruction"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background: ok\ndoctor: hm\n", r"line 2: 'doctor: hm' must begin with"),
        ("self: ok\nself:  \n", r"line 2: there is no text after self:"),
        ("self: {0}\n", r"line 1: cannot fill \{0\}; the fields are predicted, probabilities, peers, k, labs"),
        ("self: {}\n", r"line 1: cannot fill \{\}"),
        ("self: {dept.}\n", r"line 1: cannot fill \{dept\.\}; .* columns .* names .* have none of \. \[ \]"),
        ("# mine\nself: {predicted.__class__}\n", r"line 2: cannot fill \{predicted\.__class__\}"),
        ("self: {peers[0]}\n", r"line 1: cannot fill \{peers\[0\]\}"),
        ("self: {predicted!r}\n", r"line 1: cannot fill \{predicted!r\}"),
        ("self: a { b\n", r"line 1: .*write \{\{ and \}\} for literal braces"),
        ("self: a } b\n", r"line 1: .*write \{\{ and \}\} for literal braces"),
        ("self: {peers:sorted}\n", r"line 1: \{peers:sorted\} has an unknown format"),
        ("self: {labs:0}\n", r"line 1: \{labs:0\} has an unknown format"),
        ("self: {values:0}\n", r"line 1: \{values:0\} has an unknown format"),
        ("self: {values:all}\n", r"line 1: \{values:all\} has an unknown format"),
        ("self: {labs:{k}}\n", r"line 1: \{labs:\{k\}\} has an unknown format"),
        ("self: {k:>9}\n", r"line 1: \{k:>9\} has an unknown format"),
        ("# nothing\n", "has no parts"),
    ],
)
def test_a_template_that_cannot_be_filled_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        InitialPrompt(path)
    assert str(path) in str(caught.value)


def test_doubled_braces_are_braces(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("self: {{predicted}} is {predicted}\n", encoding="utf-8")
    assert InitialPrompt(path).fill("thalassemia", PEERS).text == "{predicted} is thalassemia"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (r"self: One:\n- {predicted}\n- two", "One:\n- normal\n- two"),
        ("self: One.\\n\nself: Two.", "One.\nTwo."),
        ("self: One.\nself: \\n\\nTwo.", "One.\n\nTwo."),
        (r"self: One \n  two   three", "One\ntwo three"),
        (r"self: \nOne.\n", "One."),
    ],
)
def test_a_backslash_and_an_n_are_a_line_break(tmp_path: Path, template: str, text: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(template, encoding="utf-8")
    prompt = InitialPrompt(path).fill("normal", PEERS)
    assert prompt.text == text
    assert prompt.texts == tuple(text.split())


def test_line_breaks_and_backslashes_of_a_field_are_no_line_breaks_of_the_prompt(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("self: ({predicted})", encoding="utf-8")
    assert InitialPrompt(path).fill("one\n two\\nthree", PEERS).text == "(one two\\nthree)"


def test_a_name_that_is_neither_a_template_nor_a_file_is_told_with_those_that_are() -> None:
    with pytest.raises(
        ValueError, match="there is no template 'long': use default, short, paper, raw, personal or a file"
    ):
        InitialPrompt("long")


def test_a_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(b"self: \xff\xfe")
    with pytest.raises(ValueError, match=r"mine\.txt is not UTF-8 text"):
        InitialPrompt(path)


def test_another_form_of_peers_is_refused() -> None:
    with pytest.raises(ValueError, match="peers is 'sorted': use one of"):
        InitialPrompt(peers="sorted")  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["probabilities", "labs", "values", "age"])
def test_a_field_for_which_nothing_was_given_is_named(tmp_path: Path, field: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(f"self: {{{field}}}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"no value was given for \{{{field}\}}"):
        InitialPrompt(path).fill("thalassemia", PEERS)
