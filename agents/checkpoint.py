"""Where a training run stands, so that it can go on as if it had never stopped. Nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from agents.policy import WEIGHTS
from agents.reinforce import Reinforce


def save_checkpoint(folder: Path, trainer: Reinforce, progress: dict[str, Any]) -> None:
    """Write the policy, the optimiser, the generators and ``progress``; the old checkpoint stays until all is there.

    Args:
        folder: ``checkpoint/`` of a run folder.
        trainer: Whose state it is.
        progress: Whatever else is needed to go on, as JSON takes it.
    """
    scratch, old = folder.with_name("checkpoint.part"), folder.with_name("checkpoint.old")
    shutil.rmtree(scratch, ignore_errors=True)
    trainer.policy.save_pretrained(scratch)
    optimizer = trainer.optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, state in optimizer["state"].items()
        for name, value in state.items()
    }
    for age, (scores, advantages) in enumerate(trainer.words.memory if trainer.words else ()):
        tensors |= {f"words.{age}.scores": scores.contiguous(), f"words.{age}.advantages": advantages.contiguous()}
    tensors["actions_rng"] = trainer.actions_rng.get_state()
    save_file(tensors, scratch / "trainer.safetensors")
    state = {"patients_rng": trainer.patients_rng.bit_generator.state, "queue": trainer.queue, "progress": progress}
    (scratch / "trainer.json").write_text(json.dumps(state) + "\n", encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, trainer: Reinforce) -> dict[str, Any]:
    """Put a trainer where ``save_checkpoint`` left another, and return ``progress``.

    Raises:
        ValueError: There is no checkpoint.
    """
    old = folder.with_name("checkpoint.old")
    if not folder.exists() and old.exists():  # it stopped between the two renames
        os.replace(old, folder)
    if not (folder / "trainer.json").is_file():
        raise ValueError(f"{folder} holds no checkpoint to resume from: begin again without --resume")
    trainer.policy.load_state_dict(load_file(folder / WEIGHTS))
    tensors = load_file(folder / "trainer.safetensors")
    trainer.actions_rng.set_state(tensors.pop("actions_rng"))
    if trainer.words is not None:
        ages = range(sum(key.startswith("words.") for key in tensors) // 2)
        trainer.words.memory = [
            (tensors.pop(f"words.{age}.scores"), tensors.pop(f"words.{age}.advantages")) for age in ages
        ]
    optimizer = trainer.optimizer.state_dict()
    optimizer["state"] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        optimizer["state"].setdefault(int(number), {})[name] = value
    trainer.optimizer.load_state_dict(optimizer)
    state = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
    trainer.patients_rng.bit_generator.state = state["patients_rng"]
    trainer.queue = state["queue"]
    return state["progress"]
