"""Prefill a run's reply cache: ``pmlm prefill train | evaluate``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from agents import registry
from agents.base import Agent
from agents.cluster.options import ClusterOptions
from agents.cluster.pool import finished
from agents.evaluation.evaluate import agents_of, models_of
from agents.evaluation.replies import replies_to, too_many_failures
from agents.evaluation.traces import refined_prompts, requests_of
from agents.models import LimitedLLM, RunModels, limited_llm
from agents.problem import MeteredReward
from agents.run_folder import RunFolder
from agents.serving.prefill_config import PrefillEvaluateConfig, PrefillTrainConfig
from agents.training.train import trained
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm import LLM
from pmlm_env.llm.base import LLMError, Reply, Request
from pmlm_env.llm.storage.cached_llm import CachedLLM
from pmlm_env.rewards.delta import DeltaReward

_BATCHES = "batches.json"


@dataclass(frozen=True)
class Prefilled:
    """What a command found.

    Attributes:
        n_requests: Number of different requests.
        n_new: Number of replies that were not in the cache before.
        errors: Why replies are missing, with the number of requests.
        spent: What the run has spent so far; see ``RunModels.spent``.
    """

    n_requests: int
    n_new: int
    errors: Counter[str]
    spent: dict[str, float]


def prefill(config: PrefillTrainConfig | PrefillEvaluateConfig) -> Prefilled:
    """Ask for replies and store them.

    Raises:
        ValueError: As in training or evaluation; or the LLM has no batch API.
        RuntimeError: ``max_failures`` consecutive replies are missing, or the cluster cannot be used.
        BudgetExceededError: A limit is reached; the replies so far are stored.
        LLMError: The batch API refuses, or does not answer.
        OSError, DatabaseError: A file cannot be written.
    """
    run = RunFolder(config.run)
    with run.locked():
        if isinstance(config, PrefillTrainConfig):
            models, requests = _of_training(config, run)
        else:
            models, requests = _of_evaluation(config, run)
        requests = list(dict.fromkeys(requests))
        with models.booking(), tqdm(total=len(requests), desc="asking", unit="reply", dynamic_ncols=True) as bar:
            if config.cluster.ray is not None:
                n_stored, errors = _on_workers(models, requests, config.cluster, bar)
            else:
                llm = models.llm if config.batch is None else _batched(models.llm, run, config.batch)
                # The errors of a batch come all at once.
                failures = models.calls.max_failures if config.batch is None else None
                errors = _errors(replies_to(llm, requests, failures, bar.update))
                n_stored = llm.hits
        return Prefilled(len(requests), len(requests) - n_stored - errors.total(), errors, models.spent())


def _errors(replies: Iterable[Reply]) -> Counter[str]:
    return Counter(str(reply) for reply in replies if isinstance(reply, LLMError))


#: Requests that a worker does at once.
_CHUNK = 32


class Asking:
    """Asks an LLM, in a worker; see ``agents.cluster.worker.Runs``. A run is a slice of the requests.

    Args:
        requests: All requests.
        arguments: What ``limited_llm`` makes the LLM from.

    Attributes:
        identity: The LLM.
    """

    def __init__(self, requests: Sequence[Request], arguments: LimitedLLM) -> None:
        """Make the LLM."""
        self._requests, self._max_failures = requests, arguments[1].max_failures
        self._llm, _ = limited_llm(*arguments)
        self.identity = {"llm": self._llm.identity}

    def __call__(self, job: Sequence[int]) -> dict[str, int]:
        """Store the replies to the requests from one number up to another; return why some are missing, with counts."""
        return _errors(replies_to(self._llm, self._requests[slice(*job)], self._max_failures))


def _on_workers(
    models: RunModels, requests: Sequence[Request], cluster: ClusterOptions, bar: tqdm[Any]
) -> tuple[int, Counter[str]]:
    """Let workers ask for the replies; return how many were stored before, and why others are missing.

    Raises:
        TooManyFailuresError: ``max_failures`` replies in a row are missing.
    """
    stored = models.llm.cache.get(models.llm.identity, requests)
    bar.update(len(stored))
    missing = [request for index, request in enumerate(requests) if index not in stored]
    jobs = [[start, min(start + _CHUNK, len(missing))] for start in range(0, len(missing), _CHUNK)]
    errors, failures, most = Counter[str](), 0, models.calls.max_failures
    arguments = missing, models.llm_arguments
    results = finished(deque(jobs), Asking(*arguments), Asking, arguments, cluster, lambda job: None)
    with closing(results):
        for (start, stop), found in results:
            errors.update(found)
            bar.update(stop - start)
            failed = sum(found.values())
            failures = failures + failed if failed == stop - start else 0  # in a row, also from one run to the next
            if most is not None and failures >= most:
                raise too_many_failures(failures, [*found][-1])
    return len(stored), errors


def _of_training(config: PrefillTrainConfig, run: RunFolder) -> tuple[RunModels, list[Request]]:
    """Return the models of training, and the requests that do not depend on any reply."""
    run.check_new()
    everybody = EpisodeSet.load(config.episodes)
    episodes = everybody.of("train")
    agent = registry.make(config.agent, config.settings, config.seed)
    models = RunModels(config.models, config.calls, run, episodes, editors=agent.editor is not None)
    models.check_sent(config.episodes)
    models.budget.check_writable()
    samples = range(config.models.n_samples)
    problem = models.problem(episodes, None, everybody.max_words)
    prompts = [episode.prompt for episode in episodes]
    for number in range(config.random):
        prompts += refined_prompts(problem, registry.make("random-n", seed=config.seed + number).refine(problem))
    requests = [Request(prompt, sample) for prompt in prompts for sample in samples]
    return models, requests + _first_requests(agent, config, models, everybody, episodes)


def _first_requests(
    agent: Agent, config: PrefillTrainConfig, models: RunModels, everybody: EpisodeSet, episodes: EpisodeSet
) -> list[Request]:
    """Let an agent learn up to its first requests, and return these; none if it does not learn from replies."""
    reward = DeltaReward(episodes, _Recorder(models.llm.identity), models.reply_reward, config.models.n_samples)
    meter = MeteredReward(reward, config.budget, config.models.n_samples)
    try:
        agent.fit(models.problem(episodes, meter, everybody.max_words))
    except _Recorded as recorded:
        return recorded.requests
    return []


class _Recorded(Exception):
    """Ends an agent's learning at its first requests."""

    def __init__(self, requests: Sequence[Request]) -> None:
        super().__init__()
        self.requests = list(requests)


class _Recorder(LLM):
    """An LLM that raises its first requests instead of replying to them."""

    identity = ""

    def __init__(self, identity: str) -> None:
        self.identity = identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        raise _Recorded(requests)
        yield {}


def _of_evaluation(config: PrefillEvaluateConfig, run: RunFolder) -> tuple[RunModels, list[Request]]:
    """Return the models of an evaluation, and its requests."""
    settings = trained(run, config.allow_import)
    if config.episodes is None and not settings.episodes.is_dir():
        raise ValueError(f"{settings.episodes} does not exist any more: if it was moved, give --episodes FOLDER")
    everybody = EpisodeSet.load(config.episodes or settings.episodes)
    run.check_episodes(everybody.digest)
    models = models_of(config, settings, run, everybody.of("train"))
    models.check_sent(config.episodes or settings.episodes)
    agents = agents_of(config, run, models)
    return models, requests_of(agents, models, everybody.of(config.split), everybody.max_words)


def _batched(llm: CachedLLM, run: RunFolder, size: int) -> CachedLLM:
    """Return the same LLM, asked through its batch API."""
    from pmlm_env.llm.http.batches import BatchChat
    from pmlm_env.llm.http.endpoint import OpenAIChat

    if not isinstance(llm.llm, OpenAIChat):
        raise ValueError("--batch has no effect with this LLM, which has no batch API: leave it out")
    return CachedLLM(BatchChat(llm.llm, run.path / _BATCHES, llm.cache, size), llm.cache)
