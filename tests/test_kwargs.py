"""Kwargs: what is accepted, and that no value is shown."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from agents.settings import from_plain, plain
from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs

KEY = "sk-abcdefghijklmnop1234"


@dataclass(frozen=True)
class _Settings:
    reward_kwargs: Kwargs = NO_KWARGS

    def __post_init__(self) -> None:
        read_kwargs(self)


def test_a_mapping_and_its_json_text_are_the_same_arguments() -> None:
    one, other = Kwargs({"b": (1, 2), "a": {"c": None}}), Kwargs('{"a": {"c": null}, "b": [1, 2]}')
    assert one == other
    assert hash(one) == hash(other)
    assert dict(one) == {"a": {"c": None}, "b": [1, 2]}
    assert pickle.loads(pickle.dumps(one)) == one
    assert Kwargs({"b": 1}) != one


def test_what_is_taken_out_or_was_put_in_does_not_change_them() -> None:
    given = {"words": ["rest"]}
    kwargs = Kwargs(given)
    given["words"].append("sleep")
    kwargs["words"].append("drink")
    assert dict(kwargs) == {"words": ["rest"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": np.zeros(2)}, "--reward-kwargs: weight is of type ndarray: use JSON values"),
        ({"weight": float("nan")}, "--reward-kwargs: weight is not finite: use JSON values"),
        ('{"weight": NaN}', "--reward-kwargs: weight is not finite: use JSON values"),
        ({"words": [object()]}, "--reward-kwargs: words is of type object: use JSON values"),
        ({"table": {1: "hush"}}, "--reward-kwargs: table has a name of type int: use text"),
        ('{"word": hush}', "--reward-kwargs is not JSON, at character 10: give an object, such as"),
        ('["hush"]', "--reward-kwargs is of type list: give an object, such as"),
        (7, "--reward-kwargs is of type int: give an object, such as"),
        ("[" * 100_000, "--reward-kwargs is nested too deeply"),
        ({"word": KEY}, "--reward-kwargs: word contains what looks like a key: put it into the environment"),
        ({"words": {"list": [KEY]}}, "--reward-kwargs: words: list contains what looks like a key"),
        ({KEY: 1}, "--reward-kwargs contains what looks like a key: put it into the environment"),
    ],
)
def test_what_is_refused_is_named_without_its_value(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        _Settings(values)
    assert "hush" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_mapping_that_contains_itself_is_refused() -> None:
    values: dict[str, Any] = {}
    values["again"] = values
    with pytest.raises(ValueError, match=r"^--reward-kwargs is nested too deeply$"):
        _Settings(values)  # type: ignore[arg-type]


def test_a_repr_shows_no_value() -> None:
    assert repr(_Settings(Kwargs({"word": "hush"}))) == "_Settings(reward_kwargs=Kwargs(word=...))"


def test_settings_are_written_as_a_table_and_read_from_a_table_a_text_or_null() -> None:
    settings = _Settings(Kwargs({"word": "rest"}))
    assert plain(settings) == {"reward_kwargs": {"word": "rest"}}
    for value in ({"word": "rest"}, '{"word": "rest"}'):
        assert from_plain(_Settings, {"reward_kwargs": value}) == settings
    assert from_plain(_Settings, {"reward_kwargs": None}) == _Settings()
