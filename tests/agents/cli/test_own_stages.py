"""``pmlm prepare`` with a source, a predictor and a retriever of one's own, and their arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.pipeline import Pipeline
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages")]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    write_cohort(simulate_cohort(60, seed=1), folder)
    return folder


def prepare(tables: Path, out: Path, *arguments: str) -> int:
    usual = ["--k", "2", "--n-folds", "2", "--device", "cpu"]
    return pmlm("prepare", "--cohort", tables, "--out", out, *usual, *arguments)


OWN = {
    "predictor": "tests.own_stages:Shares",
    "predictor_kwargs": {"power": 2},
    "retriever": "tests.own_stages:First",
    "retriever_kwargs": {"skip": 3},
}
SOURCE = {"source": "tests.own_stages:only", "source_kwargs": {"most": 55}}


def check(out: Path) -> None:
    episodes = EpisodeSet.load(out)
    assert len(episodes) == 55
    assert len({(e.predicted, e.peers) for e in episodes.of("test")}) == 1  # they look at no patient
    parts = json.loads((out / "pipeline" / "pipeline.json").read_text())
    assert parts["predictor"] == {"name": OWN["predictor"], "kwargs": {"power": 2}}
    assert parts["retriever"] == {"name": OWN["retriever"], "kwargs": {"skip": 3}}


def test_parts_of_ones_own_are_given_by_path_and_json(tables: Path, tmp_path: Path) -> None:
    options = [
        word
        for name, value in {**OWN, **SOURCE}.items()
        for word in ("--" + name.replace("_", "-"), value if isinstance(value, str) else json.dumps(value))
    ]
    assert prepare(tables, tmp_path / "out", *options) == 0
    check(tmp_path / "out")
    with pytest.raises(ValueError, match=r"the predictor is tests\.own_stages:Shares, which is code from outside"):
        Pipeline.load(tmp_path / "out")


def test_parts_of_ones_own_are_given_in_a_file(tables: Path, tmp_path: Path) -> None:
    lines = [f'{name} = "{value}"' for name, value in {**OWN, **SOURCE}.items() if isinstance(value, str)]
    lines += ["[predictor_kwargs]", "power = 2", "[retriever_kwargs]", "skip = 3", "[source_kwargs]", "most = 55"]
    (tmp_path / "own.toml").write_text("\n".join(lines))
    assert prepare(tables, tmp_path / "out", "--config", str(tmp_path / "own.toml")) == 0
    check(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--source", "mimic"],
            "there is no source 'mimic' (did you mean mimic-iv?): use tables, mimic-iv, discharge-me, omop, fhir, me",
        ),
        (["--source", "no.such:thing"], "source no.such:thing: there is no module no"),
        (
            ["--source", "tests.own_stages:only", "--source-kwargs", '{"least": 1}'],
            "does not take these arguments: got an",
        ),
        (["--source", "tests.own_stages:only", "--source-kwargs", "most=1"], "--source-kwargs is not JSON"),
        (
            ["--source", "tests.own_stages:only", "--drop-bad-rows"],
            "--drop-bad-rows has no effect: it is not an option of the source tests.own_stages:only",
        ),
        (
            ["--source", "tests.own_stages:only", "--labs-file", "x.csv"],
            "--labs-file has no effect: it is not an option",
        ),
        (["--source-kwargs", '{"most": 1}'], "--source-kwargs has no effect: the source tables has options of its own"),
        (["--source", "tests.own_stages:twice"], "the source tests.own_stages:twice returned patient P1-00001 2 times"),
        (["--source", "tests.own_stages:bare_cohort"], "returned Cohort, not a Cohort and a ReadReport"),
        (
            ["--source", "tests.own_stages:only", "--source-kwargs", '{"most": 0}'],
            "only returned no patient",
        ),
        (["--predictor", "forest"], "there is no predictor 'forest': use boosted-trees, logistic, "),
        (["--predictor-kwargs", '{"depth": 2}'], "the predictor boosted-trees does not take these arguments: got an"),
        (["--retriever", "tests.own_stages:First", "--retriever-kwargs", "[3]"], "--retriever-kwargs is of type list"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert prepare(tables, tmp_path / "out", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_failed_preparation_leaves_no_pipeline_beside_other_prompts(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(tables, tmp_path / "out") == 0

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "save", full)
        assert prepare(tables, tmp_path / "out", "--seed", "1") == 1
    with pytest.raises(ValueError, match=r"has no pipeline\.json: give a folder that `pmlm prepare` made, or make it"):
        Pipeline.load(tmp_path / "out")
    assert prepare(tables, tmp_path / "out", "--seed", "1") == 0
    Pipeline.load(tmp_path / "out")
