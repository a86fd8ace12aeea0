"""The models of a run, put together once and shared by everything in it."""

from __future__ import annotations

from dataclasses import dataclass

from agents.policy import PolicyConfig, WordPolicy
from pmlm_env.encoder import WordEncoder
from pmlm_env.episodes import EpisodeSet
from pmlm_env.llm import BudgetedLLM, CachedLLM, load_llm
from pmlm_env.reward import BertScorer, DeltaReward
from pmlm_env.vector_env import PMLMVectorEnv


@dataclass(frozen=True)
class ModelOptions:
    """Which models, where, and how many words go.

    Attributes:
        llm: The downstream LLM: ``local:NAME_OR_DIR``, ``openai:MODEL`` or ``responder``.
        base_url: The endpoint of ``openai:``.
        max_new_tokens: Where a reply is cut.
        encoder: The words' encoder: ``minilm``, a directory or a hub name.
        scorer: BERTScore's model: likewise.
        n_edits: Deletions per prompt (the paper's n).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_llm_calls: Most LLM calls of the whole run; None = no limit.
    """

    llm: str = "local:smollm2-135m"
    base_url: str | None = None
    max_new_tokens: int = 48
    encoder: str = "minilm"
    scorer: str = "minilm"
    n_edits: int = 10
    device: str = "auto"
    max_llm_calls: int | None = None


class Workbench:
    """Encoder, LLM (cached, counted) and scorer of one run.

    Attributes:
        options: As given.
        encoder: The words' encoder.
        budget: The LLM with its meter: ``budget.usage``.
        llm: The same behind a cache.
        scorer: BERTScore.
    """

    def __init__(self, options: ModelOptions) -> None:
        """Name the models; weights load at their first use."""
        self.options = options
        self.encoder = WordEncoder(options.encoder, options.device)
        model = load_llm(
            options.llm,
            base_url=options.base_url,
            max_new_tokens=options.max_new_tokens,
            device=options.device,
        )
        self.budget = BudgetedLLM(model, options.max_llm_calls)
        self.llm = CachedLLM(self.budget)
        self.scorer = BertScorer(options.scorer, device=options.device)

    def reward(self, episodes: EpisodeSet) -> DeltaReward:
        """Make the reward of some episodes; keep it, for it remembers their initial replies."""
        return DeltaReward(episodes, self.llm, self.scorer)

    def env(self, rows: int, episodes: EpisodeSet, reward: DeltaReward) -> PMLMVectorEnv:
        """Make a vector env as ``agents.rollout.play`` wants it."""
        return PMLMVectorEnv(
            rows,
            autoreset_mode="Disabled",
            array_type="torch",
            episodes=episodes,
            encoder=self.encoder,
            reward=reward,
            n_edits=self.options.n_edits,
        )

    def policy(self, episodes: EpisodeSet, hidden: int, dropout: float, normalize: bool) -> WordPolicy:
        """Make an untrained policy that fits the encoder and the patient vectors."""
        config = PolicyConfig(self.encoder.hidden_size, episodes.vectors.shape[1], hidden, dropout, normalize)
        return WordPolicy(config).to(self.encoder.device)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time spent inside each model so far."""
        return {"llm": self.budget.usage.seconds, "encoder": self.encoder.seconds, "scorer": self.scorer.seconds}
