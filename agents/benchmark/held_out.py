"""Ground: training patients and those held out, and how agents are fitted and judged on them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Deletions
from agents.baselines import SEARCHES, search_prompts
from agents.baselines.single_rule import role_places
from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics
from agents.model_options import CallOptions, ModelOptions
from agents.models import RunModels
from agents.problem import BudgetSpentError, MeteredReward, Problem, blind
from agents.registry import BenchmarkEnv
from agents.run_folder import RunFolder
from agents.search.oracle import Rescore
from agents.settings import changed, plain
from pmlm_env.core.edits import Prompts
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.core.task import Encoder
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.llm import LLM, Reply, Request
from pmlm_env.llm.base import all_or_error
from pmlm_env.rewards.delta import DeltaReward

logger = logging.getLogger(__name__)

#: Words named in a run's line, and in how many prompts a word must have been deleted: a result is handed on more
#: readily than a prompt, and a word of one patient's prompt may tell who she is.
_N_WORDS, _FEWEST = 20, 3

#: Of the models' options, those that tell where they run and not what comes out.
_WHERE = ("base_url", "providers", "device")

#: Options that earlier results lack, with the values that those had, which are left out of what identifies results.
_LATER = {"scorer_layer": None, "long_texts": "cut"}


class Ground:
    """Training patients and those held out, and how they are judged.

    Args:
        episodes: Everybody.
        encoder: Embeds words.
        split: Who is held out: the others are never asked about. Without validation patients the last quarter of the
            training patients stand in for them.
    """

    env: BenchmarkEnv
    per_prompt = 1

    def __init__(self, episodes: EpisodeSet, encoder: Encoder, split: Split) -> None:
        """Part training patients from those held out."""
        self.train, self.split = episodes.of("train"), split
        if split == "validation" and all(episode.split != split for episode in episodes):
            everyone = list(self.train)
            n_left = len(everyone) - len(everyone) // 4
            self.train, self.held_out = EpisodeSet(everyone[:n_left]), EpisodeSet(everyone[n_left:])
        else:
            self.held_out = episodes.of(split)
        self.encoder, self.max_words, self.n_edits = encoder, episodes.max_words, 10

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the figures besides the agent: results of one identity alone can be compared."""
        told = [[e.patient_id, e.split, e.prompt, e.reference] for e in [*self.train, *self.held_out]]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()
        return {"episodes": digest[:16], "n_edits": self.n_edits}

    def inductive(self, agent: Agent, budget: int) -> dict[str, Any]:
        """Fit an agent and judge it."""
        meter = MeteredReward(self.reward("train"), budget, self.per_prompt)
        deleted = self._refined(agent, meter)
        history = [[calls, n, round(mean, 5)] for calls, n, mean in meter.history]
        return {"calls": meter.calls, "config": plain(agent.config), "history": history, **self._judged(deleted)}

    def deltas(self, agent: Agent, budget: int, reward: Reward | None = None) -> npt.NDArray[np.float64]:
        """Fit an agent, with another reward if so wished, and return each held-out patient's delta alone, (N,)."""
        deleted = self._refined(agent, MeteredReward(reward or self.reward("train"), budget, self.per_prompt))
        return np.asarray(self._outcomes(deleted).delta, dtype=np.float64)

    def oracle(self, name: str, budget: int, seed: int) -> dict[str, Any]:
        """Search every test patient's best deletions with her reference."""
        problem = self._problem(self.held_out, MeteredReward(self.reward(self.split), None, self.per_prompt))
        rescore = self.fresh(f"{name}, {budget} calls, seed {seed}")
        found = search_prompts(problem, range(len(self.held_out)), SEARCHES[name], budget, seed, rescore)
        return {
            "calls": sum(each.calls for each in found),
            "config": {"calls_per_patient": budget},
            "claimed": float(np.mean([each.claimed for each in found])),
            **self._judged([each.deleted for each in found]),
            "deltas": [round(float(each.rescored), 6) for each in found],
        }

    def control(self, name: str) -> dict[str, Any]:
        """Judge a zero-call control on every test patient; see ``agents.evaluation.controls``.

        Raises:
            ValueError: It needs a training letter, and there is none.
        """
        if name not in self._control_replies:
            raise ValueError(f"the control {name} needs letters of training patients, and no episode has a reference")
        replies = self._control_replies[name]
        references = [episode.reference for episode in self.held_out]
        deltas = self.f1(replies, references) - self._outcomes([()] * len(self.held_out)).score
        return {
            "calls": 0,
            "config": {},
            "patients": [episode.patient_id for episode in self.held_out],
            "deltas": [round(float(delta), 6) for delta in deltas],
            **self.measured(replies, [episode.prompt for episode in self.held_out]),
        }

    @cached_property
    def _control_replies(self) -> dict[str, list[str]]:
        return control_replies(blind(self.held_out), self.train, self.f1)

    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Score texts against references as this environment's reward does, float64 (N,)."""
        raise NotImplementedError

    def reward(self, split: Split) -> Reward:
        """Judge training patients or those held out."""
        raise NotImplementedError

    def fresh(self, purpose: str) -> Rescore | None:
        """Return what scores edited prompts by replies that nobody has seen yet; None where replies never change."""
        return None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep what is written to from other processes."""
        yield

    def write_spent(self) -> None:
        """Write down what was spent."""

    def _problem(self, episodes: EpisodeSet, meter: MeteredReward | None) -> Problem:
        return Problem(episodes, self.encoder, meter, self.n_edits, self.max_words)

    def _refined(self, agent: Agent, meter: MeteredReward) -> Deletions:
        """Fit an agent and let it edit the prompts of those held out."""
        try:
            agent.fit(self._problem(self.train, meter))
        except BudgetSpentError:
            logger.debug("%s spent its budget", type(agent).__name__)
        return agent.refine(self._problem(blind(self.held_out), None))

    def _kept(self, deleted: Deletions) -> npt.NDArray[np.bool_]:
        """Return what is left of every held-out prompt, bool (N, max_words).

        Raises:
            RuntimeError: An agent deleted what may not go, or too much.
        """
        batch = self._problem(blind(self.held_out), None).batch(range(len(self.held_out)))
        for row, slots in enumerate(deleted):
            if len(set(slots)) > self.n_edits or not batch.legal[row, list(slots)].all():
                raise RuntimeError(f"the agent deleted {slots} from prompt {row}, which is not allowed")
            batch.kept[row, list(slots)] = False
        return batch.kept

    def _outcomes(self, deleted: Deletions) -> Outcomes:
        everyone = list(range(len(self.held_out)))
        outcomes = self.reward(self.split)(everyone, Prompts(self.held_out, everyone, self._kept(deleted)))
        if outcomes.failed.any():
            raise RuntimeError(
                f"{outcomes.failed.sum()} {self.split} patients' replies are missing: run the command again"
            )
        return outcomes

    def _judged(self, deleted: Deletions) -> dict[str, Any]:
        outcomes, prompts = self._outcomes(deleted), self.held_out
        gone = [[(prompts[i].words[slot], prompts[i].roles[slot]) for slot in slots] for i, slots in enumerate(deleted)]
        places = [role_places(episode.roles) for episode in prompts]
        edits = {frozenset(places[i][slot] for slot in slots) for i, slots in enumerate(deleted)}
        times = Counter(word for words in gone for word in words)
        n_prompts = Counter(word for words in gone for word in set(words))
        common = [(word, n) for word, n in times.most_common() if n_prompts[word] >= _FEWEST]
        return {
            "patients": [e.patient_id for e in prompts],
            "deltas": [round(float(delta), 6) for delta in outcomes.delta],
            "deleted": [[word, role, n] for (word, role), n in common[:_N_WORDS]],
            "edits": len(edits),
            **self.answered(list(Prompts(prompts, range(len(prompts)), self._kept(deleted)))),
        }

    def answered(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics of the replies to held-out patients' edited prompts, where replies are texts."""
        return {}

    def measured(self, replies: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics of held-out patients' replies, where replies are texts."""
        return {}


class LiteGround(Ground):
    """PMLMLite-v0's patients."""

    env = "lite"

    def __init__(self, split: Split) -> None:
        """Make them."""
        super().__init__(lite_episodes(), HashedEncoder(), split)
        self._rewards = {"train": LiteReward(self.train), split: LiteReward(self.held_out)}

    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Score by shared words."""
        return np.array([word_f1(text, reference) for text, reference in zip(texts, references, strict=True)])

    def reward(self, split: Split) -> Reward:
        """Judge training patients or those held out."""
        return self._rewards[split]


class RealGround(Ground):
    """A prepared folder's patients, with the LLM and BERTScore.

    Args:
        split: Who is held out.
        episodes: The folder.
        run: Where replies and spending are kept.
        models: The models.
        calls: How the LLM is asked.
        raw: A folder with the same patients' raw-data prompts, for ``raw_data``.
    """

    env = "real"

    def __init__(
        self,
        split: Split,
        episodes: Path,
        run: Path,
        models: ModelOptions,
        calls: CallOptions,
        raw: Path | None = None,
    ) -> None:
        """Read the folders; models load at their first use."""
        self._folder = RunFolder(run)
        self._models = RunModels(models, calls, self._folder)
        super().__init__(EpisodeSet.load(episodes), self._models.encoder, split)
        self.n_edits, self.per_prompt = models.n_edits, models.n_samples
        self._model_settings = {name: value for name, value in plain(models).items() if name not in _WHERE}
        self._rewards = {
            "train": self._models.reward(self.train),
            split: self._models.reward(self.held_out),
        }
        self._max_failures = calls.max_failures
        self._metrics = ReplyMetrics(self.held_out, self.train, self._models.scorer)
        self._raw = None if raw is None else _of_patients(raw, self.held_out)

    @property
    def identity(self) -> dict[str, Any]:
        """The patients, and the models with their settings."""
        models = {name: value for name, value in self._model_settings.items() if value != _LATER.get(name, ...)}
        return {**super().identity, **models}

    def reward(self, split: Split) -> Reward:
        """Judge training patients or those held out."""
        return self._rewards[split]

    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Score by BERTScore."""
        return self._models.scorer.score(texts, references).f1.double().numpy()

    def raw_data(self) -> dict[str, Any]:
        """Judge the replies to untouched raw-data prompts, the paper's "before".

        Raises:
            ValueError: No folder with them was given.
        """
        if self._raw is None:
            raise ValueError("raw-data prompts are in no folder: name it with --raw, see `pmlm prepare --template raw`")
        reward = self._models.reward(self._raw)
        everyone = list(range(len(self._raw)))
        prompts = [episode.prompt for episode in self._raw]
        outcomes = reward(everyone, prompts)
        if outcomes.failed.any():
            raise RuntimeError(
                f"{outcomes.failed.sum()} replies to raw-data prompts are missing: run the command again"
            )
        deltas = outcomes.score - self._outcomes([()] * len(self.held_out)).score
        return {
            "calls": len(prompts) * self.per_prompt,
            "config": {},
            "patients": [episode.patient_id for episode in self._raw],
            "deltas": [round(float(delta), 6) for delta in deltas],
            **self.answered(prompts),
        }

    def fresh(self, purpose: str) -> Rescore:
        """Score by samples that are this purpose's own, the same ones when it is taken up again."""
        llm = _Again(self._models.llm, purpose)
        reward = DeltaReward(self.held_out, llm, self._models.scorer, self.per_prompt, self._max_failures)

        def rescore(indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
            outcomes = reward(list(indices), Prompts(self.held_out, list(indices), kept))
            return np.where(outcomes.failed, np.nan, outcomes.delta)

        return rescore

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the run folder from other processes, and write down at the end what was spent.

        Raises:
            ValueError: Another has it, or what was spent is no longer on record.
        """
        with self._folder.locked():
            if len(self._models.llm.cache):
                self._models.check_kept()
            with self._models.booking():
                yield

    def write_spent(self) -> None:
        """Write down what was spent."""
        self._models.write_spent()

    def answered(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics of the first replies to held-out patients' prompts, which are kept ones by now."""
        replies = all_or_error(self._models.llm.ask([Request(prompt) for prompt in prompts]))
        cut = [reply.finish_reason == "length" for reply in replies]
        return self.measured([reply.text for reply in replies], prompts, cut)

    def measured(
        self, replies: Sequence[str], prompts: Sequence[str], cut: Sequence[bool] | None = None
    ) -> dict[str, Any]:
        """Return all metrics, a value a patient; one that cannot be had (a margin without contrast) is null."""
        values = self._metrics(replies, prompts, cut)
        return {
            "metrics": {
                name: [None if np.isnan(value) else round(float(value), 5) for value in column]
                for name, column in values.items()
            }
        }


def _of_patients(folder: Path, held_out: EpisodeSet) -> EpisodeSet:
    """Return the episodes of another prepared folder that are of the same patients, in the same order.

    Raises:
        ValueError: The folder lacks one of them.
    """
    by_id = {episode.patient_id: episode for episode in EpisodeSet.load(folder)}
    missing = [episode.patient_id for episode in held_out if episode.patient_id not in by_id]
    if missing:
        raise ValueError(
            f"{folder} has no prompt of patient {missing[0]} ({len(missing)} are missing): prepare it with the same "
            "cohort, seed and limits as the other folder"
        )
    return EpisodeSet([by_id[episode.patient_id] for episode in held_out])


class _Again(LLM):
    """Asks for samples that nobody else asks for, a new one whenever a request comes again."""

    def __init__(self, llm: LLM, purpose: str) -> None:
        self._llm = llm
        self._first = 1_000_000 * (1 + int(hashlib.sha256(purpose.encode()).hexdigest()[:8], 16) % 1_000)
        self._asked: Counter[Request] = Counter()

    @property
    def identity(self) -> str:
        return self._llm.identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        fresh = []
        for request in requests:
            self._asked[request] += 1
            fresh.append(Request(request.prompt, request.sample + self._first + 1_000 * self._asked[request]))
        yield from self._llm.replies(fresh)


def ground(
    env: BenchmarkEnv,
    split: Split,
    episodes: Path = Path("prepared"),
    run: Path = Path("runs/benchmark"),
    models: ModelOptions | None = None,
    calls: CallOptions | None = None,
    raw: Path | None = None,
) -> Ground:
    """Return an env's training patients, with those of ``split`` held out; the rest is for ``real`` alone.

    Raises:
        ValueError: The episodes are not as they should be.
    """
    if env == "lite":
        return LiteGround(split)
    return RealGround(split, episodes, run, models or ModelOptions(), calls or CallOptions(), raw)


def check_env(config: Any) -> None:
    """See that nothing is asked of PMLMLite-v0 that only real patients and models have.

    Args:
        config: A dataclass with ``env``, and what ``ground`` takes with ``real``.

    Raises:
        ValueError: Something is.
    """
    needs = {"episodes", "raw", "run", "models", "calls"}
    idle = [name.rpartition(".")[2] for name in changed(config) if name.partition(".")[0] in needs]
    if config.env == "lite" and idle:
        options = ", ".join("--" + name.replace("_", "-") for name in idle)
        raise ValueError(
            f"{options} has no effect with --env lite, whose patients and replies are made up: "
            "leave it out, or give --env real"
        )


def check_identity(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """See that results in a file are of the same ground.

    Raises:
        ValueError: They are of other patients or models.
    """
    other = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if other:
        told = ", ".join(f"{name} {before.get(name)!r} and not {now.get(name)!r}" for name in other)
        raise ValueError(f"{file} has results with {told}: use the same, or another --out")
