"""The flat arguments of gym.make: what is refused, and what the message says."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pmlm_env import EditRules, EditTask, PMLMEnv, PMLMLiteEnv
from pmlm_env.envs.lite.task import LiteOptions
from pmlm_env.envs.options import PMLMOptions, options_from
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes, make_task

OBJECTS = r"put objects into an EditTask\(episodes, encoder, reward\), and pass it as task"


def _refused(message: str, env_id: str = "PMLM-v0", **given: Any) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"^{message}$"):
            make(env_id, **given)


def test_a_live_task_is_played_as_it_is() -> None:
    episodes = make_episodes(3)
    task = EditTask(episodes, HashEncoder(), MarkedWordsReward(episodes), EditRules(n_edits=2, max_words=20))
    for env in (gym.make("PMLM-v0", task=task), gym.make_vec("PMLM-v0", num_envs=2, task=task)):
        assert env.unwrapped.task is task
        env.reset(seed=0)
    assert gym.make("PMLM-v0", task=task).action_space == gym.spaces.Discrete(20)


@pytest.mark.parametrize("name", ["episodes", "split", "llm", "n_samples", "n_edits", "observation", "device"])
def test_a_name_beside_a_live_task_is_refused_even_with_its_usual_value(name: str) -> None:
    usual = getattr(PMLMOptions(), name)
    _refused(
        f"{name} has no effect together with task, which already defines it: leave it out",
        task=make_task(),
        **{name: usual},
    )


@pytest.mark.parametrize(
    ("name", "value"), [("episodes", make_episodes(1)), ("encoder", HashEncoder()), ("scorer", object())]
)
def test_a_live_object_where_a_name_is_meant_is_refused_with_the_way_to_pass_it(name: str, value: Any) -> None:
    _refused(f"{name} is of type {type(value).__name__}: give a string here, or {OBJECTS}", **{name: value})


def test_a_live_reward_is_passed_in_a_task() -> None:
    reward = MarkedWordsReward(make_episodes(1))
    _refused(f"reward is of type MarkedWordsReward: give a string here, or {OBJECTS}", reward=reward)
    _refused(f"task is of type MarkedWordsReward: {OBJECTS}", task=MarkedWordsReward(make_episodes(1)))


def test_a_message_never_quotes_a_live_object() -> None:
    with pytest.raises(ValueError, match="episodes is of type list") as caught:
        gym.make("PMLM-v0", episodes=[make_episodes(1)[0]])
    assert "She is well" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_edit": 3}, r"PMLM-v0 has no argument n_edit: did you mean n_edits\?"),
        ({"nonsense": 3}, "PMLM-v0 has no argument nonsense: its arguments are listed in docs/environments/PMLM-v0.md"),
        ({"n_edits": "20%"}, "n_edits is '20%': give a whole number, or a share such as 0.2"),
        ({"n_edits": True}, "n_edits is True: give a whole number, or a share such as 0.2"),
        (
            {"n_edits": 2.0},
            "n_edits is 2.0: use a whole number, .* share .* such as 0.2",
        ),
        ({"temperature": "hot"}, "temperature is 'hot': give a number"),
        ({"max_words": "all"}, "max_words is 'all': give a whole number or None"),
        ({"split": "dev"}, "split is 'dev': give one of 'train', 'validation', 'test'"),
        ({"observation": "pixels"}, "observation is 'pixels': give one of 'embeddings', 'index'"),
        ({"episodes": Path("prepared")}, f"episodes is of type PosixPath: give a string here, or {OBJECTS}"),
        ({"protect": (1, 2)}, f"protect is of type tuple: give a tuple of strings here, or {OBJECTS}"),
        ({"llm": None}, "llm is None: give a string"),
    ],
)
def test_an_argument_that_will_not_do_is_named_with_what_is_allowed(given: dict[str, Any], message: str) -> None:
    _refused(message, **given)


def test_lite_names_its_own_arguments() -> None:
    _refused(r"PMLMLite-v0 has no argument text: did you mean texts\?", "PMLMLite-v0", text=True)
    _refused("texts is 1: give True or False", "PMLMLite-v0", texts=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"llm": "responder", "max_new_tokens": 9}, "max_new_tokens has no effect .*'responder'"),
        ({"llm": "responder:obstetric", "temperature": 0.5}, "temperature has no effect .*'responder:obstetric'"),
        ({"llm": "responder", "base_url": "http://127.0.0.1"}, "takes no base URL: leave it out"),
        ({"llm": "local:qwen2.5-coder-0.5b", "llm_seed": 3}, "llm_seed has no effect with .* at temperature 0"),
    ],
)
def test_a_setting_of_the_llm_without_effect_is_refused_in_pythons_words(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    make_episodes(2).save(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        gym.make("PMLM-v0", episodes=str(tmp_path), **given)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(("env", "options"), [(PMLMEnv, PMLMOptions), (PMLMLiteEnv, LiteOptions)])
def test_the_page_of_an_env_lists_every_argument(env: type, options: type) -> None:
    arguments = (env.__doc__ or "").split("## Arguments")[1].split("## ")[0]
    names = {name for row in re.findall(r"^ *\| (``.*?) \|", arguments, re.MULTILINE) for name in row.split("``")[1::2]}
    assert names == {each.name for each in fields(options)} | {"render_mode", "task"}


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"n_samples": 2, "scorer_layer": 3, "send_values": True, "n_edits": 4, "temperature": 0.5, "llm_seed": 6}
    options = options_from(PMLMOptions, {name: np.array(value)[()] for name, value in given.items()})
    assert {name: getattr(options, name) for name in given} == given
    assert [type(getattr(options, name)) for name in given] == [int, int, bool, int, float, int]
    assert gym.make("PMLMLite-v0", max_words=np.int64(200)).action_space.n == 200
