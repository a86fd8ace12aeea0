"""What a client and the server send each other."""

from __future__ import annotations

from typing import Literal

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

#: More numbers than any prompt has words.
MOST_NUMBERS = 16_384


class EditAction(Action):
    """A call of one of the two tools of ``pmlm_env.envs.text.TextEnv``.

    Attributes:
        tool: ``delete`` deletes words; ``finish`` sends the prompt as it is.
        numbers: The numbers that stand before the words to delete; none with ``finish``.
    """

    tool: Literal["delete", "finish"] = "delete"
    numbers: list[int] = Field(default_factory=list, max_length=MOST_NUMBERS)


class EditObservation(Observation):
    """What a tool answers and, after the last call, what the edits have earned.

    ``reward`` is None after ``reset``, 0 until the prompt is finished, and then that of ``PMLM-v0``: None if the LLM
    gave no reply.

    Attributes:
        text: The answer in words: the numbered words of the prompt, or that it is finished.
        components: The score components of the reply to the edited prompt; None where one is not defined. Empty until
            the prompt is finished.
        initial_components: Those of the reply to the initial prompt.
        error: Why the LLM gave no reply; "" if it did.
    """

    text: str
    components: dict[str, float | None] = Field(default_factory=dict)
    initial_components: dict[str, float | None] = Field(default_factory=dict)
    error: str = ""


class EditState(State):
    """Where a session stands.

    Attributes:
        episode: The index of the episode; None before ``reset``.
        finished: Whether the prompt is finished.
    """

    episode: int | None = None
    finished: bool = True
