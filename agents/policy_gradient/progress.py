"""Conversion of the state of ``Reinforce`` to JSON and tensors, so that training resumes as if never interrupted."""

from __future__ import annotations

import hashlib
import logging
import operator
from collections.abc import Mapping
from typing import Any

import torch

from agents.policy_gradient.reinforce import Reinforce

logger = logging.getLogger(__name__)


def trainer_progress(trainer: Reinforce) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return all weights, the states of optimizers and random generators, and the queue of patients."""
    tensors = _packed(trainer.optimizer, "")
    tensors |= _weights(trainer.policy, "policy.")
    if trainer.critic is not None:
        tensors |= _weights(trainer.critic.network, "critic.weights.")
        tensors |= _packed(trainer.critic.optimizer, "critic.optimizer.")
    for n, (scores, advantages) in enumerate(trainer.words.memory if trainer.words else ()):
        tensors |= {f"words.{n}.scores": scores.contiguous(), f"words.{n}.advantages": advantages.contiguous()}
    tensors["actions_rng"] = trainer.actions_rng.get_state()
    return {"patients_rng": trainer.patients_rng.bit_generator.state, "queue": trainer.queue}, tensors


def put_back(trainer: Reinforce, values: Mapping[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Restore into a trainer the progress that ``trainer_progress`` returned for another trainer.

    Raises:
        ValueError, KeyError, IndexError, TypeError, RuntimeError: The progress is not that of such a trainer.
    """
    tensors = dict(tensors)
    _put_generator_back(trainer.actions_rng, tensors.pop("actions_rng"))
    weights = _part(tensors, "policy.")
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise ValueError("a weight is not finite")
    trainer.policy.load_state_dict(weights)
    if trainer.words is not None:
        words = _part(tensors, "words.")
        trainer.words.memory = [(words[f"{n}.scores"], words[f"{n}.advantages"]) for n in range(len(words) // 2)]
    if trainer.critic is not None:
        trainer.critic.network.load_state_dict(_part(tensors, "critic.weights."))
        _unpack(trainer.critic.optimizer, _part(tensors, "critic.optimizer."))
    _unpack(trainer.optimizer, tensors)
    trainer.patients_rng.bit_generator.state = values["patients_rng"]
    trainer.queue = [operator.index(patient) for patient in values["queue"]]
    if not all(0 <= patient < len(trainer.env.task.episodes) for patient in trainer.queue):
        raise ValueError("a patient in the queue does not exist")


def _put_generator_back(generator: torch.Generator, state: torch.Tensor) -> None:
    """Restore a generator's state; if it is from another kind of device, use a seed derived from it instead."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
        return
    logger.warning("The run was on another kind of device: it draws other actions from here on than it would there")
    generator.manual_seed(int.from_bytes(hashlib.sha256(state.numpy().tobytes()).digest()[:7], "big"))


def _weights(network: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """Return a network's weights, with ``prefix`` added to their names."""
    return {f"{prefix}{name}": value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Remove the tensors whose names start with ``prefix`` and return them, with the prefix removed."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _packed(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, torch.Tensor]:
    """Return an optimizer's state as named tensors."""
    return {
        f"{prefix}{number}.{name}": value.detach().cpu().contiguous()
        for number, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _unpack(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore into an optimizer the state that ``_packed`` returned for another optimizer.

    Raises:
        ValueError: A tensor does not belong to any weight, differs in shape from its weight or is not finite, or a
            weight lacks a tensor.
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
        state["state"].setdefault(int(number), {})[name] = value.clone()  # Adam modifies it in place
    if any(known.keys() != {"step", "exp_avg", "exp_avg_sq"} for known in state["state"].values()):
        raise ValueError("a weight lacks a part of its Adam state")
    optimizer.load_state_dict(state)
