"""The models of a run, put together once and shared by everything in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.run_folder import RunFolder, one_path
from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.task import EditTask
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import Budget, Limits, LLMOptions, load_llm, price_of
from pmlm_env.rewards.bertscore import BertScorer, LongTexts
from pmlm_env.rewards.delta import DeltaReward


@dataclass(frozen=True)
class ModelOptions(LLMOptions):
    """Which models, where, and how many words go: all that decides a run's figures.

    Attributes:
        n_samples: Replies to each prompt, whose mean F1 counts; more than 1 for an LLM that does not always reply
            alike.
        encoder: The words' encoder: ``minilm``, a directory or a hub name.
        scorer: BERTScore's model: likewise.
        scorer_layer: The layer whose states BERTScore compares; by default bert-score's own for the model, or the one
            at three quarters of its depth.
        long_texts: What BERTScore does with texts beyond the scorer's input, which is 512 pieces as a rule: ``cut``
            them, or embed them in ``chunks`` and compare all of them.
        n_edits: Deletions per prompt (the paper's n).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    n_samples: int = 1
    encoder: str = "minilm"
    scorer: str = "minilm"
    scorer_layer: int | None = None
    long_texts: LongTexts = "cut"
    n_edits: int = 10
    device: str = "auto"


@dataclass(frozen=True)
class CallOptions(Limits):
    """How the LLM is asked: may change from one part of a run to the next.

    Attributes:
        budget_file: A TOML file with limits that several runs share; see docs/llm.
        cache: The file where replies are kept; by default ``replies.sqlite`` in the run folder.
        replay: Ask nobody: every reply must be in the cache.
        concurrency: Most requests under way at once; the provider's by default.
        max_failures: So many episodes in a row without a reply stop the run.
    """

    budget_file: Path | None = None
    cache: Path | None = None
    replay: bool = False
    concurrency: int | None = None
    max_failures: int | None = 64

    def over(self, saved: Mapping[str, Any]) -> CallOptions:
        """Return these options, and those of ``saved`` (as config.json has them) where these are the defaults.

        Raises:
            ValueError: The replies were kept elsewhere.
        """
        usual = CallOptions()
        values = {
            name: value if value != getattr(usual, name) else saved.get(name, value)
            for name, value in vars(self).items()
        }
        if self.cache is not None and not one_path(str(self.cache), saved.get("cache")):
            where = saved.get("cache") or "the run folder"
            raise ValueError(f"the replies of this run are kept in {where}: leave --cache out")
        paths = {name: Path(values[name]) for name in ("budget_file", "cache") if values[name] is not None}
        return CallOptions(**{**values, **paths})


class Workbench:
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

    def env(self, rows: int, episodes: EpisodeSet, reward: DeltaReward, policy: WordPolicy) -> PMLMVectorEnv:
        """Make a vector env as ``agents.policies.rollout.play`` wants it, with what ``policy`` looks at."""
        task = EditTask(episodes, self.encoder, reward, EditRules(self.options.n_edits), policy.observation)
        return PMLMVectorEnv(rows, autoreset_mode="Disabled", array_type="torch", task=task)

    def policy(
        self, episodes: EpisodeSet, hidden: int, dropout: float, normalize: bool, lexicon: bool = False
    ) -> WordPolicy:
        """Make an untrained policy that fits the encoder and the patient vectors; with a lexicon of ``episodes``."""
        config = PolicyConfig(
            self.encoder.hidden_size,
            episodes.vectors.shape[1],
            hidden,
            dropout,
            normalize,
            encoder=self.options.encoder,
            n_edits=self.options.n_edits,
        )
        return WordPolicy(config, Lexicon.of(episodes) if lexicon else None).to(self.encoder.device)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent inside each model so far."""
        return {"llm": self.llm.seconds, "encoder": self.encoder.seconds, "scorer": self.scorer.seconds}
