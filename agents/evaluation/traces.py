"""Traces of held-out patients: each prompt is edited by every agent, and each reply is requested once and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from agents.base import Agent, Edits
from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics
from agents.evaluation.replies import replies_to, traced
from agents.evaluation.variants import AGENT, KEEP_ALL
from agents.models import RunModels
from agents.problem import Problem, blind
from pmlm_env.core.edits import EditRules, apply_edits
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.traces import Trace, TracedReply
from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.rewards.base import CheckedReward
from pmlm_env.rewards.delta import error_of

#: The score components of one patient's replies; empty if a reply is missing.
Components = dict[str, float | None]


def traces_of(
    agents: Mapping[str, Agent],
    models: RunModels,
    episodes: EpisodeSet,
    training: EpisodeSet,
    *,
    run: str = "",
    seed: int = 0,
    max_words: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Trace]:
    """Edit every prompt with every agent, request all replies in one batch, and score them and the controls' replies.

    Each prompt is edited once per agent, and each reply is requested once; the scores are of the replies in the traces.
    A held-out patient's reference is used only for scoring.

    Args:
        agents: Fitted agents by variant, including ``KEEP_ALL`` and ``AGENT``.
        models: The models.
        episodes: Held-out patients.
        training: Training patients, whose letters are used by the controls and the margin.
        run: The name of the run folder, recorded in the traces.
        seed: The evaluation's seed, recorded in the traces.
        max_words: Number of slots; see ``Problem``.
        progress: Called with the number of new replies whenever some arrive.

    Returns:
        One trace for each variant or control and each patient: variant by variant, patients in order.

    Raises:
        TooManyFailuresError: ``max_failures`` consecutive replies are missing.
    """
    problem = models.problem(blind(episodes), None, max_words)
    edits = {variant: agent.refine(problem) for variant, agent in agents.items()}
    prompts = {variant: refined_prompts(problem, each) for variant, each in edits.items()}
    asked = _asked(models, prompts, progress)
    metrics = ReplyMetrics(episodes, training, models.scorer, models.own_reward)
    first = [next(iter(texts), "") for texts in map(_texts, asked[KEEP_ALL])]
    scores = {variant: _scored(metrics, asked[variant], prompts[variant], first) for variant in agents}
    errors = {variant: list(map(error_of, asked[variant])) for variant in agents}
    replies = {variant: list(map(traced, asked[variant])) for variant in agents}
    initial = [episode.prompt for episode in episodes]
    for control, texts in control_replies(problem.episodes, training, models.scorer.f1).items():
        edits[control], prompts[control], errors[control] = [()] * len(texts), initial, [""] * len(texts)
        replies[control] = [(TracedReply(text),) for text in texts]
        scores[control] = _rows(metrics(texts, initial, initial=first))
    traces = []
    for variant in edits:
        failed = [one or other for one, other in zip(errors[variant], errors[KEEP_ALL], strict=True)]
        rewards = _rewards(
            models.reply_reward,
            [(scores[KEEP_ALL][i], replies[KEEP_ALL][i]) for i, error in enumerate(failed) if not error],
            [(scores[variant][i], replies[variant][i]) for i, error in enumerate(failed) if not error],
        )
        for i, episode in enumerate(episodes):
            traces.append(
                Trace.of(
                    episode,
                    run=run,
                    agent=agents[AGENT].name,
                    variant=variant,
                    seed=seed,
                    edits=edits[variant][i],
                    prompt=prompts[variant][i],
                    initial_reply=next((reply.text for reply in replies[KEEP_ALL][i]), ""),
                    replies=replies[variant][i],
                    before=scores[KEEP_ALL][i],
                    after=scores[variant][i],
                    reward=None if failed[i] else next(rewards),
                    error=failed[i],
                )
            )
    return traces


def requests_of(
    agents: Mapping[str, Agent], models: RunModels, episodes: EpisodeSet, max_words: int | None = None
) -> list[Request]:
    """Return the requests that ``traces_of`` sends for the same arguments."""
    problem = models.problem(blind(episodes), None, max_words)
    prompts = {variant: refined_prompts(problem, agent.refine(problem)) for variant, agent in agents.items()}
    return _requests(models, prompts)


def refined_prompts(problem: Problem, edits: Edits) -> list[str]:
    """Apply each patient's edits, and return the refined prompts.

    Raises:
        ValueError: An edit is not allowed.
    """
    rules = EditRules(problem.n_edits, problem.max_words, problem.protect)
    return list(apply_edits(problem.episodes, range(len(problem.episodes)), edits, rules))


def _asked(
    models: RunModels, prompts: Mapping[str, Sequence[str]], progress: Callable[[int], object] | None
) -> dict[str, list[list[Reply]]]:
    """Request all replies in one batch, and return them by variant and patient, one for each sample.

    Raises:
        TooManyFailuresError: ``max_failures`` consecutive replies are missing; no further replies are requested.
    """
    samples = range(models.options.n_samples)
    in_order = iter(replies_to(models.llm, _requests(models, prompts), models.calls.max_failures, progress))
    return {variant: [[next(in_order) for _ in samples] for _ in each] for variant, each in prompts.items()}


def _requests(models: RunModels, prompts: Mapping[str, Sequence[str]]) -> list[Request]:
    samples = range(models.options.n_samples)
    return [Request(prompt, sample) for each in prompts.values() for prompt in each for sample in samples]


def _scored(
    metrics: ReplyMetrics, replies: Sequence[Sequence[Reply]], prompts: Sequence[str], initial: Sequence[str]
) -> list[Components]:
    """Return the score components of each patient's replies, averaged over samples."""
    texts = [[reply.text if isinstance(reply, Completion) else "" for reply in each] for each in replies]
    cut = [[isinstance(reply, Completion) and reply.finish_reason == "length" for reply in each] for each in replies]
    rows = _rows(metrics.over_samples(texts, prompts, cut, initial))
    missing = [any(isinstance(reply, LLMError) for reply in each) for each in replies]
    return [{} if any_missing else row for any_missing, row in zip(missing, rows, strict=True)]


def _rows(columns: Mapping[str, np.ndarray]) -> list[Components]:
    """Convert columns of components to one row per patient, with None for NaN."""
    return [
        {name: None if np.isnan(value) else float(value) for name, value in zip(columns, row, strict=True)}
        for row in zip(*columns.values(), strict=True)
    ]


def _rewards(
    reward: CheckedReward,
    before: Sequence[tuple[Components, Sequence[TracedReply]]],
    after: Sequence[tuple[Components, Sequence[TracedReply]]],
) -> Iterator[float]:
    """Return what each change of the components, and of the replies, earns."""
    old, new = (
        {name: np.array([row[name] for row, _ in side], dtype=np.float64) for name in reward.names}  # None becomes NaN
        for side in (before, after)
    )
    texts = [[[reply.text for reply in replies] for _, replies in side] for side in (before, after)]
    return iter(reward.change(old, new, [one == other for one, other in zip(*texts, strict=True)]).tolist())


def _texts(replies: Sequence[Reply]) -> list[str]:
    return [reply.text for reply in replies if isinstance(reply, Completion)]
