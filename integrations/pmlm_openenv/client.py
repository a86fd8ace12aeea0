"""The client of the server in this package."""

from __future__ import annotations

from typing import Any

from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient

from pmlm_openenv.models import EditAction, EditObservation, EditState


class PMLMClient(EnvClient[EditAction, EditObservation, EditState]):
    """A session with the server: one prompt at a time.

    ``reset(episode=3)`` chooses an episode, ``reset(seed=7)`` draws one by a seed, ``reset()`` draws any.

    Example:
        >>> async with PMLMClient("ws://127.0.0.1:8000") as env:
        ...     print((await env.reset(episode=0)).observation.text)
        ...     await env.step(EditAction(numbers=[2, 5]))
        ...     print((await env.step(EditAction(tool="finish"))).reward)
    """

    def _step_payload(self, action: EditAction) -> dict[str, Any]:
        return action.model_dump(exclude={"metadata"})

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[EditObservation]:
        done, reward = payload["done"], payload["reward"]
        observation = EditObservation(**payload["observation"], done=done, reward=reward)
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> EditState:
        return EditState(**payload)
