"""Settings dataclasses: reading from JSON values, changing, and comparing with defaults."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from agents.cli.main import main
from agents.model_options import ModelOptions
from agents.registry import AGENTS, settings_of
from agents.settings import changed, from_plain, plain, refuse_idle, with_settings


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
    form: Literal["flat", "round"] = "flat"
    note: str | None = None
    place: Path = Path("here")


@dataclass(frozen=True)
class _Needing:
    name: str
    size: int = 1


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("env", ["lite", "real"])
def test_the_settings_of_every_agent_come_back_from_json(name: str, env: Any) -> None:
    settings = settings_of(name, env)
    assert from_plain(type(settings), json.loads(json.dumps(plain(settings)))) == settings


def test_what_is_not_given_is_as_usual_and_all_others_stay() -> None:
    usual = _Outer(_Pair(16, 2), rate=3.0)
    assert from_plain(_Outer, {"pair": {"part": 8}}, usual) == _Outer(_Pair(16, 8), rate=3.0)
    assert from_plain(_Outer, {"pair": {"part": 8}}) == _Outer(_Pair(8, 8))
    assert with_settings(usual, {"grid": [1, 0.2], "place": "there"}) == _Outer(
        _Pair(16, 2), (1.0, 0.2), 3.0, place=Path("there")
    )


def test_settings_that_only_hold_together_change_together() -> None:
    assert with_settings(_Outer(), {"pair": {"part": 5, "whole": 15}}) == _Outer(_Pair(15, 5))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pair": {"hole": 1}}, r"there is no setting 'pair.hole': did you mean pair.whole\?$"),
        ({"color": 1}, r"there is no setting 'color': use some of pair, grid, rate, form, note, place$"),
        ({"rate": "fast"}, r"rate is 'fast': use a number$"),
        ({"rate": {"low": 1}}, r"rate is {'low': 1}: use a number$"),
        ({"pair": 3}, r"pair is 3: use a table$"),
        ({"pair": {"whole": 1.5}}, r"pair.whole is 1.5: use a whole number$"),
        ({"pair": {"part": True}}, r"pair.part is True: use a whole number$"),
        ({"pair": {"part": 3}}, r"^whole must be a multiple of part$"),
        ({"grid": 0.5}, r"grid is 0.5: use a list$"),
        ({"grid": [0.5, None]}, r"grid\[1\] is None: use a number$"),
        ({"form": "square"}, r"form is 'square': use one of flat, round$"),
        ({"form": ["flat"]}, r"form is \['flat'\]: use one of flat, round$"),
        ({"note": 3}, r"note is 3: use text$"),
        ({"place": 3}, r"place is 3: use a path$"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_settings(_Outer(), settings)


def test_a_setting_without_a_default_is_asked_for() -> None:
    assert from_plain(_Needing, {"name": "a"}) == _Needing("a")
    with pytest.raises(ValueError, match=r"^name is missing: it has no default$"):
        from_plain(_Needing, {"size": 3})


def test_what_was_changed_is_told_by_dotted_names() -> None:
    assert changed(_Outer()) == []
    assert changed(_Outer(_Pair(9, 3), note="x")) == ["pair.whole", "pair.part", "note"]


def test_a_setting_without_effect_is_refused_by_the_name_of_its_option() -> None:
    refuse_idle(ModelOptions(n_edits=3), {"max_new_tokens": "nobody is asked"})
    with pytest.raises(ValueError, match=r"^--max-new-tokens has no effect: nobody is asked$"):
        refuse_idle(ModelOptions(max_new_tokens=3), {"max_new_tokens": "nobody is asked"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist: create it with `pmlm tune`"),
        ("{", "is damaged: it is not JSON"),
        ("[" * 100_000, "is damaged: it is not JSON"),
        ("[]", "is damaged: it contains [] instead of an object"),
        ("{}", "was not written by `pmlm tune`: it has no table 'agents'"),
        ('{"agents": {"surrogate": 3}}', "was not written by `pmlm tune`: surrogate has no table 'settings'"),
        (
            '{"agents": {"surogate": {"settings": {}}}}',
            "there is no agent 'surogate': install the package",
        ),
        ('{"agents": {"surrogate": {"settings": {"rate": 1}}}}', "settings of surrogate: there is no setting 'rate'"),
        ('{"agents": {"surrogate": {"settings": {"penalty": "1"}}}}', "penalty is '1': use a number"),
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
