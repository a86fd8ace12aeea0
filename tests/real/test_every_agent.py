"""Every agent of the registry through the command line: trained, killed, resumed, saved, and used on other prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.registry import AGENTS, class_of
from pmlm_env.llm import ReplyCache
from pmlm_env.llm.storage.budget import Account
from tests.commands import pmlm
from tests.real.runs import check_same_checkpoint, killed, prepare, small_bert, small_models

pytestmark = [pytest.mark.once, pytest.mark.real]

#: Settings that make batches small enough for a budget of 36 completions.
_SMALL: dict[str, list[object]] = {
    **{key: ["--patients", 2, "--rollouts", 2] for key in ("leave-one-out", "sparsemax", "lexicon")},
    **{key: ["--patients", 4] for key in ("actor-critic", "reinforce")},
    **{key: ["--rows", 2, "--row-episodes", 2] for key in ("ppo", "maskable-ppo", "a2c")},
    **{key: ["--rows", 2, "--learning-starts", 10] for key in ("dqn", "qrdqn")},
    "surrogate": ["--rows", 4],
    "tree-surrogate": ["--rounds", 4, "--members", 2, "--trees", 5],
    "random-p": ["--patients", 2],
    "llm-editor": ["--editor", "responder"],
    "llm-editor-few-shot": ["--editor", "responder"],
    "self-information-low": ["--model", "bigram"],
    "self-information-high": ["--model", "bigram"],
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("work") / "prepared")


def _bought(run: Path) -> tuple[int, int]:
    """Return how many calls a run has booked, and how many replies its cache holds."""
    return Account(path=run / "spent.sqlite").usage.calls, len(ReplyCache(run / "replies.sqlite"))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _edits(line: dict[str, Any]) -> list[tuple[str, int, str]]:
    """Return the edits of a trace without their probabilities, which may differ by rounding."""
    return [(edit["operation"], edit["slot"], edit["word"]) for edit in line["edits"]]


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_that_was_killed_and_resumed_makes_the_same_edits(agent: str, prepared: Path, tmp_path: Path) -> None:
    common = ["--agent", agent, "--episodes", prepared, "--llm", "responder", "--device", "cpu", "--n-edits", 2]
    common += ["--budget", 36, *small_models(), *_SMALL.get(agent, [])]
    assert pmlm("train", *common, "--run", tmp_path / "whole") == 0
    run = tmp_path / "killed"
    if class_of(agent).learns:
        killed(tmp_path / "log", 15, "train", *common, "--run", run)
        bought = _bought(run)
        assert pmlm("train", "--run", run, "--resume") == 0
        calls, cached = (after - before for after, before in zip(_bought(run), bought, strict=True))
        assert calls == cached
    else:
        assert pmlm("train", *common, "--run", run) == 0
    check_same_checkpoint(run, tmp_path / "whole")
    refined = []
    for name in ("whole", "killed"):
        out = tmp_path / f"{name}.jsonl"
        model = ["--model", tmp_path / name / "checkpoint", "--encoder", small_bert()]
        assert pmlm("refine", *model, "--episodes", prepared, "--out", out) == 0
        refined.append([(line["patient_id"], line["prompt"], _edits(line)) for line in _lines(out)])
    assert refined[0] == refined[1]
    assert len(refined[0]) == 3
