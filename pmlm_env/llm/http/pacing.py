"""Keeping to an endpoint's limits on requests and tokens per minute."""

from __future__ import annotations


class Pacer:
    """Spaces things evenly, so that in no minute there are more than allowed (of tokens: and one request's beyond).

    Evenly, and not in bursts: an endpoint may count over any window of time.

    Args:
        per_minute: How many may start in a minute (requests, or tokens); None = as many as you like.
    """

    def __init__(self, per_minute: float | None) -> None:
        """Let the first one go at once."""
        self._seconds = 0.0 if per_minute is None else 60 / per_minute  # that each one takes
        self._free_at = float("-inf")

    def book(self, amount: float, now: float) -> float:
        """Take a place in the row.

        Args:
            amount: How many (1 request, or its tokens).
            now: Seconds, on any clock.

        Returns:
            How long to wait, in seconds.
        """
        start = max(now, self._free_at)
        self._free_at = start + amount * self._seconds
        return start - now

    def correct(self, amount: float) -> None:
        """Book ``amount`` more (or, below zero, less) than was thought."""
        self._free_at += amount * self._seconds

    def hold(self, until: float) -> None:
        """Let nothing more go before ``until``, for the endpoint has asked for a pause."""
        self._free_at = max(self._free_at, until)
