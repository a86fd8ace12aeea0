"""`pmlm audit`: who wins under which reward, exit codes, and what is asked, written and said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.evaluation.adversaries import ADVERSARIES, JUDGED, TextSearch
from agents.evaluation.controls import CONTROLS
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.llm.responder import Responder
from pmlm_env.rewards.bertscore import BertScorer
from tests.commands import pmlm
from tests.tiny_models import save_model

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("hashed_sentences")]

N_TRAINING, N_AUDITED = 14, 12
LETTERS = ("random-letter", "fixed-letter", "peer-letter", "label-letter", "best-text", "best-ending")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    save_model(folder, "bert", 40)
    return folder


@pytest.fixture(scope="module")
def everybody() -> EpisodeSet:
    """Patients whose letters all differ."""
    episodes = lite_episodes({"train": N_TRAINING, "validation": N_AUDITED, "test": 4})
    numbered = [replace(e, patient_id=f"p{i}", reference=f"{e.reference} Only p{i}.") for i, e in enumerate(episodes)]
    return EpisodeSet(numbered, episodes.known_labels)


@pytest.fixture
def audit(scorer: Path, everybody: EpisodeSet, tmp_path: Path) -> Any:
    """Audits a reward; returns the exit code and, if there is one, the content of the file."""

    def run(reward: str, *more: object, episodes: EpisodeSet = everybody, **kwargs: Any) -> tuple[int, dict[str, Any]]:
        episodes.save(tmp_path / "prepared")
        name = reward if reward in ("bertscore", "guarded") else f"tests.audited_rewards:{reward}"
        options = ["--episodes", tmp_path / "prepared", "--scorer", scorer, "--device", "cpu"]
        options += ["--reward", name, "--out", tmp_path / "audit.json"]
        if kwargs:
            options += ["--reward-kwargs", json.dumps(kwargs)]
        if "--llm" not in more:
            options += ["--llm", "responder"]
        code = pmlm("audit", *options, *more)
        return code, json.loads((tmp_path / "audit.json").read_text()) if code < 2 else {}

    return run


def test_a_reward_that_pays_for_length_is_won_by_whatever_is_long(audit: Any, capsys: Any) -> None:
    code, found = audit("Length")
    assert code == 1
    assert {"repeated", "reply-and-facts", "all-conditions", "best-ending"} <= set(found["winners"])
    assert not {"half", "truncated", "label"} & set(found["winners"])
    said = capsys.readouterr().out
    verdict = next(line for line in said.splitlines() if line.startswith("FAILED"))
    assert f": under tests.audited_rewards:Length, {', '.join(found['winners'])} earn more than the reply" in verdict
    untouched = found["texts"]["untouched"]["components"]["reward"]
    assert found["texts"]["repeated"]["earns"]["mean"] == pytest.approx(untouched)


def test_a_reward_that_pays_for_the_condition_is_won_by_all_conditions_at_once(audit: Any) -> None:
    code, found = audit("Condition")
    named = found["texts"]["untouched"]["components"]["reward"]
    assert named < 1
    assert found["texts"]["all-conditions"]["earns"]["mean"] == pytest.approx(1 - named)
    assert code == 1
    assert "all-conditions" in found["winners"]
    assert "random-letter" not in found["winners"]


def test_a_text_wins_only_if_its_interval_is_above_zero(audit: Any, capsys: Any) -> None:
    code, found = audit("Echo", even=1.1, odd=-1.0)  # six patients each: +0.05 in the mean
    earns = found["texts"]["echo"]["earns"]
    assert earns["mean"] == pytest.approx(0.05)
    assert earns["ci95"][0] < 0 < earns["ci95"][1]
    assert (code, found["winners"]) == (0, [])
    n = len(CONTROLS) - 2 + len(ADVERSARIES)
    said = capsys.readouterr().out
    assert f"PASSED: under tests.audited_rewards:Echo, none of {n} texts is shown to earn more" in said
    code, found = audit("Echo", even=1.1, odd=0.9)
    assert (code, found["winners"]) == (1, ["echo"])
    assert found["texts"]["echo"]["earns"]["mean"] == pytest.approx(1.0)
    said = capsys.readouterr().out
    assert "Echo, echo earns more than the reply to the untouched prompt." in said
    assert f"one of {n} texts may win by chance" in said


def test_half_a_reply_is_tried_marked_as_cut_off_and_not_marked(audit: Any) -> None:
    code, found = audit("Cut")
    assert (code, found["winners"]) == (1, ["truncated"])
    assert found["texts"]["truncated"]["components"]["cut"] == 1
    assert found["texts"]["half"]["components"]["cut"] == 0
    words = {name: found["texts"][name]["components"]["words"] for name in ("truncated", "half", "untouched")}
    assert words["truncated"] == words["half"] == pytest.approx(words["untouched"] / 2, abs=0.5)


def test_what_an_echo_earns_under_bertscore_is_the_difference_of_two_scores(
    audit: Any, everybody: EpisodeSet, scorer: Path
) -> None:
    _, found = audit("bertscore")
    audited = everybody.of("validation")
    prompts, letters = [e.prompt for e in audited], [e.reference for e in audited]
    judge = BertScorer(str(scorer), device="cpu")
    replies = [reply.text for reply in Responder().generate(prompts)]
    expected = (judge.f1(prompts, letters) - judge.f1(replies, letters)).mean()
    assert found["texts"]["echo"]["earns"]["mean"] == pytest.approx(expected, abs=1e-9)
    assert found["texts"]["echo"]["components"]["copy"] == pytest.approx(1.0, abs=1e-5)


def test_stock_phrases_of_letters_are_found_on_training_patients_and_added_to_replies(
    audit: Any, everybody: EpisodeSet, capsys: Any
) -> None:
    stock = "Keep the tag."
    episodes = [replace(e, reference=f"{e.reference} {stock}") if e.split == "train" else e for e in everybody]
    code, found = audit("Phrase", phrases=["Keep the t"], episodes=EpisodeSet(episodes, everybody.known_labels))
    assert code == 1
    assert {"best-text", "best-ending"} <= set(found["winners"])
    assert found["texts"]["best-ending"]["earns"] == {"mean": 1.0, "ci95": [1.0, 1.0]}
    said = capsys.readouterr().out
    assert f'best-ending is "{stock}"' in said
    assert stock not in json.dumps(found)


@pytest.mark.parametrize("split", ["validation", "train"])
def test_a_text_is_never_judged_on_patients_on_whom_it_was_chosen(audit: Any, split: str) -> None:
    sizes = {"train": 2 * N_TRAINING, "validation": N_AUDITED}
    episodes = [
        replace(e, patient_id=f"p{i}", reference=f"{e.reference} Only p{i}.")
        for i, e in enumerate(lite_episodes(sizes))
    ]  # fmt: skip
    code, found = audit("OwnLetter", "--split", split, episodes=EpisodeSet(episodes))
    assert found["patients"] == (N_TRAINING if split == "train" else N_AUDITED)
    assert found["searched_on"] == (N_TRAINING if split == "train" else 2 * N_TRAINING)
    assert found["texts"]["best-text"]["earns"]["mean"] == 0  # though it is paid for one training patient
    assert code == 0


def test_letters_of_similar_patients_are_shown_and_not_judged(audit: Any, everybody: EpisodeSet, capsys: Any) -> None:
    episodes = [
        replace(e, reference="Letter of a doctor.") if e.split == "train" else replace(e, reference="Another.")
        for e in everybody
    ]
    code, found = audit("Phrase", phrases=["Letter of a doctor"], episodes=EpisodeSet(episodes))
    assert code == 1
    assert found["texts"]["peer-letter"]["earns"]["mean"] == 1.0
    assert not found["texts"]["peer-letter"]["judged"]
    assert not {"peer-letter", "label-letter"} & set(found["winners"])
    said = capsys.readouterr().out
    assert said.index("\nfixed-letter") < said.index("\nnot judged, because") < said.index("\npeer-letter")


@pytest.mark.parametrize("kind", ["no letters", "no training patients"])
def test_a_cohort_without_training_letters_is_audited_without_them(
    audit: Any, everybody: EpisodeSet, kind: str, capsys: Any
) -> None:
    kept = [e for e in everybody if e.split != "train" or kind == "no letters"]
    episodes = [replace(e, reference="") if e.split == "train" else e for e in kept]
    code, found = audit("Length", episodes=EpisodeSet(episodes, everybody.known_labels))
    assert code == 1
    assert "repeated" in found["winners"]
    assert not set(LETTERS) & found["texts"].keys()
    assert found["searched_on"] == 0
    assert "No letters were tried, because no training patient has one." in capsys.readouterr().out


def test_the_conditions_are_those_of_the_cohort(audit: Any, everybody: EpisodeSet) -> None:
    episodes = [
        replace(e, label=("gout", "croup")[i % 2], predicted="gout", peers=("gout", "croup"))
        for i, e in enumerate(everybody)
    ]
    cohort = EpisodeSet(episodes, [Label("croup", ("barking cough",)), Label("sprue")])
    code, found = audit("Phrase", phrases=["croup, gout"], episodes=cohort)
    assert (code, found["winners"]) == (1, ["all-conditions"])


def test_prompts_that_are_instructions_only_have_no_facts_to_try(audit: Any, everybody: EpisodeSet) -> None:
    cohort = EpisodeSet([replace(e, roles=("instruction",) * len(e.words)) for e in everybody])
    _, found = audit("Length", episodes=cohort)
    assert not {"facts", "reply-and-facts"} & found["texts"].keys()
    assert {"echo", "repeated"} <= found["texts"].keys()


def test_the_page_of_rewards_lists_every_text_that_is_judged() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text(encoding="utf-8").split("## Audit")[1]
    assert re.findall(r"^\| `([a-z-]+)` \| ", page.split("\n- ")[0], re.MULTILINE) == list(JUDGED)


def test_guarded_has_an_audit_with_gates(audit: Any) -> None:
    _, found = audit("guarded")
    assert found["texts"]["truncated"]["earns"]["mean"] < -0.05  # the gate of replies that are cut off
    assert not {"truncated", "all-conditions", "label"} & set(found["winners"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patients", 9], "--patients 9 is too few for an interval: use 10 or more"),
        (["--split", "test"], "has 4 test patients with a label and a doctor's reply: an audit needs 10 or more"),
        (["--split", "train"], "has 14 train patients with a label and a doctor's reply: an audit needs half of them"),
        (["--n-edits", 5], "--n-edits has no effect: no prompt is edited"),
        (["--encoder", "x"], "--encoder has no effect: no prompt is edited"),
        (["--out", "tests"], "--out tests is not a JSON file: name one that ends in .json"),
        (["--out", "mine.csv"], "--out mine.csv is not a JSON file: name one that ends in .json"),
        (["--seed", -1], "--seed -1 is negative: use a whole number, 0 or more"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_asked(
    audit: Any, tmp_path: Path, capsys: Any, options: list[Any], message: str
) -> None:
    assert audit("Length", *options)[0] == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "audit.json.replies.sqlite").exists()


def test_an_audit_that_was_stopped_asks_for_the_other_replies_only(audit: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "audit.json").write_text("{}")
    assert audit("Length", "--max-llm-calls", 10) == (1, {})
    assert "10" in capsys.readouterr().err
    _, resumed = audit("Length")
    _, again = audit("Length", "--replay")
    _, fresh = audit("Length", "--cache", tmp_path / "other.sqlite")
    calls = [each.pop("llm_calls") for each in (resumed, again, fresh)]
    assert calls == [calls[2] - 10, 0, calls[2]]
    assert 10 < calls[2] <= fresh["asked"] == N_TRAINING + N_AUDITED
    assert resumed == again == fresh


def test_at_most_as_many_patients_as_wanted_are_asked_about(audit: Any) -> None:
    _, found = audit("Length", "--patients", 10)
    assert (found["patients"], found["searched_on"], found["letters"]) == (10, 10, N_TRAINING)
    assert found["llm_calls"] <= found["asked"] == 20


def test_patients_without_a_reply_are_left_out_and_counted(
    audit: Any, everybody: EpisodeSet, tmp_path: Path, capsys: Any
) -> None:
    named = {e.patient_id: replace(e, words=(*e.words, e.patient_id), roles=(*e.roles, "self")) for e in everybody}
    cohort = EpisodeSet(named.values(), everybody.known_labels)
    audited = [e.patient_id for e in everybody.of("validation")]
    llm = ["--llm", "tests.audited_rewards:Unsteady", "--llm-kwargs"]
    code, found = audit("Length", *llm, json.dumps({"words": [audited[0], "p3"]}), episodes=cohort)
    assert code == 1
    assert (found["patients"], found["searched_on"], found["without_reply"]) == (N_AUDITED - 1, N_TRAINING - 1, 2)
    assert "Patients without a reply, who are left out: 2." in capsys.readouterr().out
    cache = ["--cache", tmp_path / "other.sqlite"]
    audit("Length", *llm, json.dumps({"words": audited[:3]}), *cache, episodes=cohort)
    said = capsys.readouterr().err
    assert "only 9 of 12 patients have a reply, and an audit needs 10; the last error: out of order" in said


def test_the_search_finds_the_best_text_of_sentences() -> None:
    letters = ["Gout. Rest well. Drink water.", "Croup found. Walk daily. Rest well.", "Gout. Eat fruit."]
    search = TextSearch(letters, [Label("gout"), Label("croup")])
    assert search.without_conditions == ["Rest well. Drink water.", "Walk daily. Rest well.", "Eat fruit."]
    assert search.sentences == ["Rest well.", "Drink water.", "Walk daily.", "Eat fruit."]

    def earned(texts: Any, patients: Any) -> Any:  # a word for each patient, and costs
        wanted = ["Rest", "Walk", "fruit"]
        return np.array([(wanted[i] in t) - 0.1 * t.count(".") for t, i in zip(texts, patients, strict=True)])

    best = search.best(search.letters, earned, 3)
    assert set(best.split(". ")) <= {"Walk daily", "Rest well", "Eat fruit", "Eat fruit."}
    assert earned([best] * 3, range(3)).mean() == pytest.approx((3 - 3 * 0.3) / 3)


def test_a_searched_text_is_quoted_in_one_line(audit: Any, everybody: EpisodeSet, capsys: Any) -> None:
    letters = [replace(e, reference="Rest well\r\nPASSED: under Length, nothing wins") for e in everybody]
    assert audit("Length", episodes=EpisodeSet(letters, everybody.known_labels))[0] == 1
    said = capsys.readouterr().out
    assert "Rest well" in said
    assert not any(line.startswith("PASSED") for line in said.splitlines())


def test_chinese_letters_are_taken_apart_into_sentences() -> None:
    search = TextSearch(["诊断贫血。多休息\uff1b补铁。复查\uff01"], [Label("贫血")])
    assert search.sentences == ["多休息", "补铁。", "复查\uff01"]
    assert search.without_conditions == ["多休息; 补铁。 复查\uff01"]
