"""Metrics on Weights & Biases, sent during training if the user asks for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from agents.settings import plain, without_folders
from agents.training.config import TrainConfig

logger = logging.getLogger(__name__)

#: The run's model options that are sent: names, numbers and choices.
_MODELS = ("llm", "temperature", "max_new_tokens", "n_samples", "encoder", "reward", "scorer", "n_edits", "protect")


class WandbRun:
    """A run on Weights & Biases, whose name is that of the run folder.

    It gets the metrics of each update that are numbers, the agent's settings, and the names of the models: no prompt,
    reply or patient, no path, and no file, source code, console output or description of the machine. A run that is
    resumed becomes another run of the same name there, which goes on with the number of the next update. In the mode
    ``offline`` (the environment variable ``WANDB_MODE``), the metrics stay in the run folder.

    Args:
        config: Settings of the run, with the project's name in ``wandb``.

    Raises:
        ValueError: The package wandb is not installed, or the project's name is empty or not accepted.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Check that it can be used; nothing is sent yet."""
        try:
            import wandb
        except ImportError:
            raise ValueError("--wandb needs wandb: install it with `pip install 'pmlm-env[wandb]'`") from None
        if not (config.wandb or "").strip():
            raise ValueError("--wandb needs the name of a project on Weights & Biases")
        self._wandb, self._folder, self._run, self._failed = wandb, config.run, cast(Any, None), False
        try:
            self._settings = wandb.Settings(
                project=config.wandb,
                run_name=config.run.resolve().name,
                host="",
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            )
        except (ValueError, wandb.Error) as error:
            raise ValueError(f"--wandb {config.wandb!r} is no name of a project: {_one_line(error)}") from None
        models = plain(config.models)
        self._config = {
            "agent": config.agent,
            "seed": config.seed,
            "budget": config.budget,
            "settings": _without_folders(plain(config.settings)),
            **_without_folders({name: models[name] for name in _MODELS}),
        }

    def __enter__(self) -> WandbRun:
        """Start the run.

        Raises:
            RuntimeError: Weights & Biases cannot be reached, or refuses the run.
        """
        try:
            self._run = self._wandb.init(dir=self._folder, config=self._config, settings=self._settings)
        except self._wandb.Error as error:
            raise RuntimeError(
                f"--wandb: Weights & Biases started no run: {_one_line(error)}: log in with `wandb login`, set "
                "WANDB_MODE=offline, or leave out --wandb"
            ) from None
        if self._run.offline:
            logger.info("Weights & Biases: to upload the metrics, wandb sync %s", Path(self._run.dir).parent)
        elif self._run.url:
            logger.info("Weights & Biases: %s", self._run.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run, and send what was not sent yet."""
        self._safely(self._run.finish, exit_code=int(kind is not None))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send metrics by name."""
        if not self._failed:
            self._safely(self._run.log, dict(numbers), step=step)

    def _safely(self, method: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a method of the run; training goes on if it fails, because the metrics are also in ``metrics.jsonl``."""
        try:
            method(*args, **kwargs)
        except Exception as error:
            self._failed = True
            logger.warning("Weights & Biases gets no more metrics of this run: %s", _one_line(error))


def _without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the folders in which this machine has models."""
    return {name: without_folders(value) if isinstance(value, str) else value for name, value in values.items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
