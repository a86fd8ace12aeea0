"""TRL's GRPOTrainer takes the text env as it is: its tools are called, and what the edits earn changes the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import pmlm_env  # noqa: F401  registers the envs
from pmlm_env.device import seeded
from pmlm_env.envs.text import TextEnvs
from tests.standins import make_task

trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

N_EDITS, N_ROLLOUTS = 3, 4


class Scripted(Qwen3ForCausalLM):
    """A language model that calls ``delete`` with the slots of its script, one rollout after another, and finishes."""

    tokenizer: Any
    script: list[list[int]]
    n_calls = 0

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        self.n_calls += 1
        if self.n_calls == 1:
            says = [_call("delete", numbers=slots) for slots in self.script]
        else:
            says = [_call("finish") if self.n_calls == 2 else "Done."] * len(input_ids)
        said = [self.tokenizer(f"{each}<|im_end|>")["input_ids"] for each in says]
        longest = max(map(len, said))
        padded = [ids + [self.tokenizer.pad_token_id] * (longest - len(ids)) for ids in said]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)


def _call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a byte, with the chat template of Qwen3 that TRL has."""
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*marks, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=marks[2], pad_token=marks[0], additional_special_tokens=marks
    )
    fast.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    return fast


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_one_step_of_grpo_pays_each_rollout_as_pmlm_v0_does(tmp_path: Path) -> None:
    task = make_task(n_edits=N_EDITS)
    marked = [slot for slot, word in enumerate(task.episodes[0].words) if "*" in word]
    other = [slot for slot in range(12) if slot not in marked]
    script = [marked, other[:3], [marked[0], *other[:2]], [*marked[:2], other[0]]]
    tokenizer = _tokenizer()
    with seeded(0):
        model = Scripted(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, num_key_value_heads=1, head_dim=8,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    model.tokenizer, model.script = tokenizer, script
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    envs = TextEnvs(task)
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=N_ROLLOUTS, num_generations=N_ROLLOUTS, max_steps=1,
        max_completion_length=2000, learning_rate=0.01, report_to=[], use_cpu=True, bf16=False, logging_steps=1,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.GRPOTrainer(
        model,
        args=config,
        train_dataset=Dataset.from_list(envs.rows()[:1]),
        processing_class=tokenizer,
        environment_factory=envs,
    )
    trainer.train()

    earned = [env.result for env in trainer.environments]
    assert [sorted(edit.slot for edit in each["edits"]) for each in earned] == [sorted(slots) for slots in script]
    env = gym.make("PMLM-v0", task=task)
    for slots, own in zip(script, earned, strict=True):
        env.reset(options={"episode": 0})
        for slot in slots:
            _, reward, _, _, info = env.step(np.int64(slot))
        assert own["reward"] == reward
        assert own["prompt"] == info["prompt"]
    log = trainer.state.log_history[0]
    assert log["rewards/TextEnv/mean"] == pytest.approx(np.mean([own["reward"] for own in earned]))
    assert log["tools/call_frequency"] == 2  # delete, then finish
    assert any(not torch.equal(before[name], weights) for name, weights in model.named_parameters())
