"""Gymnasium's own vector envs over our scalar env: in this process, and in workers that own no model."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from transformers import BertConfig

import pmlm_env  # noqa: F401  registers the envs
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.rewards.bertscore import BertScorer
from tests.llm.tiny_llms import talkative
from tests.real.runs import processes
from tests.tiny_models import save_small_bert

#: Where parts keep weights and tokenizers once they are loaded.
_HEAVY = {"_bert", "_model", "_tokenizer", "_chat"}


def _vector(
    n: int, how: str, name: str = "PMLMLite-v0", vector_kwargs: dict[str, Any] | None = None, **task: Any
) -> Any:
    return gym.make_vec(name, num_envs=n, vectorization_mode=how, vector_kwargs=vector_kwargs, **task)


def _heavy(part: Any) -> set[str]:
    return _HEAVY & vars(part).keys()


def _play_both(mine: Any, other: Any, n_steps: int) -> int:
    """Take the same random steps, some of them invalid, in both; return how many episodes ended."""
    assert data_equivalence(mine.reset(seed=7), other.reset(seed=7), exact=True)
    rng = np.random.default_rng(0)
    ends = 0
    for step in range(n_steps):
        actions = rng.integers(mine.single_action_space.n, size=mine.num_envs)
        here, there = mine.step(actions), other.step(actions)
        for part, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), here, there, strict=True):
            assert data_equivalence(a, b, exact=True), f"step {step}: {part}"
        ends += int(here[2].sum())
    return ends


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("observation", ["embeddings", "index"])
def test_the_native_vector_env_is_gymnasiums_sync_one_of_made_envs(mode: AutoresetMode, observation: str) -> None:
    task: dict[str, Any] = {"observation": observation, "n_edits": 4, "texts": True}
    native = gym.make_vec("PMLMLite-v0", num_envs=3, autoreset_mode=mode, **task)
    sync = _vector(3, "sync", vector_kwargs={"autoreset_mode": mode}, **task)
    assert isinstance(sync, SyncVectorEnv)
    assert _play_both(native, sync, 30) >= 15


@pytest.mark.parametrize(
    ("context", "mode"),
    [
        ("fork", AutoresetMode.SAME_STEP),
        ("fork", AutoresetMode.NEXT_STEP),
        ("spawn", AutoresetMode.SAME_STEP),  # once: each of its workers imports torch and transformers anew
    ],
)
def test_in_worker_processes_it_does_what_it_does_in_this_one(context: str, mode: AutoresetMode) -> None:
    torch.ones(512, 512) @ torch.ones(512, 512)  # threads of torch in the parent must not hang a forked child
    options = {"context": context, "shared_memory": True, "autoreset_mode": mode}
    workers = _vector(2, "async", vector_kwargs=options, n_edits=4)
    try:
        assert isinstance(workers, AsyncVectorEnv)
        assert _play_both(workers, _vector(2, "sync", vector_kwargs={"autoreset_mode": mode}, n_edits=4), 24) >= 8
        masks = workers.call("action_masks")
    finally:
        workers.close()
    assert [mask.dtype for mask in masks] == [np.bool_] * 2


@pytest.fixture
def folder_without_weights(tmp_path: Path) -> str:
    """A model's folder that holds its configuration and nothing that could be loaded."""
    BertConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32).save_pretrained(
        tmp_path
    )
    (tmp_path / "model.safetensors").touch()
    return str(tmp_path)


@pytest.mark.parametrize("kind", [WordEncoder, BertScorer, LocalLLM])
def test_a_part_is_made_and_pickled_without_its_weights(kind: type, folder_without_weights: str) -> None:
    more = {"num_layers": 1} if kind is BertScorer else {}
    part = kind(folder_without_weights, device="cpu", **more)
    pickled = pickle.dumps(part)
    twin = pickle.loads(pickled)
    assert len(pickled) < 10_000
    assert _heavy(part) == _heavy(twin) == set()
    assert vars(twin) == vars(part)


@pytest.mark.real
def test_after_use_too_a_pickle_leaves_the_weights_behind() -> None:
    words, kept = [("blood", "pressure")], np.ones((1, 2), dtype=np.bool_)
    uses: list[tuple[Any, Any, set[str]]] = [
        (WordEncoder(device="cpu"), lambda part: part.encode(words, kept).tolist(), {"_bert", "_tokenizer"}),
        (BertScorer(device="cpu"), lambda part: part.score(["a cat"], ["a dog"]).f1.tolist(), {"_bert", "_tokenizer"}),
        (LocalLLM(max_new_tokens=4, device="cpu"), lambda part: part.generate(["Hello"]), {"_model", "_chat"}),
    ]
    for part, use, heavy in uses:
        assert _heavy(part) == set()
        result = use(part)
        assert _heavy(part) == heavy
        pickled = pickle.dumps(part)
        twin = pickle.loads(pickled)
        assert len(pickled) < 100_000
        assert _heavy(twin) == set()
        assert use(twin) == result


@pytest.mark.real
def test_the_whole_env_travels_without_weights() -> None:
    """What does travel are the episodes (1.3 MB) and the bounds of the spaces; the encoder alone would be 90 MB."""
    env = gym.make("PMLM-v0", device="cpu")
    task = env.unwrapped.task  # type: ignore[attr-defined]
    parts = {"encoder": task.encoder, "scorer": task.reward.reward, "llm": task.reward.llm.llm.llm}
    pickled = pickle.dumps(env)
    assert len(pickled) < 4_000_000
    twin = pickle.loads(pickled)
    again = twin.unwrapped.task
    assert [_heavy(part) for part in (again.encoder, again.reward.reward, again.reward.llm.llm.llm)] == [set()] * 3
    env.reset(seed=0)
    assert "_bert" in vars(parts["encoder"])
    assert len(pickle.dumps(env)) < 4_000_000


@pytest.mark.real
def test_each_worker_loads_its_own_models_and_agrees_with_this_process(tmp_path: Path) -> None:
    processes()  # whose server has imported what takes long, and has no model
    options = {"context": "forkserver", "autoreset_mode": AutoresetMode.SAME_STEP}
    bert, llm = save_small_bert(tmp_path / "bert"), talkative(tmp_path / "llm")
    task: dict[str, Any] = {"encoder": str(bert), "scorer": str(bert), "llm": f"local:{llm}", "llm_dtype": "float32"}
    task |= {"n_edits": 1, "max_new_tokens": 8, "temperature": 1.0, "device": "cpu"}  # greedily it says nothing
    workers = _vector(2, "async", "PMLM-v0", options, **task)
    try:
        observation, info = workers.reset(options={"episode": 3})
        assert info["episode_index"].tolist() == [3, 3]
        _, rewards, terminated, _, info = workers.step(np.array([4, 4]))
    finally:
        workers.close()
    assert terminated.all()
    env = gym.make("PMLM-v0", **task)
    alone, _ = env.reset(options={"episode": 3})
    _, reward, _, _, alone_info = env.step(np.int64(4))
    np.testing.assert_allclose(observation["embeddings"], np.stack([alone["embeddings"]] * 2), atol=1e-5)
    assert info["final_info"]["reply"].tolist() == [alone_info["reply"]] * 2
    np.testing.assert_allclose(rewards, np.full(2, float(reward)), atol=1e-5)
