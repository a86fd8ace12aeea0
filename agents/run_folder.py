"""A run's folder: what it was asked to do, what it saw, where it stands, what came out."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

#: What may differ when a run goes on.
_MAY_CHANGE = ("resume", "dry_run", "calls")

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "numpy", "scikit-learn", "bert-score")


class RunFolder:
    """``runs/NAME/``: ``config.json``, ``metrics.jsonl``, ``checkpoint/``, ``evaluation.json``, TensorBoard events.

    Also ``replies.sqlite``, every reply of the LLM, ``spent.sqlite``, what was spent, booked call by call, and
    ``spent.json``, the same for readers.

    Args:
        path: The folder; made if it is not there.
    """

    def __init__(self, path: str | Path) -> None:
        """Make the folder."""
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint(self) -> Path:
        """Where the newest checkpoint is."""
        return self.path / "checkpoint"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one, be it under the name it has while another takes its place."""
        return self.checkpoint.exists() or self.checkpoint.with_name("checkpoint.old").exists()

    @property
    def evaluation(self) -> Path:
        """Where the before / after table is."""
        return self.path / "evaluation.json"

    @property
    def replies(self) -> Path:
        """Where the LLM's replies are kept."""
        return self.path / "replies.sqlite"

    @property
    def spending(self) -> Path:
        """Where spending is booked."""
        return self.path / "spent.sqlite"

    def write_spent(self, spent: dict[str, float]) -> None:
        """Write ``spent.json``."""
        write_json(self.path / "spent.json", spent)

    def clear(self) -> None:
        """Remove what an earlier run left in the folder but the LLM's replies, which may have cost money."""
        for name in ("config.json", "metrics.jsonl", "evaluation.json", "spent.json"):
            (self.path / name).unlink(missing_ok=True)
        for suffix in ("", "-wal", "-shm"):
            self.spending.with_name(self.spending.name + suffix).unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()
        for name in ("checkpoint", "checkpoint.part", "checkpoint.old"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the run was begun, or gone on, with.

        Raises:
            ValueError: The folder holds no run.
        """
        path = self.path / "config.json"
        if not path.is_file():
            raise ValueError(f"{self.path} holds no run: train first with `pmlm train --run {self.path}`")
        try:
            return json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is not that of a run, or damaged: train anew with another --run") from None

    def whole_checkpoint(self) -> Path:
        """Return where the checkpoint is, and put it there if training stopped between the two renames.

        Raises:
            ValueError: There is none; a policy's name that is no folder would be looked up on the hub.
        """
        old = self.checkpoint.with_name("checkpoint.old")
        if not self.checkpoint.exists() and old.exists():
            os.replace(old, self.checkpoint)
        if not self.checkpoint.is_dir():
            self.settings()  # says so where there is no run at all
            raise ValueError(f"{self.path} holds no checkpoint: train first (pmlm train --run {self.path} --resume)")
        return self.checkpoint

    def updates(self) -> int:
        """Return how many updates the checkpoint has seen.

        Raises:
            ValueError: There is no checkpoint, or it is damaged.
        """
        path = self.whole_checkpoint() / "trainer.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))["progress"]["updates"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is missing or damaged: train anew with another --run") from None

    def start(self, config: Any, llm_identity: str, *, resume: bool) -> None:
        """Write ``config.json``; on resuming check that it is the same run, and note what may have changed.

        Args:
            config: The settings.
            llm_identity: The LLM's, for files that the settings name may change.
            resume: Whether the run goes on.

        Raises:
            ValueError: The folder holds a run already, or on resuming none, or one with other settings.
        """
        path = self.path / "config.json"
        settings = {**plain(config), "llm_identity": llm_identity}
        if resume:
            before = self.settings()
            fixed = {key: value for key, value in settings.items() if key not in _MAY_CHANGE}
            changed = sorted(_differences(fixed, before))
            if changed:
                raise ValueError(f"{path} has another {', '.join(changed)}: resume with the settings it was begun with")
            content = json.loads(path.read_text(encoding="utf-8"))
            write_json(path, {**content, "settings": {**before, "calls": settings["calls"]}})
            return
        if path.is_file():
            raise ValueError(f"{self.path} holds a run already: choose another --run, or go on with --resume")
        versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}
        write_json(path, {"settings": settings, "versions": versions})

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl``; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

    def keep_metrics(self, n: int) -> None:
        """Cut ``metrics.jsonl`` back to its first ``n`` lines: what came after the last checkpoint is done again."""
        lines = [json.dumps(line) + "\n" for line in self.metrics()[:n]]
        write_text(self.path / "metrics.jsonl", "".join(lines))


def _differences(now: dict[str, Any], before: dict[str, Any], within: str = "") -> list[str]:
    """Name what differs, as in "models.llm"; settings that are younger than the run are left out."""
    names = []
    for key in now.keys() & before.keys():
        if isinstance(now[key], dict) and isinstance(before[key], dict):
            names += _differences(now[key], before[key], f"{within}{key}.")
        elif now[key] != before[key]:
            names.append(f"{within}{key}")
    return names


def plain(value: Any) -> Any:
    """Turn dataclasses and paths into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a reader sees the old one or the new one, never half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
