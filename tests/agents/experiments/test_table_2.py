"""``pmlm experiment table-2``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.evaluation.controls import CONTROLS
from agents.evaluation.metrics import METRICS, text_scores
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import Request
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.llm.lora.adapters import Adapter
from pmlm_env.prompting import InitialPrompt
from tests import fresh
from tests.agents.experiments.quick import PAPER_CUTS, table
from tests.commands import pmlm
from tests.llm.tiny_llms import tiny_model
from tests.real.runs import small_models

#: ``pmlm`` with ``hashed_sentences``.
_PMLM = """
import pmlm_env.rewards.advice
from agents.cli.main import main
from tests.standins import HashedSentences

pmlm_env.rewards.advice.SentenceEncoder = HashedSentences
main()
"""

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences", "no_figures")]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny LLM, with weights that make it say something to these prompts."""
    folder = tmp_path_factory.mktemp("llm")
    tiny_model(folder, seed=4, max_position_embeddings=8192)
    return folder


@pytest.fixture(scope="module")
def command(llm: Path) -> list[object]:
    options = [
        "--llm",
        f"local:{llm}",
        "--device",
        "cpu",
        "--max-new-tokens",
        40,
        "--llm-dtype",
        "float32",
        *small_models(),
    ]
    return [
        "experiment",
        "table-2",
        "--quick",
        "--agents",
        "random-n",
        "leave-one-out",
        *options,
        "--n-epochs",
        1,
        "--learning-rate",
        0.01,
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, command: list[object], quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert pmlm(*command, "--out", out) == 0
    return out / "table-2"


def runs(results: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (results / "runs.jsonl").read_text().splitlines()]
    return {line["cell"]["row"]: line["result"] for line in lines}


def adapter(results: Path) -> Path:
    (folder,) = results.glob("work-*/adapter-0")
    return folder


def prompts(results: Path, template: str) -> EpisodeSet:
    """Return the prompts of all patients that were made with a template."""
    folders = (results.parent / "prepared").glob("*")
    made = {InitialPrompt(folder / "pipeline" / "template.txt").text: folder for folder in folders if folder.is_dir()}
    return EpisodeSet.load(made[InitialPrompt(template).text])


def test_every_row_has_all_metrics_of_the_same_patients(results: Path) -> None:
    found = runs(results)
    assert list(found) == [*CONTROLS, "raw-data", "keep-all", "lora-tuned", "random-n", "leave-one-out"]
    for result in found.values():
        assert result["patients"] == found["keep-all"]["patients"]
        assert len(result["patients"]) == 10
        assert result["metrics"].keys() == set(METRICS)


def test_the_raw_prompts_are_those_of_the_same_patients_and_have_their_values(results: Path) -> None:
    prepared, raw = (prompts(results, name) for name in ("default", "raw"))
    for ours, theirs in zip(prepared, raw, strict=True):
        assert (ours.patient_id, ours.split, ours.reference) == (theirs.patient_id, theirs.split, theirs.reference)
        assert "Latest check-up: " in theirs.prompt
        assert "check-up" not in ours.prompt


def test_the_fine_tuned_row_is_of_the_replies_of_the_llm_with_the_adapter(results: Path, llm: Path) -> None:
    test = prompts(results, "raw").of("test")
    usual, tuned = (LocalLLM(str(llm), 40, "cpu", torch.float32, adapter=folder) for folder in (None, adapter(results)))
    replies = [reply.text for reply in tuned.ask([Request(episode.prompt) for episode in test])]
    untuned = [reply.text for reply in usual.ask([Request(episode.prompt) for episode in test])]
    assert replies != untuned
    for row, texts in (("lora-tuned", replies), ("raw-data", untuned)):
        scores = text_scores(texts, [episode.reference for episode in test])
        found = runs(results)[row]
        assert found["patients"] == [episode.patient_id for episode in test]
        assert found["metrics"]["rouge1"] == pytest.approx(scores.rouge1, abs=1e-5)


def test_the_tables_have_the_means_and_the_paired_differences(results: Path) -> None:
    text = (results / "table.md").read_text()
    means = {row["reply to"]: row for row in table(text, "| reply to | BLEU-4 |")}
    tuned = "**raw-data prompt, fine-tuned LLM** (learning_rate 0.01, n_epochs 1)"
    assert means.keys() >= {tuned, "our prompt, unedited", "our prompt, edited by random-n"}
    f1 = {name: 100 * np.mean(result["metrics"]["bertscore_f1"]) for name, result in runs(results).items()}
    assert means["raw-data prompt"]["F1"].startswith(f"{f1['raw-data']:.2f} [")
    assert means["*echo*"]["F1"].startswith(f"{f1['echo']:.2f} [")
    assert means[tuned]["the paper's F1"] == "62.28 to 65.77"
    minus = {row["minus"]: row for row in table(text, "| minus | F1 |")}
    assert minus["*echo*"]["F1"].startswith(f"{f1['lora-tuned'] - f1['echo']:+.2f} [")


def test_complete_rows_are_not_repeated(
    results: Path, command: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (results / "runs.jsonl").read_bytes()
    assert pmlm(*command, "--out", results.parent) == 0
    assert (results / "runs.jsonl").read_bytes() == before
    assert "new runs: 0, earlier ones: 12" in capsys.readouterr().out


def test_two_processes_fine_tune_and_the_first_does_all_else(
    results: Path, command: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(results.parent, out, ignore=shutil.ignore_patterns("table-2"))  # prompts and replies
    env = {**os.environ, "PMLM_CACHE": str(tmp_path / "cache")}
    first, second = fresh.run_together(2, "-c", _PMLM, *command, "--out", out, env=env)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "The other processes had nothing to do" not in first.stderr
    assert second.stdout == ""
    found, expected = runs(out / "table-2"), runs(results)
    assert list(found) == list(expected)
    for row in found.keys() - {"lora-tuned"}:
        assert found[row] == expected[row]
    tuned, alone = (Adapter.load(adapter(folder)).tensors for folder in (out / "table-2", results))
    assert tuned.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(tuned[name], tensor, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llm", "responder"), "--llm responder cannot be fine-tuned: use a local one, such as local:smollm2-135m"),
        (("--quick", "--budget", "3"), "--budget has no effect: --quick has its own"),
        (("--test-patients", "0"), "test-patients is 0: use a whole number from 1 to 100,000"),
        (("--agents", "no-such"), "there is no agent 'no-such': use lexicon, "),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "table-2", "--out", tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()


def test_a_cohort_without_validation_patients_is_refused_before_anything_is_learned(
    men: Path, command: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*command, *PAPER_CUTS, "--cohort", men, "--out", tmp_path) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("pmlm experiment: the cohort has no validation patient with a label and a reply")
    assert "move the cuts" in said
    assert not (tmp_path / "table-2" / "runs.jsonl").exists()
