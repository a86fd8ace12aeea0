"""``benchmarks.scale`` measures each stage, in small sizes, and its page has the committed results."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import Options, Result, main, table
from pmlm_env.cohort import read_cohort
from pmlm_env.core.arrays import GrowingArray
from pmlm_env.core.episodes import EpisodeSet
from tests.standins import make_episodes, with_checkups

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.usefixtures("quick_stages")
def test_every_stage_runs_and_more_patients_than_are_drawn_are_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)  # this process goes on after it
    monkeypatch.setattr("pmlm_env.cohort.simulator.simulate.PART", 20)
    monkeypatch.setattr(scale, "PART", 20)
    monkeypatch.setattr(scale, "_ASKED", 20)
    options = Options(tmp_path / "scale.json", tmp_path / "scratch", drawn=40)
    for n in (40, 120):
        done = {stage: scale.measure(stage, n, options).done for stage in Options.stages}
        assert done == dict.fromkeys(Options.stages, n) | {"simulate": 40}
    cohort, _ = read_cohort(tmp_path / "scratch" / "120" / "cohort")
    assert (len(cohort), len({patient.patient_id for patient in cohort})) == (120, 120)
    prepared = EpisodeSet.load(tmp_path / "scratch" / "120" / "prepared")
    assert (len(prepared), prepared.has_checkups) == (120, True)
    shutil.rmtree(tmp_path / "scratch" / "120" / "prepared")
    assert scale.measure("episodes", 120, options).done == 120
    repeated, drawn = (EpisodeSet.load(tmp_path / "scratch" / f"{n}" / "prepared") for n in (120, 40))
    assert len({episode.patient_id for episode in repeated}) == 120
    assert [episode.words for episode in repeated] == 3 * [episode.words for episode in drawn]
    assert repeated.checkups[-1].values.tobytes() == drawn.checkups[-1].values.tobytes()


def test_what_is_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(function: object, stage: str, n: int, options: Options) -> Result:
        asked.append((stage, n))
        return Result(stage, n, n, n / 100, 5.0)

    monkeypatch.setattr(scale, "_in_a_process", measured)
    for stages in (("read",), ("simulate", "read")):
        main(Options(tmp_path / "scale.json", tmp_path, (10_000, 1_000), stages))
    assert asked == [("read", 10_000), ("read", 1_000), ("simulate", 10_000), ("simulate", 1_000)]
    results = [Result(**each) for each in json.loads((tmp_path / "scale.json").read_text())]
    assert capsys.readouterr().out.endswith("\n".join(table(results)) + "\n")


def test_patients_that_cannot_be_repeated_in_full_are_refused() -> None:
    Options(Path("scale.json"), Path("scratch"), (999, 200_000))
    with pytest.raises(ValueError, match="--patients 250,000 is no multiple of --drawn 100,000"):
        Options(Path("scale.json"), Path("scratch"), (250_000,))


@pytest.mark.parametrize("failing", ["vectors", "values"])
def test_episodes_that_were_not_all_repeated_are_repeated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    options = Options(tmp_path / "scale.json", tmp_path, (12,), drawn=4)
    with_checkups(make_episodes(4)).save(tmp_path / "4" / "prepared")

    def killed(self: GrowingArray, others: object = None) -> None:
        if self._name == failing:
            raise KeyboardInterrupt
        close(self, others)

    close = GrowingArray.close
    with monkeypatch.context() as patch:
        patch.setattr(GrowingArray, "close", killed)
        with pytest.raises(KeyboardInterrupt):
            scale._repeated(12, options)
    assert len(EpisodeSet.load(scale._repeated(12, options))) == 12


def _killed(*_: object) -> Result:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_process_that_is_killed_for_its_memory_ends_the_command() -> None:
    with pytest.raises(BrokenProcessPool):
        scale._in_a_process(_killed)


def test_the_exponent_is_that_of_complete_measurements_of_many_patients() -> None:
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    of_all = [Result("read", n, n, 1e-8 * n**1.5 if n > 10_000 else 9.0, 1.0) for n in sizes]
    in_part = [Result("simulate", n, min(n, 100_000), float(min(n, 100_000)), 1.0) for n in sizes]
    once = [Result("fit", n, n, 1.0, 1.0) for n in sizes[:2]]
    *_, simulate, read, fit = table([*in_part, *of_all, *once])
    assert fit.endswith("not measured | - |")
    assert read.endswith(" | 1.50 |")
    assert simulate.endswith("the first 100,000 | 1.00 |")


def test_the_page_has_the_committed_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text(encoding="utf-8"))
    rows = table([Result(**each) for each in results])
    assert "\n".join(rows) in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
