"""Training and held-out patients, and how agents are fitted and evaluated on them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.base import Agent, Edits
from agents.benchmark.config import DATA, model_identity
from agents.benchmark.edit_summary import summary_of
from agents.benchmark.fresh_samples import FreshSamples
from agents.benchmark.held_out import complete, same_patients, training_and_held_out
from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics, as_json
from agents.model_options import CallOptions, ModelOptions
from agents.models import RunModels
from agents.problem import BudgetSpentError, MakeEditor, MeteredReward, Problem, blind
from agents.registry import BenchmarkEnv
from agents.run_folder import RunFolder
from agents.search.oracle import Rescore, search_prompts
from agents.search.searches import SEARCHES
from agents.settings import plain
from pmlm_env.core.edits import EditRules, Prompts, apply_edits, deletions
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.outcomes import Outcomes, Reward
from pmlm_env.core.task import Encoder
from pmlm_env.envs.lite import HashedEncoder, LiteReward, lite_episodes
from pmlm_env.envs.lite.reward import word_f1
from pmlm_env.llm import LLM
from pmlm_env.llm.base import Completion, Reply, Request, all_or_error
from pmlm_env.rewards.delta import DeltaReward, given


class Patients(ABC):
    """Training patients, on which agents are fitted, and held-out patients, on which they are evaluated.

    Args:
        episodes: All patients.
        encoder: Embeds words.
        split: The held-out split. If there are no validation patients, the last quarter of the training patients is
            held out instead.
        n_edits: The edit budget of each prompt; see ``EditRules``.
        protect: What must not be edited; see ``PMLMEnv``.

    Attributes:
        train: The training patients.
        held_out: The held-out patients.
    """

    env: BenchmarkEnv
    per_prompt = 1
    #: Makes the LLM that an agent itself asks for edits; see ``Problem``.
    editor: MakeEditor | None = None

    def __init__(
        self,
        episodes: EpisodeSet,
        encoder: Encoder,
        split: Split,
        n_edits: int | float = 10,
        protect: Sequence[str] = (),
    ) -> None:
        """Separate training patients from held-out patients."""
        self.train, self.held_out = training_and_held_out(episodes, split)
        self.split = split
        self.encoder, self.max_words = encoder, episodes.max_words
        self.n_edits, self.protect = n_edits, tuple(protect)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything besides the agent that determines the results; results are comparable only if identities match."""
        content = [[e.patient_id, e.split, e.prompt, e.reference] for e in [*self.train, *self.held_out]]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        data = hashlib.sha256(f"{self.train.digest} {self.held_out.digest}".encode()).hexdigest()
        protected = {"protect": list(self.protect)} if self.protect else {}
        return {"episodes": digest[:16], DATA: data[:16], "n_edits": self.n_edits, **protected}

    def inductive(self, agent: Agent, budget: int) -> dict[str, Any]:
        """Fit an agent and evaluate it on the held-out patients."""
        meter = MeteredReward(self.reward("train"), budget, self.per_prompt)
        edits = self._refined(agent, meter)
        history = [[calls, n, round(mean, 5)] for calls, n, mean in meter.history]
        counts = {"counts": agent.counts} if agent.counts else {}
        run = {"calls": meter.calls, **meter.left_out, "config": plain(agent.config), "history": history, **counts}
        return {**run, **self.judged(edits)}

    def deltas(self, agent: Agent, budget: int, reward: Reward | None = None) -> npt.NDArray[np.float64]:
        """Fit an agent and return each held-out patient's delta, float64 (N,); ``reward`` replaces the default one."""
        edits = self._refined(agent, MeteredReward(reward or self.reward("train"), budget, self.per_prompt))
        return np.asarray(self._outcomes(edits).delta, dtype=np.float64)

    def refined(self, agent: Agent, budget: int, n_edits: float) -> Edits:
        """Fit an agent and return its edits of the held-out patients' prompts with another edit budget."""
        return self._refined(agent, MeteredReward(self.reward("train"), budget, self.per_prompt), n_edits)

    def oracle(self, name: str, budget: int, seed: int) -> dict[str, Any]:
        """Search for each held-out patient's best edits using the patient's own reference."""
        meter = MeteredReward(self.reward(self.split), None, self.per_prompt)
        problem = self._problem(self.held_out, meter)
        rescore = self.fresh(f"{name}, {budget} calls, seed {seed}")
        found = search_prompts(problem, range(len(self.held_out)), SEARCHES[name], budget, seed, rescore)
        meter.warn_of_failures(name)
        return {
            "calls": sum(each.calls for each in found),
            **meter.left_out,
            "config": {"calls_per_patient": budget},
            "claimed": float(np.mean([each.claimed for each in found])),
            **self.judged([deletions(self.held_out[i], each.deleted) for i, each in enumerate(found)]),
            "deltas": [round(float(each.rescored), 6) for each in found],
        }

    def control(self, name: str) -> dict[str, Any]:
        """Evaluate a zero-call control on every held-out patient; see ``agents.evaluation.controls``.

        Raises:
            ValueError: The control needs a training patient's letter, and there is none.
        """
        if name not in self._control_replies:
            raise ValueError(f"the control {name} needs letters of training patients, but no episode has a reference")
        replies = self._control_replies[name]
        return {
            "calls": 0,
            "config": {},
            "patients": [episode.patient_id for episode in self.held_out],
            "deltas": [round(float(delta), 6) for delta in self.earned(replies)],
            **self.measured(replies, [episode.prompt for episode in self.held_out]),
        }

    @cached_property
    def _control_replies(self) -> dict[str, list[str]]:
        return control_replies(blind(self.held_out), self.train, self.f1)

    @abstractmethod
    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the F1 of texts against references, float64 (N,)."""

    def earned(self, replies: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return what a reply to each held-out patient earns over the initial prompt's reply, float64 (N,)."""
        references = [episode.reference for episode in self.held_out]
        return self.f1(replies, references) - self._outcomes([()] * len(self.held_out)).score

    @abstractmethod
    def reward(self, split: Split) -> Reward:
        """Return the reward on training or held-out patients."""

    def fresh(self, purpose: str) -> Rescore | None:
        """Return a function that scores edited prompts with unseen replies; None if replies are deterministic."""
        return None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Lock the files that runs write to."""
        yield

    def write_spent(self) -> None:  # noqa: B027  there is none to write, unless a subclass says otherwise
        """Write the record of spending."""

    def _problem(self, episodes: EpisodeSet, meter: MeteredReward | None, n_edits: float | None = None) -> Problem:
        n_edits = self.n_edits if n_edits is None else n_edits
        return Problem(episodes, self.encoder, meter, n_edits, self.max_words, self.protect, self.editor)

    def _refined(self, agent: Agent, meter: MeteredReward, n_edits: float | None = None) -> Edits:
        """Fit an agent and return its edits of the held-out patients' prompts."""
        with suppress(BudgetSpentError):  # the normal end of training
            agent.fit(self._problem(self.train, meter))
        meter.warn_of_failures(getattr(agent, "name", type(agent).__name__))
        return agent.refine(self._problem(blind(self.held_out), None, n_edits))

    def _prompts(self, edits: Edits) -> Prompts:
        """Return every held-out prompt with its edits applied.

        Raises:
            ValueError: An agent made an edit that is not allowed, or too many.
        """
        rules = EditRules(self.n_edits, self.max_words, self.protect)
        return apply_edits(self.held_out, range(len(self.held_out)), edits, rules)

    def _outcomes(self, edits: Edits) -> Outcomes:
        return complete(self.reward(self.split)(list(range(len(self.held_out))), self._prompts(edits)), self.split)

    def judged(self, edits: Edits) -> dict[str, Any]:
        """Return what edits of the held-out patients' prompts earn, a summary of them, and all metrics of the replies.

        Raises:
            ValueError: An edit is not allowed, or there are too many.
            MissingRepliesError: A reply is missing.
        """
        outcomes = self._outcomes(edits)
        return {
            "patients": [episode.patient_id for episode in self.held_out],
            "deltas": [round(float(delta), 6) for delta in outcomes.delta],
            **summary_of(edits, self.held_out),
            **self.answered(list(self._prompts(edits))),
        }

    def answered(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics of the replies to held-out patients' edited prompts; {} if replies are not texts."""
        return {}

    def measured(self, replies: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics of held-out patients' replies; {} if replies are not texts."""
        return {}


class LitePatients(Patients):
    """PMLMLite-v0's patients."""

    env = "lite"

    def __init__(self, split: Split, n_edits: int | float = 10, protect: Sequence[str] = ()) -> None:
        """Generate the patients."""
        super().__init__(lite_episodes(), HashedEncoder(), split, n_edits, protect)
        self._rewards = {"train": LiteReward(self.train), split: LiteReward(self.held_out)}

    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the word-overlap F1 of each text, float64 (N,)."""
        return np.array([word_f1(text, reference) for text, reference in zip(texts, references, strict=True)])

    def reward(self, split: Split) -> Reward:
        """Return the reward on training or held-out patients."""
        return self._rewards[split]


class RealPatients(Patients):
    """A prepared folder's patients, with the LLM and BERTScore.

    Args:
        split: The held-out split.
        episodes: The prepared folder.
        run: Folder for the reply cache and the record of spending.
        models: The models.
        calls: How the LLM is called.
        raw: A folder with the same patients' raw-data prompts, for ``raw_data``.
        editors: Whether some agents ask an LLM themselves; see ``RunModels``.
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
        editors: bool = False,
    ) -> None:
        """Read the folders; models are loaded on first use."""
        self._folder = RunFolder(run)
        everybody = EpisodeSet.load(episodes)
        self._models = RunModels(models, calls, self._folder, training_and_held_out(everybody, split)[0], editors)
        for folder in [episodes, *([raw] if raw is not None else [])]:
            self._models.check_sent(folder)
        self.editor = self._models.editor
        super().__init__(everybody, self._models.encoder, split, models.n_edits, models.protect)
        self.per_prompt = models.n_samples
        self._greedy = models.llm.startswith("local:") and not models.temperature
        self._model_identity = model_identity(models, self._models.llm.identity)
        self._rewards = {"train": self._models.reward(self.train), split: self._models.reward(self.held_out)}
        self._metrics = ReplyMetrics(self.held_out, self.train, self._models.scorer, self._models.own_reward)
        self._raw = None if raw is None else same_patients(raw, self.held_out)

    @property
    def identity(self) -> dict[str, Any]:
        """The patients, plus the models and their settings."""
        return {**super().identity, **self._model_identity}

    def reward(self, split: Split) -> Reward:
        """Return the reward on training or held-out patients."""
        return self._rewards[split]

    def f1(self, texts: Sequence[str], references: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return the BERTScore F1 of each text, float64 (N,)."""
        return self._models.scorer.f1(texts, references)

    def earned(self, replies: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return what a reply to each held-out patient earns over the initial prompt's reply, float64 (N,)."""
        return self._earned([[given(reply)] for reply in replies], [episode.prompt for episode in self.held_out])

    def _earned(self, replies: Sequence[Sequence[Reply]], prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        outcomes = self._rewards[self.split].of_replies(range(len(self.held_out)), prompts, replies)
        return complete(outcomes, self.split).delta

    @cached_property
    def _initial_replies(self) -> Sequence[str]:
        """The (first) reply to each held-out patient's initial prompt."""
        texts = self._outcomes([()] * len(self.held_out)).texts
        assert texts is not None
        return texts.initial_reply

    @property
    def raw_digest(self) -> str | None:
        """A hash of the raw-data prompts; None without them."""
        prompts = json.dumps([episode.prompt for episode in self._raw or ()])
        return None if self._raw is None else hashlib.sha256(prompts.encode()).hexdigest()[:16]

    def raw_data(self) -> dict[str, Any]:
        """Evaluate the replies to unedited raw-data prompts, the paper's "before".

        Raises:
            ValueError: No folder of raw-data prompts was given.
        """
        if self._raw is None:
            raise ValueError("the folder of raw-data prompts is missing: give --raw, see `pmlm prepare --template raw`")
        prompts = [episode.prompt for episode in self._raw]
        replies = self._asked(prompts, self._models.llm)
        return {
            "calls": len(prompts) * self.per_prompt,
            "config": {"prompts": self.raw_digest},
            "patients": [episode.patient_id for episode in self._raw],
            "deltas": [round(float(delta), 6) for delta in self._earned(replies, prompts)],
            **self.answered(prompts),
        }

    def fresh(self, purpose: str) -> Rescore | None:
        """Return a function that scores with ``FreshSamples``; None if a local LLM is greedy: its samples are equal."""
        if self._greedy:
            return None
        llm = FreshSamples(self._models.llm, purpose)
        limit = self._models.calls.max_failures

        def rescore(indices: Sequence[int], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
            # A new one asks for the initial prompts' replies, too, which would otherwise bias what they helped select.
            reward = DeltaReward(self.held_out, llm, self._models.reply_reward, self.per_prompt, limit)
            prompts = Prompts(self.held_out, list(indices), kept)
            return complete(reward(list(indices), prompts), self.split).delta

        return rescore

    @contextmanager
    def working(self) -> Iterator[None]:
        """Lock the run folder, and write the record of spending at the end.

        Raises:
            ValueError: Another process has locked the folder, or the record of spending is missing.
        """
        with self._folder.locked():
            # A file of replies that several folders share says nothing about what this folder has spent.
            if self._models.calls.cache is None and len(self._models.llm.cache):
                self._models.check_kept()
            with self._models.booking():
                yield

    def write_spent(self) -> None:
        """Write the record of spending."""
        self._models.write_spent()

    def replies(self, prompts: Sequence[str], llm: LLM | None = None) -> list[list[Completion]]:
        """Return the replies of an LLM to each prompt, one for each sample, or raise an ``LLMError``."""
        return [all_or_error(each) for each in self._asked(prompts, llm or self._models.llm)]

    def _asked(self, prompts: Sequence[str], llm: LLM) -> list[list[Reply]]:
        """Return the reply or the error of each sample of each prompt."""
        found = iter(llm.ask([Request(prompt, sample) for prompt in prompts for sample in range(self.per_prompt)]))
        return [[next(found) for _ in range(self.per_prompt)] for _ in prompts]

    def answered(self, prompts: Sequence[str], llm: LLM | None = None) -> dict[str, Any]:
        """Return all metrics of the replies of an LLM to held-out patients' prompts: means over samples."""
        replies = self.replies(prompts, llm)
        texts = [[reply.text for reply in each] for each in replies]
        cut = [[reply.finish_reason == "length" for reply in each] for each in replies]
        return {"metrics": as_json(self._metrics.over_samples(texts, prompts, cut, self._initial_replies))}

    def measured(self, replies: Sequence[str], prompts: Sequence[str]) -> dict[str, Any]:
        """Return all metrics, one value per patient; None where undefined (a margin without contrast letters)."""
        return {"metrics": as_json(self._metrics(replies, prompts, None, self._initial_replies))}


def patients_of(
    env: BenchmarkEnv,
    split: Split,
    episodes: Path = Path("prepared"),
    run: Path = Path("runs/benchmark"),
    models: ModelOptions | None = None,
    calls: CallOptions | None = None,
    raw: Path | None = None,
    editors: bool = False,
) -> Patients:
    """Return an env's training patients and its held-out patients of ``split``.

    With ``lite``, only ``models.n_edits`` and ``models.protect`` of the other arguments are used.

    Raises:
        ValueError: The episodes are invalid.
    """
    models = models or ModelOptions()
    if env == "lite":
        return LitePatients(split, models.n_edits, models.protect)
    return RealPatients(split, episodes, run, models, calls or CallOptions(), raw, editors)
