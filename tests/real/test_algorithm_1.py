"""Patients whom no stage has seen: predicted, prompted, refined, and replied to with what was fitted before."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace, TraceFile
from pmlm_env.llm import ReplyCache
from pmlm_env.llm.responder import Responder
from tests.llm.endpoint import Answer, Endpoint, chat, serve
from tests.real.runs import pmlm, small_bert, start

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages")]

N_NEW = 20
PREPARE = ["--n-folds", 2, "--k", 4, "--device", "cpu"]
TRAIN = [
    "--agent", "lexicon", "--budget", 9, "--patients", 3, "--rollouts", 2, "--device", "cpu", "--n-edits", 3,
]  # fmt: skip

Rows = list[dict[str, str]]


def _read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _changed(cohort: Path, folder: Path, change: Callable[[Rows, Rows], tuple[Rows, Rows]]) -> Path:
    """Write a cohort's patients and check-ups, changed, into another folder."""
    patients, checkups = change(_read(cohort / "patients.csv"), _read(cohort / "checkups.csv"))
    _write(folder / "patients.csv", patients)
    _write(folder / "checkups.csv", checkups)
    return folder


def _as_new(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
    """Give patients names of their own and a date after the last cut, and take their labels and replies away."""
    patients = [
        {**row, "patient_id": f"N{row['patient_id']}", "split_date": "2024-01-01", "label": "", "reference": ""}
        for row in patients
    ]
    return patients, [{**row, "patient_id": f"N{row['patient_id']}"} for row in checkups]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, its pipeline, a run on it, a second cohort of new patients, and both cohorts prepared as one."""
    folder = tmp_path_factory.mktemp("work")
    write_cohort(simulate_cohort(60, seed=1), folder / "cohort")
    write_cohort(simulate_cohort(N_NEW, seed=2), folder / "second")
    _changed(folder / "second", folder / "new", _as_new)

    def with_new(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return patients + _read(folder / "new" / "patients.csv"), checkups + _read(folder / "new" / "checkups.csv")

    _changed(folder / "cohort", folder / "both", with_new)
    for name, prepared in (("cohort", "prepared"), ("both", "prepared-both")):
        assert pmlm("prepare", "--cohort", folder / name, "--out", folder / prepared, *PREPARE) == 0
    more = ["--scorer", small_bert(), "--llm", "responder"]
    assert pmlm("train", "--episodes", folder / "prepared", "--run", folder / "run", *TRAIN, *more) == 0
    assert pmlm("publish", "--run", folder / "run", "--out", folder / "published") == 0
    return folder


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        state.answer = lambda count, prompt: chat(Responder().generate([prompt])[0].text)
        yield state


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _refine(work: Path, *more: object, code: int = 0, model: str = "run") -> list[Trace]:
    """Refine the new patients' prompts with the run's agent, and return what was written."""
    out = Path("out.jsonl").absolute()
    options = ["--model", work / model, "--out", out, "--device", "cpu", *more]
    cohort = [] if "--cohort" in more or "--episodes" in more else ["--cohort", work / "new"]
    assert pmlm("refine", *options, *cohort) == code
    return TraceFile(out).read() if out.exists() else []


def _refused(capsys: pytest.CaptureFixture[str], work: Path, *more: object, model: str = "run") -> str:
    """What `pmlm refine` says in one line of what it refuses; nothing is written."""
    capsys.readouterr()
    assert _refine(work, *more, code=2, model=model) == []
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert captured.out == ""
    return line.removeprefix("pmlm refine: ")


def test_new_patients_get_the_prompts_that_prepare_makes_for_them_in_the_test_split(work: Path) -> None:
    traces = _refine(work)
    together = [e for e in EpisodeSet.load(work / "prepared-both") if e.patient_id.startswith("N")]
    assert [(t.patient_id, t.words, t.spaces, t.roles, t.predicted) for t in traces] == [
        (e.patient_id, e.words, e.spaces, e.roles, e.predicted) for e in together
    ]
    assert [tuple(peer.label for peer in trace.peers) for trace in traces] == [e.peers for e in together]
    assert len(traces) == N_NEW
    assert {trace.split for trace in traces} == {"test"}


def test_their_peers_are_training_patients_nearest_first_with_their_own_labels(work: Path) -> None:
    labels = {row["patient_id"]: row["label"] for row in _read(work / "cohort" / "patients.csv")}
    train = {episode.patient_id for episode in EpisodeSet.load(work / "prepared") if episode.split == "train"}
    for trace in _refine(work):
        assert len({peer.patient_id for peer in trace.peers}) == 4
        assert {peer.patient_id for peer in trace.peers} <= train
        assert [peer.label for peer in trace.peers] == [labels[str(peer.patient_id)] for peer in trace.peers]
        similarities = [peer.similarity for peer in trace.peers]
        assert similarities == sorted(similarities, reverse=True)  # type: ignore[type-var]


def test_the_predicted_condition_is_the_most_probable_and_the_probabilities_sum_to_one(work: Path) -> None:
    for trace in _refine(work):
        assert trace.predicted == max(trace.probabilities, key=trace.probabilities.__getitem__)
        assert sum(trace.probabilities.values()) == pytest.approx(1)


def test_their_prompts_are_refined_as_prepared_ones_are_and_nobody_is_asked_or_judged(work: Path) -> None:
    new = _refine(work)
    prepared = _refine(work, "--episodes", work / "prepared-both")
    assert {t.patient_id: (t.edits, t.prompt) for t in new}.items() <= {
        t.patient_id: (t.edits, t.prompt) for t in prepared
    }.items()
    for trace in new:
        slots = {edit.slot for edit in trace.edits}
        assert len(slots) == 3
        assert trace.prompt.split() == [word for slot, word in enumerate(trace.words) if slot not in slots]
        assert (trace.run, trace.agent, trace.variant) == ("run", "lexicon", "agent")
        assert (trace.label, trace.reference, trace.replies, trace.initial_reply) == ("", "", (), "")
        assert (trace.before, trace.after, trace.reward, trace.error) == ({}, {}, None, "")


def test_replies_are_those_of_the_llm_that_the_run_was_trained_with_and_nothing_is_asked_twice(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "run", tmp_path / "work" / "run")
    shutil.copytree(work / "prepared", tmp_path / "work" / "prepared")
    shutil.copytree(work / "new", tmp_path / "work" / "new")  # moved together
    first = _refine(tmp_path / "work", "--reply")
    printed = capsys.readouterr().out
    for trace in first:
        (reply,) = trace.replies
        assert reply.text == Responder().generate([trace.prompt])[0].text
        assert (reply.finish_reason, trace.error) == ("stop", "")
        assert trace.patient_id in printed
    assert f"({N_NEW} of them" not in printed
    second = _refine(tmp_path / "work", "--reply")
    assert all(reply.cached for trace in second for reply in trace.replies)
    assert [trace.replies[0].text for trace in second] == [trace.replies[0].text for trace in first]
    assert f"replies ({N_NEW} of them from the cache)" in capsys.readouterr().out


def test_the_table_says_what_was_predicted_deleted_and_replied_and_where_the_whole_is(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "800")
    assert pmlm("refine", "--model", work / "run", "--cohort", work / "new", "--reply") == 0
    captured = capsys.readouterr()
    traces = TraceFile("refined.jsonl").read()
    head, _, *rows = captured.out.splitlines()
    assert head.split() == "patient predicted peers (of 4) deleted reply".split()
    for trace, row in zip(traces, rows, strict=False):
        assert row.startswith(trace.patient_id)
        assert f"{trace.predicted} {trace.probabilities[trace.predicted]:.0%}" in row
        assert trace.replies[0].text[:20] in row
    assert rows[-1].startswith(
        f"refined.jsonl has all of it for {N_NEW} patients: probabilities, peers, prompts before and after, edits, and "
        "replies"
    )
    assert "\r" not in captured.err  # standard error is no terminal here, so that there is no progress bar


def test_a_run_killed_between_replies_and_begun_again_asks_for_no_kept_reply_twice(
    work: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    async def slow(count: int, prompt: str) -> Answer:
        await asyncio.sleep(0.05)
        return chat(Responder().generate([prompt])[0].text)

    endpoint.answer = slow
    cache, out = tmp_path / "replies.sqlite", tmp_path / "out.jsonl"
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", cache, "--concurrency", 2]
    options = ["--model", work / "run", "--cohort", work / "new", "--out", out, "--device", "cpu", *llm]
    child = start(tmp_path / "log", "refine", *options)
    while endpoint.n_requests < 8 and child.is_alive():
        time.sleep(0.001)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    kept, before = {reply.request["prompt"] for reply in ReplyCache(cache)}, Counter(endpoint.prompts)
    assert 4 <= len(kept) < N_NEW
    assert not out.exists()
    traces = _refine(work, *llm)
    asked = Counter(endpoint.prompts)
    assert [prompt for prompt in kept if asked[prompt] != before[prompt]] == []
    assert [trace.replies[0].text for trace in traces] == [
        reply.text for reply in Responder().generate([trace.prompt for trace in traces])
    ]
    assert {trace.prompt for trace in traces if trace.replies[0].cached} >= kept


def test_a_patient_whose_reply_fails_is_named_with_the_reason_and_the_others_have_theirs(
    work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    unlucky = _refine(work)[3]
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", "cache.sqlite"]
    good = endpoint.answer
    endpoint.answer = lambda count, prompt: (
        Answer(400, {"error": {"message": "no"}}) if prompt == unlucky.prompt else good(count, prompt)
    )
    capsys.readouterr()
    traces = _refine(work, *llm, code=1)
    failed = {trace.patient_id for trace in traces if trace.prompt == unlucky.prompt}
    for trace in traces:
        assert bool(trace.error) == (trace.patient_id in failed)
        assert len(trace.replies) == 1 - bool(trace.error)
    assert "HTTP 400" in traces[3].error
    assert "no reply: m at" in capsys.readouterr().out
    assert f"{len(failed)} of {N_NEW} patients have no reply, the last because: " in caplog.text
    endpoint.answer, before = good, endpoint.n_requests
    assert not any(trace.error for trace in _refine(work, *llm))
    assert endpoint.n_requests == before + 1


def test_a_limit_ends_the_requests_and_what_there_is_is_written(work: Path, endpoint: Endpoint) -> None:
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", "cache.sqlite"]
    traces = _refine(work, *llm, "--max-llm-calls", 5, code=1)
    assert len(traces) == N_NEW
    assert endpoint.n_requests == 5
    assert all("it was not asked" in trace.error for trace in traces if not trace.replies)
    n_prompts = len({trace.prompt for trace in traces})
    assert not any(trace.error for trace in _refine(work, *llm))
    assert endpoint.n_requests == n_prompts


def test_an_endpoint_that_is_down_ends_the_requests_after_max_failures(work: Path, endpoint: Endpoint) -> None:
    endpoint.answer = lambda count, prompt: Answer(400, {"error": {"message": "no"}})
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--max-failures", 3, "--concurrency", 1]
    traces = _refine(work, *llm, code=1)
    assert endpoint.n_requests < N_NEW
    assert all(trace.error for trace in traces)
    assert len(traces) == N_NEW


def test_options_of_the_llm_stand_over_those_that_the_run_was_trained_with(
    work: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    run = shutil.copytree(work / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["models"] |= {"llm": "openai:m", "base_url": endpoint.url, "max_new_tokens": 256}
    (run / "config.json").write_text(json.dumps(config))
    options = ["--reply", "--pipeline", work / "prepared", "--cohort", work / "new", "--patient"]
    for patient, more, tokens in zip(_refine(work), ([], ["--max-new-tokens", 99]), (256, 99), strict=False):
        _refine(tmp_path, *options, patient.patient_id, *more)
        assert endpoint.bodies[-1]["max_tokens"] == tokens
        assert endpoint.prompts[-1] == patient.prompt


def test_a_published_agent_needs_a_pipeline_and_an_llm_by_name(
    work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused(capsys, work, model="published")
    assert said.startswith(f"{work / 'published'} is not a run, which would say")
    assert said.endswith("which `pmlm prepare` wrote, with --pipeline")
    pipeline = ["--pipeline", work / "prepared"]
    said = _refused(capsys, work, *pipeline, "--reply", model="published")
    assert said.endswith("which would say which LLM to ask: name the LLM with --llm")
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url]
    traces = _refine(work, *pipeline, *llm, model="published")
    assert [(t.words, t.prompt) for t in traces] == [(t.words, t.prompt) for t in _refine(work)]
    assert all(trace.replies for trace in traces)
    assert len(ReplyCache(Path("out.jsonl.replies.sqlite"))) == endpoint.n_requests  # beside --out
    before = endpoint.n_requests
    _refine(work, *pipeline, *llm, model="published")
    assert endpoint.n_requests == before


def test_a_run_whose_prepared_folder_is_gone_or_has_no_pipeline_says_what_to_give(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "run", tmp_path / "a" / "run")
    prepared = shutil.copytree(work / "prepared", tmp_path / "a" / "prepared")
    new = ["--cohort", work / "new"]
    shutil.rmtree(prepared / "pipeline")
    said = _refused(capsys, tmp_path / "a", *new)
    assert str(prepared) in said
    assert "--pipeline" in said
    config = json.loads((tmp_path / "a" / "run" / "config.json").read_text())
    config["paths"]["episodes"] = config["settings"]["episodes"] = "../gone"
    (tmp_path / "a" / "run" / "config.json").write_text(json.dumps(config))
    said = _refused(capsys, tmp_path / "a", *new)
    assert said.endswith("is not there: give the place of that prepared folder with --pipeline")
    assert len(_refine(tmp_path / "a", *new, "--pipeline", work / "prepared")) == N_NEW


def test_a_pipeline_that_was_fitted_to_other_patients_is_warned_of(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _refine(work)
    assert "holds other episodes" not in caplog.text
    _refine(work, "--pipeline", work / "prepared-both")
    assert f"{work / 'prepared-both'} holds other episodes than {work / 'run'} was trained on" in caplog.text


def test_training_patients_are_warned_of_and_never_their_own_peers(
    work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traces = _refine(work, "--cohort", work / "cohort")
    train = {e.patient_id for e in EpisodeSet.load(work / "prepared") if e.split == "train" and e.label}
    assert not [trace for trace in traces if trace.patient_id in {peer.patient_id for peer in trace.peers}]
    assert f"{len(train)} of 60 patients are training patients of this pipeline" in caplog.text
    assert all(trace.label and trace.reference for trace in traces)  # what is known stays known


def test_a_patient_without_a_laboratory_value_is_left_out_and_named(
    work: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_first(patients: Rows, checkups: Rows) -> tuple[Rows, Rows]:
        return patients, [row for row in checkups if row["patient_id"] != patients[0]["patient_id"]]

    cohort = _changed(work / "new", tmp_path / "without", without_first)
    first = _read(cohort / "patients.csv")[0]["patient_id"]
    traces = _refine(work, "--cohort", cohort)
    assert len(traces) == N_NEW - 1
    assert first not in [trace.patient_id for trace in traces]
    assert f"patients without a laboratory value, left out (1): {first}" in caplog.text
    Path("out.jsonl").unlink()
    said = _refused(capsys, work, "--cohort", cohort, "--patient", first)
    assert said == f"{cohort} has no laboratory value of patient {first}: see its tables"


def test_one_patient_alone_gets_the_same_and_an_unknown_one_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = _refine(work)
    assert _refine(work, "--patient", everybody[5].patient_id) == [everybody[5]]
    Path("out.jsonl").unlink()
    assert _refused(capsys, work, "--patient", "nobody") == f"{work / 'new'} has no patient nobody: see its tables"


def test_a_file_of_ours_is_replaced_and_any_other_is_left_as_it_is(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = ["--model", work / "run", "--cohort", work / "new"]
    mine = shutil.copy(work / "new" / "patients.csv", tmp_path / "mine.csv")
    content = mine.read_bytes()
    capsys.readouterr()
    assert pmlm("refine", *new, "--out", mine) == 2
    assert capsys.readouterr().err == (
        f"pmlm refine: {mine} is not a file that pmlm refine wrote: choose another --out\n"
    )
    assert mine.read_bytes() == content
    (tmp_path / "out.jsonl").write_text('{"patient_id": "A", "prompt": "Say it.", "edits": []}\n')  # as it was before
    assert len(_refine(work)) == N_NEW
    assert len(_refine(work, "--patient", _refine(work)[0].patient_id)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "prepared"], "--episodes has no effect: it is for prompts that exist already, and --cohort"),
        (["--split", "train"], "--split has no effect: it is for prompts that exist already, and --cohort"),
        (["--llm", "responder"], "--llm has no effect: no LLM is asked: add --reply, or leave it out"),
        (["--max-new-tokens", 4], "--max-new-tokens has no effect: no LLM is asked: add --reply"),
        (["--max-llm-calls", 4], "--max-llm-calls has no effect: no LLM is asked: add --reply"),
    ],
)
def test_an_option_without_effect_is_refused(
    work: Path, capsys: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    assert _refused(capsys, work, "--cohort", work / "new", *options).startswith(message)


@pytest.mark.parametrize("options", [["--pipeline", "prepared"], ["--patients-file", "x.csv"]])
def test_an_option_for_new_patients_is_refused_without_them(
    capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    capsys.readouterr()
    assert pmlm("refine", *options) == 2
    said = "it is for new patients: name their folder with --cohort, or leave it out"
    assert capsys.readouterr().err == f"pmlm refine: {options[0]} has no effect: {said}\n"
