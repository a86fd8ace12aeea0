from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.benchmark.patients import Patients, patients_of
from agents.benchmark.runner import BenchmarkConfig, benchmark
from agents.benchmark.tuned import first_trial, read_tuned
from agents.benchmark.tuning import TuneConfig, tune
from agents.problem import Problem
from agents.registry import AGENTS, class_of, make, settings_of
from agents.settings import Choices
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.outcomes import Outcomes
from pmlm_env.envs.lite import LiteReward, lite_episodes

pytestmark = pytest.mark.once

pytest.importorskip("optuna", reason="needs Optuna: pip install 'pmlm-env[tune]'")

_SMALL: dict[str, Any] = {"agents": ("surrogate", "random-p"), "budget": 700, "trials": 3, "seeds": 1}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of every fit that a tuning asks for."""
    seen: list[Any] = []
    deltas = Patients.deltas

    def spy(self: Patients, agent: Any, budget: int) -> np.ndarray:
        seen.append(agent.config)
        return deltas(self, agent, budget)

    monkeypatch.setattr(Patients, "deltas", spy)
    return seen


@pytest.mark.parametrize("name", [name for name in AGENTS if class_of(name).space])
def test_what_is_tuned_is_there_and_its_default_within_the_range(name: str) -> None:
    space = class_of(name).space
    for env in ("lite", "real"):
        config = settings_of(name, env)
        assert first_trial(name, env).keys() == space.keys()
        for key, within in space.items():
            value = getattr(config, key)
            if isinstance(within, Choices):
                assert value in within.values, key
                tried = within.values
            else:
                assert within.low <= value <= within.high, key
                assert type(value) is type(within.low), key
                tried = (within.low, within.high)
            for one in tried:  # every value is accepted by the config
                assert getattr(settings_of(name, env, {key: one}), key) == one


def test_tuning_writes_what_was_best_of_equally_many_trials(tmp_path: Path, fits: list[Any]) -> None:
    content = json.loads(tune(TuneConfig(**_SMALL, out=tmp_path)).read_text())
    assert {key: content[key] for key in ("budget", "trials", "seeds")} == {"budget": 700, "trials": 3, "seeds": 1}
    assert list(content["agents"]) == ["surrogate", "random-p"]
    assert [type(config).__name__ for config in fits] == ["SurrogateConfig"] * 3 + ["RandomPConfig"] * 3
    for first, name in ((fits[0], "surrogate"), (fits[3], "random-p")):
        found = content["agents"][name]
        assert first == settings_of(name, "lite")
        assert found["value"] >= found["default"]
        assert found["settings"].keys() == class_of(name).space.keys()
        assert settings_of(name, "lite", found["settings"]) in fits
    assert content["agents"]["surrogate"]["default"] > 0.1


def test_a_value_is_the_mean_delta_of_several_fits_on_validation_patients(tmp_path: Path) -> None:
    file = tune(TuneConfig(agents=("surrogate",), budget=700, trials=1, seeds=2, out=tmp_path))
    patients = patients_of("lite", "validation")
    lines = [
        patients.inductive(make("surrogate", settings_of("surrogate", "lite"), seed), 700) for seed in (1_000, 1_001)
    ]
    assert all(patient.startswith("validation-") for line in lines for patient in line["patients"])
    assert lines[0]["deltas"] != lines[1]["deltas"]
    mean = np.mean([line["deltas"] for line in lines])
    assert read_tuned(file)["agents"]["surrogate"]["value"] == pytest.approx(mean, abs=2e-6)


def test_test_patients_are_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: set[str] = set()
    edited: set[str] = set()

    class SpiedReward(LiteReward):
        def __init__(self, episodes: EpisodeSet) -> None:
            super().__init__(episodes)
            self.split = episodes[0].split

        def __call__(self, indices: Sequence[int], prompts: Sequence[str]) -> Outcomes:
            judged.add(self.split)
            return super().__call__(indices, prompts)

    class SpiedProblem(Problem):
        def __init__(self, episodes: EpisodeSet, *rest: Any) -> None:
            super().__init__(episodes, *rest)
            edited.update(episode.split for episode in episodes)

    monkeypatch.setattr("agents.benchmark.patients.LiteReward", SpiedReward)
    monkeypatch.setattr("agents.benchmark.patients.Problem", SpiedProblem)
    tune(TuneConfig(**_SMALL, out=tmp_path))
    assert judged == edited == {"train", "validation"}
    benchmark(BenchmarkConfig(agents=("random-p",), budget=(100,), seeds=1, out=tmp_path))
    assert "test" in judged & edited  # the spies would have detected test patients


def test_without_validation_patients_the_last_quarter_of_the_training_patients_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "test": 4}))
    patients = patients_of("lite", "validation")
    assert [episode.patient_id for episode in patients.train] == [f"train-{i}" for i in range(6)]
    assert [episode.patient_id for episode in patients.held_out] == ["train-6", "train-7"]
    assert patients.deltas(make("random-n"), 1).shape == (2,)


@pytest.mark.parametrize(("n", "warned"), [(9, True), (10, False)])
def test_too_few_patients_to_choose_settings_by_are_told_of(
    n: int, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("agents.benchmark.patients.lite_episodes", lambda: lite_episodes({"train": 8, "validation": n}))
    with caplog.at_level("WARNING", "agents"):
        tune(TuneConfig(**_SMALL, out=tmp_path))
    assert any(f"{n} validation patients are too few" in message for message in caplog.messages) == warned


def test_what_was_tuned_is_not_tuned_again(tmp_path: Path, fits: list[Any]) -> None:
    part = {**_SMALL, "agents": ("random-p",)}
    before = read_tuned(tune(TuneConfig(**part, out=tmp_path)))["agents"]
    fits.clear()
    file = tune(TuneConfig(**_SMALL, out=tmp_path))
    assert [type(config).__name__ for config in fits] == ["SurrogateConfig"] * 3
    assert read_tuned(file)["agents"]["random-p"] == before["random-p"]
    text = file.read_text()
    fits.clear()
    tune(TuneConfig(**_SMALL, out=tmp_path))
    assert (fits, file.read_text()) == ([], text)
    with pytest.raises(ValueError, match=r"has results with trials 3, not 4: use the same, or another --out"):
        tune(TuneConfig(**{**_SMALL, "trials": 4}, out=tmp_path))


def test_the_same_seed_gives_the_same_file_and_another_seed_other_trials(tmp_path: Path, fits: list[Any]) -> None:
    texts = [tune(TuneConfig(**_SMALL, out=tmp_path / name)).read_text() for name in ("a", "b")]
    assert texts[0] == texts[1]
    first, again = fits[:6], fits[6:]
    assert first == again
    fits.clear()
    tune(TuneConfig(**_SMALL, out=tmp_path / "c", seed=1))
    assert fits[0] == first[0]
    assert fits[1] != first[1]


def test_a_benchmark_takes_the_tuned_settings_and_the_defaults_of_all_others(tmp_path: Path) -> None:
    file = _write(tmp_path, {"surrogate": {"penalty": 7.5}, "random-p": {"keep": [0.8, 0.9]}, "dqn": {"rows": 4}})
    agents = ("surrogate", "random-n", "random-p")
    config = BenchmarkConfig(agents=agents, budget=(100,), seeds=1, tuned=file, out=tmp_path)
    lines = {x["agent"]: x for x in map(json.loads, benchmark(config).read_text().splitlines())}
    assert lines["surrogate"]["config"] == {"rows": 32, "penalty": 7.5}
    assert lines["random-p"]["config"] == {"keep": [0.8, 0.9], "patients": 8}
    assert lines["random-n"]["config"] == {}
    benchmark(config)  # continues without an error
    _write(tmp_path, {"surrogate": {"penalty": 7.0}})
    with pytest.raises(ValueError, match=r"has runs of surrogate with other settings: use those, or another --out"):
        benchmark(config)
    with pytest.raises(ValueError, match=r"has runs of surrogate with other settings"):
        benchmark(replace(config, tuned=None, seeds=2))


def test_without_optuna_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RuntimeError, match=r"^pmlm tune needs Optuna \(.*\): pip install 'pmlm-env\[tune\]'$"):
        tune(TuneConfig(**_SMALL, out=tmp_path))


@pytest.mark.parametrize("wrong", [{"agents": ("lexikon",)}, {"budget": 0}, {"trials": 0}, {"seeds": 0}])
def test_names_and_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"there is no agent 'lexikon'|use a whole number from 1 to"):
        TuneConfig(**wrong)


def test_an_agent_without_settings_to_tune_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the agent 'keep-all' has no settings to tune"):
        tune(TuneConfig(agents=("keep-all",), out=tmp_path))


def _write(folder: Path, agents: dict[str, dict[str, Any]]) -> Path:
    file = folder / "tuned.json"
    file.write_text(json.dumps({"agents": {name: {"settings": settings} for name, settings in agents.items()}}))
    return file
