"""Replies to the refined prompts of new patients: asked for once, kept, and missing only with a reason."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmlm_env.llm import ReplyCache
from pmlm_env.llm.responder import Responder
from tests.commands import pmlm
from tests.llm.endpoint import Answer, Endpoint, chat, serve
from tests.real.new_patients import N_NEW, refine, refused
from tests.real.runs import small_bert, start

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("quick_stages", "elsewhere", "no_figures")]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serve() as state:
        state.answer = lambda count, prompt: chat(Responder().generate([prompt])[0].text)
        yield state


def test_replies_are_those_of_the_llm_that_the_run_was_trained_with_and_nothing_is_asked_twice(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "run", tmp_path / "work" / "run")
    shutil.copytree(work / "prepared", tmp_path / "work" / "prepared")
    shutil.copytree(work / "new", tmp_path / "work" / "new")  # moved together
    first = refine(tmp_path / "work", "--reply")
    printed = capsys.readouterr().out
    for trace in first:
        (reply,) = trace.replies
        assert reply.text == Responder().generate([trace.prompt])[0].text
        assert (reply.finish_reason, trace.error) == ("stop", "")
        assert trace.patient_id in printed
    assert f"({N_NEW} of them" not in printed
    second = refine(tmp_path / "work", "--reply")
    assert all(reply.cached for trace in second for reply in trace.replies)
    assert [trace.replies[0].text for trace in second] == [trace.replies[0].text for trace in first]
    assert f"replies ({N_NEW} of them from the cache)" in capsys.readouterr().out


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
    traces = refine(work, *llm)
    asked = Counter(endpoint.prompts)
    assert [prompt for prompt in kept if asked[prompt] != before[prompt]] == []
    assert [trace.replies[0].text for trace in traces] == [
        reply.text for reply in Responder().generate([trace.prompt for trace in traces])
    ]
    assert {trace.prompt for trace in traces if trace.replies[0].cached} >= kept


def test_a_command_told_to_end_keeps_its_replies_and_meanwhile_nobody_else_writes_its_file(
    work: Path, tmp_path: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(count: int, prompt: str) -> Answer:
        if count > 5:
            await asyncio.Event().wait()
        return chat(Responder().generate([prompt])[0].text)

    endpoint.answer = answer
    out = tmp_path / "out.jsonl"
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", tmp_path / "replies.sqlite"]
    child = start(tmp_path / "log", "refine", "--model", work / "run", "--cohort", work / "new", "--out", out, *llm)
    at_once = 8  # how many requests wait for an answer by then
    while child.is_alive() and not (
        endpoint.n_requests == 5 + at_once and len(ReplyCache(tmp_path / "replies.sqlite")) == 5
    ):
        time.sleep(0.02)
    before = endpoint.n_requests
    assert refused(capsys, work, *llm) == f"{out} is in use by another pmlm command: wait until it ends, or stop it"
    assert endpoint.n_requests == before
    os.kill(child.pid or 0, signal.SIGTERM)
    child.join()
    said = (tmp_path / "log").read_text()
    assert child.exitcode == 128 + signal.SIGTERM, said
    assert said.splitlines()[-1] == (
        "pmlm refine: stopped by SIGTERM; all replies are kept: run the command again, and it requests only the others"
    )
    assert "Traceback" not in said
    assert not out.exists()
    under_way = Counter(endpoint.prompts[5:])
    endpoint.answer = lambda count, prompt: chat(Responder().generate([prompt])[0].text)
    assert all(trace.replies for trace in refine(work, *llm))
    assert Counter(endpoint.prompts) - under_way == Counter(set(endpoint.prompts))


def test_a_patient_whose_reply_fails_is_named_with_the_reason_and_the_others_have_theirs(
    work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    unlucky = refine(work)[3]
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", "cache.sqlite"]
    good = endpoint.answer
    endpoint.answer = lambda count, prompt: (
        Answer(400, {"error": {"message": "no"}}) if prompt == unlucky.prompt else good(count, prompt)
    )
    capsys.readouterr()
    traces = refine(work, *llm, code=1)
    failed = {trace.patient_id for trace in traces if trace.prompt == unlucky.prompt}
    for trace in traces:
        assert bool(trace.error) == (trace.patient_id in failed)
        assert len(trace.replies) == 1 - bool(trace.error)
    assert "HTTP 400" in traces[3].error
    assert "no reply: m at" in capsys.readouterr().out
    assert f"{len(failed)} of {N_NEW} patients have no reply, the last because: " in caplog.text
    endpoint.answer, before = good, endpoint.n_requests
    assert not any(trace.error for trace in refine(work, *llm))
    assert endpoint.n_requests == before + 1


def test_a_limit_ends_the_requests_and_what_there_is_is_written(work: Path, endpoint: Endpoint) -> None:
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--cache", "cache.sqlite"]
    traces = refine(work, *llm, "--max-llm-calls", 5, code=1)
    assert len(traces) == N_NEW
    assert endpoint.n_requests == 5
    assert all("not asked" in trace.error for trace in traces if not trace.replies)
    n_prompts = len({trace.prompt for trace in traces})
    assert not any(trace.error for trace in refine(work, *llm))
    assert endpoint.n_requests == n_prompts


def test_an_endpoint_that_is_down_ends_the_requests_after_max_failures(work: Path, endpoint: Endpoint) -> None:
    endpoint.answer = lambda count, prompt: Answer(400, {"error": {"message": "no"}})
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url, "--max-failures", 3, "--concurrency", 1]
    traces = refine(work, *llm, code=1)
    assert endpoint.n_requests < N_NEW
    assert all(trace.error for trace in traces)
    assert len(traces) == N_NEW


def test_options_of_the_llm_stand_over_those_that_the_run_was_trained_with(
    work: Path, tmp_path: Path, endpoint: Endpoint
) -> None:
    run = shutil.copytree(work / "run", tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    saved = {"llm": "openai:m", "base_url": endpoint.url, "max_new_tokens": 256, "temperature": 0.5}
    config["settings"]["models"] |= saved
    (run / "config.json").write_text(json.dumps(config))
    options = ["--reply", "--pipeline", work / "prepared", "--cohort", work / "new", "--patient"]
    usual = ["--max-new-tokens", 128, "--temperature", 0]  # the defaults of another LLM
    expected = {(): (256, 0.5), ("--max-new-tokens", 99): (99, 0.5), tuple(usual): (128, 0)}
    for patient, (more, sent) in zip(refine(work), expected.items(), strict=False):
        refine(tmp_path, *options, patient.patient_id, "--base-url", endpoint.url, *more)
        assert (endpoint.bodies[-1]["max_tokens"], endpoint.bodies[-1]["temperature"]) == sent
        assert endpoint.prompts[-1] == patient.prompt


def test_a_published_agent_needs_a_pipeline_and_an_llm_by_name(
    work: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, work, model="published")
    assert said.startswith(f"{work / 'published'} is not a run folder: name the prepared folder")
    assert said.endswith("with --pipeline")
    pipeline = ["--pipeline", work / "prepared"]
    said = refused(capsys, work, *pipeline, "--reply", model="published")
    assert said.endswith("name the LLM with --llm")
    llm = ["--reply", "--llm", "openai:m", "--base-url", endpoint.url]
    traces = refine(work, *pipeline, *llm, model="published")
    assert [(t.words, t.prompt) for t in traces] == [(t.words, t.prompt) for t in refine(work)]
    assert all(trace.replies for trace in traces)
    assert len(ReplyCache(Path("out.jsonl.replies.sqlite"))) == endpoint.n_requests  # beside --out
    before = endpoint.n_requests
    refine(work, *pipeline, *llm, model="published")
    assert endpoint.n_requests == before
    elsewhere = ["--out", "a/new/folder/x.jsonl"]
    assert pmlm("refine", "--model", work / "published", "--cohort", work / "new", *pipeline, *llm, *elsewhere) == 0
    assert {path.name for path in Path("a/new/folder").iterdir()} >= {"x.jsonl", "x.jsonl.replies.sqlite"}


REMOTE = ["--llm", "tests.standins:EchoLLM"]  # which does not say that prompts stay on this machine


@pytest.fixture(scope="module")
def with_labs(work: Path) -> Path:
    """The same patients and run, with prompts that have laboratory values."""
    folder = work / "raw"
    folder.mkdir(exist_ok=True)
    few = ["--n-folds", 2, "--k", 4, "--device", "cpu", "--max-train", 8, "--max-test", 2]
    assert pmlm("prepare", "--cohort", work / "cohort", "--out", folder / "prepared", "--template", "raw", *few) == 0
    for name in ("run", "new"):
        shutil.copytree(work / name, folder / name, dirs_exist_ok=True)
    return folder


def test_laboratory_values_go_to_an_llm_elsewhere_only_if_the_user_allows_it_by_name(
    with_labs: Path, endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = with_labs / "prepared"
    why = (
        f"the prompts in {prepared} contain values of the patients' records (labs), and the LLM is on another machine: "
        "allow it with --send-values, or make prompts without them with `pmlm prepare --template`"
    )
    assert refused(capsys, with_labs, "--reply", *REMOTE) == why
    assert refused(capsys, with_labs, "--episodes", prepared, "--reply", *REMOTE) == why
    itself = ["--pipeline", prepared / "pipeline"]
    assert refused(capsys, with_labs, *itself, "--reply", *REMOTE) == why.replace(str(prepared), str(itself[1]))
    small = ["--budget", 9, "--patients", 3, "--rollouts", 2, "--device", "cpu", "--scorer", small_bert()]
    train = ["--episodes", prepared, "--run", tmp_path / "run", "--agent", "lexicon", *small]
    assert pmlm("train", *train, *REMOTE) == 2
    assert capsys.readouterr().err == f"pmlm train: {why}\n"
    assert not (tmp_path / "run").exists()
    benchmark = ["--env", "real", "--episodes", prepared, "--run", "runs", "--out", "results", "--agents", "keep-all"]
    assert pmlm("benchmark", *benchmark, "--device", "cpu", "--scorer", small_bert(), *REMOTE) == 2
    assert capsys.readouterr().err == f"pmlm benchmark: {why}\n"
    assert all(trace.replies for trace in refine(with_labs, "--reply", *REMOTE, "--send-values"))
    here = ["--llm", "openai:m", "--base-url", endpoint.url]
    assert all(trace.replies for trace in refine(with_labs, "--reply", *here))
    assert pmlm("train", *train, *REMOTE, "--send-values") == 0
    for command in (["evaluate"], ["train", "--resume"]):  # the run may be a stranger's: what it allows does not count
        capsys.readouterr()
        again = [*command, "--run", tmp_path / "run", "--allow-import"]
        assert pmlm(*again) == 2
        assert capsys.readouterr().err == f"pmlm {command[0]}: {why}\n"
        assert pmlm(*again, "--send-values") == 0


def test_prompts_without_values_need_no_permission(work: Path) -> None:
    assert all(trace.replies for trace in refine(work, "--reply", *REMOTE))


def test_the_bundled_llm_replies_on_this_machine(work: Path) -> None:
    options = ["--reply", "--llm", "local:smollm2-135m", "--max-new-tokens", 6]
    patient = refine(work)[0].patient_id
    (trace,) = refine(work, "--patient", patient, *options)
    assert trace.replies[0].completion_tokens == 6
    assert trace.replies[0].text.strip()
