from __future__ import annotations

from pathlib import Path

import pytest

from pmlm_env.prompting import InitialPrompt

PEERS = ["thalassemia", "normal", "thalassemia", "uterine scar", "normal", "thalassemia"]


def _text(prompt: InitialPrompt, role: str) -> str:
    words, roles = prompt.fill("gestational diabetes", PEERS)
    return " ".join(word for word, r in zip(words, roles, strict=True) if r == role)


def test_every_word_has_the_role_of_its_part() -> None:
    words, roles = InitialPrompt().fill("gestational diabetes", PEERS)
    assert len(words) == len(roles)
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
    words, roles = InitialPrompt(path).fill("thalassemia", PEERS)
    assert words == ("Say", "thalassemia", "and", "6:", "ok")
    assert set(roles) == {"instruction"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("background: ok\ndoctor: hm\n", r"line 2: 'doctor: hm' must begin with"),
        ("self: {prediction}\n", r"line 1: cannot fill 'prediction'; the fields are \{predicted\}"),
        ("self: {0}\n", "line 1: cannot fill"),
        ("# nothing\n", "has no parts"),
    ],
)
def test_a_template_that_cannot_be_filled_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        InitialPrompt(path)
