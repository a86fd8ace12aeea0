"""Where a training run stands, so that it can go on as if it had never stopped. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from safetensors.torch import save_file

from agents.policy import WEIGHTS
from agents.reinforce import Reinforce
from pmlm_env.checked_files import file_in, read_object, read_tensors

logger = logging.getLogger(__name__)

TENSORS, STATE = "trainer.safetensors", "trainer.json"

_CURE = "copy the run folder again, or train anew with another --run"

#: What Adam keeps of each weight.
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


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
    tensors = _packed(trainer.optimizer, "")
    if trainer.critic is not None:
        weights = {f"critic.weights.{name}": value for name, value in trainer.critic.network.state_dict().items()}
        tensors |= {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        tensors |= _packed(trainer.critic.optimizer, "critic.optimizer.")
    for n, (scores, advantages) in enumerate(trainer.words.memory if trainer.words else ()):
        tensors |= {f"words.{n}.scores": scores.contiguous(), f"words.{n}.advantages": advantages.contiguous()}
    tensors["actions_rng"] = trainer.actions_rng.get_state()
    save_file(tensors, scratch / TENSORS)
    state = {"patients_rng": trainer.patients_rng.bit_generator.state, "queue": trainer.queue, "progress": progress}
    (scratch / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, trainer: Reinforce) -> dict[str, Any]:
    """Put a trainer where ``save_checkpoint`` left another, and return ``progress``.

    Raises:
        ValueError: There is no checkpoint, or a file of it is damaged or of another run.
    """
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder} holds no checkpoint to resume from: begin again without --resume")
    weights, arrays, state = (file_in(folder, name) for name in (WEIGHTS, TENSORS, STATE))
    policy = trainer.policy.state_dict()
    policy = read_tensors(weights, {name: tuple(value.shape) for name, value in policy.items()})
    tensors, rest = read_tensors(arrays), read_object(state)
    try:
        trainer.policy.load_state_dict(policy)
        _put_back(trainer.actions_rng, tensors.pop("actions_rng"))
        if trainer.words is not None:
            trainer.words.memory = _memory(_part(tensors, "words."), trainer.words.table.num_embeddings)
        if trainer.critic is not None:
            trainer.critic.network.load_state_dict(_part(tensors, "critic.weights."))
            _unpack(trainer.critic.optimizer, _part(tensors, "critic.optimizer."))
        _unpack(trainer.optimizer, tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{arrays} is not that of this run ({' '.join(str(error).split())}): {_CURE}") from None
    try:
        trainer.patients_rng.bit_generator.state = rest["patients_rng"]
        trainer.queue = _queue(rest["queue"], len(trainer.env.task.episodes))
        return _progress(rest["progress"])
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{state} is not that of this run ({' '.join(str(error).split())}): {_CURE}") from None


def _memory(tensors: dict[str, torch.Tensor], size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what the natural gradient remembers: scores (N, size) and advantages (N,) of each update, float64."""
    memory = [(tensors[f"{n}.scores"], tensors[f"{n}.advantages"]) for n in range(len(tensors) // 2)]
    for scores, advantages in memory:
        if scores.shape != (len(advantages), size) or {scores.dtype, advantages.dtype} != {torch.float64}:
            raise ValueError(f"scores of shape {list(scores.shape)}, advantages of {list(advantages.shape)}")
    return memory


def _queue(value: Any, n_episodes: int) -> list[int]:
    """Return the patients still to come."""
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < n_episodes for i in value):
        raise ValueError(f"queue should hold numbers of patients, 0 to {n_episodes - 1}")
    return value


def _progress(value: Any) -> dict[str, Any]:
    """Return ``progress``, if what ``pmlm train`` notes in it is right: updates; each initial reply, F1, spread."""
    updates, initial = value.get("updates", 0), value.get("initial", {})
    if type(updates) is not int or updates < 0:
        raise ValueError(f"updates is {shortened(updates)}: a whole number from 0 up is right")
    for number, known in initial.items():
        reply, *figures = known
        right = number.isdecimal() and isinstance(reply, str) and len(figures) == 2
        if not right or any(isinstance(figure, bool) or not isinstance(figure, float | int) for figure in figures):
            raise ValueError(f"initial holds {shortened(known)}: [reply, F1, spread] is right")
    return value


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
        ValueError: A tensor does not belong to any weight of it, or has another shape than the weight.
    """
    state = optimizer.state_dict()
    state["state"] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(weights):
            raise ValueError(f"the tensor {shortened(key)} belongs to no weight")
        if value.ndim and value.shape != weights[int(number)].shape:
            raise ValueError(f"{key} has shape {list(value.shape)}, its weight {list(weights[int(number)].shape)}")
        state["state"].setdefault(int(number), {})[name] = value
    if any(known.keys() != _ADAM for known in state["state"].values()):
        raise ValueError(f"each weight should have {', '.join(sorted(_ADAM))}")
    optimizer.load_state_dict(state)
