"""Replies to many prompts, requested in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from pmlm_env.core.traces import TracedReply
from pmlm_env.llm import LLM
from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.rewards.delta import TooManyFailuresError


def replies_to(
    llm: LLM,
    requests: Sequence[Request],
    max_failures: int | None,
    progress: Callable[[int], object] | None = None,
    found: dict[int, Reply] | None = None,
) -> list[Reply]:
    """Return the reply, or the error, to each request.

    Args:
        llm: The LLM.
        requests: The requests.
        max_failures: Number of consecutive errors after which no more requests are sent; None = never.
        progress: Called with the number of new replies whenever some arrive.
        found: Filled with the replies by the index of their request, for a caller that uses them after an exception.

    Raises:
        TooManyFailuresError: ``max_failures`` consecutive replies are missing.
        BudgetExceededError: A limit is reached; the remaining requests were not sent.
    """
    found = {} if found is None else found
    failures = 0
    with closing(llm.replies(requests)) as batches:
        for batch in batches:
            found.update(batch)
            for reply in batch.values():
                failures = failures + 1 if isinstance(reply, LLMError) else 0
                if failures == max_failures:
                    raise too_many_failures(failures, str(reply))
            if progress is not None:
                progress(len(batch))
    return [found[index] for index in range(len(requests))]


def too_many_failures(failures: int, last: str) -> TooManyFailuresError:
    """Return the error that stops a command: so many replies in a row are missing, the last for this reason."""
    return TooManyFailuresError(
        f"{failures} replies in a row are missing, the last because: {last}. See to that, then run the command again: "
        "it asks for the missing replies only"
    )


def traced(replies: Sequence[Reply]) -> tuple[TracedReply, ...]:
    """Return the replies as a trace holds them, without errors."""
    return tuple(
        TracedReply(reply.text, reply.prompt_tokens, reply.completion_tokens, reply.finish_reason, reply.cached)
        for reply in replies
        if isinstance(reply, Completion)
    )
