"""What envs made by name share, and what is their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pmlm_env.core.task import EditTask
from pmlm_env.envs.options import PMLMOptions
from pmlm_env.envs.shared_models import SharedModels
from pmlm_env.kwargs import Kwargs
from pmlm_env.rewards.delta import TooManyFailuresError
from tests.llm.endpoint import KEY, Answer, Endpoint, chat, serve
from tests.standins import make_episodes
from tests.tiny_models import save_model


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        yield state


@pytest.fixture
def options(endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names of small parts, with an endpoint on this machine."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    make_episodes(4, n_words=8).save(tmp_path / "episodes")
    model = str(save_model(tmp_path / "model", "bert", 40))
    providers = tmp_path / "providers.toml"
    providers.write_text("[openai]\ntries = 1\nbackoff = 0\n")
    return {
        "episodes": str(tmp_path / "episodes"),
        "encoder": model,
        "scorer": model,
        "llm": "openai:some-model",
        "base_url": endpoint.url,
        "providers": str(providers),
        "n_edits": 1,
        "device": "cpu",
    }


def _play(env: gym.Env, episode: int, slot: int) -> dict[str, Any]:
    env.reset(options={"episode": episode})
    return env.step(np.int64(slot))[-1]


def test_failures_of_one_env_do_not_stop_another_of_the_same_spec(endpoint: Endpoint, options: dict[str, Any]) -> None:
    endpoint.answer = lambda count, prompt: Answer(400, {"error": {"message": "down"}})
    one, other = (gym.make("PMLM-v0", **options, max_failures=2) for _ in range(2))
    assert "llm_error" in _play(one, 0, 0)
    assert "llm_error" in _play(other, 0, 0)  # the first failure of this env, and the second of both together
    with pytest.raises(TooManyFailuresError, match="2 episodes in a row got no reply"):
        _play(one, 0, 0)
    with pytest.raises(TooManyFailuresError):
        _play(other, 0, 0)


def test_envs_of_one_spec_ask_for_an_initial_reply_once(endpoint: Endpoint, options: dict[str, Any]) -> None:
    endpoint.answer = lambda count, prompt: chat(f"w{count}")
    one, other = (gym.make("PMLM-v0", **options) for _ in range(2))
    first, second = _play(one, 0, 0), _play(other, 0, 1)
    assert first["initial_reply"] == second["initial_reply"]
    assert [first["llm_calls"], second["llm_calls"]] == [2, 1]
    assert endpoint.n_requests == 3


def test_everything_named_is_shared_but_the_reward(options: dict[str, Any]) -> None:
    models = SharedModels()
    one, other, test = (
        PMLMOptions(**{**options, **more}).task(models) for more in ({}, {"n_edits": 3}, {"max_failures": 3})
    )
    for task in (other, test):
        assert task.episodes is one.episodes
        assert task.encoder is one.encoder
        assert _reward(task) is not _reward(one)
        assert _reward(task).llm is _reward(one).llm
        assert _reward(task).reward is _reward(one).reward
        assert _reward(task).initial is _reward(one).initial


@pytest.mark.parametrize(
    ("name", "value"), [("n_samples", 2), ("long_texts", "chunks"), ("scorer_idf", True), ("temperature", 0.5)]
)
def test_initial_replies_that_would_be_others_are_not_shared(options: dict[str, Any], name: str, value: Any) -> None:
    models = SharedModels()
    one, other = (PMLMOptions(**{**options, **more}).task(models) for more in ({}, {name: value}))
    assert _reward(one).initial is not _reward(other).initial


def test_two_owners_of_models_share_nothing(options: dict[str, Any]) -> None:
    one, other = (PMLMOptions(**options).task(SharedModels()) for _ in range(2))
    assert one.episodes is not other.episodes
    assert one.encoder is not other.encoder
    assert _reward(one).llm is not _reward(other).llm


def test_episodes_and_models_whose_files_have_changed_are_loaded_again(options: dict[str, Any]) -> None:
    models = SharedModels()
    before = PMLMOptions(**options).task(models)
    make_episodes(5, n_words=8, seed=1).save(options["episodes"])
    save_model(Path(options["encoder"]), "bert", 50)
    Path(options["providers"]).write_text("[openai]\ntries = 2\n")
    after = PMLMOptions(**options).task(models)
    assert [len(before.episodes), len(after.episodes)] == [4, 5]
    assert before.encoder is not after.encoder
    assert _reward(before).reward is not _reward(after).reward
    assert _reward(before).llm is not _reward(after).llm


def test_files_in_the_home_folder_that_have_changed_are_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    models = SharedModels()

    def penalty(written: float) -> float:
        (tmp_path / "guarded.toml").write_text(f"penalty = {written}\n[weights]\ninitial_copy = 1.0\n")
        reward: Any = models.reply_reward("guarded", Kwargs({"settings": "~/guarded.toml"}), "cpu", None, None)
        return float(reward._reward.settings.penalty)

    assert [penalty(0.1), penalty(0.25)] == [0.1, 0.25]


def _reward(task: EditTask) -> Any:
    return task.reward
