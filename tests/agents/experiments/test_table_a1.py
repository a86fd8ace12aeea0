"""``pmlm experiment table-a1``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from agents.evaluation.aggregate import crossed_bootstrap
from agents.experiments.predictor_table import f1_intervals
from agents.experiments.table_a1 import TableA1
from pmlm_env.cohort import Cohort, Split, read_cohort, split_by_date
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.predictors import PREDICTORS, evaluate
from pmlm_env.predictors.calibration import at_temperature, fit_temperature
from tests.commands import pmlm
from tests.llm.tiny_llms import tiny_model

pytestmark = pytest.mark.once

CUTS = {"train_until": "2021-12-18", "validation_until": "2021-12-31"}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, men: Path) -> Path:
    """A table of simulated patients and of the 60 men."""
    out = tmp_path_factory.mktemp("results")
    command = ["experiment", "table-a1", "--out", out, "--rows", "logistic"]
    assert pmlm(*command, "majority class", "--quick", "--data", "simulated-paper") == 0
    cuts = ["--train-until", CUTS["train_until"], "--validation-until", CUTS["validation_until"]]
    assert pmlm(*command, "--data", "--cohort", men, *cuts, "--seeds", 2) == 0
    return out / "table-a1"


def runs(results: Path) -> list[dict]:
    return [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def splits(men: Path) -> dict[str, Split]:
    return {
        "simulated-paper": split_by_date(simulate_cohort(300)),
        men.name: split_by_date(read_cohort(men)[0], **CUTS),
    }


def test_logistic_regression_gets_the_scores_that_it_gets_by_hand(results: Path, splits: dict[str, Split]) -> None:
    found = [run for run in runs(results) if run["cell"]["predictor"] == "logistic"]
    assert [(run["cell"]["data"], run["cell"]["seed"]) for run in found] == [
        ("simulated-paper", 0), ("men", 0), ("men", 1),
    ]  # fmt: skip
    for run in found:
        split, result = splits[run["cell"]["data"]], run["result"]
        made = PREDICTORS.make("logistic", seed=run["cell"]["seed"]).fit(split.train)
        temperature = fit_temperature(made.predict_proba(split.validation), made.labels, split.validation.y)
        proba = at_temperature(made.predict_proba(split.test), temperature)
        report = evaluate(proba, made.labels, split.test.y, split.train.y)
        for name in ("micro_f1", "macro_f1", "calibration_error", "brier"):
            assert result[name] == pytest.approx(getattr(report, name), abs=1e-6), name
        assert result["temperature"] == pytest.approx(temperature, rel=1e-4)
        assert [result["labels"][i] for i in result["truth"]] == split.test.y.tolist()
        assert [result["labels"][i] for i in result["predicted"]] == made.predict(split.test).tolist()
        assert result["patients"] == {name: len(part) for name, part in vars(split).items() if isinstance(part, Cohort)}


def test_the_majority_row_is_the_share_of_the_most_frequent_label(results: Path, splits: dict[str, Split]) -> None:
    for run in runs(results):
        split = splits[run["cell"]["data"]]
        names, counts = np.unique(split.train.y, return_counts=True)
        share = np.mean(split.test.y == names[counts.argmax()])
        if run["cell"]["predictor"] == "majority class":
            assert run["result"]["micro_f1"] == pytest.approx(share)
        else:
            assert run["result"]["micro_f1"] > share


def test_each_run_has_its_costs(results: Path) -> None:
    for run in runs(results):
        assert 0 <= run["result"]["fit_seconds"] < run["seconds"]
        assert 0 <= run["result"]["predict_seconds"] < run["seconds"]
        assert 50 < run["result"]["peak_mb"] < 2_000


def test_the_table_has_a_part_for_each_cohort_and_a_row_for_each_predictor(results: Path) -> None:
    table = (results / "table.md").read_text()
    assert table.startswith("simulated-paper: ")
    assert "\n\nmen: " in table
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert [(row[0], row[9]) for row in rows] == [
        ("predictor", "seeds"), ("---", "---"), ("*majority class*", "1"), ("logistic", "1"),
        ("predictor", "seeds"), ("---", "---"), ("logistic", "2"),
    ]  # fmt: skip
    assert [row[2] for row in rows] == ["minus boosted-trees", "---", "", "", "minus boosted-trees", "---", ""]
    results_of_men = [run["result"] for run in runs(results)[2:]]
    assert rows[-1][5] == f"{np.mean([result['brier'] for result in results_of_men]):.3f}"
    assert rows[-1][1].startswith(f"{100 * np.mean([result['micro_f1'] for result in results_of_men]):.1f} [")


def test_lora_llm_has_a_row_with_its_arguments(men: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "llm", max_position_embeddings=8192)
    kwargs = {"model": str(tmp_path / "llm"), "max_patients": 12, "n_epochs": 1}
    cuts = ["--train-until", CUTS["train_until"], "--validation-until", CUTS["validation_until"]]
    own = ["--data", "--cohort", men, *cuts, "--rows", "lora-llm", "--lora-kwargs", json.dumps(kwargs)]
    assert pmlm("experiment", "table-a1", *own, "--seeds", 3, "--out", tmp_path / "out") == 0
    (run,) = runs(tmp_path / "out" / "table-a1")
    assert run["cell"]["kwargs"] == kwargs
    assert len(run["result"]["predicted"]) == 20
    assert '| lora-llm, {"max_patients": 12, ' in (tmp_path / "out" / "table-a1" / "table.md").read_text()


def test_without_peft_the_row_lora_llm_is_left_out_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    rows = ["--rows", "lora-llm", "logistic", "--data", "simulated-paper", "--seeds", 1]
    assert pmlm("experiment", "table-a1", *rows, "--dry-run", "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "missing runs: 1" in shown
    assert "lora-llm" not in shown
    assert caplog.messages == ["The row lora-llm is left out: it needs peft (pip install 'pmlm-env[lora]')"]


def test_a_quick_table_has_the_first_cohort_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["--rows", "logistic", "lstm", "--quick", "--dry-run", "--out", tmp_path]
    assert pmlm("experiment", "table-a1", *rows) == 0
    shown = capsys.readouterr().out
    assert "missing runs: 2" in shown
    assert "simulated-literature" not in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rows", "lstm+more"), "there is no row 'lstm+more': use majority class, boosted-trees, "),
        (("--quick", "--seeds", "3"), "--seeds has no effect: --quick uses one seed"),
        (("--labs-file", "x.csv"), "--labs-file has no effect: it is an option of --cohort, which is not given"),
        (("--lora-kwargs", '{"max_tokens": 5}'), "max_tokens is 5: use 16 to 100,000"),
        (("--lora-kwargs", '{"patients": 5}'), "the predictor lora-llm does not take these arguments"),
        (("--rows", "logistic", "--lora-seeds", "2"), "--lora-seeds has no effect: --rows does not have lora-llm"),
        (
            ("--lora-seeds", "0", "--lora-kwargs", "{}"),
            "--lora-kwargs has no effect: --lora-seeds 0 leaves it out",
        ),
        (("--seeds", "0"), "seeds is 0: use a whole number from 1 to 1,000"),
        (("--lora-kwargs", '{"rank": 4}'), "the predictor lora-llm does not take these arguments: "),
        (("--lora-kwargs", '{"max_tokens": 0}'), "max_tokens is 0: use 16 to 100,000"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "table-a1", "--out", tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()


def test_a_cohort_that_changes_while_the_command_runs_is_not_taken_for_the_one_that_it_read(
    men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(men, tmp_path / "men")
    experiment = TableA1(rows=("majority class",), data=(), cohort=own, seeds=1, **CUTS)
    (cell,) = experiment.cells()
    table = own / "patients.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match=r"men has changed since the command began: run it again"):
        experiment.run(cell)


def test_a_cohort_that_is_named_like_the_simulated_one_is_not_compared_with_the_paper(
    men: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(men, tmp_path / "simulated-paper")
    cuts = ["--train-until", CUTS["train_until"], "--validation-until", CUTS["validation_until"]]
    command = ["--data", "--cohort", own, *cuts, "--rows", "majority class", "--seeds", 1, "--out", tmp_path / "out"]
    assert pmlm("experiment", "table-a1", *command) == 0
    table = (tmp_path / "out" / "table-a1" / "table.md").read_text()
    assert "20 test patients, the same for all seeds" in table
    assert "the paper's" not in table


def test_cuts_that_leave_no_test_patient_are_refused(
    men: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    until = ["--train-until", "2030-01-01", "--validation-until", "2030-01-01"]
    assert pmlm("experiment", "table-a1", "--data", "--cohort", men, "--out", tmp_path / "out", *until) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"pmlm experiment: {men} has no test patient with a label (after --validation-until): move the cuts"
    )


def _predictions(n_seeds: int, n_patients: int, same: bool, seed: int = 1) -> list[dict]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n_patients)
    found = []
    for _ in range(n_seeds):
        truth = truth if same else rng.integers(3, size=n_patients)
        predicted = np.where(rng.random(n_patients) < 0.7, truth, rng.integers(3, size=n_patients))
        found.append({"labels": ["a", "b", "c", "d"], "truth": truth.tolist(), "predicted": predicted.tolist()})
    return found


@pytest.mark.parametrize("same", [True, False])
def test_the_means_are_the_f1_scores_of_scikit_learn(same: bool) -> None:
    found = _predictions(5, 80, same)
    micro, macro = f1_intervals(found, same, np.random.default_rng(0), n_resamples=200)
    for interval, average in ((micro, "micro"), (macro, "macro")):
        expected = np.mean([f1_score(run["truth"], run["predicted"], average=average) for run in found])
        assert interval.mean == pytest.approx(expected)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < expected < interval.high


def test_the_interval_of_micro_f1_is_the_crossed_bootstrap_of_right_predictions() -> None:
    found = _predictions(5, 80, True)
    right = [np.equal(run["truth"], run["predicted"]) for run in found]
    micro, _ = f1_intervals(found, True, np.random.default_rng(0), n_resamples=20_000)
    expected = crossed_bootstrap(right, np.random.default_rng(1), n_resamples=20_000)
    assert (micro.low, micro.high) == pytest.approx((expected.low, expected.high), abs=0.006)


def test_a_difference_is_paired_by_patient() -> None:
    ours, theirs = _predictions(5, 80, True), _predictions(5, 80, True)
    for run, other in zip(ours, theirs, strict=True):
        run["predicted"] = [*other["predicted"][:-1], (other["truth"][-1] + 1) % 3]
    micro, _ = f1_intervals(ours, True, np.random.default_rng(0), theirs)
    right = [[np.equal(run["truth"], run["predicted"]) for run in runs] for runs in (ours, theirs)]
    assert micro.mean == pytest.approx(np.mean(right[0]) - np.mean(right[1]))
    assert micro.low is not None
    assert micro.high is not None
    assert -0.05 < micro.low <= micro.high <= 0  # unpaired, it would be ten times as wide


def test_seeds_with_patients_of_their_own_give_a_narrower_interval() -> None:
    truth = _predictions(1, 80, True) * 5  # the same predictions five times
    same, _ = f1_intervals(truth, True, np.random.default_rng(0))
    other, _ = f1_intervals(truth, False, np.random.default_rng(0))
    assert same.low is not None
    assert other.low is not None
    assert (same.mean - same.low) / (other.mean - other.low) == pytest.approx(np.sqrt(5), rel=0.1)


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_where_only_patients_differ_the_interval_is_as_much_too_wide_as_is_said(n_seeds: int) -> None:
    """The standard error is that of all patients' predictions together; resampling seeds and patients adds to it."""
    widths, p, n = [], 0.7 + 0.3 / 3, 400
    for seed in range(30):
        found = _predictions(n_seeds, n, False, seed)
        micro, _ = f1_intervals(found, False, np.random.default_rng(seed), n_resamples=500)
        assert micro.low is not None
        assert micro.high is not None
        widths.append(micro.high - micro.low)
    exact = 2 * 1.96 * np.sqrt(p * (1 - p) / (n_seeds * n))
    assert np.mean(widths) / exact == pytest.approx(np.sqrt(2 - 1 / n_seeds), rel=0.06)


def test_fewer_than_ten_patients_give_no_interval() -> None:
    micro, macro = f1_intervals(_predictions(2, 9, True), True, np.random.default_rng(0))
    assert (micro.low, macro.high) == (None, None)
