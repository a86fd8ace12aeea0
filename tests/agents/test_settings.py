from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.cli.main import main
from agents.policy_gradient.agent import PolicyGradientConfig
from agents.settings import with_settings


@dataclass(frozen=True)
class _Pair:
    """Of two numbers, the one that divides the other."""

    whole: int = 8
    part: int = 4

    def __post_init__(self) -> None:
        if self.whole % self.part:
            raise ValueError("whole must be a multiple of part")


@dataclass(frozen=True)
class _Outer:
    pair: _Pair = field(default_factory=_Pair)
    grid: tuple[float, ...] = (0.5,)
    rate: float = 1.0


def test_nested_settings_change_and_all_others_stay() -> None:
    config = PolicyGradientConfig()
    changed = with_settings(config, {"learner.learning_rate": 0.003, "hidden": 64})
    assert changed.learner.learning_rate == 0.003
    assert changed.hidden == 64
    assert with_settings(changed, {"learner.learning_rate": 1e-3, "hidden": 0}) == config == PolicyGradientConfig()


def test_settings_that_only_hold_together_change_together_and_a_list_becomes_a_tuple() -> None:
    changed = with_settings(_Outer(), {"pair.part": 5, "pair.whole": 15, "grid": [0.1, 0.2], "rate": 2})
    assert changed == _Outer(_Pair(15, 5), (0.1, 0.2), 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pair.hole": 1}, r"there is no setting 'pair.hole': use some of pair.whole, pair.part"),
        ({"pears": 1}, r"there is no setting 'pears': use some of pair, grid, rate"),
        ({"rate.low": 1}, r"there is no setting 'rate.low': use some of rate alone"),
        ({"rate": "fast"}, r"rate is 'fast': it was 1.0, so give float"),
        ({"pair.whole": 1.5}, r"pair.whole is 1.5: it was 8, so give int"),
        ({"pair.part": True}, r"pair.part is True"),
        ({"pair.part": 3}, r"whole must be a multiple of part"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_settings(_Outer(), settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not there: make it with `pmlm tune`"),
        ("{", "is damaged: it is not JSON"),
        ("[" * 100_000, "is damaged: it is not JSON"),
        ("[]", "is damaged: it contains [] instead of an object"),
        ("{}", "is not what `pmlm tune` writes: it has no table of agents"),
        ('{"agents": {"surrogate": 3}}', "is not what `pmlm tune` writes: surrogate has no table of settings"),
        ('{"agents": {"surogate": {"settings": {}}}}', "there is no agent 'surogate': use some of"),
        ('{"agents": {"surrogate": {"settings": {"rate": 1}}}}', "settings of surrogate: there is no setting 'rate'"),
        ('{"agents": {"surrogate": {"settings": {"penalty": "1"}}}}', "penalty is '1': it was 1.0, so give float"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_one_line(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tuned.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as end:
        main("benchmark", ["--agents", "surrogate", "--tuned", str(file), "--out", str(tmp_path)])
    printed = capsys.readouterr().err
    assert end.value.code == 2
    assert said in printed
    assert printed.startswith("pmlm benchmark: ")
    assert printed.count("\n") == 1
