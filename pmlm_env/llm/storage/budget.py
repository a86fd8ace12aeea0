"""What the LLM has cost, and limits that are never overshot by an LLM that keeps to ``max_tokens``.

A call is booked at its upper bound before it is sent, so that limits hold whatever replies cost. That rests on the
endpoint: it must bill no more tokens than it was asked for. Under a limit on tokens or money the first request goes
alone, and the first answer that is billed above its bound ends the run; only what is under way then is still billed.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pmlm_env.io.toml import read_toml, shown
from pmlm_env.llm.base import LLM, Completion, Reply, Request
from pmlm_env.llm.storage.database import Database, DatabaseError

_SCHEMA = (
    """CREATE TABLE spent (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL)""",
    "INSERT INTO spent VALUES (1, 0, 0, 0, 0.0)",
)
_SPENT = "SELECT calls, prompt_tokens, completion_tokens, cost FROM spent"

_LOG = logging.getLogger(__name__)
#: A larger limit or price is a slip, and would not fit into the ledger.
MOST = 10**15
#: Limits by what they hold back, each with what the amount is called.
_WORDS = {
    "calls": ("max_llm_calls", "LLM calls"),
    "prompt_tokens": ("max_prompt_tokens", "prompt tokens"),
    "completion_tokens": ("max_completion_tokens", "completion tokens"),
    "cost": ("max_cost", "of money"),
}

#: What a chat template adds to a prompt, in tokens, with room to spare.
_TEMPLATE_TOKENS = 100


class BudgetExceededError(RuntimeError):
    """The next call might go over a limit, or limits cannot be kept. It was not sent."""


class Usage(NamedTuple):
    """What was spent.

    Attributes:
        calls: Requests sent, repeated and failed ones too; for an LLM in this process, prompts replied to.
        prompt_tokens: Tokens in.
        completion_tokens: Tokens out.
        cost: Money, in the currency of the prices; 0 where none are given.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def minus(self, other: Usage) -> Usage:
        """Take away."""
        return Usage(
            self.calls - other.calls,
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.cost - other.cost,
        )


@dataclass(frozen=True)
class Limits:
    """Most that may be spent; None = no limit.

    Attributes:
        max_llm_calls: LLM calls, repeated and failed ones too; kept replies are free.
        max_prompt_tokens: Tokens in.
        max_completion_tokens: Tokens out.
        max_cost: Money, in the currency of the prices in the providers' file.
    """

    max_llm_calls: int | None = None
    max_prompt_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ValueError: One is negative, or no number of use.
        """
        for name in Limits.__dataclass_fields__:  # not those of a subclass
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= MOST:
                raise ValueError(f"{name} is {limit}: a limit must be 0 or more, and at most {MOST:.0e}")

    def check(self, spent: Usage, asked: Usage, whose: str = "") -> None:
        """Raise where ``asked`` does not fit into what is left; the error says ``whose`` limit it is.

        Raises:
            BudgetExceededError: It does not.
        """
        for name, (field, unit) in _WORDS.items():
            limit = getattr(self, field)
            before = getattr(spent, name)
            if limit is not None and before + getattr(asked, name) > limit * (1 + 1e-12):
                raise BudgetExceededError(
                    f"the next LLM call would go over the limit of {limit:,} {unit}{whose} ({before:,.6g} are spent or "
                    "on their way): raise it and run the command again (pmlm train with --resume)"
                )


@dataclass(frozen=True)
class Price:
    """What a model charges for a million tokens, in any one currency.

    Attributes:
        prompt: Tokens in.
        completion: Tokens out.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        """Check the prices.

        Raises:
            ValueError: One is negative, or no number of use.
        """
        for name in ("prompt", "completion"):
            price = getattr(self, name)
            if not 0 <= price <= MOST:
                raise ValueError(f"the price of {name} tokens is {price}: it must be 0 or more, at most {MOST:.0e}")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what these tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class Account:
    """What was spent, in a file that outlives the process and that many processes may share, under limits.

    Args:
        limits: Most that all who share the file may spend.
        path: The file; None = in memory.
        whose: What errors say after the limit, as in " of group.toml".
    """

    def __init__(self, limits: Limits | None = None, path: str | Path | None = None, whose: str = "") -> None:
        """Name the file; it is made at the first use."""
        self.limits = limits or Limits()
        self._whose = whose
        self._ledger = Database(path, "record of spending", _SCHEMA)

    @property
    def usage(self) -> Usage:
        """What was spent so far, calls under way at their upper bounds."""
        rows = self._ledger.read(_SPENT)
        return Usage(*rows[0]) if rows else Usage()

    def check_writable(self) -> None:
        """Make the file, if it is not there, and see that it can be written.

        Raises:
            DatabaseError: It cannot.
        """
        self._ledger.check_writable()

    def add(self, usage: Usage, *, check: bool = False) -> None:
        """Book ``usage``; with ``check`` only if it fits.

        Raises:
            BudgetExceededError: It does not fit; nothing is booked.
        """
        with self._ledger.transaction() as ledger:
            if check:
                self.limits.check(Usage(*ledger.execute(_SPENT).fetchone()), usage, self._whose)
            ledger.execute(
                "UPDATE spent SET calls = calls + ?, prompt_tokens = prompt_tokens + ?, "
                "completion_tokens = completion_tokens + ?, cost = cost + ?",
                usage,
            )


class Budget:
    """Books every call before it is sent, at its upper bound, and corrects the entry when the bill is known.

    A call that is under way when the process is killed stays booked: the endpoint may have billed it.

    Args:
        limits: Of this run.
        path: The run's ledger; None = in memory.
        price: What the model charges; without, everything costs 0.
        group: A TOML file with limits (``max_llm_calls``, ...) that all runs which name it share; what they spent
            lies beside it, in a file with ``.spent.sqlite`` added to the name.

    Raises:
        ValueError: There is a limit on money but no price, or the group's file is not as it should be.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        path: str | Path | None = None,
        price: Price | None = None,
        group: str | Path | None = None,
    ) -> None:
        """Check that the limits can be kept."""
        self.run = Account(limits, path)
        self.accounts = [self.run]
        if group is not None:
            self.accounts.append(Account(_read_limits(Path(group)), f"{group}.spent.sqlite", f" of {group}"))
        if price is None and any(account.limits.max_cost is not None for account in self.accounts):
            raise ValueError(
                'max_cost needs the model\'s price: write it into a TOML file under [PROVIDER.prices."MODEL"], '
                "prompt = ..., completion = ... (per million tokens), and name the file with --providers"
            )
        self.price = price or Price(0.0, 0.0)
        self._cannot_be_kept = ""  # why no more is asked for
        self._warned = False

    @property
    def usage(self) -> Usage:
        """What this run has spent so far."""
        return self.run.usage

    def check_writable(self) -> None:
        """See that calls can be booked, before anything is done that needs them.

        Raises:
            DatabaseError: They cannot.
        """
        for account in self.accounts:
            account.check_writable()

    @property
    def limits_tokens(self) -> bool:
        """Whether there is a limit on tokens or money, which an endpoint may break by what it bills."""
        return self._limited(("prompt_tokens", "completion_tokens", "cost"))

    def _limited(self, names: Sequence[str]) -> bool:
        limits = [getattr(account.limits, _WORDS[name][0]) for account in self.accounts for name in names]
        return any(limit is not None for limit in limits)

    def reserve(self, prompt: str, max_tokens: int) -> Usage:
        """Book a call at its upper bound: a token for each byte, which is the most that tokenizers of bytes make of it.

        Args:
            prompt: All that is sent, the system prompt too.
            max_tokens: Most tokens that may come back.

        Returns:
            What was booked.

        Raises:
            BudgetExceededError: It does not fit into what is left, or a limit cannot be kept; nothing is booked.
        """
        if self._cannot_be_kept:
            raise BudgetExceededError(self._cannot_be_kept)
        prompt_tokens = len(prompt.encode("utf-8", "surrogatepass")) + _TEMPLATE_TOKENS
        booked = Usage(1, prompt_tokens, max_tokens, self.price.cost(prompt_tokens, max_tokens))
        done: list[Account] = []
        try:
            for account in self.accounts:
                account.add(booked, check=True)
                done.append(account)
        except BaseException:
            for account in done:
                account.add(Usage().minus(booked))
            raise
        return booked

    def settle(self, booked: Usage, prompt_tokens: int, completion_tokens: int, calls: int = 1) -> None:
        """Put what a call has really cost in the place of what was booked for it.

        Args:
            booked: What ``reserve`` returned.
            prompt_tokens: Tokens in.
            completion_tokens: Tokens out.
            calls: 0 where it was never sent.
        """
        cost = self.price.cost(prompt_tokens, completion_tokens)
        real = Usage(calls, prompt_tokens, completion_tokens, cost)
        for account in self.accounts:
            with suppress(DatabaseError):  # then the upper bound stays, the reply is kept, and nothing more is booked
                account.add(real.minus(booked))
        self._see_whether_overbilled(booked, real)

    def _see_whether_overbilled(self, booked: Usage, real: Usage) -> None:
        """Take note of a bill above its bound: later calls may be, too, whatever is booked for them."""
        over = [name for name in ("prompt_tokens", "completion_tokens") if getattr(real, name) > getattr(booked, name)]
        if not over:
            return
        what = "a reply was billed at " + " and ".join(
            f"{getattr(real, name):,} {_WORDS[name][1]} instead of {getattr(booked, name):,} at most" for name in over
        )
        if not self._warned:
            self._warned = True
            _LOG.warning("%s: the LLM does not keep to what it is asked for", what)
        if self._limited([*over, "cost"]):
            self._cannot_be_kept = (
                f"{what}, so that a limit on tokens or money cannot be kept, and no more is asked: switch thinking "
                "off, or leave the limit out, and run the command again (pmlm train with --resume)"
            )


class BudgetedLLM(LLM):
    """Books the calls of an LLM that runs in this process; one behind an endpoint books each request by itself.

    Args:
        llm: Who is asked.
        budget: Where it is booked. Put this inside the cache, so that kept replies are free.
        max_tokens: Most tokens of a reply.
    """

    def __init__(self, llm: LLM, budget: Budget, max_tokens: int) -> None:
        """Spend nothing."""
        self.llm, self.budget, self.max_tokens = llm, budget, max_tokens

    @property
    def identity(self) -> str:
        """The inner LLM's."""
        return self.llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to as many requests as the budget lets through; what gets no reply costs nothing.

        Raises:
            BudgetExceededError: The others were not asked.
        """
        left = list(range(len(requests)))
        while left:
            booked = self._book(requests, left)
            places = list(booked)
            try:
                with closing(self.llm.replies([requests[place] for place in places])) as lots:
                    for lot in lots:
                        out = {places[i]: reply for i, reply in lot.items()}
                        for place, reply in out.items():
                            if isinstance(reply, Completion):
                                self.budget.settle(booked.pop(place), reply.prompt_tokens, reply.completion_tokens)
                        yield out
            finally:
                for usage in booked.values():
                    self.budget.settle(usage, 0, 0, calls=0)
            left = left[len(places) :]  # what did not fit at its upper bound may fit beside what was really spent

    def _book(self, requests: Sequence[Request], places: Sequence[int]) -> dict[int, Usage]:
        """Book as many requests as fit, one at least."""
        booked: dict[int, Usage] = {}
        for place in places:
            try:
                booked[place] = self.budget.reserve(requests[place].prompt, self.max_tokens)
            except BudgetExceededError:
                if not booked:
                    raise
                break
        return booked


def _read_limits(path: Path) -> Limits:
    table = read_toml(path)
    known = list(Limits.__dataclass_fields__)
    for name, value in table.items():
        if name not in known:
            raise ValueError(f"{path}: unknown {name!r}; the limits are {', '.join(known)}")
        right = (int, float) if name == "max_cost" else (int,)
        if isinstance(value, bool) or not isinstance(value, right):
            raise ValueError(
                f"{path}: {name} is {shown(value)}: it should be {'a number' if float in right else 'a whole number'}"
            )
    try:
        return Limits(**table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
