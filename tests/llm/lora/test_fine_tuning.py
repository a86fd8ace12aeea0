"""Fine-tuning: what is learned, when it ends, and that nothing but examples, settings and seed decides."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_schedule_with_warmup

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.llm.lora.adapters import Adapter, adapter_weights
from pmlm_env.llm.lora.settings import LoraSettings
from pmlm_env.llm.lora.training import fine_tune
from pmlm_env.llm.lora.tunable import TokenizedExample, TunableLM
from tests.llm.tiny_llms import tiny_model

EXAMPLES = [("Which?", "the red"), ("What color is it?", "blue or green"), ("Why so?", "it is"), ("Who?", "nobody")]
SETTINGS = LoraSettings(learning_rate=0.01, n_epochs=3, batch_size=2)


def _scores(*values: float) -> Callable[[], float]:
    """Return a function that returns these numbers in turn."""
    numbers = iter(values)
    return lambda: next(numbers)


def _scored(score: Callable[[], float], *arguments: Any, **more: Any) -> Adapter:
    """Fine-tune with another validation score of each epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pmlm_env.llm.lora.training.validation_score", lambda *_: score)
        return fine_tune(*arguments, **more)


def test_a_taught_model_replies_as_it_was_taught(lm: TunableLM, folder: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=0.01, n_epochs=40, patience=40)
    fine_tune(lm, EXAMPLES, EXAMPLES, settings).save(tmp_path / "adapter")
    usual = LocalLLM(str(folder), max_new_tokens=20, device="cpu", dtype=torch.float32)
    taught = LocalLLM(str(folder), max_new_tokens=20, device="cpu", dtype=torch.float32, adapter=tmp_path / "adapter")
    prompts = [prompt for prompt, _ in EXAMPLES]
    assert [reply.text for reply in taught.generate(prompts)] == [completion for _, completion in EXAMPLES]
    assert [reply.text for reply in usual.generate(prompts)] != [completion for _, completion in EXAMPLES]
    assert taught.identity != usual.identity  # so the cache of replies tells them apart


def test_the_loss_is_that_of_the_completion_alone(lm: TunableLM, folder: Path) -> None:
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    lm.use(_fresh(lm))
    for prompt, completion in EXAMPLES:
        turn = [{"role": "user", "content": prompt}]
        before = tokenizer.encode(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        whole = [*before, *tokenizer.encode(completion + "<|im_end|>")]
        labels = [*[-100] * len(before), *whole[len(before) :]]
        expected = plain(input_ids=torch.tensor([whole]), labels=torch.tensor([labels])).loss.item()
        found = lm.loss(lm.tokenize(prompt, completion)).item() / (len(whole) - len(before))
        assert found == pytest.approx(expected, rel=1e-5)


def _fresh(lm: TunableLM) -> Adapter:
    """An adapter that changes nothing: its A is random and its B is 0."""
    return fine_tune(lm, EXAMPLES, EXAMPLES, replace(SETTINGS, learning_rate=1e-30, n_epochs=1))


def test_a_step_is_that_of_plain_peft_and_adamw_on_a_padded_batch(lm: TunableLM, folder: Path) -> None:
    import peft

    start = _fresh(lm)
    found = fine_tune(lm, EXAMPLES, EXAMPLES, LoraSettings(learning_rate=0.01, n_epochs=1, batch_size=4, warmup=1))
    config = peft.LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    plain = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    weights = {name.removeprefix("base_model.model."): w for name, w in plain.named_parameters() if w.requires_grad}
    assert weights.keys() == start.tensors.keys()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(start.tensors[name])
    rows = [lm.tokenize(*example) for example in EXAMPLES]
    width = max(len(row.prompt) + len(row.completion) for row in rows)
    tokens, labels = torch.zeros(4, width, dtype=torch.long), torch.full((4, width), -100)
    for i, row in enumerate(rows):
        whole = [*row.prompt, *row.completion]
        tokens[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(row.prompt) : len(whole)] = torch.tensor(row.completion)
    optimizer = torch.optim.AdamW(weights.values(), lr=0.01, weight_decay=0.0)
    plain(input_ids=tokens, attention_mask=labels.new_ones(labels.shape), labels=labels).loss.backward()
    torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
    optimizer.step()
    for name, weight in weights.items():
        torch.testing.assert_close(found.tensors[name], weight.detach(), rtol=1e-3, atol=1e-5)


def test_the_learning_rate_follows_the_schedule_of_transformers() -> None:
    settings, n_steps = LoraSettings(), 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, 4, n_steps)
    optimizer.step()
    falling = []
    for _ in range(n_steps):
        falling.append(schedule.get_last_lr()[0])
        schedule.step()
    found = [settings.rate(step, n_steps) for step in range(n_steps)]
    assert found[4:] == pytest.approx(falling[4:])
    assert found[:4] == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4])  # theirs begins with a step at rate 0


def test_the_same_seed_gives_the_same_adapter_and_global_generators_stay_as_they_are(
    lm: TunableLM, adapters: Path
) -> None:
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    digests = []
    for number, seed in enumerate((0, 1, 0)):
        digests.append(fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS, seed=seed).digest)
        adapters.rename(adapters.with_name(f"others-{number}"))  # or it would not be trained again
    assert digests[0] == digests[2] != digests[1]
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])


def test_gradient_checkpointing_changes_nothing_but_memory(lm: TunableLM) -> None:
    usual = fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    saving = fine_tune(lm, EXAMPLES, EXAMPLES, replace(SETTINGS, gradient_checkpointing=True))
    for name, tensor in usual.tensors.items():
        torch.testing.assert_close(saving.tensors[name], tensor, rtol=1e-3, atol=1e-5)


def test_the_epoch_with_the_highest_score_counts_and_training_ends_when_no_score_is_higher(lm: TunableLM) -> None:
    settings = replace(SETTINGS, n_epochs=10, patience=2)
    stopped = _scored(_scores(0.1, 0.3, 0.2, 0.3), lm, EXAMPLES, EXAMPLES, settings)  # a fifth would fail
    kept: list[Adapter] = []

    def second() -> float:
        kept.append(_present(lm))
        return len(kept) == 2

    longer = replace(settings, patience=9)
    assert _scored(second, lm, EXAMPLES, EXAMPLES, longer).digest == kept[1].digest == stopped.digest


def _present(lm: TunableLM) -> Adapter:
    tensors = {name: weight.detach().clone() for name, weight in lm.network.named_parameters() if weight.requires_grad}
    return Adapter(lm.files.identity, lm.rank, lm.alpha, tensors)


# What is kept


def test_a_finished_adapter_is_not_trained_again(lm: TunableLM) -> None:
    first = fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    again = _scored(_scores(), lm, EXAMPLES, EXAMPLES, SETTINGS)  # would fail if it were asked
    assert again.digest == first.digest == _present(lm).digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"examples": EXAMPLES[:3]},
        {"validation": EXAMPLES[:2]},
        {"settings": replace(SETTINGS, learning_rate=0.02)},
        {"choices": ["it is", "nobody"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_seed_setting_choice_or_example_is_another_adapter(lm: TunableLM, change: dict[str, object]) -> None:
    usual = {"examples": EXAMPLES, "validation": EXAMPLES, "settings": SETTINGS}
    calls: list[int] = []

    def score() -> float:
        calls.append(1)
        return 0.0

    _scored(score, lm, **usual)
    n_calls = len(calls)
    _scored(score, lm, **{**usual, **change})
    assert len(calls) > n_calls


Interrupt = Callable[[TunableLM], None]


@pytest.fixture(params=["between epochs", "within an epoch"])
def interrupt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Return a function that begins to train a model, and is interrupted after the first epoch, or in the second."""

    def stop() -> float:
        raise KeyboardInterrupt

    def begin(lm: TunableLM) -> None:
        scores, losses = [lambda: 0.5, stop], [lm.loss] * 7

        def loss(example: TokenizedExample) -> torch.Tensor:
            return losses.pop()(example) if losses else torch.tensor(stop())

        with monkeypatch.context() as patch:
            if request.param == "within an epoch":
                patch.setattr("pmlm_env.llm.lora.training._SECONDS_BETWEEN_SAVES", -1.0)
                patch.setattr(lm, "loss", loss)
            with pytest.raises(KeyboardInterrupt):
                _scored(lambda: scores.pop(0)(), lm, EXAMPLES, EXAMPLES, SETTINGS)

    return begin


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(
    lm: TunableLM, adapters: Path, interrupt: Interrupt
) -> None:
    whole = _scored(_scores(0.5, 0.4, 0.6), lm, EXAMPLES, EXAMPLES, SETTINGS)
    adapters.rename(adapters.with_name("others"))
    interrupt(lm)
    (state,) = adapters.glob("*/training.safetensors")
    assert state.stat().st_mode & 0o077 == 0
    resumed = _scored(_scores(0.4, 0.6), lm, EXAMPLES, EXAMPLES, SETTINGS)
    assert resumed.digest == whole.digest
    assert not state.exists()


def test_a_damaged_state_is_named_in_one_line(lm: TunableLM, adapters: Path, interrupt: Interrupt) -> None:
    interrupt(lm)
    (state,) = adapters.glob("*/training.safetensors")
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"training\.safetensors is damaged: remove it, and fine-tuning begins again"):
        fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)


def test_what_was_learned_from_patients_is_for_the_owners_eyes(lm: TunableLM, adapters: Path) -> None:
    fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    assert [path for path in adapters.rglob("*") if path.stat().st_mode & 0o077] == []


# Refusals


def test_other_weights_are_refused_in_one_line(lm: TunableLM, folder: Path, tmp_path: Path) -> None:
    adapter = fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    adapter.save(tmp_path / "adapter")
    tiny_model(tmp_path / "other", num_hidden_layers=2, seed=4)
    with pytest.raises(ValueError, match=r"the adapter was learned for the model 'small@.*, and this is other@"):
        LocalLLM(str(tmp_path / "other"), device="cpu", adapter=tmp_path / "adapter")
    LocalLLM(str(folder), device="cpu", adapter=tmp_path / "adapter")


def test_an_adapter_of_other_shapes_is_refused(lm: TunableLM) -> None:
    adapter = fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    cut = {name: tensor[:1] for name, tensor in adapter.tensors.items()}
    with pytest.raises(ValueError, match="the adapter does not fit the model small@"):
        lm.use(replace(adapter, tensors=cut))


def test_damaged_adapters_are_named_in_one_line(lm: TunableLM, tmp_path: Path) -> None:
    fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS).save(tmp_path)
    for name in ("adapter.json", "adapter.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"{name} is damaged.*copy it again, or fine-tune again"):
            Adapter.load(tmp_path)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "adapter.json").write_text(json.dumps({"format": 1, "base": "x", "rank": 10**9, "alpha": 1}))
    with pytest.raises(ValueError, match="rank and alpha should be 1 to 10,000"):
        Adapter.load(tmp_path)


def test_too_long_examples_are_refused(lm: TunableLM) -> None:
    with pytest.raises(LLMError, match=r"a prompt and its completion have \d+ tokens; .*small reads 512"):
        fine_tune(lm, [("a" * 500, "b" * 100)], EXAMPLES, SETTINGS)


def test_a_layer_that_no_token_reaches_stays_as_it_is(lm: TunableLM) -> None:
    name, weight = next((name, w) for name, w in adapter_weights(lm.network).items() if "lora_B" in name)
    weight.requires_grad_(False)  # as good as an expert that is not chosen
    try:
        found = fine_tune(lm, EXAMPLES, EXAMPLES, SETTINGS)
    finally:
        weight.requires_grad_(True)
    changed = {each for each, tensor in found.tensors.items() if "lora_B" in each and tensor.any()}
    assert changed == {each for each in found.tensors if "lora_B" in each} - {name}


def test_an_empty_list_of_examples_is_refused(lm: TunableLM) -> None:
    with pytest.raises(ValueError, match="examples to learn and to validate: got 4, 0"):
        fine_tune(lm, EXAMPLES, [], SETTINGS)


def test_numbers_that_overflow_are_refused_in_one_line(lm: TunableLM) -> None:
    with pytest.raises(LLMError, match="computes gradients that are not finite: choose a lower learning rate"):
        fine_tune(lm, EXAMPLES, EXAMPLES, replace(SETTINGS, learning_rate=1e30, warmup=0.0))


def test_without_peft_one_line_says_what_to_install(
    load: Callable[[Path], TunableLM], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(tmp_path / "new", num_hidden_layers=1)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"LoRA needs peft: install it with `pip install 'pmlm-env\[lora\]'`"):
        fine_tune(load(tmp_path / "new"), EXAMPLES, EXAMPLES, SETTINGS)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rank": 0}, "rank is 0: use 1 to 10,000"),
        ({"n_epochs": 1.5}, "n_epochs is 1.5: use 1 to 10,000"),
        ({"learning_rate": math.nan}, "learning_rate is nan: use a positive number"),
        ({"max_grad_norm": -1}, "max_grad_norm is -1: use a positive number"),
        ({"warmup": 2}, "warmup is 2: use 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraSettings(**setting)  # type: ignore[arg-type]
