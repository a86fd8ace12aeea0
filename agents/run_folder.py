"""The run folder: a run's settings, metrics, checkpoint, and results."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from agents.settings import from_plain, plain, same_value
from pmlm_env.core.traces import TraceFile
from pmlm_env.io import files
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write_json
from pmlm_env.llm.storage.location import check_given, is_url, is_worker
from pmlm_env.rewards.base import GUARDED

#: Settings that may differ when a run is resumed. Episodes are compared by content, not by path.
_MAY_CHANGE = (
    "run", "episodes", "resume", "allow_import", "dry_run", "calls", "budget", "models.device", "models.providers",
)  # fmt: skip

#: Settings that are paths, by their dotted names.
_PATHS = ("episodes", "models.providers", "calls.cache", "calls.budget_file")

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "numpy", "scikit-learn", "bert-score")

#: Size limit of ``trainer.json`` in bytes; it contains every prompt that was sent to the LLM.
_LARGEST_CHECKPOINT = 2**30

#: Required keys of every line of ``metrics.jsonl``, with their types.
_METRICS = {"update": int, "deltas": list, "failed": int, "llm_calls": int}


class RunFolder:
    """``runs/NAME/``: ``config.json``, ``metrics.jsonl``, ``checkpoint/``, ``evaluation.json``, TensorBoard events.

    It also contains ``traces.jsonl`` (a record of each evaluated episode), ``replies.sqlite`` (every reply of the
    LLM), ``spent.sqlite`` (the spending, recorded call by call), and ``spent.json`` (the spending in readable form).
    The folder can be moved: ``config.json`` stores paths relative to the folder, along with the original absolute
    paths.

    Args:
        path: The folder; ``locked`` creates it if it does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        """Store the path."""
        self.path = Path(path)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder against other processes; see ``pmlm_env.io.files.locked``.

        A command's worker locks nothing, because the command holds the lock for all its workers.
        """
        return nullcontext() if is_worker() else files.locked(self.path)

    @property
    def checkpoint(self) -> Path:
        """The path of the newest checkpoint."""
        return self.path / "checkpoint"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, including one renamed to ``checkpoint.old`` while it is being replaced."""
        return self.checkpoint.exists() or self.checkpoint.with_name("checkpoint.old").exists()

    @property
    def patient_encoder(self) -> Path:
        """The path of the patient encoder that was learned, for agents that learn one."""
        return self.path / "patient_encoder"  # where ``pmlm_env.retrieval.encoder_files`` looks for it

    @property
    def evaluation(self) -> Path:
        """The path of the evaluation results, which hold the before / after table."""
        return self.path / "evaluation.json"

    @property
    def page(self) -> Path:
        """The path of the page for the browser."""
        return self.path / "report.html"

    @property
    def traces(self) -> TraceFile:
        """The traces of evaluated episodes."""
        return TraceFile(self.path / "traces.jsonl")

    @property
    def replies(self) -> Path:
        """The path of the cache of LLM replies."""
        return self.path / "replies.sqlite"

    @property
    def spending(self) -> Path:
        """The path of the spending record."""
        return self.path / "spent.sqlite"

    @property
    def editor_spending(self) -> Path:
        """The path of the record of what an LLM has spent that an agent itself asks; ``spending`` includes it."""
        return self.path / "spent.editor.sqlite"

    @property
    def begun(self) -> bool:
        """Whether the folder contains a run."""
        return self.config.is_file()

    @property
    def config(self) -> Path:
        """The path of the run's settings."""
        return self.path / "config.json"

    @property
    def _anew(self) -> str:
        """Advice for error messages about a lost or damaged file of the run."""
        return (
            f"restore it from a copy, or start a new run with --run and --cache {self.replies}, so that no stored "
            "reply is requested again"
        )

    def write_spent(self, spent: dict[str, float]) -> None:
        """Write ``spent.json``."""
        write_json(self.path / "spent.json", spent)

    def check_spending(self) -> None:
        """Check that the spending record exists, before the run spends more.

        Raises:
            ValueError: The record is missing or empty.
        """
        if not self.spending.is_file() or not self.spending.stat().st_size:
            state = "empty" if self.spending.is_file() else "missing"
            raise ValueError(f"{self.spending}, the record of what this run has spent, is {state}: {self._anew}")

    def clear(self) -> None:
        """Remove an earlier run's files, except the cached LLM replies, which may have cost money."""
        names = "config.json", "metrics.jsonl", "metrics.jsonl.part", "evaluation.json", "traces.jsonl", "spent.json"
        for name in (*names, "report.html"):
            (self.path / name).unlink(missing_ok=True)
        for file in (self.spending, self.editor_spending):
            for suffix in ("", "-wal", "-shm"):
                file.with_name(file.name + suffix).unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()
        for name in ("checkpoint", "checkpoint.part", "checkpoint.old", self.patient_encoder.name):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the run was started or last resumed with, with paths resolved to where they are now.

        Raises:
            ValueError: The folder contains no run, or its ``config.json`` is damaged.
        """
        content = self._content()
        settings = content["settings"]
        for name in _PATHS:
            within, key = _inside(settings, name)
            if within.get(key) is not None:
                if not isinstance(within[key], str):
                    raise ValueError(f"{self.config}: {name} is {within[key]!r}, not a path: {self._anew}")
                if is_url(within[key]):
                    continue
                here = Path(os.path.normpath(self.path.resolve() / within[key]))
                within[key] = str(here) if here.exists() else content["paths"].get(name, within[key])
        models = settings["models"]
        kwargs = models.get("reward_kwargs", {})
        of_reward = kwargs.get("settings", {}) if isinstance(kwargs, dict) else kwargs
        if models.get("reward") == GUARDED and not isinstance(of_reward, dict):
            # A run of somebody else must not decide which file is read here.
            raise ValueError(f"{self.config}: the settings of the reward are not a table: {self._anew}")
        return settings

    def prepared(self) -> Path:
        """Return the prepared folder that the run was trained on.

        Raises:
            ValueError: The folder contains no run, or its ``config.json`` is damaged.
        """
        episodes = self.settings().get("episodes")
        if episodes is None:
            raise ValueError(f"{self.config} is damaged (episodes is missing): {self._anew}")
        return Path(episodes)

    def whole_checkpoint(self) -> Path:
        """Return the path of the checkpoint: ``checkpoint.old`` if training stopped between two renames.

        Raises:
            ValueError: There is no checkpoint. (The loader would look up the name of a missing folder on the hub.)
        """
        old = self.checkpoint.with_name("checkpoint.old")
        if not self.checkpoint.exists() and old.exists():
            return old
        if not self.checkpoint.is_dir():
            self.settings()  # raises its own error if there is no run at all
            raise ValueError(f"{self.path} has no checkpoint: train first (pmlm train --run {self.path} --resume)")
        return self.checkpoint

    def updates(self) -> int:
        """Return the number of updates at the checkpoint, or of batches for an agent without updates.

        Raises:
            ValueError: There is no checkpoint, or it is damaged.
        """
        return self._count("updates", lambda progress: progress["updates"])

    def budget_spent(self) -> int:
        """Return the number of completions that the agent had spent of its budget at the checkpoint.

        Raises:
            ValueError: There is no checkpoint, or it is damaged.
        """
        return self._count("completions", lambda progress: progress["meter"]["calls"])

    def _count(self, what: str, found: Callable[[Any], Any]) -> int:
        path = self.whole_checkpoint() / "trainer.json"
        content = read_object(path, self._anew, _LARGEST_CHECKPOINT)
        try:
            number = found(content["progress"])
        except (KeyError, TypeError):
            number = None
        if type(number) is not int or number < 0:
            raise ValueError(f"{path} is damaged (it has no number of {what}): {self._anew}")
        return number

    def check_episodes(self, digest: str) -> None:
        """Check that the episodes are those that the run was started with.

        Args:
            digest: ``EpisodeSet.digest`` of all episodes.

        Raises:
            ValueError: The episodes differ.
        """
        if self._content()["episodes_sha256"] != digest:
            raise ValueError(
                f"these are not the episodes that {self.path} was started with: prepare those again (with the same "
                "cohort and options), give a copy of them with --episodes, or start a new run with another --run"
            )

    def check_new(self) -> None:
        """Check that no run would be overwritten.

        Raises:
            ValueError: The folder already contains a run.
        """
        if self.begun:
            raise ValueError(
                f"{self.path} already contains a run: choose another --run, or continue it "
                f"(pmlm train --run {self.path} --resume)"
            )

    def start(self, config: Any, llm_identity: str, episodes: str) -> None:
        """Write ``config.json`` for a new run.

        Args:
            config: The settings.
            llm_identity: The LLM's identity, stored because files named in the settings may change.
            episodes: ``EpisodeSet.digest`` of all episodes.
        """
        versions = {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}
        self._write(
            {**plain(config), "llm_identity": llm_identity}, {"versions": versions, "episodes_sha256": episodes}
        )

    def go_on(self, config: Any, llm_identity: str, episodes: str) -> None:
        """Check that a resumed run matches the one that was started, and save settings that may change.

        The arguments are those of ``start``.

        Raises:
            ValueError: The folder contains no run, or a run with different settings or episodes.
        """
        self.check_episodes(episodes)
        before, now = self.settings(), {**plain(config), "llm_identity": llm_identity}
        # A model option that is newer than the run had its default in the run.
        before["models"] = plain(from_plain(type(config.models), before["models"]))
        changed = sorted(_differences(now, before, other_llm=now["llm_identity"] != before.get("llm_identity")))
        if changed:
            raise ValueError(
                f"{self.config} has other values of {', '.join(changed)}: resume with the settings that the run was "
                "started with"
            )
        kept, given = before["calls"].get("cache"), now["calls"]["cache"]
        check_given(given, kept, self.config)
        if not one_path(kept, given) and (kept is None or os.path.exists(kept)):
            raise ValueError(f"the replies of this run are stored in {kept or 'the run folder'}: leave out --cache")
        if self.has_checkpoint and now["budget"] < (spent := self.budget_spent()):
            raise ValueError(f"{self.path} has already spent {spent} completions: give --budget {spent} or more")
        self._write({**before, **now}, {**self._content(), "episodes_sha256": episodes})

    def _metrics(self, anew: bool = False) -> Path:
        return self.path / ("metrics.jsonl.part" if anew else "metrics.jsonl")

    def append_metrics(self, line: dict[str, Any], *, anew: bool = False) -> None:
        """Add a line to ``metrics.jsonl``, or to the new one; see ``keep_metrics``."""
        files.append(self._metrics(anew), json.dumps(line))

    def metrics(self) -> list[dict[str, Any]]:
        """Read ``metrics.jsonl``, skipping a last line cut short by a crash.

        Raises:
            ValueError: Any other line is damaged.
        """
        path = self._metrics()
        if not path.is_file():
            return []
        *lines, _ = path.read_text(encoding="utf-8", errors="replace").split("\n")
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                if not all(type(values[name]) is kind for name, kind in _METRICS.items()):
                    raise ValueError
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(
                    f"{path}, line {number} is damaged: restore the file from a copy, or delete the line, which "
                    "loses only the metrics of one update"
                ) from None
            found.append(values)
        return found

    def keep_metrics(self, n: int, *, anew: bool = False) -> None:
        """Keep the first ``n`` updates' metrics: in place, or in a new file that ``take_new_metrics`` puts there."""
        lines = [json.dumps(line) + "\n" for line in self.metrics() if line["update"] <= n]
        files.write(self._metrics(anew), "".join(lines))

    def take_new_metrics(self) -> None:
        """Put the new ``metrics.jsonl`` in the place of the old one."""
        self._metrics(anew=True).replace(self._metrics())

    def _content(self) -> dict[str, Any]:
        """Read ``config.json``."""
        if not self.begun:
            raise ValueError(f"{self.path} contains no run: train first with `pmlm train --run {self.path}`")
        content = read_object(self.config, self._anew)
        settings = content.get("settings")
        whole = isinstance(settings, dict) and all(isinstance(settings.get(part), dict) for part in _PARTS)
        if not whole or not isinstance(content.get("paths"), dict) or "episodes_sha256" not in content:
            raise ValueError(f"{self.config} is damaged, or was not written by this version of pmlm-env: {self._anew}")
        return content

    def _write(self, settings: dict[str, Any], more: dict[str, Any]) -> None:
        """Write ``config.json`` with paths relative to the folder, and the absolute paths under ``paths``."""
        paths = {}
        for name in _PATHS:
            within, key = _inside(settings, name)
            if within.get(key) is not None and not is_url(within[key]):
                paths[name] = os.path.abspath(within[key])
                within[key] = os.path.relpath(os.path.realpath(within[key]), self.path.resolve())
        # The folder may be moved, and must not say of itself that it is to be trusted, or where metrics are sent.
        settings = {name: value for name, value in settings.items() if name not in ("run", "allow_import", "wandb")}
        write_json(self.config, {**more, "settings": settings, "paths": paths})


#: The settings that are tables.
_PARTS = ("models", "calls", "settings")


def _inside(settings: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Return the table that contains the setting with a dotted name, and its key in that table."""
    *parts, key = name.split(".")
    for part in parts:
        settings = settings[part]
    return settings, key


def _differences(now: dict[str, Any], before: dict[str, Any], other_llm: bool, within: str = "") -> list[str]:
    """Return the dotted names of settings that differ, such as "models.llm"; skip settings newer than the run.

    If the LLM's identity is unchanged, differences in the settings that specify the LLM are ignored.
    """
    names = []
    for key in now.keys() & before.keys():
        name = f"{within}{key}"
        if name in _MAY_CHANGE or (not other_llm and name in _LLM):
            continue
        if isinstance(now[key], dict) and isinstance(before[key], dict) and not key.endswith("_kwargs"):
            names += _differences(now[key], before[key], other_llm, f"{name}.")
        elif not same_value(key, now[key], before[key]) and not (
            isinstance(now[key], str) and one_path(now[key], before[key])
        ):
            names.append(name)
    return names


#: Settings that the LLM's identity covers.
_OF_LLM = "llm", "llm_kwargs", "base_url", "max_new_tokens", "temperature", "llm_seed", "llm_dtype", "on_truncated"
_LLM = tuple(f"models.{name}" for name in (*_OF_LLM, "chat_template_kwargs"))


def one_path(a: Any, b: Any) -> bool:
    """Whether two values are equal, or are paths of the same existing file or folder."""
    there = isinstance(a, str) and isinstance(b, str) and os.path.exists(a) and os.path.exists(b)
    return a == b or (there and os.path.samefile(a, b))
