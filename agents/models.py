"""The models of a run, created once and shared by all its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from agents.model_options import CallOptions, ModelOptions, replying
from agents.problem import Editor, MeteredReward, Problem
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.languages import is_chinese
from pmlm_env.encoders.base import load_encoder
from pmlm_env.llm import Budget, Limits, LLMOptions, Price, Usage, load_llm, price_of
from pmlm_env.llm.storage.budget import Account
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.pipeline.sent import check_sent
from pmlm_env.processes import current
from pmlm_env.rewards.base import BERTSCORE, CheckedReward
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.delta import DeltaReward
from pmlm_env.rewards.divided import DividedReward
from pmlm_env.rewards.registry import load_reward

#: The arguments of ``limited_llm``.
LimitedLLM: TypeAlias = tuple[LLMOptions, CallOptions, str, str | Path | None, Path | None]


def limited_llm(
    options: LLMOptions, calls: CallOptions, device: str, cache: str | Path | None, ledger: Path | None = None
) -> tuple[CachedLLM, Budget]:
    """Make an LLM that keeps its replies and its limits.

    Args:
        options: The LLM.
        calls: Its limits, and how it is called.
        device: Where it runs, if it runs in this process.
        cache: Where replies are stored, a file or a server's URL; None = in memory.
        ledger: The file of what is spent; None = in memory.
    """
    budget = Budget(calls, ledger, price_of(options), calls.budget_file)
    llm = load_llm(
        options, device=device, concurrency=calls.concurrency, cache=cache, replay=calls.replay, budget=budget
    )
    return llm, budget


class RunModels:
    """The encoder, LLM (with cache and spending record), scorer, and reward of one run.

    Args:
        options: Model options.
        calls: Options for LLM calls.
        folder: The run folder, where replies and spending are stored; None = store them in memory.
        training: Training patients, with whose letters some rewards compare replies; None = there are none.
        editors: Whether agents ask an LLM for edits.
        conditions: The conditions that replies are searched for; None = those of ``training``.

    Attributes:
        options: Model options, with ``scorer_layer`` set to the layer that BERTScore uses.
        calls: Options for LLM calls.
        encoder: The word encoder.
        llm: The LLM, with its cache.
        llm_arguments: What ``limited_llm`` makes it from, in another process too.
        budget: The LLM's limits, and its spending so far (``budget.usage``).
        scorer: BERTScore, for the tables, and for the default reward.
        reply_reward: The reward, which scores replies.
        folder: The run folder; None if there is none.
    """

    def __init__(
        self,
        options: ModelOptions,
        calls: CallOptions | None = None,
        folder: RunFolder | None = None,
        training: EpisodeSet | None = None,
        editors: bool = False,
        conditions: Iterable[Label] | None = None,
    ) -> None:
        """Set up the models; their weights load on first use."""
        self.calls, self.folder = calls or CallOptions(), folder
        self.encoder = load_encoder(options.encoder, options.encoder_kwargs, options.device)
        self._editors: dict[Editor, tuple[CachedLLM, Budget]] = {}
        self._sent: list[Path] = []
        ledger = None if folder is None else folder.spending
        kept = None if folder is None else folder.replies
        asked = replying(options, editors)
        self._cache = self.calls.cache or kept
        self.llm_arguments: LimitedLLM = asked, self.calls, options.device, self._cache, ledger
        self.llm, self.budget = limited_llm(*self.llm_arguments)
        idf = [episode.reference for episode in training or ()] if options.scorer_idf else None
        self.scorer = BertScorer(options.scorer, options.scorer_layer, options.device, options.long_texts, idf)
        self.reply_reward = load_reward(
            options.reward, options.reward_kwargs, options.device, self.scorer, training, conditions
        )
        self.options = replace(options, scorer_layer=self.scorer.num_layers)

    def reward(self, episodes: EpisodeSet) -> DeltaReward:
        """Create the reward for some episodes; reuse the object, because it stores their initial replies.

        If several processes run the command, each scores its share.

        Raises:
            ValueError: The episodes are Chinese, and the scorer does not know Chinese.
        """
        self.scorer.check_reads(episode.reference for episode in episodes if is_chinese(episode.language))
        parts = episodes, self.llm, self.reply_reward, self.options.n_samples, self.calls.max_failures
        return DeltaReward(*parts) if current().size == 1 else DividedReward(current(), *parts)

    def check_sent(self, folder: Path) -> None:
        """Check that the run's LLMs may get the prompts of a prepared folder; see ``pmlm_env.pipeline.sent``.

        An LLM that an agent itself asks for edits is checked when ``editor`` makes it.

        Raises:
            ValueError: They contain values of the patients' records, an LLM is on another machine, and the user does
                not allow it.
        """
        check_sent(folder, self.llm, self.calls.send_values)
        self._sent.append(folder)

    def editor(self, editor: Editor) -> CachedLLM:
        """Make the LLM that an agent itself asks for edits, once.

        Its replies go into the run's cache, and the run's file of providers holds for it. Its calls are booked on their
        own, and in the run's budget too, whose limits hold for all LLMs together.

        Raises:
            ValueError: There is no such LLM, or it must not get the prompts; see ``check_sent``.
            LLMError: It cannot be used at all, for example without a key.
        """
        if editor not in self._editors:
            options = editor.options(self.options.providers)
            ledger = None if self.folder is None else self.folder.editor_spending
            price = Price(0.0, 0.0) if editor.in_process else price_of(options)
            budget = Budget(Limits(editor.max_calls), ledger, price, within=self.budget)
            device, replay = self.options.device, self.calls.replay
            llm = load_llm(options, device=device, cache=self._cache, replay=replay, budget=budget)
            for folder in self._sent:
                check_sent(folder, llm, self.calls.send_values)
            self._editors[editor] = llm, budget
        return self._editors[editor][0]

    @property
    def own_reward(self) -> CheckedReward | None:
        """The reward, if it is another than BERTScore F1, which all tables have."""
        return self.reply_reward if self.options.reward != BERTSCORE else None

    def spent(self) -> dict[str, float]:
        """Return what the run has spent so far, and how many replies this process got from the cache.

        If an agent itself asks an LLM, what that has spent is included, and once more by itself (``editor_...``).
        """
        usage = self.budget.usage
        hits = self.llm.hits + sum(llm.hits for llm, _ in self._editors.values())
        own = [budget.usage for _, budget in self._editors.values()][:1]  # they share a file
        if not own and self.folder is not None and self.folder.editor_spending.is_file():  # of earlier runs or workers
            own = [Account(path=self.folder.editor_spending).usage]
        return {
            **_amounts(usage),
            "cached_replies": hits,
            **{f"editor_{name}": amount for each in own for name, amount in _amounts(each).items()},
        }

    def check_kept(self) -> None:
        """Check that the run's spending record and cached replies exist, before resuming it.

        Raises:
            ValueError: One of them is missing.
            DatabaseError: One of them is damaged.
        """
        if self.folder is None:
            return
        self.folder.check_spending()
        file = self.llm.cache.path
        if self.budget.usage.calls and file is not None and not file.is_file():
            raise ValueError(
                f"{file}, the cache of the replies to {self.budget.usage.calls} calls, is missing: put it back, or, "
                f"to request and pay for these replies again, create an empty file (touch {file})"
            )
        len(self.llm.cache)

    @contextmanager
    def booking(self) -> Iterator[None]:
        """Write ``spent.json`` into the folder on exit, also after an error."""
        try:
            yield
        except BaseException:
            with suppress(OSError, RuntimeError):  # so that the original error is raised
                self.write_spent()
            raise
        self.write_spent()

    def write_spent(self) -> None:
        """Write ``spent.json`` into the folder, if there is one."""
        if self.folder is not None:
            self.folder.write_spent(self.spent())

    def problem(self, episodes: EpisodeSet, reward: MeteredReward | None, max_words: int | None = None) -> Problem:
        """Create the ``Problem`` for some episodes, with this run's encoder, edit budget, and protected words."""
        return Problem(
            episodes, self.encoder, reward, self.options.n_edits, max_words, self.options.protect, self.editor
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent in each model so far, in seconds."""
        llms = [self.llm, *(llm for llm, _ in self._editors.values())]
        return {
            "llm": sum(llm.seconds for llm in llms),
            "encoder": self.encoder.seconds,
            "scorer": self.reply_reward.seconds,
        }


def _amounts(usage: Usage) -> dict[str, float]:
    return {
        "llm_calls": usage.calls,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cost": round(usage.cost, 9),
    }
