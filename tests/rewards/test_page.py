"""docs/rewards.md says what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest

from pmlm_env.rewards.components import COMPONENTS
from pmlm_env.rewards.guarded import Gate, GuardedSettings
from pmlm_env.rewards.registry import REWARDS
from tests.standins import make_episodes
from tests.tiny_models import save_model

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def _block(language: str, number: int) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[number]


def test_every_component_is_defined_as_in_the_code() -> None:
    section = PAGE.split("## Components")[1].split("## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE)) == dict(COMPONENTS)


def test_every_reward_is_listed() -> None:
    names = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Components")[0], re.MULTILINE)
    assert names == list(REWARDS.builtin)


def test_the_example_of_settings_is_read(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(_block("toml", 0))
    settings = GuardedSettings.read(tmp_path / "my.toml")
    assert settings.penalty == 0.05
    assert settings.gates[1:] == (Gate("initial_copy", "above", "letters", 0.03), Gate("length_ratio", "below", 0.5))


def test_the_example_of_a_reward_of_ones_own_pays_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("short")
    exec(_block("python", 1), module.__dict__)
    monkeypatch.setitem(sys.modules, "short", module)
    make_episodes(2, n_words=8).save(tmp_path / "episodes")
    model = str(save_model(tmp_path / "model", "bert", 40))
    own = {"llm": "tests.own_parts:Shout", "llm_kwargs": {"end": " normal"}, "reward": "short:ShortAndRight"}
    env = gym.make("PMLM-v0", episodes=str(tmp_path / "episodes"), encoder=model, n_edits=1, device="cpu", **own)
    env.reset(options={"episode": 0})
    _, reward, _, _, info = env.step(np.int64(0))
    assert info["initial_components"] == {"right": 1.0, "words": 9.0, "cut": 0.0}
    assert info["components"] == {"right": 1.0, "words": 8.0, "cut": 0.0}
    assert reward == pytest.approx(0.01)
    reward = module.__dict__["ShortAndRight"]()
    before, after = (
        {"right": np.ones(1), "words": np.full(1, n), "cut": np.full(1, cut)} for n, cut in ((9, 0), (8, 1))
    )
    assert reward.change(before, after).tolist() == [0.0]  # the new reply is cut off
