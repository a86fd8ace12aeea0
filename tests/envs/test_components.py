"""Rewards made of components in PMLM-v0: by name, in infos, and in serialized specs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.rewards.components import COMPONENTS
from tests.tiny_models import save_model

SETTINGS = "penalty = 3\n[weights]\nwords = 0.5\n[gates.copy]\nabove = 2\n"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Names of small parts, and a file of settings."""
    lite_episodes({"train": 8, "test": 2}).save(tmp_path / "episodes")
    model = str(save_model(tmp_path / "model", "bert", 40))
    (tmp_path / "my.toml").write_text(SETTINGS)
    return {
        "episodes": str(tmp_path / "episodes"),
        "encoder": model,
        "scorer": model,
        "llm": "tests.own_parts:Shout",
        "llm_kwargs": {"end": " rest rest"},
        "n_edits": 2,
        "device": "cpu",
    }


def _ended(env: gym.Env, episode: int = 0) -> tuple[float, dict[str, Any]]:
    _, info = env.reset(options={"episode": episode})
    over = False
    while not over:
        _, reward, terminated, truncated, info = env.step(np.int64(info["action_mask"].argmax()))
        over = terminated or truncated
    return float(reward), info


def test_settings_of_ones_own_are_named_by_their_file(options: dict[str, Any], tmp_path: Path) -> None:
    more = {"reward": "guarded", "reward_kwargs": {"settings": str(tmp_path / "my.toml")}}
    reward, info = _ended(gym.make("PMLM-v0", **options, **more))
    assert info["components"].keys() == info["initial_components"].keys() == {"words", "copy"}
    assert info["components"]["words"] == len(info["reply"].split())
    assert info["initial_components"]["words"] == len(info["initial_reply"].split())
    assert reward == -1.0 == 0.5 * -2
    assert info["score"] == 0.5 * len(info["reply"].split())
    assert {type(value) for value in info["components"].values()} == {float}


@pytest.mark.parametrize("settings", [5, "\0", "", "a" * 5000])
def test_settings_that_are_no_file_are_one_error(options: dict[str, Any], settings: Any) -> None:
    with pytest.raises(ValueError, match=r"settings of the reward are neither a file nor tables|^cannot read "):
        gym.make("PMLM-v0", **options, reward="guarded", reward_kwargs={"settings": settings})


def test_changed_settings_are_read_again(options: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    more = {"reward": "guarded", "reward_kwargs": {"settings": str(file)}}
    assert _ended(gym.make("PMLM-v0", **options, **more))[0] == -1.0
    file.write_text(SETTINGS.replace("0.5", "0.25 "))
    assert _ended(gym.make("PMLM-v0", **options, **more))[0] == -0.5


def test_by_default_the_components_are_those_that_the_reward_uses(options: dict[str, Any]) -> None:
    names = {"bertscore_precision", "bertscore_recall", "bertscore_f1"}
    reward, info = _ended(gym.make("PMLM-v0", **options))
    assert info["components"].keys() == info["initial_components"].keys() == names
    f1 = info["components"]["bertscore_f1"]
    assert (info["score"], info["initial_score"]) == (f1, info["initial_components"]["bertscore_f1"])
    assert reward == f1 - info["initial_score"]
    _, info = _ended(gym.make("PMLM-v0", **options, reward="margin"))
    assert info["components"].keys() == {"margin"}


@pytest.mark.usefixtures("hashed_sentences")
@pytest.mark.parametrize("reward", ["bertscore", "margin", "tests.own_parts:LabelLength"])
def test_all_components_are_there_on_request_and_change_no_reward(options: dict[str, Any], reward: str) -> None:
    own = ":" in reward
    less = {name: value for name, value in options.items() if not own or name != "scorer"}  # which has no effect there
    usual, few = _ended(gym.make("PMLM-v0", **less, reward=reward))
    earned, info = _ended(gym.make("PMLM-v0", **options, reward=reward, components="all"))
    assert earned == usual
    assert info["score"] == few["score"]
    assert list(info["components"]) == [*COMPONENTS, *(["reward"] if own else [])]
    assert {name: info["components"][name] for name in few["components"]} == few["components"]


def test_the_spaces_do_not_depend_on_the_reward(options: dict[str, Any], tmp_path: Path) -> None:
    usual = gym.make("PMLM-v0", **options)
    more = {"reward": "guarded", "reward_kwargs": {"settings": str(tmp_path / "my.toml")}}
    env = gym.make("PMLM-v0", **options, **more)
    assert env.observation_space == usual.observation_space
    assert env.action_space == usual.action_space
    check_env(env.unwrapped)


def test_a_spec_with_settings_as_tables_survives_serialization(options: dict[str, Any]) -> None:
    tables = {"weights": {"words": 1.0}, "gates": {"words": {"above": 3}}, "penalty": 2.0}
    env = gym.make("PMLM-v0", **options, reward="guarded", reward_kwargs={"settings": tables})
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert _ended(again)[0] == _ended(env)[0] == -2.0  # two words less


def test_a_vector_env_has_the_components_of_those_that_ended(options: dict[str, Any]) -> None:
    env = gym.make_vec("PMLM-v0", num_envs=2, **options)
    env.reset(options={"episode": np.array([0, 1])})
    for _ in range(2):
        info = env.step(env.unwrapped.action_masks().argmax(axis=1))[-1]  # type: ignore[attr-defined]
    final = info["final_info"]
    assert final["_components"].tolist() == [True, True]
    assert final["components"]["bertscore_f1"].tolist() == final["score"].tolist()
    assert final["components"]["_bertscore_f1"].tolist() == [True, True]
    assert final["initial_components"]["bertscore_f1"].tolist() == final["initial_score"].tolist()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"components": "none"}, "components is 'none': give one of 'reward', 'all'"),
        (
            {"reward": "guarded", "reward_kwargs": {"settings": "missing.toml"}},
            "cannot read missing.toml: No such file or directory",
        ),
        (
            {"reward": "guarded", "reward_kwargs": {"weights": {}}},
            "the reward guarded does not take these arguments: got an unexpected keyword argument 'weights'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(options: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        gym.make("PMLM-v0", **options, **more)


def test_without_training_patients_the_set_knows_which_conditions_a_reply_may_name(
    options: dict[str, Any], tmp_path: Path
) -> None:
    everybody = lite_episodes({"train": 20, "test": 2})
    first, second = everybody.of("test")
    aliased = (Label(first.label, aliases=("alpha syndrome",)), Label("gout"))
    alone = EpisodeSet([first, replace(second, label="gout")], aliased)
    alone.save(tmp_path / "test only")
    (tmp_path / "mine.toml").write_text("[weights]\ndiagnosis_named = 1\nwrong_diagnosis_named = -0.25\n")
    named = {**options, "episodes": str(tmp_path / "test only"), "split": "test"}
    named["llm_kwargs"] = {"end": " alpha syndrome and gout."}
    _, info = _ended(gym.make("PMLM-v0", **named, components="all"))
    assert info["components"]["diagnosis_named"] == info["components"]["wrong_diagnosis_named"] == 1.0
    more = {"reward": "guarded", "reward_kwargs": {"settings": str(tmp_path / "mine.toml")}}
    assert _ended(gym.make("PMLM-v0", **named, **more))[1]["score"] == 0.75
