"""Traces: what a line holds, and what becomes of lines that are damaged, cut short or of another version."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pmlm_env.core.edits import deletions
from pmlm_env.core.traces import VERSION, Trace, TracedPeer, TracedReply, TraceFile
from tests.standins import make_episodes

EPISODE = replace(make_episodes(1, n_words=4, n_marked=1)[0], words=("Say", "it", "in", "brief."))


def make_trace(patient: str = "P0", seed: int = 0, variant: str = "agent") -> Trace:
    return Trace.of(
        replace(EPISODE, patient_id=patient),
        run="mine",
        agent="lexicon",
        variant=variant,
        seed=seed,
        edits=deletions(EPISODE, (2, 0)),
        prompt="it brief.",
        initial_reply="One\nline,\u2028and another.",
        replies=(TracedReply("Rest.", 4, 2, "stop", cached=False), TracedReply("Scar \ud800.", 4, 3, "length", True)),
        before={"bertscore_f1": 0.5, "margin": None},
        after={"bertscore_f1": 0.75, "margin": None},
        reward=0.25,
        error="",
    )


def test_traces_come_back_as_they_were_written(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "traces.jsonl")
    traces = [make_trace("a"), make_trace("b")]
    assert file.read() == []
    file.append(traces[:1])
    file.append([])
    file.append(traces[1:])
    assert file.read() == TraceFile(file.path).read() == traces


def test_a_line_has_the_version_and_everything_that_is_known_of_the_episode() -> None:
    line = json.loads(make_trace().to_json())
    assert next(iter(line)) == "version"
    assert line == {
        "version": 2,
        "run": "mine",
        "agent": "lexicon",
        "variant": "agent",
        "seed": 0,
        "split": "train",
        "patient_id": "P0",
        "label": "normal",
        "predicted": "normal",
        "probabilities": {},
        "peers": [{"label": "normal", "patient_id": None, "similarity": None}],
        "words": ["Say", "it", "in", "brief."],
        "spaces": [],
        "roles": ["background", "self", "peer", "instruction"],
        "edits": [
            {"operation": "delete", "slot": 2, "word": "in", "probability": None},
            {"operation": "delete", "slot": 0, "word": "Say", "probability": None},
        ],
        "prompt": "it brief.",
        "initial_reply": "One\nline,\u2028and another.",
        "replies": [
            {"text": "Rest.", "prompt_tokens": 4, "completion_tokens": 2, "finish_reason": "stop", "cached": False},
            {
                "text": "Scar \ud800.",
                "prompt_tokens": 4,
                "completion_tokens": 3,
                "finish_reason": "length",
                "cached": True,
            },
        ],
        "reference": EPISODE.reference,
        "before": {"bertscore_f1": 0.5, "margin": None},
        "after": {"bertscore_f1": 0.75, "margin": None},
        "reward": 0.25,
        "error": "",
    }


def test_the_probability_of_an_edit_and_a_reply_without_an_llm_come_back(tmp_path: Path) -> None:
    edits = (replace(deletions(EPISODE, (1,))[0], probability=0.125),)
    file = TraceFile(tmp_path / "traces.jsonl")
    file.append([replace(make_trace(), edits=edits, replies=(TracedReply("Rest."),))])
    (found,) = file.read()
    assert found.edits[0].probability == 0.125
    assert found.replies[0].finish_reason is None


def test_peers_with_names_and_probabilities_come_back(tmp_path: Path) -> None:
    more = {"peers": (TracedPeer("normal", "P7", 0.875),), "probabilities": {"normal": 0.75, "scar": 0.25}}
    file = TraceFile(tmp_path / "traces.jsonl")
    file.append([replace(make_trace(), **more)])  # type: ignore[arg-type]
    (found,) = file.read()
    assert (found.peers, found.probabilities) == (more["peers"], more["probabilities"])


def test_line_breaks_between_words_come_back(tmp_path: Path) -> None:
    spaces = (" ", "\n\n", " ", "")
    file = TraceFile(tmp_path / "traces.jsonl")
    file.append([replace(make_trace(), spaces=spaces)])
    assert file.read()[0].spaces == spaces


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    appended, replaced = TraceFile(tmp_path / "a"), TraceFile(tmp_path / "b")
    appended.append([make_trace()])
    replaced.replace([make_trace()], lambda trace: False)
    assert {stat.S_IMODE(file.path.stat().st_mode) for file in (appended, replaced)} == {0o600}


@pytest.mark.parametrize("cut", [1, 40, 700])
def test_a_last_line_cut_short_is_left_out_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "traces.jsonl"
    traces = [make_trace("a"), make_trace("b")]
    TraceFile(path).append(traces)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert TraceFile(path).read() == traces[:1]
    TraceFile(path).append(traces[1:])
    assert path.read_bytes() == whole


def test_a_file_of_nothing_but_a_line_cut_short_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('{"version": 1, "run"')
    assert TraceFile(path).read() == []
    TraceFile(path).append([make_trace()])
    assert TraceFile(path).read() == [make_trace()]


def _changed(**changes: object) -> str:
    return json.dumps({**json.loads(make_trace().to_json()), **changes})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"version": 1, ', "it is damaged (not JSON)"),
        ("[" * 100_000, "it is damaged (not JSON)"),
        ("", "it is damaged (not JSON)"),
        ("[]", "it is damaged (not an object with a version)"),
        ('{"run": "mine"}', "it is damaged (not an object with a version)"),
        (_changed(version=1), f"it is of version 1, and this pmlm-env reads version {VERSION}"),
        (_changed(version=3), f"it is of version 3, and this pmlm-env reads version {VERSION}"),
        (_changed(version="2"), f"it is of version '2', and this pmlm-env reads version {VERSION}"),
        (_changed(more=1), "it is damaged (in 'more')"),
        ('{"version": 2}', "it is damaged (in 'after')"),
        (_changed(seed=True), "it is damaged (in 'seed')"),
        (_changed(words="Say it in brief."), "it is damaged (in 'words')"),
        (_changed(words=["Say", "it", "in", 4]), "it is damaged (in 'words')"),
        (_changed(roles=["self"]), "it is damaged (in 'roles')"),
        (_changed(spaces=[" "]), "it is damaged (in 'spaces')"),
        (_changed(edits=[{"slot": 1}]), "it is damaged (in 'edits')"),
        (_changed(edits=[{"operation": "delete", "slot": 4, "word": "it"}]), "it is damaged (in 'edits')"),
        (_changed(replies=[{"said": "Rest."}]), "it is damaged (in 'replies')"),
        (_changed(replies=[4]), "it is damaged (in 'replies')"),
        (_changed(peers=["normal"]), "it is damaged (in 'peers')"),
        (_changed(peers=[{"name": "normal"}]), "it is damaged (in 'peers')"),
        (_changed(probabilities=[0.5]), "it is damaged (in 'probabilities')"),
        (_changed(predicted=None), "it is damaged (in 'predicted')"),
        (_changed(after={"bertscore_f1": "high"}), "it is damaged (in 'after')"),
        (_changed(after={"bertscore_f1": float("nan")}), "it is damaged (in 'after')"),
        (_changed(reward="0.25"), "it is damaged (in 'reward')"),
        (_changed(error=None), "it is damaged (in 'error')"),
    ],
)
def test_a_damaged_line_is_named_with_what_to_do(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(f"{make_trace().to_json()}\n{line}\n".encode(errors="backslashreplace").decode())
    with pytest.raises(ValueError, match="line 2") as error:
        TraceFile(path).read()
    assert str(error.value) == (
        f"{path}, line 2: {message}: restore the file from a copy, or remove it and make its traces again with "
        "`pmlm evaluate`, which asks for no cached reply again"
    )


def test_bytes_that_are_no_text_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(make_trace().to_json().encode(errors="backslashreplace").replace(b"Rest", b"R\xffst") + b"\n")
    with pytest.raises(ValueError, match=r"line 1: it is damaged \(not JSON\)"):
        TraceFile(path).read()


def test_new_traces_take_the_place_of_earlier_ones_and_no_others(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "traces.jsonl")
    file.append([make_trace("a", seed=0), make_trace("a", seed=1), make_trace("b", seed=0)])
    new = [make_trace("c", seed=0), make_trace("d", seed=0)]
    file.replace(new, lambda trace: trace.seed == 0)
    assert file.read() == [make_trace("a", seed=1), *new]


def test_where_new_traces_cannot_be_written_the_earlier_ones_stay(tmp_path: Path) -> None:
    def broken() -> Iterator[Trace]:
        yield make_trace("b")
        raise OSError("the disk is full")

    file = TraceFile(tmp_path / "traces.jsonl")
    file.append([make_trace("a")])
    with pytest.raises(OSError, match="the disk is full"):
        file.replace(broken(), lambda trace: True)
    assert file.read() == [make_trace("a")]
    assert [path.name for path in tmp_path.iterdir()] == ["traces.jsonl"]


def test_the_page_about_traces_has_every_field_and_an_example_that_is_a_trace() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    trace = Trace.from_json(json.dumps(example))
    assert json.loads(trace.to_json()) == example
    rows = page.split("## A trace")[1].split("\n| --- | --- |\n")[1].split("\n\n")[0].splitlines()
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])] == list(example)
