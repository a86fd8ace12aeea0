"""The page of a run, as a file."""

from __future__ import annotations

import html
import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.evaluation.variants import AGENT, RULE
from agents.report.page.patients import patients_data
from agents.run_folder import RunFolder
from tests.agents.report.page_runs import edited, keep_reply, make_patients, traces_of, write_run
from tests.commands import pmlm

pytestmark = pytest.mark.once


@pytest.fixture
def run(tmp_path: Path) -> Path:
    patients = make_patients(12)
    return write_run(tmp_path / "mine", patients, traces_of(patients))


def _page(run: Path) -> str:
    assert pmlm("report", "--run", run) == 0
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run as it is in ``run``."""
    patients = make_patients(12)
    return _page(write_run(tmp_path_factory.mktemp("page") / "mine", patients, traces_of(patients)))


def _data(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def _cells(page: str, name: str) -> list[str]:
    """The texts of a row of the table of variants."""
    (row,) = re.findall(rf'<th scope="row">{name}</th>(.*?)</tr>', page, re.DOTALL)
    return [" ".join(re.sub("<[^>]*>", "", cell).split()) for cell in re.findall("<td.*?</td>", row, re.DOTALL)]


def test_the_command_names_the_page_which_only_its_owner_can_read(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _page(run)
    assert capsys.readouterr().out == f"page: {run / 'report.html'}\n"
    assert stat.S_IMODE((run / "report.html").stat().st_mode) == 0o600


def test_the_page_of_96_patients_is_smaller_than_a_megabyte(tmp_path: Path) -> None:
    patients = make_patients(96)
    page = _page(write_run(tmp_path / "mine", patients, traces_of(patients)))
    assert len(page.encode()) < 1_000_000
    assert len(_data(page)["patients"]) == 96


def test_the_page_of_96_patients_is_smaller_than_a_megabyte_if_each_loses_30_words_of_their_own(tmp_path: Path) -> None:
    patients, rng = make_patients(96), np.random.default_rng(0)
    traces = [
        edited(episode, rng.permutation(len(episode.words))[:30].tolist(), AGENT, trace.replies[0].text, 0.61)
        if trace.variant == AGENT
        else trace
        for episode in patients
        for trace in traces_of(patients.part([episode]), 30)
    ]
    page = _page(write_run(tmp_path / "mine", patients, traces))
    assert page.count('class="cell"') > 1_000
    assert len(page.encode()) < 1_000_000


def test_kept_replies_never_make_it_larger_than_a_megabyte(tmp_path: Path) -> None:
    """A cache that many runs share may have any number of replies to the same patients."""
    patients = make_patients(96)
    run = write_run(tmp_path / "mine", patients, traces_of(patients))
    for slot in range(60):
        words = list(patients[0].words)
        del words[slot]
        keep_reply(run, " ".join(words), f"{slot} " + "word " * 400)
    page = _page(run)
    data = _data(page)
    assert len(page.encode()) < 1_000_000
    assert f"To keep the page small, {data['left_out']} replies" in page
    assert 0 < len(data["patients"][0]["kept"]) < 60


def test_patients_with_few_kept_replies_leave_their_room_to_others() -> None:
    traces = traces_of(make_patients(2))
    first, second = dict.fromkeys(trace.patient_id for trace in traces)
    kept = {first: {(slot,): [f"{slot} " + "x" * 10_000] for slot in range(15)}, second: {}}
    assert patients_data(traces, None, kept, in_points=True)["left_out"] == 0


def test_the_same_folder_gives_the_same_page(run: Path, page: str) -> None:
    assert _page(run) == page


def test_the_table_has_each_variant_and_control_with_its_interval(page: str) -> None:
    assert _cells(page, "agent")[0] == "60.61 [59.62, 61.60]"
    assert _cells(page, "agent")[1] == "+0.61 [-0.38, +1.60]"
    assert _cells(page, "echo")[:2] == ["70.00 [70.00, 70.00]", "+10.00 [+10.00, +10.00]"]
    assert "no difference to the untouched prompts is shown" in page
    assert "Controls, which need no LLM, with a higher mean: echo, facts, label" in page


def test_figures_and_controls_are_explained(page: str) -> None:
    text = " ".join(re.sub("<[^>]*>", " ", page[page.index("How to read it</h2>") :]).split())
    assert "copy BERTScore F1 of the reply against the prompt that it answers" in text
    assert "echo the untouched prompt" in text


def test_few_patients_have_no_interval(tmp_path: Path) -> None:
    patients = make_patients(3)
    page = _page(write_run(tmp_path / "mine", patients, traces_of(patients)))
    assert "too few patients for an interval" in page
    assert "too few patients to tell whether" in page


def test_the_words_that_are_deleted_most_stand_with_their_roles(page: str) -> None:
    """The agent deletes slots 1 to 10: five words of the background, four of the prediction, the first of the peers."""
    (table,) = re.findall(r'<table class="sortable" id="deleted">(.*?)</table>', page, re.DOTALL)
    rows = [re.sub("<[^>]*>", " ", row).split() for row in re.findall("<tr><th scope=.row.*?</tr>", table, re.DOTALL)]
    assert ["pregnant", "background", "12", "12", "1.0", "25", "%"] in rows
    assert ["suggest", "self", "12", "12", "9.0", "25", "%"] in rows


@pytest.mark.parametrize(("probability", "shown"), [(1.0, "100 %"), (0.996, "100 %"), (0.00123, "0.12 %")])
def test_the_probability_of_a_deletion_is_in_percent_however_sure_the_agent_is(
    tmp_path: Path, probability: float, shown: str
) -> None:
    patients = make_patients(3)
    traces = [
        replace(trace, edits=tuple(replace(edit, probability=probability) for edit in trace.edits))
        for trace in traces_of(patients)
    ]
    page = _page(write_run(tmp_path / "mine", patients, traces))
    (table,) = re.findall(r'<table class="sortable" id="deleted">(.*?)</table>', page, re.DOTALL)
    assert set(re.findall(r'<td class="n">([^<]* %)</td>', table)) == {shown}


def test_an_agent_that_deletes_nothing_has_no_heat_map(tmp_path: Path) -> None:
    patients = make_patients(12)
    page = _page(write_run(tmp_path / "mine", patients, traces_of(patients, slots=0)))
    assert "The agent deletes no word of any patient" in page
    assert 'class="heat"' not in page


def test_the_best_single_rule_is_named_with_its_places(tmp_path: Path, page: str) -> None:
    patients = make_patients(12)
    rule = [edited(episode, (2, 0), RULE, "Rest.", 0.61) for episode in patients]
    found = html.unescape(_page(write_run(tmp_path / "mine", patients, [*traces_of(patients), *rule])))
    assert (
        "The best single rule deletes from every prompt, by role and place among the words of that role: "
        'background 3 ("woman"); background 1 ("A").'
    ) in found
    assert 'class="note rule"' not in page


def test_it_counts_what_became_of_the_conditions(page: str) -> None:
    """The prediction is wrong for patients 0, 4 and 8, and the agent's replies name the right condition for all."""
    (table,) = re.findall(r'<table id="outcomes">(.*?)</table>', page, re.DOTALL)
    rows = re.findall("<tr><th scope=.row.*?</tr>", table, re.DOTALL)
    counts = {" ".join(words[1:-2]): words[-2] for words in (re.sub("<[^>]*>", " ", row).split() for row in rows)}
    assert counts["right condition gained"] == counts["wrong condition lost"] == "3"
    assert counts["right condition still named"] == counts["wrong condition never named"] == "9"
    assert counts["right condition lost"] == counts["wrong condition gained"] == "0"


def test_of_several_replies_the_share_that_names_a_condition_counts(tmp_path: Path) -> None:
    patients = make_patients(1)
    untouched, agent, *rest = traces_of(patients)
    agent = replace(
        agent,
        before={**agent.before, "diagnosis_named": 1.0, "wrong_diagnosis_named": 1 / 3},
        after={**agent.after, "diagnosis_named": 1 / 3, "wrong_diagnosis_named": 1.0},
    )
    page = _page(write_run(tmp_path / "mine", patients, [untouched, agent, *rest]))
    (table,) = re.findall(r'<table id="outcomes">(.*?)</table>', page, re.DOTALL)
    rows = [re.sub("<[^>]*>", " ", row).split() for row in re.findall("<tr><th scope=.row.*?</tr>", table, re.DOTALL)]
    counts = {" ".join(words[1:-2]): words[-2] for words in rows}
    assert counts["right condition lost"] == counts["wrong condition gained"] == "1"


def test_conditions_are_found_by_their_aliases(tmp_path: Path) -> None:
    patients = make_patients(1)
    first, agent, *rest = traces_of(patients)
    agent = replace(agent, replies=(replace(agent.replies[0], text="She has GDM, and no thalassemia."),))
    data = _data(_page(write_run(tmp_path / "mine", patients, [first, agent, *rest])))
    reply = data["replies"].index("She has GDM, and no thalassemia.")
    assert data["named"][reply] == ["gestational diabetes", "asserted", "thalassemia", "denied"]


def test_without_the_prepared_folder_no_conditions_are_listed(run: Path) -> None:
    """Their aliases are there alone: a list without them would contradict the scores."""
    (run.parent / "mine-prepared").rename(run.parent / "elsewhere")
    assert _data(_page(run))["named"] is None


def test_replies_of_another_llm_are_not_kept_replies(run: Path) -> None:
    keep_reply(run, "A woman", "I am somebody else.", identity="other:v1")
    keep_reply(run, "A woman", "I am the run's.")
    page = _page(run)
    assert "I am somebody else." not in page
    assert "I am the run's." in page  # JSON in a script has no entities


def test_a_prompt_that_is_no_patients_is_left_out(run: Path) -> None:
    keep_reply(run, "Another prompt", "Not of theirs.")
    assert "Not of theirs." not in _page(run)


def test_another_reward_is_the_score_and_f1_stands_beside_it(tmp_path: Path) -> None:
    patients = make_patients(12)
    traces = []
    for trace in traces_of(patients):
        paid = {"reward": 0.3 if trace.variant == "agent" else 0.2}
        traces.append(replace(trace, after={**trace.after, **paid}, before={**trace.before, "reward": 0.2}, reward=0.1))
    page = _page(write_run(tmp_path / "mine", patients, traces, reward="margin"))
    assert "agent against the untouched prompt, by the reward" in page
    assert _data(page)["metrics"][0]["name"] == "reward"
    assert _cells(page, "agent")[0] == "30"


def test_missing_replies_are_counted_and_the_patients_stay_in_the_list(tmp_path: Path) -> None:
    patients = make_patients(12)
    traces = traces_of(patients)
    for i, trace in enumerate(traces):
        if trace.patient_id == "P3":
            traces[i] = replace(trace, error="out of credit", reward=None)
            if trace.variant == "agent":
                traces[i] = replace(traces[i], after={}, replies=())
    page = _page(write_run(tmp_path / "mine", patients, traces))
    assert "1 more patients are left out" in page
    assert len(_data(page)["patients"]) == 12


def test_several_samples_of_a_prompt_are_all_there(tmp_path: Path) -> None:
    patients = make_patients(1)
    first, agent, *rest = traces_of(patients)
    agent = replace(agent, replies=agent.replies * 2 + (replace(agent.replies[0], text="A third sample."),))
    data = _data(_page(write_run(tmp_path / "mine", patients, [first, agent, *rest])))
    run = data["patients"][0]["runs"][1]
    assert len(run["replies"]) == 3


def test_the_page_shows_the_evaluation_that_evaluation_json_has(run: Path) -> None:
    """Traces of other evaluations stay in the file."""
    other = edited(make_patients(1)[0], (0,), "agent", "Of another seed.", 0.9)
    RunFolder(run).traces.append([replace(other, seed=7)])
    assert "Of another seed." not in _page(run)


@pytest.mark.parametrize("evil", ["</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--"])
def test_texts_of_others_are_no_markup(evil: str, page: str, tmp_path: Path) -> None:
    patients = make_patients(12)
    traces = [
        replace(
            trace,
            words=(evil.replace(" ", ""), *trace.words[1:]),
            label=evil,
            predicted=evil,
            patient_id=f"{evil}{trace.patient_id}",
            reference=evil,
            replies=tuple(replace(reply, text=evil) for reply in trace.replies),
            edits=tuple(replace(edit, word=evil) for edit in trace.edits),
        )
        for trace in traces_of(patients)
    ]
    with_evil = _page(write_run(tmp_path / "evil", patients, traces))
    tags = re.compile(r"<(script|img|!--)")
    assert sorted(tags.findall(with_evil)) == sorted(tags.findall(page))


def test_the_page_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"""(src|href)=["']?(?!#|data:,)[^"'\s>]*(//|\.js|\.css)""", page)


def test_a_run_that_was_not_evaluated_has_no_page(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evaluation.json").unlink()
    assert pmlm("report", "--run", run) == 2
    error = capsys.readouterr().err
    assert error == f"pmlm report: {run} was not evaluated: run `pmlm evaluate --run {run}` first\n"


def test_traces_that_are_gone_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "traces.jsonl").unlink()
    assert pmlm("report", "--run", run) == 2
    assert f"{run / 'traces.jsonl'} has no trace of the evaluation" in capsys.readouterr().err


def test_a_damaged_evaluation_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "evaluation.json").write_text("{}")
    assert pmlm("report", "--run", run) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"pmlm report: {run / 'evaluation.json'} is damaged")
    assert "make it again with `pmlm evaluate" in error


def test_an_evaluation_of_an_earlier_version_is_to_be_made_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    del evaluation["models"]["protect"]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert pmlm("report", "--run", run) == 2
    said = capsys.readouterr().err
    assert "evaluation.json is damaged, or of an earlier version (UndefinedError: " in said
    assert said.endswith(f"make it again with `pmlm evaluate --run {run}`\n")


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("report", "--run", tmp_path / "none") == 2
    assert "contains no run" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--out", "there"], ["--seed", "1"], ["--default", "rloo"], ["results2"]])
def test_options_of_a_benchmarks_report_are_refused_beside_a_run(
    more: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm("report", "--run", run, *more) == 2
    assert "has no effect" in capsys.readouterr().err
