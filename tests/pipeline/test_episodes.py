from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmlm_env.cohort import Cohort, split_by_date, write_cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.pipeline import Pipeline, PipelineConfig, PipelineReport, build_episodes, make_episodes
from pmlm_env.predictors import BoostedTrees
from pmlm_env.prompting import InitialPrompt
from pmlm_env.retrieval import NetworkEncoder
from tests.commands import pmlm

pytestmark = pytest.mark.usefixtures("quick_stages")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return simulate_cohort(150, seed=1)


@pytest.fixture(scope="module")
def built(cohort: Cohort) -> tuple[EpisodeSet, PipelineReport, Pipeline]:
    return build_episodes(cohort, PipelineConfig(n_folds=2), seed=3, device="cpu")


def test_everybody_has_one_prompt_in_the_split_of_her_date(built: tuple, cohort: Cohort) -> None:
    of = {p.patient_id: p for p in cohort}
    assert sorted(e.patient_id for e in built[0]) == sorted(of)
    for e in built[0]:
        date = of[e.patient_id].split_date
        expected = (
            "train"
            if date <= np.datetime64("2021-12-31")
            else "validation"
            if date <= np.datetime64("2022-06-30")
            else "test"
        )
        assert e.split == expected
        assert (e.label, e.reference) == (of[e.patient_id].label, of[e.patient_id].reference)


def test_prompts_made_a_few_patients_at_a_time_are_the_same(
    built: tuple, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.pipeline.episodes.BATCH", 16)
    batches: list[list[Episode]] = []
    report, _ = make_episodes(cohort, batches.append, PipelineConfig(n_folds=2), seed=3, device="cpu")
    assert len(batches) > 9
    assert max(map(len, batches)) == 16
    assert EpisodeSet([episode for batch in batches for episode in batch]).digest == built[0].digest
    assert report == built[1]


def test_the_prompt_says_what_the_episode_says(built: tuple) -> None:
    for e in built[0]:
        assert e.predicted in e.prompt
        label, count = Counter(e.peers).most_common(1)[0]
        assert f"{count} of 10 had {label}" in e.prompt
        assert len(e.peers) == 10


def test_no_identifier_date_or_lab_value_is_in_a_prompt(built: tuple, cohort: Cohort) -> None:
    of = {p.patient_id: p for p in cohort}
    for e in built[0]:
        patient = of[e.patient_id]
        assert e.patient_id not in e.prompt
        numbers = {word.strip(".,") for word in e.words if any(c.isdigit() for c in word)}
        assert numbers <= {str(n) for n in range(11)}
        assert not any(str(date) in e.prompt for date in patient.dates)


def test_a_training_patients_label_does_not_reach_her_own_prompt(cohort: Cohort) -> None:
    """Her label is changed: her prompt may follow only through others, so her prediction stays out of fold."""
    first = next(i for i, p in enumerate(cohort) if p.split_date <= np.datetime64("2021-12-31"))
    lying = replace(
        cohort, patients=tuple(replace(p, label="told only here") if i == first else p for i, p in enumerate(cohort))
    )
    episodes, _, _ = build_episodes(lying, PipelineConfig(n_folds=2), device="cpu")
    hers = next(e for e in episodes if e.patient_id == cohort[first].patient_id)
    assert "told only here" not in hers.prompt
    assert "told only here" not in hers.peers


def test_limits_draw_some_and_seeds_repeat(cohort: Cohort, built: tuple) -> None:
    config = PipelineConfig(n_folds=2)
    limits = {"train": 7, "validation": 0, "test": 5}
    a, b = (build_episodes(cohort, config, limits=limits, seed=3, device="cpu")[0] for _ in range(2))
    assert Counter(e.split for e in a) == {"train": 7, "test": 5}
    whole = {e.patient_id: e for e in built[0]}
    for one, other in zip(a, b, strict=True):
        assert one.words == other.words == whole[one.patient_id].words
        np.testing.assert_array_equal(one.vector, other.vector)


def test_the_report_judges_each_split(built: tuple) -> None:
    report = built[1]
    assert set(report.predictor) == {"train", "validation", "test"}
    for split in report.predictor:
        assert report.peer_agreement[split] > report.chance_agreement[split]
    assert "peers with the patient's label" in str(report)


def test_chance_is_what_peers_are_that_are_everybody_else() -> None:
    cohort = simulate_cohort(32, seed=5)
    patients = tuple(
        replace(each, label=f"condition {i // 2}", extra={"split": "train" if i < 30 else "test"})
        for i, each in enumerate(cohort)
    )
    config = PipelineConfig(k=29, n_folds=2, predictor="logistic", patient_encoder="summaries", split_by="split")
    report = build_episodes(Cohort(patients, cohort.schema), config, device="cpu")[1]
    assert report.peer_agreement["train"] == pytest.approx(1 / 29)
    assert report.chance_agreement["train"] == pytest.approx(1 / 29)


@pytest.fixture
def nothing_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        pytest.fail("something was fitted")

    monkeypatch.setattr(BoostedTrees, "fit", never)
    monkeypatch.setattr(NetworkEncoder, "fit", never)


RANGE = r"the 150 patients' dates \(split_date\) run from 20\d\d-\d\d-\d\d to 20[\d-]+; move the cuts, for instance "


@pytest.mark.usefixtures("nothing_fitted")
@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        (
            ("2001-01-01", "2022-06-30"),
            r"0 patients with a label are in train \(up to --train-until 2001-01-01\), but 10",
        ),
        (("2001-01-01", "2002-01-01"), r"0 patients with a label are in train .*or use fewer peers \(--k\)"),
        (
            ("2098-01-01", "2099-01-01"),
            r"no patient is in test \(after --validation-until 2099-01-01\).*--max-test 0`\)",
        ),
        (("2021-12-31", "2099-01-01"), r"no patient is in test \(after --validation-until 2099-01-01\)"),
    ],
)
def test_cuts_that_leave_nobody_are_refused_with_the_dates_before_anything_is_fitted(
    cohort: Cohort, cuts: tuple[str, str], message: str
) -> None:
    config = PipelineConfig(train_until=cuts[0], validation_until=cuts[1])
    with pytest.raises(ValueError, match=message) as caught:
        build_episodes(cohort, config)
    found = re.search(RANGE + r"--train-until (\S+) --validation-until (\S+), or", str(caught.value))
    assert found is not None
    split = split_by_date(cohort, train_until=found[1], validation_until=found[2])
    assert min(len(split.train), len(split.test)) > 10


@pytest.mark.usefixtures("nothing_fitted")
def test_dates_that_are_all_the_same_cannot_be_cut(cohort: Cohort) -> None:
    one_day = replace(cohort, patients=tuple(replace(p, split_date=np.datetime64("2020-02-02")) for p in cohort))
    with pytest.raises(ValueError, match=r"from 2020-02-02 to 2020-02-02; split by another date \(--split-by\)"):
        build_episodes(one_day, PipelineConfig(split_by="split_date"))


def test_without_test_patients_if_none_are_wanted() -> None:
    config = PipelineConfig(n_folds=2, k=2, validation_until="2099-01-01")
    episodes, _, _ = build_episodes(
        simulate_cohort(40, seed=1), config, limits={"train": 3, "validation": 3, "test": 0}, device="cpu"
    )
    assert {e.split for e in episodes} == {"train", "validation"}


@pytest.fixture(scope="module")
def with_new(cohort: Cohort) -> Cohort:
    """The cohort and five new patients, who lack the label, the reply or both: three in test, two in train."""
    lacking = {"label": {"label": ""}, "reply": {"reference": ""}, "both": {"label": "", "reference": ""}}
    new = [
        replace(cohort[i], patient_id=f"new {name} {date[:4]}", split_date=np.datetime64(date), **lost)
        for i, date in enumerate(("2021-12-31", "2022-12-31"))
        for name, lost in lacking.items()
        if (name, date[:4]) != ("reply", "2021")  # she would be learned from
    ]
    return replace(cohort, patients=(*cohort.patients, *new))


@pytest.fixture(scope="module")
def built_with_new(with_new: Cohort) -> tuple[EpisodeSet, PipelineReport, Pipeline]:
    return build_episodes(with_new, PipelineConfig(n_folds=2), seed=3, device="cpu")


def test_patients_without_a_label_get_prompts_and_change_nobody_elses(built: tuple, built_with_new: tuple) -> None:
    episodes, report, _ = built_with_new
    new = {e.patient_id: e for e in episodes if e.patient_id.startswith("new")}
    assert {name: (e.split, bool(e.label), bool(e.reference)) for name, e in new.items()} == {
        "new label 2021": ("train", False, True), "new both 2021": ("train", False, False),
        "new label 2022": ("test", False, True), "new reply 2022": ("test", True, False),
        "new both 2022": ("test", False, False),
    }  # fmt: skip
    for e in new.values():
        assert e.predicted in e.prompt
        assert len(e.peers) == 10
    old = {e.patient_id: e for e in episodes if e.patient_id not in new}
    for before in built[0]:
        after = old[before.patient_id]
        assert (before.words, before.peers) == (after.words, after.peers)
        np.testing.assert_allclose(before.vector, after.vector, rtol=1e-4, atol=1e-5)
    judged = {name: (r.n_patients, r.n_all) for name, r in report.predictor.items()}
    n = Counter(e.split for e in built[0])
    assert judged["train"] == (n["train"], n["train"] + 2)
    assert judged["test"] == (n["test"] + 1, n["test"] + 3)


def test_only_those_with_a_label_and_a_reply_are_trained_and_judged_on(built_with_new: tuple) -> None:
    episodes = built_with_new[0]
    for split in ("train", "test"):
        judged, everybody = episodes.of(split), episodes.of(split, include_unscored=True)
        assert all(e.label and e.reference for e in judged)
        assert {e.patient_id for e in everybody} - {e.patient_id for e in judged} == {
            e.patient_id for e in episodes if e.patient_id.startswith("new") and e.split == split
        }
    assert "" not in episodes.labels


def test_limits_take_those_who_can_be_judged_first() -> None:
    everybody = simulate_cohort(40, seed=1)
    late = [p.patient_id for p in everybody if p.split_date > np.datetime64("2022-06-30")]
    known, lacking = {*late[::2]}, {*late[1::2]}
    some = replace(
        everybody, patients=tuple(replace(p, reference="") if p.patient_id in lacking else p for p in everybody)
    )
    limits = {"train": 1, "validation": 0, "test": len(known) + 1}
    episodes, _, _ = build_episodes(some, PipelineConfig(n_folds=2, k=2), limits=limits, device="cpu")
    assert {e.patient_id for e in episodes.of("test")} == known
    assert len(episodes.of("test", include_unscored=True)) == len(known) + 1


@pytest.mark.usefixtures("nothing_fitted")
def test_without_any_label_it_is_said_where_new_patients_belong(cohort: Cohort) -> None:
    new = replace(cohort, patients=tuple(replace(p, label="", reference="") for p in cohort))
    with pytest.raises(ValueError, match=r"0 of 150 patients have a label.*into one table with earlier ones"):
        build_episodes(new)


def test_raw_prompts_are_filled_from_the_patients_and_leave_stages_1_and_2_as_they_are(
    cohort: Cohort, built: tuple
) -> None:
    of, usual = {p.patient_id: p for p in cohort}, {e.patient_id: e for e in built[0]}
    limits = {"train": 6, "validation": 0, "test": 6}
    raw, _, _ = build_episodes(
        cohort, PipelineConfig(n_folds=2, template="raw"), limits=limits, seed=3, device="cpu"
    )  # fmt: skip
    assert len(raw) == 12
    for episode in raw:
        assert episode.initial == InitialPrompt("raw").fill("", (), None, of[episode.patient_id])
        theirs = usual[episode.patient_id]
        assert (episode.predicted, episode.peers) == (theirs.predicted, theirs.peers)
        np.testing.assert_array_equal(episode.vector, theirs.vector)


def test_personal_prompts_have_the_likeness_that_the_retriever_found(cohort: Cohort) -> None:
    limits = {"train": 6, "validation": 0, "test": 6}
    config = PipelineConfig(n_folds=2, template="personal")
    episodes, _, pipeline = build_episodes(cohort, config, limits=limits, seed=3, device="cpu")
    tested = [
        patient for patient in cohort if patient.patient_id in {e.patient_id for e in episodes if e.split == "test"}
    ]
    applied = pipeline.apply(replace(cohort, patients=tuple(tested)))
    by_id = {episode.patient_id: episode for episode in episodes}
    for episode, peers in zip(applied.episodes, applied.peers, strict=True):
        shown = ", ".join(f"{peer.label} ({peer.similarity:.2f})" for peer in peers)
        assert f"with their likeness, had {shown}." in episode.prompt
        assert by_id[episode.patient_id].prompt == episode.prompt
    assert all(" with their likeness, had " in episode.prompt for episode in episodes.of("train"))


@pytest.mark.usefixtures("nothing_fitted")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self: {weight}\n", r"mine\.txt: cannot fill \{weight\}; .*patients' table \(.*gestational_weeks"),
        ("self: {0}\n", r"mine\.txt, line 1: cannot fill \{0\}"),
        (None, "there is no template"),
    ],
)
def test_a_wrong_template_is_refused_before_anything_is_fitted(
    cohort: Cohort, tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "mine.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        build_episodes(cohort, PipelineConfig(template=str(file)))


def test_a_column_that_some_patients_have_is_filled_for_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("self: {predicted}, {probabilities}, {blood_group}\n", encoding="utf-8")
    cohort = simulate_cohort(60, seed=2)
    some = replace(
        cohort, patients=tuple(replace(p, extra={"blood_group": "0"} if i % 2 else {}) for i, p in enumerate(cohort))
    )
    config = PipelineConfig(n_folds=2, template=str(file), k=2)
    for episode in build_episodes(some, config, device="cpu")[0]:
        odd = [p.patient_id for p in some].index(episode.patient_id) % 2
        assert episode.words[-1] == ("0" if odd else "unknown")
        likeliest, share = episode.prompt.removeprefix(f"{episode.predicted}, ").split("%")[0].rsplit(" ", 1)
        assert likeliest == episode.predicted
        assert 0 < int(share) <= 100


def test_a_template_that_there_is_not_ends_the_command_with_one_line(
    tmp_path: Path, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(cohort, tmp_path / "cohort")
    arguments = ["--cohort", str(tmp_path / "cohort"), "--out", str(tmp_path / "out"), "--template", "long"]
    assert pmlm("prepare", *arguments) == 2
    told = "pmlm prepare: there is no template 'long': use default, short, paper, raw, personal or a file\n"
    assert capsys.readouterr().err == told
    assert not (tmp_path / "out").exists()
