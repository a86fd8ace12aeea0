"""PMLM-v0 with prompts at the edges: one word, no word, Chinese, words of many pieces, more pieces than BERT takes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pmlm_env import Episode, EpisodeSet

pytestmark = pytest.mark.real

PROMPTS = {
    "one word": "Help",
    "Chinese": "孕妇 今天 出院 。 化验 提示 妊娠期糖尿病 。 请 写出 出院 诊断",
    "many pieces": "Take " + "levothyroxinepropylthiouracil" * 8 + " daily",
    "over 512 pieces": "haemoglobin 117 g/L " * 80,
}


def _make(words: list[str]) -> Episode:
    roles: Any = ("instruction",) * len(words)
    return Episode(
        "P0", "train", tuple(words), roles, np.ones(128, np.float32), "Rest well. 注意休息。", "normal", "", ()
    )


@pytest.mark.parametrize("kind", PROMPTS)
def test_it_can_be_played_to_the_end(kind: str, tmp_path: Any) -> None:
    words = PROMPTS[kind].split()
    EpisodeSet([_make(words)]).save(tmp_path)
    env = gym.make("PMLM-v0", episodes=str(tmp_path), n_edits=2, max_new_tokens=4)
    observation, info = env.reset(seed=0)
    assert observation["embeddings"].any(axis=1).all()
    assert info["action_mask"].sum() == len(words)
    terminated = False
    for slot in (0, len(words) - 1)[: len(words)]:
        observation, reward, terminated, truncated, info = env.step(np.int64(slot))
    assert terminated
    assert not truncated
    assert np.isfinite(reward)
    assert info["prompt"].split() == words[1:-1]
    assert observation["embeddings"].any(axis=1).tolist() == [0 < slot < len(words) - 1 for slot in range(len(words))]
    assert info["reply"]
