"""Speed of the local LLM: python -m benchmarks.local_llm --json FILE.

Compares one batch of 64 prompts in ``LocalLLM`` with transformers' ``generate`` for one prompt at a time, both greedy
with at most 48 new tokens, in the default number format and in float32. Because the speed of a shared machine varies
severalfold, the timings alternate: in each round the batch of all 64, then a part of them one at a time, a different
part in each round. A part is spread evenly over the prompts' lengths, and its time is scaled to 64 prompts. Texts are
compared for the prompts decoded one at a time: with 4 rounds of 16, all of them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from pmlm_env.llm.base import Reply
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.pipeline import demo_episodes
from pmlm_env.weights import resolve
from pmlm_env.weights.pretrained import load_model, load_tokenizer

_PROMPTS, _NEW_TOKENS, _DELETED = 64, 48, 10


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        model: A bundled LLM.
        rounds: Number of rounds per number format.
        singles: Number of prompts decoded one at a time per round, a divisor of 64.
        threads: Number of torch threads.
    """

    json: Path | None = None
    model: str = "smollm2-135m"
    rounds: int = 4
    singles: int = 16
    threads: int = 2


class Plain:
    """transformers' ``generate`` for one prompt at a time.

    Args:
        model: A bundled LLM.
        dtype: Number format.
    """

    def __init__(self, model: str, dtype: torch.dtype) -> None:
        """Load the model and its tokenizer."""
        path = resolve(model)
        self.tokenizer = load_tokenizer(path)
        self.model = load_model(path, "AutoModelForCausalLM", dtype=dtype)

    def inputs(self, prompt: str) -> Any:
        """Return input ids and attention mask of the prompt as user turn, each of shape (1, length)."""
        turn = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )

    def reply(self, prompt: str) -> list[int]:
        """Return the new tokens."""
        inputs = self.inputs(prompt)
        output = self.model.generate(**inputs, max_new_tokens=_NEW_TOKENS, do_sample=False)
        return output[0, inputs["input_ids"].shape[1] :].tolist()

    def text(self, tokens: Sequence[int]) -> str:
        """Return the tokens as text."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    @torch.inference_mode()
    def gap(self, prompt: str, tokens: Sequence[int], other: Sequence[int]) -> float:
        """Return the difference of the two top logits at the first token in which two replies differ."""
        pairs = enumerate(zip(tokens, other, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(other)))
        ids = torch.cat([self.inputs(prompt)["input_ids"], torch.tensor([tokens[:first]], dtype=torch.long)], dim=1)
        top = self.model(ids).logits[0, -1].float().topk(2).values
        return float(top[0] - top[1])


class RecordingLLM(LocalLLM):
    """Also records the tokens of its replies, by the tokens of their prompts."""

    def __init__(self, model: str, dtype: torch.dtype | None) -> None:
        """Decode all prompts in one batch."""
        super().__init__(model, max_new_tokens=_NEW_TOKENS, device="cpu", dtype=dtype, batch_size=_PROMPTS)
        self.rows: dict[tuple[int, ...], list[int]] = {}

    def _reply(self, prompt: list[int], row: list[int]) -> Reply:
        self.rows[tuple(prompt)] = row
        return super()._reply(prompt, row)

    def tokens_of(self, prompt: str) -> list[int]:
        """Return the tokens of the latest reply to a prompt."""
        return self.rows[tuple(self._tokens(prompt))]


def mixed_prompts() -> list[str]:
    """Return 64 patients' prompts with ten random words deleted from each, sorted by length."""
    rng = np.random.default_rng(0)
    episodes = demo_episodes()
    prompts = []
    for i in rng.choice(len(episodes), _PROMPTS, replace=False):
        words = episodes[int(i)].words
        prompts.append([words[k] for k in np.sort(rng.permutation(len(words))[_DELETED:])])
    return [" ".join(words) for words in sorted(prompts, key=len)]


def compare(
    model: str, dtype: torch.dtype | None, rounds: int, singles: int
) -> tuple[list[float], list[float], list[float]]:
    """Compare the speed of a batch with that of one prompt at a time.

    Args:
        model: A bundled LLM.
        dtype: Number format; None is the default.
        rounds: Number of rounds.
        singles: Number of prompts decoded one at a time per round.

    Returns:
        For each round, the throughput of the batch divided by that of one prompt at a time; for each round, the prompts
        per second of the batch; for each prompt whose texts differ, the difference of the two top logits at their
        first difference, decoded one at a time.
    """
    prompts, stride = mixed_prompts(), _PROMPTS // singles
    batch = RecordingLLM(model, dtype)
    plain = Plain(model, batch.dtype)
    batch.generate(prompts[:1])
    plain.reply(prompts[0])
    ratios, rates, gaps = [], [], []
    for i in range(rounds):
        started = time.perf_counter()
        batch_texts = [reply.text for reply in batch.generate(prompts)]
        middle = time.perf_counter()
        part = range(i * stride // rounds, _PROMPTS, stride)
        single_rows = [plain.reply(prompts[k]) for k in part]
        one_at_a_time = (time.perf_counter() - middle) * _PROMPTS / len(part)
        ratios.append(one_at_a_time / (middle - started))
        rates.append(_PROMPTS / (middle - started))
        gaps += [
            plain.gap(prompts[k], tokens, batch.tokens_of(prompts[k]))
            for k, tokens in zip(part, single_rows, strict=True)
            if plain.text(tokens) != batch_texts[k]
        ]
        print(f"{batch.dtype}, round {i + 1}: {ratios[-1]:.2f} times, {len(gaps)} texts differ", flush=True)
    return ratios, rates, gaps


def main(options: Options) -> None:
    """Measure everything, print a table, and write it as JSON."""
    torch.set_num_threads(options.threads)
    table: dict[str, Any] = {}
    for name, dtype in (("float32", torch.float32), ("default", None)):
        ratios, rates, gaps = compare(options.model, dtype, options.rounds, options.singles)
        for key, values in ((f"{name}_speedup", ratios), (f"{name}_prompts_per_second", rates)):
            table[key] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        table[f"{name}_texts_that_differ"] = {
            "of": options.rounds * options.singles,
            "n": len(gaps),
            "logit_gaps": sorted(gaps),
        }
        if options.json is not None:
            options.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    print(f"{'':34}{'median':>12}{'min':>12}{'max':>12}")
    for name, row in table.items():
        if "median" in row:
            print(f"{name:34}" + "".join(f"{row[key]:12,.2f}" for key in ("median", "min", "max")))
        else:
            largest = max(row["logit_gaps"], default=0.0)
            print(f"{name:34}{row['n']:12} of {row['of']}; gap of the two top logits there: {largest:.1e} at most")


if __name__ == "__main__":
    main(tyro.cli(Options))
