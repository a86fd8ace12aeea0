"""The LLM predictor: its prompts, its probabilities, and from `pmlm prepare` to a new patient's refined prompt."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pmlm_env.cohort import write_cohort
from pmlm_env.cohort.schema import Cohort, Indicator, Patient, Schema
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.traces import TraceFile
from pmlm_env.device import llm_dtype
from pmlm_env.llm.base import LLMError
from pmlm_env.pipeline import PipelineConfig
from pmlm_env.pipeline.fitted import make_predictor
from pmlm_env.predictors import PREDICTORS
from pmlm_env.predictors.lora_llm import LoraLLM
from tests import fresh
from tests.commands import pmlm
from tests.llm.tiny_llms import word_model
from tests.predictors.conftest import SMALL, MakeGroups
from tests.schemas import cohort_of

pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("short_training", "quick_stages", "no_figures")


def make(**arguments: Any) -> LoraLLM:
    return PREDICTORS.make("lora-llm", kwargs={**SMALL["lora-llm"], **arguments})


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that knows no words, but counts them."""
    return str(word_model(tmp_path_factory.mktemp("words") / "model", ["word"], num_hidden_layers=1))


def fitted(words: str, cohort: Cohort, **arguments: Any) -> LoraLLM:
    """Return a predictor with the built-in template that has learned nothing worth while."""
    return make(model=words, template="predict", n_epochs=1, max_patients=2, **{"max_tokens": 800, **arguments}).fit(
        cohort
    )


# Prompts


@pytest.mark.parametrize("max_tokens", [250, 400, 800])
def test_no_prompt_has_more_tokens_than_asked_for_and_long_histories_use_them(words: str, max_tokens: int) -> None:
    cohort = simulate_cohort(30)
    predictor = fitted(words, cohort, max_tokens=max_tokens)
    lm = predictor.lm()
    sizes = [
        len(lm.tokenize(predictor.prompt(patient, cohort), label).prompt)
        + max(len(lm.chat.encode_reply(each)) for each in predictor.labels)
        for patient in cohort
        for label in predictor.labels[:1]
    ]
    assert max(sizes) <= max_tokens
    assert max(sizes) > 0.9 * max_tokens


def test_a_prompt_has_the_task_the_check_ups_and_the_labels(words: str, make_patient) -> None:
    cohort = cohort_of(
        *(make_patient(f"p{i}", "xy"[i % 2], (0, 7), i0=[7.0 + i / 100] * 2, i7=[30.0, 20.0 + i]) for i in range(4))
    )
    assert fitted(words, cohort).prompt(cohort[0], cohort).splitlines() == [
        "Name the condition of a pregnant woman, given the laboratory values of her check-ups. Low and high are meant "
        "in comparison with other patients.",
        "Latest check-up: pH 7 (low), alt 20 U/L (low).",
        "7 days before: pH 7 (low), alt 30 U/L (high).",
        "In the mean of all check-ups, low: pH.",
        "Choose one of these conditions, and write nothing else: x; y.",
    ]


def test_what_is_low_or_high_is_meant_in_comparison_with_training_patients_alone(words: str, make_patient) -> None:
    train = cohort_of(*(make_patient(f"p{i}", "xy"[i % 2], i0=[float(i + 5)]) for i in range(6)))
    others = cohort_of(*(make_patient(f"n{i}", "x", i0=[float(i + 500)]) for i in range(6)))
    predictor = fitted(words, train)
    assert all("extremely high: pH" in predictor.prompt(patient, others) for patient in others)


def test_with_hundreds_of_indicators_prompts_are_short_enough_too(words: str) -> None:
    schema = Schema(tuple(Indicator(f"indicator {i}") for i in range(400)))
    rng, day = np.random.default_rng(0), np.array(["2021-01-01"], dtype="datetime64[D]")
    patients = (Patient(f"p{i}", "xy"[i % 2], "", day[0], day, rng.lognormal(size=(1, 400))) for i in range(8))
    cohort = Cohort(tuple(patients), schema)
    predictor = fitted(words, cohort)
    prompts = [predictor.prompt(patient, cohort) for patient in cohort]
    assert max(len(predictor.lm().chat.encode(prompt)) for prompt in prompts) <= 800
    assert all("more indicators are low or high" in prompt for prompt in prompts)


def test_too_few_tokens_are_refused_in_the_words_of_the_argument(words: str, make_groups: MakeGroups) -> None:
    with pytest.raises(
        ValueError, match=r"max_tokens is 30: the shortest prompt of patient p\d+-\d-0 takes \d+: raise"
    ):
        fitted(words, make_groups(), max_tokens=30)


def test_more_tokens_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    model = word_model(tmp_path / "model", ["word"], num_hidden_layers=1, max_position_embeddings=300)
    with pytest.raises(ValueError, match=r"max_tokens is 800, but .*model reads at most 300: lower it"):
        fitted(str(model), simulate_cohort(30))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"max_tokens": 5}, "max_tokens is 5: use 16 to 100,000"),
        ({"max_patients": 1}, "max_patients is 1: use 2 to 100,000"),
        ({"n_epochs": 0}, "n_epochs is 0: use 1 to 10,000"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing is 'yes': use true or false"),
        ({"max_tokens": None}, "max_tokens is None: use 16 to 100,000"),
        ({"model": 3}, "model is 3: it should be text"),
        ({"template": None}, "template is None: it should be text"),
        ({"device": 0}, "device is 0: it should be text"),
    ],
)
def test_arguments_out_of_range_are_refused(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**argument)


# Probabilities


def test_probabilities_are_those_of_whole_answers_that_a_plain_model_gives(make_groups: MakeGroups) -> None:
    train = make_groups()
    predictor = make().fit(train)
    lm = predictor.lm()
    plain = AutoModelForCausalLM.from_pretrained(SMALL["lora-llm"]["model"], dtype=lm.dtype)
    found = predictor.predict_proba(train[:3])
    for name, weight in _merged(predictor).items():
        plain.get_parameter(name).data.add_(weight.to(plain.dtype))
    for row, patient in zip(found, train[:3], strict=True):
        prompt = lm.chat.encode(predictor.prompt(patient, train))
        scores = []
        for label in predictor.labels:
            answer = lm.chat.encode_reply(label)
            with torch.no_grad():
                logits = plain(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            scores.append(logits.float().log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item())
        expected = torch.tensor(scores).softmax(0).numpy()
        np.testing.assert_allclose(row, expected, atol=0.02)


def _merged(predictor: LoraLLM) -> dict[str, torch.Tensor]:
    """Return what the adapter adds to each matrix: alpha / r * B A."""
    tensors = predictor.adapter.tensors
    return {
        name.replace("lora_A.default.weight", "base_layer.weight").replace(".base_layer", ""): 2.0
        * tensors[name.replace("lora_A", "lora_B")]
        @ a
        for name, a in tensors.items()
        if "lora_A" in name
    }


def test_it_learns_from_no_more_patients_than_asked_for(make_groups: MakeGroups, monkeypatch) -> None:
    counts = []

    def spy(lm: Any, examples: list[Any], validation: list[Any], *arguments: Any, **options: Any) -> Any:
        counts.append((len(examples), len(validation), len({*examples} & {*validation})))
        raise KeyboardInterrupt

    monkeypatch.setattr("pmlm_env.predictors.lora_llm.fine_tune", spy)
    for most in (None, 28, 10):
        with pytest.raises(KeyboardInterrupt):
            make(max_patients=most).fit(make_groups())
    assert [(learned, held_out) for learned, held_out, _ in counts] == [(41, 7), (24, 4), (10, 10)]


# Loading


def test_the_model_is_only_named_and_another_one_in_its_place_is_refused(
    make_groups: MakeGroups, tmp_path: Path
) -> None:
    model = word_model(tmp_path / "model", ["word"], num_hidden_layers=1)
    fitted(str(model), make_groups()).save(_made(tmp_path / "saved"))
    assert sum(path.stat().st_size for path in (tmp_path / "saved").iterdir()) < 200_000
    word_model(model, ["word"], num_hidden_layers=1, seed=9)
    with pytest.raises(ValueError, match=r"the adapter was learned for the model 'model@.*, and this is model@"):
        LoraLLM.load(tmp_path / "saved")
    model.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"no such model directory: .*/model"):
        LoraLLM.load(tmp_path / "saved")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("template", ["self: {patient_id} {history}", 3, None])
def test_a_damaged_template_is_not_filled(
    make_groups: MakeGroups, words: str, tmp_path: Path, template: str | int | None
) -> None:
    fitted(words, make_groups()).save(tmp_path)
    content = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps({**content, "template": template}))
    with pytest.raises(ValueError, match=r"predictor\.json is damaged"):
        LoraLLM.load(tmp_path)


def test_an_adapter_of_another_scale_is_refused(make_groups: MakeGroups, words: str, tmp_path: Path) -> None:
    fitted(words, make_groups()).save(tmp_path)
    content = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps({**content, "alpha": 9999}))
    with pytest.raises(ValueError, match="the adapter has rank 8 and alpha 9999, expected 8 and 16"):
        LoraLLM.load(tmp_path).predict_proba(make_groups())


def test_numbers_that_are_not_finite_are_no_probabilities(make_groups: MakeGroups, words: str) -> None:
    with pytest.raises(LLMError, match="not finite: fine-tune it at a lower learning rate"):
        fitted(words, make_groups(), learning_rate=1e30).predict_proba(make_groups())


# The command line


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    write_cohort(simulate_cohort(60, seed=1), folder / "cohort")
    new = simulate_cohort(4, seed=2)
    late = np.datetime64("2024-01-01")
    patients = (replace(p, patient_id=f"N{i}", label="", reference="", split_date=late) for i, p in enumerate(new))
    write_cohort(replace(new, patients=tuple(patients)), folder / "new")
    return folder


def _options(tables: Path, out: Path, **arguments: Any) -> list[object]:
    kwargs = json.dumps({**SMALL["lora-llm"], "n_epochs": 1, "max_patients": 12, **arguments})
    usual = ["--k", 2, "--n-folds", 2, "--device", "cpu", "--predictor", "lora-llm", "--predictor-kwargs", kwargs]
    return ["--cohort", tables / "cohort", "--out", out, *usual]


def prepare(tables: Path, out: Path, **arguments: Any) -> int:
    return pmlm("prepare", *_options(tables, out, **arguments))


def test_the_device_and_the_seed_of_a_pipeline_are_those_of_the_predictor() -> None:
    found = make_predictor(PipelineConfig(predictor="lora-llm"), seed=3, device="cpu")
    assert isinstance(found, LoraLLM)
    assert (found.seed, found.device) == (3, "cpu")


@pytest.mark.real
def test_from_patients_to_a_new_patients_refined_prompt(tables: Path, tmp_path: Path) -> None:
    from tests.real.runs import small_bert

    assert prepare(tables, tmp_path / "prepared") == 0
    train = ["--agent", "lexicon", "--budget", 9, "--patients", 3, "--rollouts", 2, "--n-edits", 3, "--device", "cpu"]
    models = ["--scorer", small_bert(), "--llm", "responder"]
    assert pmlm("train", "--episodes", tmp_path / "prepared", "--run", tmp_path / "run", *train, *models) == 0
    assert pmlm("evaluate", "--run", tmp_path / "run") == 0
    out = tmp_path / "refined.jsonl"
    assert pmlm("refine", "--model", tmp_path / "run", "--cohort", tables / "new", "--out", out, "--device", "cpu") == 0
    refined = TraceFile(out).read()
    assert [trace.patient_id for trace in refined] == ["N0", "N1", "N2", "N3"]
    assert {trace.predicted for trace in refined} <= {*simulate_cohort(60, seed=1).y}


def test_a_killed_prepare_goes_on_with_the_next_fold(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_adapters: Path
) -> None:
    begun = _count_trainings(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("pmlm_env.predictors.base.assign_folds", lambda *arguments: _stop())
        assert prepare(tables, tmp_path / "out") == 130
    assert begun == [1]
    assert prepare(tables, tmp_path / "out") == 0
    assert len(begun) == 3


def _stop() -> None:
    raise KeyboardInterrupt


def _count_trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that has an entry for each training that has run so far."""
    from pmlm_env.llm.lora import training

    begun: list[int] = []

    class Counted(training._Training):
        def __init__(self, *arguments: Any) -> None:
            begun.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(training, "_Training", Counted)
    return begun


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "./nowhere"}, "no such model directory: ./nowhere"),
        ({"template": "paper"}, "there is no template 'paper': use predict, predict-short or a file"),
        ({"max_tokens": 1}, "max_tokens is 1: use 16"),
        ({"rank": 4}, "the predictor lora-llm does not take these arguments"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], message: str
) -> None:
    assert prepare(tables, tmp_path / "out", **arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pmlm prepare: ")]
    assert message in line


@pytest.mark.real
def test_the_bundled_llm_learns_from_a_few_patients(paper_cohort: Cohort, own_adapters: Path) -> None:
    train = paper_cohort[:2]
    predictor = LoraLLM(template="predict-short", max_tokens=200, learning_rate=1e-3, n_epochs=2, device="cpu")
    proba = predictor.fit(train).predict_proba(train)
    assert predictor.model == "smollm2-135m"
    lm = predictor.lm()
    examples = [lm.tokenize(predictor.prompt(patient, train), patient.label) for patient in train]
    learned = lm.mean_loss(examples)
    lm.use(replace(predictor.adapter, tensors={name: 0 * t for name, t in predictor.adapter.tensors.items()}))
    assert learned < lm.mean_loss(examples) - 0.1
    assert (proba > 0).all()


@pytest.mark.once
def test_two_processes_prepare_what_one_prepares(tables: Path, tmp_path: Path, own_adapters: Path) -> None:
    said = []
    for n in (1, 2):
        env = {**os.environ, "PMLM_CACHE": str(tmp_path / f"cache {n}")}
        more = ["--patient-encoder", "summaries"]
        command = ["prepare", *_options(tables, tmp_path / str(n)), *more]
        first, *others = fresh.run_together(n, "-m", "agents.cli", *command, env=env)
        assert first.returncode == 0, first.stderr
        assert [(other.returncode, other.stdout, other.stderr) for other in others] == [(0, "", "")] * (n - 1)
        assert "had nothing to do" not in first.stderr
        said.append(first.stdout.replace(str(tmp_path / str(n)), "OUT"))
    assert said[0] == said[1]
    episodes = [(tmp_path / str(n) / "episodes.jsonl").read_text(encoding="utf-8") for n in (1, 2)]
    assert episodes[0] == episodes[1]
    found, expected = (LoraLLM.load(tmp_path / str(n) / "pipeline" / "predictor").adapter.tensors for n in (2, 1))
    exact = llm_dtype(torch.device("cpu")) == torch.float32
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5 if exact else 1e-2)
