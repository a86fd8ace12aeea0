"""The models of a run, put together once and shared by everything in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from agents.model_options import CallOptions, ModelOptions
from agents.problem import MeteredReward, Problem
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.llm import Budget, load_llm, price_of
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.delta import DeltaReward


class RunModels:
    """Encoder, LLM (cached, booked) and scorer of one run.

    Args:
        options: Which models.
        calls: How the LLM is asked.
        folder: The run folder, where replies and spending are kept; None = in memory.

    Attributes:
        options: Which models, with the layer that BERTScore compares, be it chosen or the default.
        calls: How the LLM is asked.
        encoder: The words' encoder.
        llm: The LLM behind its cache.
        budget: What it has spent: ``budget.usage``.
        scorer: BERTScore.
        folder: Likewise.
    """

    def __init__(
        self, options: ModelOptions, calls: CallOptions | None = None, folder: RunFolder | None = None
    ) -> None:
        """Name the models; weights load at their first use."""
        self.calls, self.folder = calls or CallOptions(), folder
        self.encoder = WordEncoder(options.encoder, options.device)
        ledger = None if folder is None else folder.spending
        kept = None if folder is None else folder.replies
        self.budget = Budget(self.calls, ledger, price_of(options), self.calls.budget_file)
        self.llm = load_llm(
            options,
            device=options.device,
            concurrency=self.calls.concurrency,
            cache=self.calls.cache or kept,
            replay=self.calls.replay,
            budget=self.budget,
        )
        self.scorer = BertScorer(options.scorer, options.scorer_layer, options.device, options.long_texts)
        self.options = replace(options, scorer_layer=self.scorer.num_layers)

    def reward(self, episodes: EpisodeSet) -> DeltaReward:
        """Make the reward of some episodes; keep it, for it remembers their initial replies."""
        return DeltaReward(episodes, self.llm, self.scorer, self.options.n_samples, self.calls.max_failures)

    def spent(self) -> dict[str, float]:
        """What the run has spent so far, and how many replies of this process were kept ones."""
        usage = self.budget.usage
        return {
            "llm_calls": usage.calls,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cost": round(usage.cost, 9),
            "cached_replies": self.llm.hits,
        }

    def check_kept(self) -> None:
        """See that what a run has spent and the replies it has had are there, before it goes on and spends more.

        Raises:
            ValueError: They are not.
            DatabaseError: They are damaged.
        """
        if self.folder is None:
            return
        self.folder.check_spending()
        file = self.llm.cache.path
        if self.budget.usage.calls and file is not None and not file.is_file():
            raise ValueError(
                f"{file} is missing, and with it the replies that {self.budget.usage.calls} LLM calls brought: put it "
                f"back, or, to ask for them again and pay again, make an empty one (touch {file})"
            )
        len(self.llm.cache)

    @contextmanager
    def booking(self) -> Iterator[None]:
        """Leave ``spent.json`` in the folder at the end, however it comes."""
        try:
            yield
        except BaseException:
            with suppress(OSError, RuntimeError):  # what went wrong first is what counts
                self.write_spent()
            raise
        self.write_spent()

    def write_spent(self) -> None:
        """Write ``spent.json`` into the folder, if there is one."""
        if self.folder is not None:
            self.folder.write_spent(self.spent())

    def problem(self, episodes: EpisodeSet, reward: MeteredReward | None, max_words: int | None = None) -> Problem:
        """Return some patients' prompts as an agent sees them; see ``Problem``."""
        return Problem(episodes, self.encoder, reward, self.options.n_edits, max_words, self.options.protect)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent inside each model so far."""
        return {"llm": self.llm.seconds, "encoder": self.encoder.seconds, "scorer": self.scorer.seconds}
