from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.model_options import CallOptions, ModelOptions
from agents.registry import settings_of
from agents.training.config import TrainConfig
from agents.training.estimate import estimate
from pmlm_env.core.episodes import EpisodeSet
from tests.standins import make_episodes

PRICES = """[openai.prices."dear"]
prompt = 1000.0
completion = 2000.0
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """8 training and 4 test patients, and a budget of 30 completions."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    everybody = [replace(episode, split="test" if i > 7 else "train") for i, episode in enumerate(make_episodes(12))]
    EpisodeSet(everybody).save(tmp_path / "prepared")
    (tmp_path / "providers.toml").write_text(PRICES)
    models = ModelOptions(llm="openai:dear", providers=str(tmp_path / "providers.toml"), max_new_tokens=50)
    return TrainConfig(episodes=tmp_path / "prepared", models=models, budget=30)


def test_a_worked_example(config: TrainConfig) -> None:
    lines = estimate(config).splitlines()
    # 30: the budget; evaluation: keep-all, random and agent for each of the 4 test patients
    assert lines[1].startswith("  training   30 LLM calls")
    assert "1,500 out" in lines[1]
    assert lines[2].startswith("  evaluation 12 LLM calls")
    assert "600 out" in lines[2]
    assert lines[3].startswith("  total      42 LLM calls")


def test_money_is_tokens_times_price(config: TrainConfig) -> None:
    episodes = make_episodes(12)
    tokens = [len(episode.prompt) / 4 for episode in episodes]
    expected = 30 * (sum(tokens[:8]) / 8 * 1e-3 + 50 * 2e-3) + 12 * (sum(tokens[8:]) / 4 * 1e-3 + 50 * 2e-3)
    money = float(estimate(config).splitlines()[3].split(", ")[-1].removeprefix("cost "))
    assert money == pytest.approx(expected, abs=0.01)


def test_the_providers_system_prompt_counts_with_each_prompt(config: TrainConfig, tmp_path: Path) -> None:
    def tokens() -> float:
        return float(estimate(config).splitlines()[3].split(" tokens in")[0].split()[-1].replace(",", ""))

    before = tokens()
    (tmp_path / "providers.toml").write_text(f'[openai]\nsystem_prompt = "{"say " * 1000}"\n{PRICES}')
    assert tokens() == pytest.approx(before + 42 * 1000, abs=2)


def test_samples_are_of_whole_prompts_and_limits_are_told(config: TrainConfig) -> None:
    models = replace(config.models, n_samples=4)
    said = estimate(replace(config, models=models, calls=CallOptions(max_cost=2.5)))
    assert "training   28 LLM calls" in said  # 7 prompts with 4 samples each
    assert "evaluation 48 LLM calls" in said
    assert "limits: max_cost 2.5" in said


@pytest.mark.parametrize("agent", ["keep-all", "random-n", "self-information-low"])
def test_an_agent_that_learns_from_no_replies_costs_nothing_in_training(config: TrainConfig, agent: str) -> None:
    lines = estimate(replace(config, agent=agent, settings=None)).splitlines()
    assert lines[1].startswith("  training   0 LLM calls")
    assert lines[3].startswith("  total      12 LLM calls")


def test_without_a_price_it_says_so(config: TrainConfig) -> None:
    said = estimate(replace(config, models=replace(config.models, llm="responder", providers=None, max_new_tokens=128)))
    assert "price of this LLM is not known" in said
    assert "cost" not in said


def test_what_would_keep_the_run_from_starting_is_told(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "The run cannot start yet: https://api.openai.com/v1 needs a key" in estimate(config)
    with pytest.raises(ValueError, match="unknown LLM 'opneai:dear'"):
        estimate(replace(config, models=ModelOptions(llm="opneai:dear")))
    with pytest.raises(ValueError, match="max_cost needs the model's price"):
        estimate(replace(config, models=replace(config.models, llm="openai:cheap"), calls=CallOptions(max_cost=1.0)))


def test_what_an_editor_is_asked_is_said_apart(config: TrainConfig) -> None:
    settings = settings_of("llm-editor", changes={"editor": "openai:other"})
    said = estimate(replace(config, agent="llm-editor", settings=settings)).splitlines()
    assert said[1].startswith("  training   0 LLM calls")
    assert "The agent asks openai:other about each test prompt, too: 4 calls, not included above" in said
    models = replace(config.models, llm="responder", max_new_tokens=ModelOptions.max_new_tokens)
    assert estimate(replace(config, agent="llm-editor", settings=settings, models=models))  # providers are the editor's
