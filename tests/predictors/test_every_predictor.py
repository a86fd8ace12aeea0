"""What holds for every built-in predictor."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pmlm_env.cohort.schema import Cohort
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.pipeline import Pipeline, PipelineConfig, build_episodes
from pmlm_env.predictors import PREDICTORS, Predictor, evaluate
from tests import fresh
from tests.predictors.conftest import SMALL
from tests.schemas import SCHEMA, cohort_of

NAMES = tuple(PREDICTORS.builtin)
#: What those in an extra need.
NEEDS = {"rocket": "aeon", "lora-llm": "peft"}
ROOT = Path(__file__).resolve().parents[2]


def make(name: str, seed: int = 0, **kwargs: Any) -> Predictor:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return PREDICTORS.make(name, seed=seed, kwargs={**SMALL.get(name, {}), **kwargs})


# With the lowest versions, test_lora_llm.py and tests/llm/lora are enough of the LLM.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.once) if name == "lora-llm" else name for name in NAMES])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


pytestmark = pytest.mark.usefixtures("short_training")


def test_every_predictor_is_documented() -> None:
    page = (ROOT / "docs" / "predictors.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"| `{name}`" not in page] == []


def test_the_labels_of_new_patients_are_found(name, make_groups) -> None:
    train, new = make_groups(), make_groups(seed=1)
    predictor = make(name).fit(train)
    assert np.mean(predictor.predict(new) == new.y) >= 0.9
    np.testing.assert_allclose(predictor.predict_proba(new).sum(axis=1), 1)


def test_permuted_labels_give_chance(name, make_groups) -> None:
    train, new = make_groups(6, 10), make_groups(6, 10, seed=1)
    labels = np.random.default_rng(0).permutation(train.y)
    permuted = replace(train, patients=tuple(replace(p, label=str(y)) for p, y in zip(train, labels, strict=True)))
    accuracy = np.mean(make(name).fit(permuted).predict(new) == new.y)
    assert accuracy <= 0.4  # 1 / 6 by chance, in six groups that share their fate


def test_a_patient_is_predicted_the_same_alone_and_among_others_to_the_last_digit(name, make_groups) -> None:
    predictor, new = make(name).fit(make_groups()), make_groups(n_each=6, seed=1)
    alone = np.concatenate([predictor.predict_proba(new[i : i + 1]) for i in range(len(new))])
    assert (predictor.predict_proba(new) == alone).all()


def test_whoever_was_predicted_before_changes_nothing(name, make_groups) -> None:
    train, new, others = make_groups(n_each=5), make_groups(n_each=5, seed=1), make_groups(n_each=5, seed=2)
    untouched = make(name).fit(train).predict_proba(new)
    predictor = make(name).fit(others)
    predictor.predict_proba(others)
    assert (predictor.fit(train).predict_proba(new) == untouched).all()


def _latest_checkups(cohort: Cohort) -> Cohort:
    """The patients with their last four check-ups alone, which saves time."""
    return replace(cohort, patients=tuple(replace(p, dates=p.dates[-4:], values=p.values[-4:]) for p in cohort))


def test_of_those_who_are_not_training_patients_a_pipeline_learns_nothing(name, tmp_path) -> None:
    n_known = 30 if name == "lora-llm" else 60  # an LLM predicts one patient after another
    cohort, new = (_latest_checkups(simulate_cohort(n, seed=seed)) for n, seed in ((n_known, 1), (10, 2)))
    late = np.datetime64("2021-12-31")
    others = replace(
        cohort,
        patients=tuple(
            replace(p, label="told only here", values=1.5 * p.values) if p.split_date > late else p for p in cohort
        ),
    )
    make(name)  # or skip
    few = {"max_patients": 10} if name == "lora-llm" else {}
    config = PipelineConfig(predictor=name, predictor_kwargs={**SMALL.get(name, {}), **few}, k=3, n_folds=2)
    first, second = (build_episodes(each, config, device="cpu")[2] for each in (cohort, others))
    assert (second.predict_proba(new) == first.predict_proba(new)).all()
    first.save(tmp_path / "pipeline")
    assert (Pipeline.load(tmp_path / "pipeline").predict_proba(new) == first.predict_proba(new)).all()


def test_the_seed_decides_and_global_generators_stay_as_they_are(name, make_groups) -> None:
    train, new = make_groups(n_each=5), make_groups(n_each=5, seed=1)
    one = make(name, seed=1).fit(train).predict_proba(new)
    np.random.seed(5)
    torch.manual_seed(5)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert (make(name, seed=1).fit(train).predict_proba(new) == one).all()
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])


def test_patients_without_a_value_and_histories_of_any_length_are_predicted(name, make_groups, make_patient) -> None:
    def with_checkups(n: int) -> Any:
        return make_patient(f"n{n}", "label 00", tuple(range(n)), i0=list(np.linspace(5, 6, n)), i1=[1.0] * n)

    unusual = cohort_of(
        make_patient("never", "label 01", ()),
        make_patient("blank", "label 02", (0, 1, 2)),
        *(with_checkups(n) for n in (1, 45, 400)),
    )
    train = replace(unusual, patients=(*unusual, *make_groups(n_each=4)))
    for fitted in (make(name).fit(train), make(name).fit(make_groups(n_each=4))):
        proba = fitted.predict_proba(unusual)
        assert proba.shape == (5, 4)
        assert (proba >= 0).all()
        np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_patients_without_a_single_value_can_be_fitted_to(name, make_patient) -> None:
    cohort = cohort_of(*(make_patient(f"p{i}", "xy"[i % 2], (0,) * (i % 3 > 0)) for i in range(12)))
    np.testing.assert_allclose(make(name).fit(cohort).predict_proba(cohort).sum(axis=1), 1)


def test_an_indicator_that_no_training_patient_had_changes_nothing(name, make_groups, make_patient) -> None:
    predictor = make(name).fit(make_groups())
    known = predictor.predict_proba(cohort_of(make_patient(i0=[5.0], i1=[1.1])))
    more = predictor.predict_proba(cohort_of(make_patient(i0=[5.0], i1=[1.1], i20=[3.0])))
    assert (known == more).all()


def test_a_label_that_no_training_patient_had_is_a_miss_and_no_error(name, make_groups) -> None:
    train = make_groups(3, 5)
    strangers = replace(train, patients=tuple(replace(p, label="unheard of") for p in make_groups(3, 5, seed=1)))
    predictor = make(name).fit(train)
    report = evaluate(predictor.predict_proba(strangers), predictor.labels, strangers.y, train.y)
    assert predictor.labels == ("label 00", "label 01", "label 02")
    assert report.micro_f1 == 0
    assert report.brier >= 1


@pytest.mark.parametrize("n_labels", [2, 60])
def test_there_may_be_two_labels_or_sixty(name, make_groups, n_labels) -> None:
    train = make_groups(n_labels, 3)
    few = name == "lora-llm" and n_labels == 60  # too many to learn for the small LLM of these tests
    predictor = make(name, **({"max_patients": 20} if few else {})).fit(train)
    assert len(predictor.labels) == n_labels
    train = train[:30] if few else train
    proba = predictor.predict_proba(train)
    assert proba.shape == (len(train), n_labels)
    predicted = np.array(predictor.labels)[proba.argmax(axis=1)]
    assert np.mean(predicted == train.y) > 3 / n_labels or n_labels == 2 or few


def test_one_label_is_always_predicted_even_after_loading(name, make_groups, tmp_path) -> None:
    make(name).fit(make_groups(1)).save(tmp_path)
    loaded = PREDICTORS.find(name).load(tmp_path)
    assert loaded.labels == ("label 00",)
    assert (loaded.predict_proba(make_groups(3)) == 1).all()


def test_no_patients_give_no_rows(name, make_groups) -> None:
    assert make(name).fit(make_groups(3)).predict_proba(Cohort((), SCHEMA)).shape == (0, 3)


def test_an_empty_cohort_and_an_unfitted_predictor_are_refused(name, tmp_path, make_groups) -> None:
    with pytest.raises(ValueError, match="cannot be fitted to an empty cohort"):
        make(name).fit(Cohort((), SCHEMA))
    with pytest.raises(RuntimeError, match=r"has not been fitted: call fit\(cohort\) first"):
        make(name).predict(make_groups(2))
    with pytest.raises(RuntimeError, match=r"has not been fitted: call fit\(cohort\) first"):
        make(name).save(tmp_path)


def test_patients_with_other_indicators_are_refused(name, make_groups) -> None:
    cohort = make_groups(2)
    fewer = replace(SCHEMA, indicators=SCHEMA.indicators[:20])
    some = Cohort(tuple(replace(p, values=p.values[:, :20]) for p in cohort), fewer)
    with pytest.raises(ValueError, match="other indicators than those that the predictor was fitted to"):
        make(name).fit(cohort).predict(some)


def test_patients_with_other_units_are_refused_even_after_loading(name, make_groups, tmp_path) -> None:
    cohort = make_groups(2)
    *others, last = SCHEMA.indicators
    other = Cohort(cohort.patients, replace(cohort.schema, indicators=(*others, replace(last, unit="stone"))))
    predictor = make(name).fit(cohort)
    predictor.save(tmp_path)
    message = f"{last.name} of these patients is in 'stone', but the predictor was fitted to values in '{last.unit}'"
    for each in (predictor, PREDICTORS.find(name).load(tmp_path)):
        with pytest.raises(ValueError, match=re.escape(message)):
            each.predict_proba(other)


def test_a_predictor_saved_without_units_is_loaded(name, make_groups, tmp_path) -> None:
    cohort = make_groups(1)
    make(name).fit(cohort).save(tmp_path)
    path = tmp_path / "predictor.json"
    content = json.loads(path.read_bytes())
    assert content.pop("units") == [indicator.unit for indicator in SCHEMA.indicators]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert (PREDICTORS.find(name).load(tmp_path).predict_proba(cohort) == 1).all()


LOADING = """
import sys
from pathlib import Path

import numpy as np

from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.pipeline import Pipeline, PipelineConfig, build_episodes
from pmlm_env.predictors import PREDICTORS

new = simulate_cohort(20, seed=8)
for folder in map(Path, sys.argv[1:]):
    np.save(folder / "proba.npy", PREDICTORS.find(folder.name).load(folder).predict_proba(new))
"""


def test_saved_predictors_predict_the_same_in_another_process_to_the_last_digit(make_groups, tmp_path) -> None:
    new = simulate_cohort(20, seed=8)
    expected = {}
    for name in NAMES:
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            continue
        for n_labels in (2, 4):
            folder = tmp_path / str(n_labels) / name
            folder.mkdir(parents=True)
            predictor = make(name, seed=7).fit(make_groups(n_labels))
            predictor.save(folder)
            expected[folder] = predictor.predict_proba(new)
    done = fresh.run("-c", LOADING, *expected)
    assert done.returncode == 0, done.stderr
    for folder, proba in expected.items():
        # aeon's convolutions are compiled with fast-math, and may round otherwise when the compiled code is cached. An
        # LLM's large products are shared by threads, of which there are fewer on a busy machine.
        rounding = 1e-5 if folder.name in ("rocket", "lora-llm") else 0
        np.testing.assert_allclose(np.load(folder / "proba.npy"), proba, rtol=rounding, atol=0, err_msg=str(folder))
        assert len(np.unique(proba[:, 0])) > 5


def test_a_damaged_file_is_named_in_one_line(name, make_groups, tmp_path) -> None:
    make(name).fit(make_groups(2)).save(tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"{path.name}.*damaged") as error:
            PREDICTORS.find(name).load(tmp_path)
        assert "\n" not in str(error.value)
        path.write_bytes(content)
    PREDICTORS.find(name).load(tmp_path)


def test_a_predictor_is_not_loaded_as_another_one(name, make_groups, tmp_path) -> None:
    make(name).fit(make_groups(2)).save(tmp_path)
    other = NAMES[NAMES.index(name) - 1]
    with pytest.raises(ValueError, match=r"predictor\.json is damaged, or of another version"):
        PREDICTORS.find(other).load(tmp_path)
