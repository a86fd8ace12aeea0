"""``pmlm experiment figure-7``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import registry
from agents.experiments.figure_7 import Figure7
from agents.problem import Problem
from pmlm_env.core.edits import apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.envs.lite import HashedEncoder
from pmlm_env.llm.responder import Responder
from tests.agents.experiments.quick import prepared, runs
from tests.agents.experiments.quick_runs import made_up, quick, result_of, table_after
from tests.commands import pmlm

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("quick_stages", "hashed_sentences")]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert quick("figure-7", out) == 0
    return out / "figure-7"


def prompts(results: Path) -> dict[bool, EpisodeSet]:
    """Return the test patients by whether their prompts have peers."""
    found = [everybody.of("test") for everybody in prepared(results)]
    return {"peer" in episodes[0].roles: episodes for episodes in found}


def test_one_of_k_and_n_varies_at_a_time(results: Path) -> None:
    points = [(run["cell"]["k"], run["cell"]["n"], run["cell"]["row"]) for run in runs(results)]
    assert points == [
        *((k, 0, row) for k in (0, 10) for row in ("echo", "keep-all")),
        *((k, n, row) for k, n in ((0, 10), (10, 10), (10, 2)) for row in ("leave-one-out", "random-n")),
    ]


def test_a_run_has_the_settings_of_its_point(results: Path) -> None:
    for run in runs(results):
        cell = run["cell"]
        assert (cell["patients"]["pipeline"]["k"], cell["models"]["n_edits"]) == (cell["k"], cell["n"])


def test_the_prompts_of_k_0_are_those_without_peers_of_the_same_patients(results: Path) -> None:
    found = prompts(results)
    assert [e.patient_id for e in found[True]] == [e.patient_id for e in found[False]]
    for with_peers, without in zip(found[True], found[False], strict=True):
        rest = [word for word, role in zip(with_peers.words, with_peers.roles, strict=True) if role != "peer"]
        assert list(without.words) == rest
    lengths = result_of(results, k=0, row="echo")["metrics"]["words"]
    assert lengths == [len(episode.words) for episode in found[False]]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (10, 2)])
def test_n_words_are_deleted_from_the_prompts_of_k(results: Path, k: int, n: int) -> None:
    patients = prompts(results)[k > 0]
    edits = registry.make("random-n", seed=0).refine(Problem(patients, HashedEncoder(), None, n))
    replies = Responder().generate(list(apply_edits(patients, range(len(patients)), edits)))
    words = result_of(results, k=k, n=n, row="random-n")["metrics"]["words"]
    assert words == [len(reply.text.split()) for reply in replies]


def test_there_are_figures_against_both(results: Path) -> None:
    assert {path.stem for path in results.glob("*.svg")} == {
        f"{axis}-{metric}" for axis in ("k", "n") for metric in ("f1", "margin", "right")
    }
    assert "edit budget, n" in (results / "n-f1.svg").read_text()


def test_the_echo_and_the_untouched_prompts_are_in_both_tables(results: Path) -> None:
    text = (results / "table.md").read_text()
    of_k, of_n = table_after(text, "Against the number of peers"), table_after(text, "Against the edit budget")
    assert [(row["k"], row["prompts edited by"]) for row in of_k] == [
        (k, row) for k in ("0", "10") for row in ("nobody", "leave-one-out", "random-n", "*echo*")
    ]
    assert [(row["n"], row["prompts edited by"]) for row in of_n] == [
        *(("0", row) for row in ("nobody", "*echo*")),
        *((n, row) for n in ("2", "10") for row in ("leave-one-out", "random-n")),
    ]


PATIENTS = [f"P{i}" for i in range(40)]
F1 = np.linspace(0.5, 0.7, 40)


def at(k: int, n: int, row: str, f1: float, seed: int = 0) -> dict[str, Any]:
    """Return a run at a point, with an F1 that differs from ``F1`` by as much for everybody."""
    return made_up(row, {"patients": PATIENTS, "metrics": {"bertscore_f1": (F1 + f1).tolist()}}, seed, k=k, n=n)


def test_changes_are_from_the_untouched_prompts_with_as_many_peers_and_from_the_usual_point() -> None:
    runs = [
        at(10, 0, "keep-all", 0.0),
        at(1, 0, "keep-all", -0.03),
        at(10, 10, "mine", 0.01, 0),
        at(10, 10, "mine", 0.03, 1),
        at(1, 10, "mine", 0.0, 0),
        at(1, 10, "mine", 0.0, 1),
        at(10, 5, "mine", 0.05),
    ]
    text = Figure7().table(runs)
    of_k = {(row["k"], row["prompts edited by"]): row for row in table_after(text, "Against the number of peers")}
    fewer = of_k["1", "mine"]
    assert fewer["F1, change"] == "+3.00 [+3.00, +3.00]"
    assert fewer["F1, minus that at k = 10, n = 10"].startswith("-2.00 [-3.00, ")
    assert fewer["seeds"] == "2"
    assert of_k["1", "nobody"]["F1, minus that at k = 10, n = 10"] == "-3.00 [-3.00, -3.00]"
    assert of_k["10", "mine"]["F1, minus that at k = 10, n = 10"] == ""
    of_n = {(row["n"], row["prompts edited by"]): row for row in table_after(text, "Against the edit budget")}
    assert of_n["5", "mine"]["F1, minus that at k = 10, n = 10"] == "+3.00 [+2.00, +4.00]"  # +4 and +2 by seed
    at_k, at_n = "k = 10 (means range over 2.00 points)", "n = 5 (means range over 5.00 points)"
    assert f"For mine the mean is highest at {at_k} and at {at_n}." in text


def test_other_values_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--k-values", 3, "--n-values", 4, "--k", 7, "--n-edits", 6, "--agents", "random-n", "--seeds", 2]
    assert pmlm("experiment", "figure-7", "--llm", "responder", "--dry-run", "--out", tmp_path, *options) == 0
    cells = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(cell["k"], cell["n"], cell["seed"]) for cell in cells if cell["row"] == "random-n"] == [
        (k, n, seed) for seed in (0, 1) for k, n in ((3, 6), (7, 6), (7, 4))
    ]


def test_a_dry_run_counts_the_calls_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick("figure-7", tmp_path / "out", "--dry-run") == 0
    # At three points 16 for the agent and 10 replies for each of two rows, and 10 to untouched prompts for each k.
    assert "128 LLM calls" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_the_tokens_of_the_providers_system_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD_API_KEY", "a")
    tokens = []
    for words in (0, 1000):
        system = f'system_prompt = "{"say " * words}"'
        (tmp_path / "ward.toml").write_text(f'[ward]\nbase_url = "http://127.0.0.1:9/v1"\n{system}\n')
        options = ["--llm", "ward:m", "--providers", tmp_path / "ward.toml", "--out", tmp_path / "out", "--dry-run"]
        assert quick("figure-7", tmp_path / "out", *options) == 0
        tokens.append(int(capsys.readouterr().out.split(" tokens in")[0].split()[-1].replace(",", "")))
    assert tokens[1] - tokens[0] == pytest.approx(128 * 1000, abs=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--k-values", "-1"), "k-values has -1: use whole numbers, 0 or more"),
        (("--n-values", "5", "-2"), "n-values has -2: use whole numbers, 0 or more"),
        (("--quick", "--k-values", "3"), "--k-values has no effect: --quick has its own"),
        (("--template", "raw"), "template raw has no part of the role peer, so it cannot be left out"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("experiment", "figure-7", "--llm", "responder", "--out", tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"pmlm experiment: {said}")
    assert not (tmp_path / "out").exists()
