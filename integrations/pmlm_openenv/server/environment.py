"""Sessions on the text core of pmlm-env, and one judge for all of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import EnvironmentMetadata

from pmlm_env.envs.text import INSTRUCTIONS, TextEnv, TextEnvs
from pmlm_openenv.models import EditAction, EditObservation, EditState


class Judge:
    """Judges the finished prompts of all sessions, in batches: those that finish meanwhile make up the next one.

    The LLM and the scorer run in a thread, one batch at a time, while sessions go on editing in the event loop.

    Args:
        envs: What made the text envs.
    """

    def __init__(self, envs: TextEnvs) -> None:
        """Start without any prompt waiting."""
        self._envs = envs
        self._waiting: list[tuple[TextEnv, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, env: TextEnv) -> None:
        """Wait until a finished prompt is judged.

        Raises:
            Exception: What the reward raised for the batch, such as a limit that is reached.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((env, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._envs.judge, [env for env, _ in batch])
            except Exception as error:  # every session of the batch says so to its client
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for _, future in batch:
                    if not future.done():  # a client that has gone has cancelled it
                        future.set_result(None)
        self._task = None


class PMLMEnvironment(Environment[EditAction, EditObservation, EditState]):
    """A session: ``TextEnv`` behind OpenEnv's interface.

    Sessions share the models and the episodes, which do not change, and nothing else.

    Args:
        envs: What makes the text envs.
        judge: What judges finished prompts; the same for all sessions.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, envs: TextEnvs, judge: Judge) -> None:
        """Start without a prompt."""
        super().__init__()
        self._envs, self._judge = envs, judge
        self._env, self._state = TextEnv(envs), EditState()

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, episode: int | None = None, **_: Any
    ) -> EditObservation:
        """Start with a patient's initial prompt.

        Args:
            seed: Seed of the patient that is drawn; None = any.
            episode_id: A name of the client's own, which ``state`` returns.
            episode: The index of the episode; None = one drawn at random.

        Raises:
            ValueError: There is no such episode.
        """
        if episode is None:
            episode = int(np.random.default_rng(seed).integers(len(self._envs.task.episodes)))
        text = self._env.reset(episode)
        self._state = EditState(episode_id=episode_id, episode=episode, finished=self._env.finished)
        return EditObservation(text=text)

    async def reset_async(
        self, seed: int | None = None, episode_id: str | None = None, episode: int | None = None, **_: Any
    ) -> EditObservation:
        """Do as ``reset``, in the event loop: it takes well under a millisecond."""
        return self.reset(seed, episode_id, episode)

    def step(self, action: EditAction, timeout_s: float | None = None, **_: Any) -> EditObservation:
        """Call a tool, and judge the prompt alone if that finishes it.

        Raises:
            ValueError: There is no prompt, or it is finished.
        """
        text = self._call(action)
        if self._env.finished:
            self._envs.judge([self._env])
        return self._observed(text)

    async def step_async(self, action: EditAction, timeout_s: float | None = None, **_: Any) -> EditObservation:
        """Call a tool, and wait for the judge if that finishes the prompt; see ``step``."""
        text = self._call(action)
        if self._env.finished:
            await self._judge(self._env)
        return self._observed(text)

    @property
    def state(self) -> EditState:
        """Where the session stands."""
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        """Return what the env is."""
        return EnvironmentMetadata(name="pmlm", description=INSTRUCTIONS, version=metadata.version("pmlm-env"))

    def _call(self, action: EditAction) -> str:
        if self._env.finished:
            raise ValueError("there is no prompt that may be edited: call reset")
        text = self._env.finish() if action.tool == "finish" else self._env.delete(list(action.numbers))
        self._state.step_count += 1
        self._state.finished = self._env.finished
        return text

    def _observed(self, text: str) -> EditObservation:
        """Return the tool's answer and, if the prompt is finished, what it has earned; no reply and no reference."""
        if not self._env.finished:
            return EditObservation(text=text, reward=0.0)
        result = self._env.result
        return EditObservation(
            text=text,
            done=True,
            reward=result["reward"],
            components=_defined(result.get("components", {})),
            initial_components=_defined(result.get("initial_components", {})),
            error=result.get("llm_error", ""),
        )


def _defined(components: Mapping[str, float]) -> dict[str, float | None]:
    """Return components with None for NaN, which JSON lacks."""
    return {name: None if math.isnan(value) else value for name, value in components.items()}
