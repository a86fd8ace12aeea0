"""Accounting of LLM calls, and limits that are never exceeded if the LLM respects ``max_tokens``.

Each call is booked at its upper bound before it is sent, so that limits hold whatever the replies cost. This assumes
that an endpoint bills no more tokens than requested. With a limit on tokens or cost, the first request is therefore
sent alone, and the first reply that is billed above its bound ends the run; only requests in flight are still billed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pmlm_env.io.toml import read_toml, shown
from pmlm_env.llm.storage.database import DatabaseError
from pmlm_env.llm.storage.location import open_storage

_SCHEMA = (
    """CREATE TABLE spent (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL)""",
    "INSERT INTO spent VALUES (1, 0, 0, 0, 0.0)",
)
_SELECT_SPENT = "SELECT calls, prompt_tokens, completion_tokens, cost FROM spent"

_logger = logging.getLogger(__name__)
#: Larger limits and prices are surely mistakes, and would not fit into the ledger.
MAX_AMOUNT = 10**15
#: Usage field -> the limit on it and its name in messages.
_LIMITS = {
    "calls": ("max_llm_calls", "LLM call"),
    "prompt_tokens": ("max_prompt_tokens", "prompt token"),
    "completion_tokens": ("max_completion_tokens", "completion token"),
    "cost": ("max_cost", "cost"),
}

#: Generous bound on the tokens that a chat template adds to a prompt.
_TEMPLATE_TOKENS = 100


class BudgetExceededError(RuntimeError):
    """The next call might exceed a limit, or a limit cannot be guaranteed. The call was not sent."""


class Usage(NamedTuple):
    """What was spent.

    Attributes:
        calls: Requests sent, including retries and failures; for an LLM in this process, prompts with a reply.
        prompt_tokens: Prompt tokens.
        completion_tokens: Completion tokens.
        cost: Cost in the currency of the prices; 0 without prices.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def minus(self, other: Usage) -> Usage:
        """Return the difference."""
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cost - other.cost,
        )


@dataclass(frozen=True)
class Limits:
    """Limits on what may be spent; None = no limit.

    Attributes:
        max_llm_calls: LLM calls, including retries and failures; cached replies are free.
        max_prompt_tokens: Prompt tokens.
        max_completion_tokens: Completion tokens.
        max_cost: Cost, in the currency of the prices in the providers' file.
    """

    max_llm_calls: int | None = None
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ValueError: A limit is negative or too large.
        """
        for name in Limits.__dataclass_fields__:  # not those of a subclass
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= MAX_AMOUNT:
                raise ValueError(f"{name} is {limit}: a limit must be 0 or more, and at most {MAX_AMOUNT:.0e}")

    def check(self, spent: Usage, requested: Usage, owner: str = "") -> None:
        """Check that ``requested`` fits into the limits.

        Args:
            spent: What is spent or reserved.
            requested: What is to be added.
            owner: Whose limits these are, for messages, such as " of group.toml".

        Raises:
            BudgetExceededError: It does not fit.
        """
        for name, (field, noun) in _LIMITS.items():
            limit = getattr(self, field)
            before = getattr(spent, name)
            if limit is not None and before + getattr(requested, name) > limit * (1 + 1e-12):
                raise BudgetExceededError(
                    f"the next LLM call would exceed the {noun} limit of {limit:,}{owner} ({before:,.6g} spent or "
                    "reserved): raise it and run the command again"
                )


@dataclass(frozen=True)
class Price:
    """Price of a million tokens, in any currency.

    Attributes:
        prompt: Price of prompt tokens.
        completion: Price of completion tokens.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        """Check the prices.

        Raises:
            ValueError: A price is negative or too large.
        """
        for name in ("prompt", "completion"):
            price = getattr(self, name)
            if not 0 <= price <= MAX_AMOUNT:
                raise ValueError(
                    f"the price of {name} tokens is {price}: it must be 0 or more, at most {MAX_AMOUNT:.0e}"
                )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of tokens."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Account:
    """Record of what was spent, with limits, in a file that several processes can share.

    Args:
        limits: Limits on the sum of what all processes spend.
        path: The file; None = in memory.
        owner: Whose limits these are, for messages, such as " of group.toml".
    """

    def __init__(self, limits: Limits | None = None, path: str | Path | None = None, owner: str = "") -> None:
        """Store the arguments; the file is created at first use."""
        self.limits = limits or Limits()
        self._owner = owner
        self._ledger = open_storage(path, "record of spending", _SCHEMA)

    @property
    def usage(self) -> Usage:
        """What was spent so far, with calls in flight at their upper bounds."""
        rows = self._ledger.read(_SELECT_SPENT)
        return Usage(*rows[0]) if rows else Usage()

    def check_writable(self) -> None:
        """Create the file if missing, and check that it can be written.

        Raises:
            DatabaseError: It cannot be written.
        """
        self._ledger.check_writable()

    def add(self, usage: Usage, *, check: bool = False) -> None:
        """Book ``usage``; with ``check``, only if it fits into the limits.

        Raises:
            BudgetExceededError: It does not fit; nothing is booked.
        """
        with self._ledger.transaction() as ledger:
            if check:
                self.limits.check(Usage(*ledger.execute(_SELECT_SPENT).fetchone()), usage, self._owner)
            ledger.execute(
                "UPDATE spent SET calls = calls + ?, prompt_tokens = prompt_tokens + ?, "
                "completion_tokens = completion_tokens + ?, cost = cost + ?",
                usage,
            )


class Budget:
    """Books every call at its upper bound before it is sent, and corrects the entry when the actual usage is known.

    A call in flight when the process is killed stays booked, because the endpoint may have billed it.

    Args:
        limits: Limits of this run.
        path: The run's ledger; None = in memory.
        price: The model's price; None = free.
        group: A TOML file with limits (``max_llm_calls``, ...) that all runs which name it share. The file of what they
            spent is beside it, with ``.spent.sqlite`` added to the name.
        within: Another budget that these calls are booked in too, and whose limits they must fit into.

    Raises:
        ValueError: There is a cost limit but no price, or the group's file is invalid.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        path: str | Path | None = None,
        price: Price | None = None,
        group: str | Path | None = None,
        within: Budget | None = None,
    ) -> None:
        """Check the limits and the price."""
        self.run = Account(limits, path)
        self.accounts: list[Account] = [self.run]
        if within is not None:
            self.accounts += within.accounts
        if group is not None:
            self.accounts.append(Account(_read_limits(Path(group)), f"{group}.spent.sqlite", f" of {group}"))
        if price is None and any(account.limits.max_cost is not None for account in self.accounts):
            raise ValueError(
                'max_cost needs the model\'s price: write it into a TOML file under [PROVIDER.prices."MODEL"], '
                "prompt = ..., completion = ... (per million tokens), and name the file with --providers"
            )
        self.price = price or Price(0.0, 0.0)
        self._stop_reason = ""  # why no more requests are allowed
        self._warned = False

    @property
    def usage(self) -> Usage:
        """What this run has spent so far."""
        return self.run.usage

    def check_writable(self) -> None:
        """Check that calls can be booked, before any work that needs them.

        Raises:
            DatabaseError: A file cannot be written.
        """
        for account in self.accounts:
            account.check_writable()

    @property
    def limits_tokens(self) -> bool:
        """Whether there is a limit on tokens or cost, which an endpoint's bill may exceed."""
        return self._limited(("prompt_tokens", "completion_tokens", "cost"))

    def _limited(self, names: Sequence[str]) -> bool:
        limits = [getattr(account.limits, _LIMITS[name][0]) for account in self.accounts for name in names]
        return any(limit is not None for limit in limits)

    def reserve(self, prompt: str, max_tokens: int) -> Usage:
        """Book a call at its upper bound: one prompt token per byte, which byte-level tokenizers never exceed.

        Args:
            prompt: Everything that is sent, including the system prompt.
            max_tokens: Maximum number of completion tokens.

        Returns:
            What was booked.

        Raises:
            BudgetExceededError: The call does not fit into the limits, or a limit cannot be guaranteed; nothing is
                booked.
        """
        if self._stop_reason:
            raise BudgetExceededError(self._stop_reason)
        booked = self.bound(prompt, max_tokens)
        booked_accounts: list[Account] = []
        try:
            for account in self.accounts:
                account.add(booked, check=True)
                booked_accounts.append(account)
        except BaseException:
            for account in booked_accounts:
                account.add(Usage().minus(booked))
            raise
        return booked

    def bound(self, prompt: str, max_tokens: int) -> Usage:
        """Return the upper bound at which ``reserve`` books a call."""
        prompt_tokens = len(prompt.encode("utf-8", "surrogatepass")) + _TEMPLATE_TOKENS
        return Usage(1, prompt_tokens, max_tokens, self.price.cost(prompt_tokens, max_tokens))

    def settle(self, booked: Usage, prompt_tokens: int, completion_tokens: int, calls: int = 1) -> None:
        """Replace the booked upper bound of a call by its actual usage.

        Args:
            booked: What ``reserve`` returned.
            prompt_tokens: Prompt tokens.
            completion_tokens: Completion tokens.
            calls: 0 if the call was never sent.
        """
        cost = self.price.cost(prompt_tokens, completion_tokens)
        actual = Usage(calls, prompt_tokens, completion_tokens, cost)
        for account in self.accounts:
            with suppress(DatabaseError):  # then the upper bound stays booked and the next reserve fails
                account.add(actual.minus(booked))
        self._check_bill(booked, actual)

    def _check_bill(self, booked: Usage, actual: Usage) -> None:
        """Stop if a call was billed above its bound and a limit depends on it, because later calls may be, too."""
        exceeded = [
            name for name in ("prompt_tokens", "completion_tokens") if getattr(actual, name) > getattr(booked, name)
        ]
        if not exceeded:
            return
        what = "a reply was billed at " + " and ".join(
            f"{getattr(actual, name):,} {_LIMITS[name][1]}s instead of at most {getattr(booked, name):,}"
            for name in exceeded
        )
        if not self._warned:
            self._warned = True
            _logger.warning("%s: the LLM does not respect the token limit", what)
        if self._limited([*exceeded, "cost"]):
            self._stop_reason = (
                f"{what}, so a limit on tokens or cost cannot be guaranteed, and no more requests are sent: turn "
                "reasoning off, or remove the limit, and run the command again"
            )


def _read_limits(path: Path) -> Limits:
    table = read_toml(path)
    known = list(Limits.__dataclass_fields__)
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{path}: unknown {name!r}; the limits are {', '.join(known)}")
        allowed = (int, float) if name == "max_cost" else (int,)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ValueError(
                f"{path}: {name} is {shown(value)}: it should be {'a number' if float in allowed else 'a whole number'}"
            )
    try:
        return Limits(**table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
