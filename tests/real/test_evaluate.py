"""`pmlm evaluate` of any agent: what it asks for, the traces and figures that it writes, and what is made of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.evaluation.controls import CONTROLS
from agents.evaluation.metrics import METRICS
from agents.evaluation.variants import evaluation_of
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.llm.base import LLMError, Reply, Request
from pmlm_env.llm.responder import Responder
from pmlm_env.llm.storage.cached_llm import CachedLLM
from tests.commands import pmlm
from tests.real.runs import small_bert

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("hashed_sentences", "no_figures")]

N_TEST = 12
VARIANTS = ("keep_all", "random", "agent")
Replies = Generator[dict[int, Reply], None, None]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "prepared"
    lite_episodes({"train": 6, "test": N_TEST}, 0).save(folder)
    return folder


def _trained(prepared: Path, run: Path, agent: str, *more: object) -> RunFolder:
    models = ["--llm", "responder", "--device", "cpu", "--encoder", small_bert(), "--scorer", small_bert()]
    common = ["--agent", agent, "--episodes", prepared, "--run", run, "--n-edits", 3, "--budget", 40]
    assert pmlm("train", *common, *models, *more) == 0
    return RunFolder(run)


@pytest.fixture(scope="module")
def trained(prepared: Path) -> RunFolder:
    """A run that has not been evaluated."""
    return _trained(prepared, prepared.parent / "trained", "lexicon", "--patients", 2, "--rollouts", 2)


@pytest.fixture
def run(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of that run."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def _evaluate(run: RunFolder, *more: object) -> tuple[dict[str, Any], list[Trace]]:
    assert pmlm("evaluate", "--run", run.path, *more) == 0
    return json.loads(run.evaluation.read_text()), run.traces.read()


def _of(traces: Sequence[Trace], variant: str) -> list[Trace]:
    return [trace for trace in traces if trace.variant == variant]


@pytest.fixture(scope="module")
def evaluated(trained: RunFolder) -> RunFolder:
    """Another copy, which has been evaluated."""
    run = RunFolder(shutil.copytree(trained.path, trained.path.with_name("evaluated")))
    _evaluate(run)
    return run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Request]]:
    """All that is asked of the LLM behind its cache, batch by batch."""
    batches: list[list[Request]] = []
    honest = CachedLLM.replies

    def replies(self: CachedLLM, requests: Sequence[Request]) -> Replies:
        batches.append(list(requests))
        yield from honest(self, requests)

    monkeypatch.setattr(CachedLLM, "replies", replies)
    return batches


@pytest.mark.once
def test_every_reply_is_asked_for_once_in_one_batch(run: RunFolder, asked: list[list[Request]]) -> None:
    _, traces = _evaluate(run)
    assert len(asked) == 1
    prompts = [trace.prompt for variant in VARIANTS for trace in _of(traces, variant)]
    assert Counter(request.prompt for request in asked[0]) == Counter(prompts)
    assert len(prompts) == len(VARIANTS) * N_TEST


def test_a_trace_of_each_variant_and_control_of_each_patient_has_all_of_the_episode(
    evaluated: RunFolder, prepared: Path
) -> None:
    traces = evaluated.traces.read()
    episodes = EpisodeSet.load(prepared).of("test")
    assert Counter(trace.variant for trace in traces) == dict.fromkeys([*VARIANTS, *CONTROLS], N_TEST)
    for variant in [*VARIANTS, *CONTROLS]:
        for trace, initial, episode in zip(_of(traces, variant), _of(traces, "keep_all"), episodes, strict=True):
            assert (trace.run, trace.agent, trace.seed, trace.split) == ("evaluated", "lexicon", 0, "test")
            assert (trace.patient_id, trace.label, trace.reference) == (
                episode.patient_id, episode.label, episode.reference,
            )  # fmt: skip
            assert (trace.words, trace.spaces, trace.roles) == (episode.words, episode.spaces, episode.roles)
            edited = {edit.slot for edit in trace.edits}
            left = [word for slot, word in enumerate(trace.words) if slot not in edited]
            assert trace.prompt == " ".join(left)
            assert list(trace.before) == list(trace.after) == list(METRICS)
            assert trace.before == initial.after
            f1, before = trace.after["bertscore_f1"], trace.before["bertscore_f1"]
            assert f1 is not None
            assert before is not None
            assert (trace.reward, trace.error) == (f1 - before, "")
            assert trace.initial_reply == initial.replies[0].text
    replies = {trace.prompt: trace.replies for variant in VARIANTS for trace in _of(traces, variant)}
    for prompt, (reply,) in replies.items():
        (completion,) = Responder().generate([prompt])
        usage = (completion.prompt_tokens, completion.completion_tokens, completion.finish_reason)
        assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (
            completion.text, *usage,
        )  # fmt: skip


def test_probabilities_of_edits_are_the_policys_and_drawn_edits_have_none(evaluated: RunFolder) -> None:
    traces = evaluated.traces.read()
    for trace in _of(traces, "agent"):
        assert len(trace.edits) == 3
        assert all(edit.probability is not None and 0 < edit.probability <= 1 for edit in trace.edits)
    assert all(edit.probability is None for trace in _of(traces, "random") for edit in trace.edits)
    assert all(not trace.edits for trace in traces if trace.variant not in ("agent", "random"))


@pytest.mark.once
def test_a_reply_says_whether_it_was_in_the_cache_and_a_controls_has_no_usage(run: RunFolder) -> None:
    _, first = _evaluate(run)
    new = [reply for trace in _of(first, "random") for reply in trace.replies]
    assert {reply.cached for reply in new} == {False}
    _, second = _evaluate(run)
    assert {reply.cached for variant in VARIANTS for trace in _of(second, variant) for reply in trace.replies} == {True}
    for control in CONTROLS:
        for trace in _of(second, control):
            (reply,) = trace.replies
            assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason, reply.cached) == (None,) * 4


def test_the_command_ends_with_the_page_and_how_to_look_at_a_patient(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    _, traces = _evaluate(run)
    *_, page, show = capsys.readouterr().out.splitlines()
    assert page == f"All patients are on the page {run.path / 'report.html'}, for the browser."
    assert (run.path / "report.html").is_file()
    (command,) = re.findall(r"pmlm (show --run \S+)", show)
    assert pmlm(*shlex.split(command)) == 0
    assert f"Patients: {N_TEST} test; " in capsys.readouterr().out
    assert pmlm(*shlex.split(command), "--patient", traces[0].patient_id) == 0
    assert traces[0].reference.split()[0] in capsys.readouterr().out


def test_the_figures_are_those_of_the_traces(evaluated: RunFolder) -> None:
    evaluation, traces = json.loads(evaluated.evaluation.read_text()), evaluated.traces.read()
    assert (evaluation["agent"], evaluation["split"], evaluation["n_patients"]) == ("lexicon", "test", N_TEST)
    again = json.loads(json.dumps(evaluation_of(traces, 0)))
    assert again == {name: evaluation[name] for name in again}
    for variant in (*VARIANTS, *CONTROLS):
        for name in METRICS:
            values = [value for trace in _of(traces, variant) if (value := trace.after[name]) is not None]
            mean = pytest.approx(np.mean(values)) if values else None
            assert evaluation["summary"][variant][name] == mean
    rewards = [trace.reward for trace in _of(traces, "agent")]
    assert evaluation["summary"]["delta"]["agent"]["mean"] == pytest.approx(np.mean(rewards))


def test_every_metric_of_every_variant_is_in_its_range(evaluated: RunFolder) -> None:
    ranges = {"words": (1, np.inf), "margin": (-1, 1), "length_ratio": (0, np.inf), "new_wrong_diagnosis": (0, 12)}
    for trace in evaluated.traces.read():
        for name, value in trace.after.items():
            if value is None:  # the reply has no number, or the letter no advice
                assert name in ("numbers_right", "advice")
            else:
                low, high = ranges.get(name, (0, 1 + 1e-6))
                assert low <= value <= high, name


def test_the_controls_say_what_the_prompts_and_the_letters_say(evaluated: RunFolder, prepared: Path) -> None:
    traces, episodes = evaluated.traces.read(), EpisodeSet.load(prepared)
    letters = {episode.reference for episode in episodes.of("train")}
    replies = {(trace.variant, trace.patient_id): trace.replies[0].text for trace in traces}
    for episode in episodes.of("test"):
        by_control = {name: replies[name, episode.patient_id] for name in CONTROLS}
        assert by_control["echo"] == episode.prompt
        assert by_control["label"] == episode.predicted
        assert episode.prompt.startswith(by_control["facts"])
        assert {by_control[name] for name in CONTROLS if name.endswith("-letter")} <= letters
    assert [trace.after["copy"] for trace in _of(traces, "echo")] == pytest.approx([1] * N_TEST, abs=1e-5)


def test_the_summary_has_no_text_of_a_patient_and_both_files_are_for_their_owner_alone(
    evaluated: RunFolder, prepared: Path
) -> None:
    traces = evaluated.traces.read()
    summary = evaluated.evaluation.read_text()
    for episode in EpisodeSet.load(prepared).of("test"):
        assert episode.patient_id not in summary
        assert episode.reference not in summary
        assert episode.prompt[:20] not in summary
    assert not [reply for trace in traces for reply in trace.replies if len(reply.text) > 20 and reply.text in summary]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (evaluated.evaluation, evaluated.traces.path)} == {0o600}


@pytest.mark.parametrize("agent", ["leave-one-out", "maskable-ppo", "single-rule", "random-p"])
def test_any_agent_is_evaluated_with_the_edits_that_it_makes(prepared: Path, tmp_path: Path, agent: str) -> None:
    run = _trained(prepared, tmp_path / "run", agent)
    evaluation, traces = _evaluate(run)
    assert {trace.agent for trace in traces} == {evaluation["agent"]} == {agent}
    out = tmp_path / "refined.jsonl"
    assert (
        pmlm("refine", "--model", run.checkpoint, "--episodes", prepared, "--encoder", small_bert(), "--out", out) == 0
    )
    refined = [json.loads(line)["prompt"] for line in out.read_text().splitlines()]
    assert [trace.prompt for trace in _of(traces, "agent")] == refined


@pytest.mark.once
def test_a_rule_is_searched_within_its_calls_and_stands_beside_the_agent(
    run: RunFolder, asked: list[list[Request]], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation, traces = _evaluate(run, "--rule-calls", 30)
    assert sum(map(len, asked[:-1])) <= 30
    assert len(asked[-1]) == (len(VARIANTS) + 1) * N_TEST
    rule = _of(traces, "single_rule")
    difference = np.subtract([trace.reward for trace in _of(traces, "agent")], [trace.reward for trace in rule])
    assert evaluation["summary"]["delta"]["agent_over_single_rule"]["mean"] == pytest.approx(difference.mean())
    assert "agent - rule (personal)" in capsys.readouterr().out


@pytest.mark.once
def test_an_evaluation_that_was_interrupted_gives_the_same_files(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = RunFolder(shutil.copytree(run.path, run.path.with_name("whole") / "run"))
    _evaluate(whole)
    honest = Responder.replies

    def replies(self: Responder, requests: Sequence[Request]) -> Replies:
        yield from honest(self, requests[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Responder, "replies", replies)
    assert pmlm("evaluate", "--run", run.path) == 130
    assert not run.evaluation.exists()
    assert run.traces.read() == []
    monkeypatch.undo()
    _evaluate(run)
    assert run.evaluation.read_text() == whole.evaluation.read_text()

    def without_marks(traces: Sequence[Trace]) -> list[Trace]:
        """Where the replies came from is another matter."""
        return [
            replace(trace, replies=tuple(replace(reply, cached=None) for reply in trace.replies)) for trace in traces
        ]

    assert without_marks(run.traces.read()) == without_marks(whole.traces.read())


@pytest.mark.once
def test_traces_of_another_seed_or_split_stay_and_those_of_the_same_are_replaced(run: RunFolder) -> None:
    n = (len(VARIANTS) + len(CONTROLS)) * N_TEST
    _evaluate(run, "--rule-calls", 20)
    _, traces = _evaluate(run, "--seed", 1)
    assert Counter(trace.seed for trace in traces) == {0: n + N_TEST, 1: n}
    _, traces = _evaluate(run)  # without a rule now
    assert Counter(trace.seed for trace in traces) == {0: n, 1: n}
    assert not _of(traces, "single_rule")
    _, traces = _evaluate(run, "--split", "train")
    assert Counter(trace.split for trace in traces) == {"test": 2 * n, "train": n // 2}


@pytest.mark.once
def test_cases_are_printed_from_the_traces(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    _, traces = _evaluate(run, "--cases", 2)
    text = capsys.readouterr().out
    fell = sorted((t.reward, t.patient_id) for t in _of(traces, "agent") if t.reward is not None and t.reward < 0)
    assert f"{len(fell)} of {N_TEST} patients' F1 fell" in text
    shown = [line.split(",")[0] for line in text.splitlines() if ": F1 " in line]
    assert shown == [patient for _, patient in fell[:2]]


def _failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    """Let the LLM have no reply to some prompts."""
    honest = Responder.replies

    def replies(self: Responder, requests: Sequence[Request]) -> Replies:
        for batch in honest(self, requests):
            yield {
                i: LLMError("the reply was filtered") if fails(requests[i].prompt) else reply
                for i, reply in batch.items()
            }

    monkeypatch.setattr(Responder, "replies", replies)


@pytest.mark.once
def test_a_patient_without_a_reply_is_left_out_of_every_variant_and_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = RunFolder(shutil.copytree(run.path, run.path.with_name("whole") / "run"))
    _, theirs = _evaluate(whole)
    lost = _of(theirs, "random")[1]
    _failing(monkeypatch, lambda prompt: prompt == lost.prompt)
    capsys.readouterr()
    evaluation, ours = _evaluate(run)
    assert evaluation["without_reply"] == [lost.patient_id]
    assert evaluation["n_patients"] == N_TEST - 1
    assert "11 held-out patients, 1 more left out because a reply is missing" in capsys.readouterr().out
    (trace,) = [trace for trace in _of(ours, "random") if trace.error]
    assert (trace.patient_id, trace.error) == (lost.patient_id, "the reply was filtered")
    assert (trace.replies, trace.after, trace.reward) == ((), {}, None)
    assert trace.before == lost.before
    others = [trace for trace in ours if trace.patient_id != lost.patient_id]
    assert [trace.after for trace in others] == [t.after for t in theirs if t.patient_id != lost.patient_id]


@pytest.mark.once
def test_so_many_missing_replies_in_a_row_stop_the_evaluation_in_one_line(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, lambda prompt: True)
    assert pmlm("evaluate", "--run", run.path, "--max-failures", 5) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "5 replies in a row are missing, the last because: the reply was filtered. See to that, then run" in error
    assert not run.evaluation.exists()
    assert pmlm("evaluate", "--run", run.path) == 1
    assert "no patient has all replies" in capsys.readouterr().err


@pytest.mark.once
def test_damaged_traces_are_named_in_one_line_and_nothing_is_lost(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run.traces.path.write_text("{}\n")
    assert pmlm("evaluate", "--run", run.path) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{run.traces.path}, line 1: it is damaged" in error
    assert run.traces.path.read_text() == "{}\n"


@pytest.mark.once
def test_several_samples_of_a_reply_are_all_in_the_trace_and_scored_by_their_mean(
    prepared: Path, tmp_path: Path, asked: list[list[Request]]
) -> None:
    run = _trained(prepared, tmp_path / "run", "keep-all", "--n-samples", 2)
    _, traces = _evaluate(run)
    assert Counter(request.sample for request in asked[-1]) == dict.fromkeys(range(2), len(VARIANTS) * N_TEST)
    assert {len(trace.replies) for variant in VARIANTS for trace in _of(traces, variant)} == {2}


@pytest.mark.once
def test_damaged_traces_are_noticed_before_anything_is_asked(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "traces.jsonl").write_text("[]\n", encoding="utf-8")
    spent = (run.path / "spent.json").read_text()
    assert pmlm("evaluate", "--run", run.path) == 2
    said = capsys.readouterr().err
    assert "traces.jsonl, line 1: it is damaged" in said
    assert "evaluating" not in said
    assert (run.path / "spent.json").read_text() == spent


@pytest.mark.once
def test_too_few_calls_for_a_single_rule_are_no_secret(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    _evaluate(run, "--rule-calls", 1)
    assert "No rule was tried" in caplog.text
