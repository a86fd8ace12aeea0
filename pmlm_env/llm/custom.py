"""An LLM of one's own: a class that an installed package or a path names."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

from pmlm_env.io.keys import holds_key
from pmlm_env.llm.base import LLM, Completion, LLMError, Reply, Request, changed
from pmlm_env.registry import Registry

#: Names that ``load_llm`` knows come first: ``responder``, and those that begin with ``local:`` or a provider.
LLMS = Registry("LLM", "pmlm.llms", {"responder": "pmlm_env.llm.responder:Responder"})

#: Tokens of a reply, at which a call is booked before it is made, if the class does not say.
MAX_TOKENS = 4_096


def load_custom_llm(name: str, kwargs: Mapping[str, Any], device: str) -> CheckedLLM:
    """Make an LLM of a class of one's own.

    Args:
        name: The name of an installed plugin, or ``package.module:Class``.
        kwargs: Arguments for the class.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a class gets it if it has a parameter ``device``.

    Raises:
        ValueError: There is no such class, it does not take these arguments, or it is not a usable LLM.
    """
    return CheckedLLM(name, LLMS.make(name, kwargs=kwargs, offered={"device": device}))


class CheckedLLM(LLM):
    """Somebody's LLM, whose identity and replies are checked.

    Args:
        name: Its name in ``LLMS``.
        llm: The LLM.

    Attributes:
        max_tokens: Maximum number of tokens of a reply.

    Raises:
        ValueError: It is not an ``LLM``, or its identity or ``max_tokens`` is unusable.
    """

    def __init__(self, name: str, llm: LLM) -> None:
        """Check the identity, by which replies are cached and runs are resumed."""
        self.name, self.llm = name, llm
        if not isinstance(llm, LLM):
            raise ValueError(f"the LLM {name} is a {type(llm).__name__}: it should be a subclass of pmlm_env.llm.LLM")
        identity = llm.identity
        if not isinstance(identity, str) or not identity.strip():
            raise ValueError(f"the LLM {name} has no identity: give it a text that determines its replies")
        if holds_key(identity):
            raise ValueError(f"the identity of the LLM {name} contains what looks like a key: leave that out")
        if re.search(r"\bat 0x[0-9A-Fa-f]+", identity):
            raise ValueError(
                f"the identity of the LLM {name} contains an address in memory, so that it changes with each process: "
                "give it a text that determines its replies"
            )
        self.max_tokens = getattr(llm, "max_tokens", MAX_TOKENS)
        if type(self.max_tokens) is not int or self.max_tokens < 1:
            raise ValueError(f"max_tokens of the LLM {name} should be a whole number, 1 or more")

    @property
    def identity(self) -> str:
        """The identity of the inner LLM."""
        return self.llm.identity

    @property
    def is_remote(self) -> bool:
        """Whether prompts may leave this machine: True unless the inner LLM says ``False``."""
        return self.llm.is_remote is not False

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Yield the inner LLM's replies; one that cannot be scored becomes an error.

        Raises:
            ValueError: The LLM returned something that is not a reply, or not exactly one to each request.
        """
        open_ = set(range(len(requests)))
        found = self.llm.replies(list(requests))
        if not isinstance(found, Generator):
            raise self._wrong(f"a {type(found).__name__}, which is no generator (use yield)")

        def checked(batch: Any) -> dict[int, Reply]:
            if not isinstance(batch, Mapping) or not batch.keys() <= open_:
                raise self._wrong("not a mapping from the index of each request, once, to its reply")
            if wrong := next(filter(None, map(_why_no_reply, batch.values())), ""):
                raise self._wrong(wrong)
            open_.difference_update(batch)
            return {index: _usable(reply) for index, reply in batch.items()}

        stopped = yield from changed(found, checked)
        if open_ and not stopped:
            raise self._wrong(f"no reply to {len(open_)} of {len(requests)} requests")

    def _wrong(self, what: str) -> ValueError:
        return ValueError(f"the LLM {self.name} returned {what}: see pmlm_env.llm.LLM.replies")


def _why_no_reply(reply: Any) -> str:
    """Return what is wrong with what should be a reply; "" = nothing. It quotes no text of a reply."""
    if not isinstance(reply, Completion):
        return "" if isinstance(reply, LLMError) else f"a {type(reply).__name__}, not a Completion or an LLMError"
    if not isinstance(reply.text, str):
        return f"a Completion whose text is a {type(reply.text).__name__}, not text"
    for name in ("prompt_tokens", "completion_tokens"):
        number = getattr(reply, name)
        if type(number) is not int or number < 0:
            return f"a Completion whose {name} are {shortened(number)}, not a whole number, 0 or more (0 = unknown)"
    if reply.finish_reason not in ("stop", "length"):
        return f"a Completion whose finish_reason is {shortened(reply.finish_reason)}, not 'stop' or 'length'"
    return ""


def _usable(reply: Reply) -> Reply:
    """Return a reply, or an error if it cannot be scored."""
    if not isinstance(reply, Completion):
        return reply
    try:
        reply.text.encode()
    except UnicodeEncodeError:
        return LLMError("the reply contains half of a surrogate pair, which is not a character")
    return reply if reply.text.strip() else LLMError("the reply is empty")
