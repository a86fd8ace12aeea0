"""The likelihoods of several completions of one prompt, whose keys and values are computed once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.llm.lora.conftest import Load
from tests.llm.tiny_llms import tiny_model

#: Settings of small models of several architectures: with all keys and values, a part of them, a state instead.
KINDS = {
    "llama": {},
    "gpt2": {"n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "recurrent_gemma": {"attention_window_size": 8, "lru_width": 32, "block_types": ["recurrent", "attention"]},
}
COMPLETIONS = ["red", "blue and green", "x", *(f"number {i}" for i in range(20))]


#: transformers before 5.4 does not load the last one correctly, which `make test-oldest` would find.
EACH = [*list(KINDS)[:-1], pytest.param("recurrent_gemma", marks=pytest.mark.once)]


@pytest.mark.parametrize("kind", EACH)
def test_they_are_those_of_a_plain_model_that_reads_each_one_whole(kind: str, load: Load, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", kind, num_hidden_layers=2, scale=2, **KINDS[kind])
    lm = load(tmp_path / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    prompt = lm.chat.encode("What color is it, and why?")
    completions = [lm.chat.encode_reply(each) for each in COMPLETIONS]
    expected = []
    for completion in completions:
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        expected.append(logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None]).sum().item())
    assert lm.log_likelihoods(prompt, completions) == pytest.approx(expected, rel=1e-4)


def test_one_token_completions_need_no_second_pass(load: Load, folder: Path) -> None:
    lm = load(folder)
    prompt = lm.chat.encode("What?")
    found = lm.log_likelihoods(prompt, [[token] for token in range(lm.network.config.vocab_size)])
    assert torch.from_numpy(found).logsumexp(0).item() == pytest.approx(0, abs=1e-5)


def test_architectures_that_peft_does_not_know_are_refused_in_one_line(load: Load, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", "mamba", num_hidden_layers=1, state_size=4)
    with pytest.raises(ValueError, match="LoRA cannot be applied to mamba models: ") as error:
        load(tmp_path / "model").log_likelihoods([4, 5], [[6]])
    assert "\n" not in str(error.value)
