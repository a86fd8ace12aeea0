"""Where a training run stands, so that it can go on as if it had never stopped. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from agents.policies.word_policy import WEIGHTS
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.io.checked_files import read_tensors
from pmlm_env.io.files import make_folder, write
from pmlm_env.rewards.delta import Judged

logger = logging.getLogger(__name__)


def save_checkpoint(folder: Path, trainer: Reinforce, progress: dict[str, Any]) -> None:
    """Write the policy, the optimiser, the generators and ``progress``; the old checkpoint stays until all is there.

    Args:
        folder: ``checkpoint/`` of a run folder.
        trainer: Whose state it is.
        progress: Whatever else is needed to go on, as JSON takes it.
    """
    scratch, old = folder.with_name("checkpoint.part"), folder.with_name("checkpoint.old")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _write(scratch, trainer, progress)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)  # a part is of no use, and a full disk needs the room
        raise
    if folder.exists():  # or the old one is all there is
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, trainer: Reinforce, progress: dict[str, Any]) -> None:
    make_folder(folder)
    trainer.policy.save_pretrained(folder)
    tensors = _packed(trainer.optimizer, "")
    if trainer.critic is not None:
        weights = {f"critic.weights.{name}": value for name, value in trainer.critic.network.state_dict().items()}
        tensors |= {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        tensors |= _packed(trainer.critic.optimizer, "critic.optimizer.")
    for n, (scores, advantages) in enumerate(trainer.words.memory if trainer.words else ()):
        tensors |= {f"words.{n}.scores": scores.contiguous(), f"words.{n}.advantages": advantages.contiguous()}
    tensors["actions_rng"] = trainer.actions_rng.get_state()
    write(folder / "trainer.safetensors", save(tensors))
    state = {"patients_rng": trainer.patients_rng.bit_generator.state, "queue": trainer.queue, "progress": progress}
    write(folder / "trainer.json", json.dumps(state) + "\n")


def load_checkpoint(folder: Path, trainer: Reinforce) -> dict[int, Judged]:
    """Put a trainer where ``save_checkpoint`` left another.

    Returns:
        What was known of initial prompts, by episode index.

    Raises:
        ValueError: A file is missing or damaged, or of another policy.
    """
    with _one_line(folder / WEIGHTS):
        shapes = {name: tuple(weight.shape) for name, weight in trainer.policy.state_dict().items()}
        trainer.policy.load_state_dict(read_tensors(folder / WEIGHTS, shapes))
    with _one_line(folder / "trainer.safetensors"):
        tensors = load_file(folder / "trainer.safetensors")
        _put_back(trainer.actions_rng, tensors.pop("actions_rng"))
        if trainer.words is not None:
            words = _part(tensors, "words.")
            trainer.words.memory = [(words[f"{n}.scores"], words[f"{n}.advantages"]) for n in range(len(words) // 2)]
        if trainer.critic is not None:
            trainer.critic.network.load_state_dict(_part(tensors, "critic.weights."))
            _unpack(trainer.critic.optimizer, _part(tensors, "critic.optimizer."))
        _unpack(trainer.optimizer, tensors)
    with _one_line(folder / "trainer.json"):
        state = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
        trainer.patients_rng.bit_generator.state = state["patients_rng"]
        trainer.queue = [operator.index(patient) for patient in state["queue"]]
        known = state["progress"]["initial"]
        initial = {int(i): Judged(str(reply), float(f1), float(sd)) for i, (reply, f1, sd) in known.items()}
        n = len(trainer.env.task.episodes)
        if not all(0 <= patient < n for patient in (*trainer.queue, *initial)):
            raise ValueError
    return initial


@contextmanager
def _one_line(file: Path) -> Iterator[None]:
    """Say which file is damaged, and what to do."""
    cure = "restore the checkpoint from a copy, or begin another run with --run"
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: {cure}") from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged, or of another version of pmlm-env: {cure}") from None


def _put_back(generator: torch.Generator, state: torch.Tensor) -> None:
    """Put a generator where another was; on another kind of device it draws other numbers, by a seed of that state."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
        return
    logger.warning("The run was on another kind of device: its actions are drawn anew, not as there")
    generator.manual_seed(int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:7], "big"))


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take out of ``tensors`` those whose names begin so, and return them without that beginning."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _packed(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, torch.Tensor]:
    """Return an optimiser's state as named tensors."""
    return {
        f"{prefix}{number}.{name}": value.detach().cpu().contiguous()
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _unpack(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put an optimiser where ``_packed`` found another.

    Raises:
        ValueError: A tensor belongs to no weight, or has another shape than its weight, or is not finite, or a weight
            lacks one.
    """
    state = optimizer.state_dict()
    state["state"] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if int(number) not in range(len(weights)):
            raise ValueError(f"the tensor {key!r} belongs to no weight")
        if value.shape != (() if name == "step" else weights[int(number)].shape) or not bool(value.isfinite().all()):
            raise ValueError(f"the tensor {key!r} does not fit its weight")
        state["state"].setdefault(int(number), {})[name] = value
    if any(known.keys() != {"step", "exp_avg", "exp_avg_sq"} for known in state["state"].values()):
        raise ValueError("a weight lacks what Adam keeps of it")
    optimizer.load_state_dict(state)
