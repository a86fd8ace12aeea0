"""PMLM-v0 as a user makes it: bundled encoder, bundled LLM, real BERTScore, no network."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from bert_score import BERTScorer
from safetensors.torch import load_file, save_file

import pmlm_env
from agents.registry import load
from pmlm_env.core.edits import EditRules
from pmlm_env.core.task import EditTask
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.rewards.bertscore import BertScorer, BertScoreReward
from pmlm_env.rewards.delta import DeltaReward
from pmlm_env.weights import resolve
from tests import fresh
from tests.commands import pmlm

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _play(env: gym.Env, seed: int) -> tuple[list[int], dict[str, Any], float]:
    """A random legal episode."""
    rng = np.random.default_rng(seed)
    _, info = env.reset(seed=seed)
    slots, done = [], False
    while not done:
        slots.append(int(rng.choice(np.flatnonzero(info["action_mask"]))))
        _, reward, terminated, truncated, info = env.step(np.int64(slots[-1]))
        done = terminated or truncated
    return slots, info, float(reward)


def test_it_plays_an_episode_and_the_reward_is_bert_scores() -> None:
    env = gym.make("PMLM-v0", max_new_tokens=24)
    slots, info, reward = _play(env, seed=0)
    assert len(slots) == 10
    assert [(edit.operation, edit.slot) for edit in info["edits"]] == [("delete", slot) for slot in slots]
    scorer = BERTScorer(model_type=resolve("minilm"), num_layers=5, device="cpu")
    f1 = scorer.score([info["reply"], info["initial_reply"]], [info["reference"]] * 2)[2]
    assert reward == pytest.approx(float(f1[0] - f1[1]), abs=1e-5)
    assert info["score"] == pytest.approx(float(f1[0]), abs=1e-5)
    assert info["initial_score"] == pytest.approx(float(f1[1]), abs=1e-5)


def test_an_agent_trained_by_default_plays_by_nothing_but_the_observation(tmp_path: Path) -> None:
    """Trained on a prepared folder, loaded from its files, and put before envs that know nothing of it."""
    lite_episodes({"train": 4, "test": 3}, template="default").save(tmp_path / "prepared")
    arguments = ["--episodes", tmp_path / "prepared", "--run", tmp_path / "run", "--llm", "responder", "--budget", 12]
    assert pmlm("train", *arguments, "--device", "cpu", "--patients", 2, "--rollouts", 2) == 0
    agent = load(tmp_path / "run" / "checkpoint")
    env = gym.make("PMLM-v0", llm="responder", device="cpu")
    envs = gym.make_vec("PMLM-v0", num_envs=3, llm="responder", device="cpu")
    observation, _ = env.reset(options={"episode": 1})
    batch, _ = envs.reset(options={"episode": 1})
    slots = []
    for step in range(10):
        action, actions = agent.act(observation), agent.act(batch)
        assert actions.tolist() == [action] * 3
        slots.append(action)
        observation, _, terminated, _, info = env.step(action)
        batch, _, ended, _, infos = envs.step(actions)
        assert terminated == ended.all() == (step == 9)
    assert [edit.slot for edit in info["edits"]] == slots
    assert len(set(slots)) == 10
    assert infos["final_info"]["edits"][0] == info["edits"]


def test_it_is_found_by_module_and_name_in_a_fresh_process() -> None:
    code = "import gymnasium as gym; print(gym.make('pmlm_env:PMLM-v0').observation_space['patient'].shape)"
    out = fresh.run("-c", code)
    assert out.stdout.strip() == "(128,)"


def test_the_vector_env_is_eight_scalar_envs_action_for_action() -> None:
    task: dict[str, Any] = {"n_edits": 3, "llm": "responder"}  # all share a cache: whoever asks first decides
    envs = [gym.make("PMLM-v0", **task) for _ in range(8)]
    vector = gym.make_vec("PMLM-v0", num_envs=8, **task)
    observation, info = vector.reset(seed=5)
    for row, env in enumerate(envs):
        alone, alone_info = env.reset(seed=5 + row)
        np.testing.assert_allclose(observation["embeddings"][row], alone["embeddings"], atol=1e-5)
        assert info["episode_index"][row] == alone_info["episode_index"]
    rng = np.random.default_rng(0)
    for _ in range(3):
        slots = np.array([rng.choice(np.flatnonzero(mask)) for mask in observation["action_mask"]])
        observation, rewards, terminated, truncated, info = vector.step(slots)
        last = "final_info" in info
        for row, env in enumerate(envs):
            alone, reward, done, cut, alone_info = env.step(slots[row])
            assert rewards[row] == pytest.approx(reward, abs=1e-5)
            assert (terminated[row], truncated[row]) == (done, cut)
            seen = {k: info["final_obs"][row][k] if last else observation[k][row] for k in alone}
            np.testing.assert_allclose(seen["embeddings"], alone["embeddings"], atol=1e-5)
            np.testing.assert_array_equal(seen["action_mask"], alone["action_mask"])
            if last:
                assert info["final_info"]["reply"][row] == alone_info["reply"]
    assert last


def test_a_batch_of_prompts_gets_the_replies_that_each_gets_alone() -> None:
    """Not through names, which share one cache: both sides ask an LLM without one, in float32."""
    episodes = lite_episodes({"train": 4})  # whose prompts are short
    encoder, scorer = WordEncoder(device="cpu"), BertScoreReward(BertScorer(device="cpu"))
    llm = LocalLLM(max_new_tokens=8, device="cpu", dtype=torch.float32)

    def task() -> EditTask:
        return EditTask(episodes, encoder, DeltaReward(episodes, llm, scorer), EditRules(n_edits=2))

    vector = pmlm_env.PMLMVectorEnv(4, task=task())
    vector.reset(options={"episode": np.arange(4)})
    for slot in (3, 8):
        _, rewards, _, _, info = vector.step([slot] * 4)
    for row in range(4):
        env = pmlm_env.PMLMEnv(task=task())
        env.reset(options={"episode": row})
        env.step(np.int64(3))
        _, alone, _, _, alone_info = env.step(np.int64(8))
        assert info["final_info"]["reply"][row] == alone_info["reply"]
        assert rewards[row] == pytest.approx(alone, abs=1e-5)


def test_episodes_prepared_again_in_this_process_are_the_ones_that_are_played(tmp_path: Path) -> None:
    for seed in (0, 1):  # as many words and patients: the files are of one size
        lite_episodes({"train": 3}, seed).save(tmp_path)
        task = gym.make("PMLM-v0", episodes=str(tmp_path), llm="responder").unwrapped.task
        assert [e.prompt for e in task.episodes] == [e.prompt for e in lite_episodes({"train": 3}, seed)]
        assert task.reward.episodes is task.episodes
    again = gym.make("PMLM-v0", episodes=str(tmp_path), llm="responder").unwrapped.task
    assert again.episodes is task.episodes
    assert again.encoder is task.encoder
    assert again.reward.llm is task.reward.llm
    assert again.reward.reward is task.reward.reward


def test_an_encoder_whose_files_have_changed_is_loaded_again(tmp_path: Path) -> None:
    folder = shutil.copytree(resolve("minilm"), tmp_path / "encoder")
    lite_episodes({"train": 3}).save(tmp_path)

    def first_embedding() -> Any:
        env = gym.make("PMLM-v0", episodes=str(tmp_path), llm="responder", encoder=str(folder))
        return env.reset(options={"episode": 0})[0]["embeddings"][0]

    before = first_embedding()
    assert np.array_equal(first_embedding(), before)
    weights = load_file(folder / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    assert not np.allclose(first_embedding(), before, atol=0.01)
