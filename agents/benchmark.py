"""Fit agents within equal budgets, judge them on held-out patients: ``pmlm benchmark``."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from agents.agent import Deletions
from agents.arena import Arena, BudgetSpentError, MeteredReward, blind
from agents.baselines import SEARCHES, search_prompts
from agents.catalogue import AGENTS, UNSEEDED, UNTRAINED, BenchmarkEnv
from agents.evaluation.arms import score_replies
from agents.run_folder import RunFolder, plain, write_text
from agents.workbench import CallOptions, ModelOptions, Workbench
from pmlm_env.editing import Prompts
from pmlm_env.episodes import EpisodeSet
from pmlm_env.lite import HashedEncoder, LiteReward, lite_episodes
from pmlm_env.llm import LLM, Reply, Request
from pmlm_env.reward import DeltaReward, Reward
from pmlm_env.task import Encoder

logger = logging.getLogger(__name__)

_PACKAGES = ("pmlm-env", "torch", "transformers", "gymnasium", "numpy", "stable-baselines3", "sb3-contrib")

#: Words named in a run's line.
_N_WORDS = 20


@dataclass(frozen=True)
class BenchmarkConfig:
    """Run agents with equal budgets on equal patients, and append a line for each run to OUT/ENV/runs.jsonl.

    What is there already is not run again, so that a benchmark that was stopped goes on.

    Attributes:
        agents: Which; all of the inductive ones by default. Names: see ``agents/catalogue.py``.
        oracles: Searches of each test patient with her own reference, kept apart: names of
            ``agents.baselines.SEARCHES``.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for fitting, one run for each.
        oracle_budget: Completions for each test patient's search.
        seeds: How many, from 0.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        out: Where results go.
        run: With ``real``, the folder for replies and spending. Replies are shared by all runs: a budget is what an
            agent would have spent alone.
        models: With ``real``.
        calls: With ``real``: limits on what all runs together may spend.
    """

    agents: tuple[str, ...] = tuple(AGENTS)
    oracles: tuple[str, ...] = ()
    env: BenchmarkEnv = "lite"
    budget: tuple[int, ...] = (600, 2_000)
    oracle_budget: int = 60
    seeds: int = 10
    episodes: Path = Path("prepared")
    out: Path = Path("benchmarks/results")
    run: Path = Path("runs/benchmark")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            ValueError: There is no agent or search of that name, or a number is not positive.
        """
        for names, known in ((self.agents, AGENTS), (self.oracles, SEARCHES)):
            if unknown := [name for name in names if name not in known]:
                raise ValueError(f"there is no agent {unknown[0]!r}: use some of {', '.join(known)}")
        if min(self.seeds, self.oracle_budget, *self.budget) < 1:
            raise ValueError("seeds, budget and oracle-budget must be 1 or more")


def benchmark(config: BenchmarkConfig) -> Path:
    """Run what is not there yet, and return the file of results.

    Raises:
        ValueError: The episodes are not as they should be.
        BudgetExceededError: A limit in ``calls`` is reached; what is complete is kept.
    """
    file = config.out / config.env / "runs.jsonl"
    done = _complete(file)
    jobs = [job for job in _jobs(config) if job not in done]
    ground = _Lite() if config.env == "lite" else _Real(config)
    with tqdm(jobs, unit="run", dynamic_ncols=True) as bar:
        for track, name, budget, seed in bar:
            bar.set_postfix_str(f"{name}, {budget} calls, seed {seed}")
            started = time.perf_counter()
            try:
                line = ground.oracle(name, budget, seed) if track == "oracle" else ground.inductive(name, budget, seed)
            finally:
                ground.close()
            head = {"agent": name, "track": track, "env": config.env, "budget": budget, "seed": seed}
            tail = {"seconds": round(time.perf_counter() - started, 1), "versions": _versions(config)}
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({**head, **line, **tail}, ensure_ascii=False) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
    print(f"{len(jobs)} runs, {len(done)} were there before; results are in {file}. Next: pmlm report {config.out}")
    return file


def _jobs(config: BenchmarkConfig) -> Iterator[tuple[str, str, int, int]]:
    """Name all runs: track, agent, budget, seed; seed by seed, so that a part of it is fair to all."""
    for seed in range(config.seeds):
        for name in config.agents:
            if name not in UNTRAINED:
                yield from (("inductive", name, budget, seed) for budget in config.budget)
            elif seed == 0 or name not in UNSEEDED:
                yield "inductive", name, 0, seed
        yield from (("oracle", name, config.oracle_budget, seed) for name in config.oracles)


def _complete(file: Path) -> set[tuple[str, str, int, int]]:
    """Return the runs that a file has, and cut off a last line that was not written to its end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(file, whole)
    lines = [json.loads(line) for line in whole.splitlines()]
    return {(line["track"], line["agent"], line["budget"], line["seed"]) for line in lines}


class _Ground:
    """Training and test patients, and how they are judged."""

    per_prompt = 1

    def __init__(self, episodes: EpisodeSet, encoder: Encoder) -> None:
        self.train, self.test = episodes.of("train"), episodes.of("test")
        self.encoder, self.max_words, self.n_edits = encoder, episodes.max_words, 10

    def inductive(self, name: str, budget: int, seed: int) -> dict[str, Any]:
        """Fit an agent and judge it."""
        agent = AGENTS[name]("lite" if isinstance(self, _Lite) else "real", seed)
        arena = self._arena(self.train, MeteredReward(self.reward("train"), budget, self.per_prompt))
        try:
            agent.fit(arena)
        except BudgetSpentError:
            logger.debug("%s spent its budget", name)
        deleted = agent.refine(self._arena(blind(self.test), None))
        history = [[calls, n, round(mean, 5)] for calls, n, mean in arena.reward.history]
        return {
            "calls": arena.reward.calls,
            "config": plain(agent.config),
            "history": history,
            **self._judged(deleted),
        }

    def oracle(self, name: str, budget: int, seed: int) -> dict[str, Any]:
        """Search every test patient's best deletions with her reference."""
        arena = self._arena(self.test, MeteredReward(self.reward("test"), None, self.per_prompt))
        found = search_prompts(arena, range(len(self.test)), SEARCHES[name], budget, seed, self.rescore)
        return {
            "calls": sum(each.calls for each in found),
            "config": {"calls_per_patient": budget},
            "claimed": float(np.mean([each.claimed for each in found])),
            **self._judged([each.deleted for each in found]),
            "deltas": [round(float(each.rescored), 6) for each in found],
        }

    def reward(self, split: str) -> Reward:
        """Judge training or test patients."""
        raise NotImplementedError

    rescore: Any = None

    def close(self) -> None:
        """Write down what was spent."""

    def _arena(self, episodes: EpisodeSet, meter: MeteredReward | None) -> Arena:
        return Arena(episodes, self.encoder, meter, self.n_edits, self.max_words)

    def _kept(self, deleted: Deletions) -> npt.NDArray[np.bool_]:
        """Return what is left of every test prompt, bool (N, max_words).

        Raises:
            RuntimeError: An agent deleted what may not go, or too much.
        """
        batch = self._arena(blind(self.test), None).batch(range(len(self.test)))
        for row, slots in enumerate(deleted):
            if len(set(slots)) > self.n_edits or not batch.legal[row, list(slots)].all():
                raise RuntimeError(f"the agent deleted {slots} from prompt {row}, which is not allowed")
            batch.kept[row, list(slots)] = False
        return batch.kept

    def _judged(self, deleted: Deletions) -> dict[str, Any]:
        kept = self._kept(deleted)
        everyone = list(range(len(self.test)))
        outcomes = self.reward("test")(everyone, Prompts(self.test, everyone, kept))
        if outcomes.failed.any():
            raise RuntimeError(f"{outcomes.failed.sum()} test patients' replies are missing: run the command again")
        counts = Counter(
            (self.test[i].words[slot], self.test[i].roles[slot]) for i, slots in enumerate(deleted) for slot in slots
        )
        return {
            "patients": [e.patient_id for e in self.test],
            "deltas": [round(float(delta), 6) for delta in outcomes.delta],
            "deleted": [[word, role, n] for (word, role), n in counts.most_common(_N_WORDS)],
            **self.more(outcomes.texts.reply if outcomes.texts else ()),
        }

    def more(self, replies: Sequence[str]) -> dict[str, Any]:
        """Return other metrics of test patients' replies."""
        return {}


class _Lite(_Ground):
    """PMLMLite-v0's patients."""

    def __init__(self) -> None:
        super().__init__(lite_episodes(), HashedEncoder())
        self._rewards = {"train": LiteReward(self.train), "test": LiteReward(self.test)}

    def reward(self, split: str) -> Reward:
        return self._rewards[split]


class _Real(_Ground):
    """A prepared folder's patients, with the LLM and BERTScore."""

    def __init__(self, config: BenchmarkConfig) -> None:
        self._folder = RunFolder(config.run)
        self._bench = Workbench(config.models, config.calls, self._folder)
        super().__init__(EpisodeSet.load(config.episodes), self._bench.encoder)
        self.n_edits, self.per_prompt = config.models.n_edits, config.models.n_samples
        self._rewards = {"train": self._bench.reward(self.train), "test": self._bench.reward(self.test)}
        self._fresh = DeltaReward(
            self.test, _Again(self._bench.llm), self._bench.scorer, self.per_prompt, config.calls.max_failures
        )
        self._draws = 0

    def reward(self, split: str) -> Reward:
        return self._rewards[split]

    def rescore(self, indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Score edited prompts by replies that nobody has seen yet."""
        outcomes = self._fresh(list(indices), Prompts(self.test, list(indices), kept))
        return np.where(outcomes.failed, np.nan, outcomes.delta)

    def close(self) -> None:
        self._folder.write_spent(self._bench.spent())

    def more(self, replies: Sequence[str]) -> dict[str, Any]:
        scores = score_replies(self._bench, self.test, replies)
        return {"metrics": {name: round(float(values.mean()), 5) for name, values in scores.items()}}


class _Again(LLM):
    """Asks for other samples than everybody else: every request a new one."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._asked: Counter[Request] = Counter()

    @property
    def identity(self) -> str:
        return self._llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        fresh = []
        for request in requests:
            self._asked[request] += 1
            fresh.append(Request(request.prompt, request.sample + 1_000 * self._asked[request]))
        yield from self._llm.replies(fresh)


def _versions(config: BenchmarkConfig) -> dict[str, str]:
    installed = {}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    models = {"llm": config.models.llm, "encoder": config.models.encoder} if config.env == "real" else {}
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    return {**machine, **installed, **models}


if __name__ == "__main__":
    from agents.cli import main

    main("benchmark")
