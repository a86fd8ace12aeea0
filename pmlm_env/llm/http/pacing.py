"""Rate limiting of requests and tokens per minute."""

from __future__ import annotations


class Pacer:
    """Spaces requests evenly, so that no minute exceeds the limit (a token limit by at most one request).

    Requests are not sent in bursts, because an endpoint may count over any window of time.

    Args:
        per_minute: Number of requests, or tokens, that may start per minute; None = no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        """Allow the first request at once."""
        self._seconds = 0.0 if per_minute is None else 60 / per_minute  # per request or token
        self._free_at = float("-inf")

    def book(self, amount: float, now: float) -> float:
        """Reserve the next free slot.

        Args:
            amount: 1 request, or its number of tokens.
            now: Current time in seconds, on any clock.

        Returns:
            Seconds to wait.
        """
        start = max(now, self._free_at)
        self._free_at = start + amount * self._seconds
        return start - now

    def wait(self, now: float) -> float:
        """Return the seconds until the next free slot, without reserving it."""
        return max(0.0, self._free_at - now)

    def correct(self, amount: float) -> None:
        """Correct an earlier booking by ``amount``, which may be negative."""
        self._free_at += amount * self._seconds

    def hold(self, until: float) -> None:
        """Allow nothing before ``until``, because the endpoint asked for a pause."""
        self._free_at = max(self._free_at, until)
