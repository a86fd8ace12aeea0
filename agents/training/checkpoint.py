"""Checkpoints, from which a training run can be resumed exactly. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from agents.base import CONFIG, Agent, StepwiseAgent
from agents.problem import Shape
from agents.settings import plain, same_value
from pmlm_env.io.files import replacing_folder, write
from pmlm_env.rewards.delta import Judged


def save_checkpoint(folder: Path, agent: Agent, progress: Mapping[str, Any], initial: Mapping[int, Judged]) -> None:
    """Write the agent and its training state; the old checkpoint is kept until the new one is complete.

    Args:
        folder: ``checkpoint/`` of a run folder.
        agent: A fitted agent, or one that is being fitted.
        progress: The training progress, as JSON values.
        initial: The scored replies to initial prompts, by episode index.
    """
    with replacing_folder(folder) as scratch:
        agent.save(scratch)
        values, tensors = agent.progress() if isinstance(agent, StepwiseAgent) else ({}, {})
        write(scratch / "trainer.safetensors", save(tensors))
        state = {"progress": progress, "initial": initial, "trainer": values}
        write(scratch / "trainer.json", json.dumps(state) + "\n")


def load_checkpoint(folder: Path, agent: StepwiseAgent, n_episodes: int) -> tuple[dict[str, Any], dict[int, Judged]]:
    """Restore an agent's training state from a checkpoint.

    Args:
        folder: The checkpoint.
        agent: An agent after ``begin``.
        n_episodes: Number of training patients.

    Returns:
        The training progress, and the scored replies to initial prompts by episode index.

    Raises:
        ValueError: A file is missing or damaged, or belongs to another agent.
    """
    with one_line(folder / "trainer.safetensors"):
        tensors = load_file(folder / "trainer.safetensors")
    with one_line(folder / "trainer.json"):
        state = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
        initial = {int(i): Judged(str(reply), float(f1), float(sd)) for i, (reply, f1, sd) in state["initial"].items()}
        if not all(0 <= index < n_episodes for index in initial):
            raise ValueError
        values, progress = dict(state["trainer"]), dict(state["progress"])
    with one_line(f"{folder / 'trainer.json'}, or trainer.safetensors beside it,"):
        agent.go_on(values, tensors)
    return progress, initial


def check_agent(folder: Path, agent: Agent, shape: Shape) -> None:
    """See that the run's settings are still those of the agent in a checkpoint; see ``RunFolder.go_on``.

    Args:
        folder: The checkpoint.
        agent: An agent made of the run's settings.
        shape: That of the problem it is to learn from.

    Raises:
        ValueError: They were changed by hand, or the checkpoint's ``config.json`` is missing or damaged.
    """
    with one_line(folder / CONFIG):
        saved = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        before = {"agent": saved["agent"], "seed": saved["seed"], **saved["settings"]}
        before |= {name: saved["shape"][name] for name in ("n_edits", "protect")}
    now = {"agent": agent.name, "seed": agent.seed, **plain(agent.config)}
    now |= {name: plain(shape)[name] for name in ("n_edits", "protect")}
    changed = sorted(name for name in now.keys() & before.keys() if not same_value(name, now[name], before[name]))
    if changed:
        was = ", ".join(f"{name} = {json.dumps(before[name], ensure_ascii=False)}" for name in changed)
        raise ValueError(
            f"{folder.parent / 'config.json'} has other values of {', '.join(changed)} than the agent in "
            f"{folder.name}: change them back to {was}, or start a new run with --run"
        )


@contextmanager
def one_line(file: Path | str) -> Iterator[None]:
    """Turn an error in reading a checkpoint file into a one-line error that says what to do."""
    cure = "restore the checkpoint from a copy, or start a new run with --run"
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{file} is missing: {cure}") from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged, or was not written by this version of pmlm-env: {cure}") from None
