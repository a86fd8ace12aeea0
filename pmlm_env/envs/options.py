"""The arguments of ``gym.make("PMLM-v0", ...)``: names, numbers and paths, from which an EditTask is made."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import Split
from pmlm_env.core.languages import is_chinese
from pmlm_env.core.task import EditTask, ObservationForm, PatientForm
from pmlm_env.envs.shared_models import DEMO, DEMO_ZH, SHARED_MODELS, SharedModels
from pmlm_env.kwargs import NO_KWARGS, Kwargs
from pmlm_env.llm.specs import LLMOptions
from pmlm_env.pipeline.sent import check_sent
from pmlm_env.rewards.base import BERTSCORE
from pmlm_env.rewards.options import LongTexts, ShownComponents
from pmlm_env.rewards.registry import REWARDS

_OBJECTS = "put objects into an EditTask(episodes, encoder, reward), and pass it as task"


@dataclass(frozen=True)
class TaskOptions(ABC):
    """Arguments of all envs of this package; see ``PMLMEnv``.

    Attributes:
        env_id: The env that has these arguments, for messages.
        otherwise: Advice about an unknown argument, for messages.
    """

    env_id: ClassVar[str]
    otherwise: ClassVar[str]

    n_edits: int | float = EditRules.n_edits
    max_words: int | None = EditRules.max_words
    observation: ObservationForm = "embeddings"
    protect: Collection[str] = EditRules.protect

    @abstractmethod
    def task(self) -> EditTask:
        """Make the task."""


@dataclass(frozen=True)
class PMLMOptions(LLMOptions, TaskOptions):
    """The arguments of ``PMLM-v0``; see ``PMLMEnv``."""

    env_id: ClassVar[str] = "PMLM-v0"
    otherwise: ClassVar[str] = "its arguments are listed in docs/environments/PMLM-v0.md"

    episodes: str = DEMO
    split: Split = "train"
    patient: PatientForm = "vector"
    encoder: str = "minilm"
    encoder_kwargs: Kwargs = NO_KWARGS
    reward: str = BERTSCORE
    reward_kwargs: Kwargs = NO_KWARGS
    components: ShownComponents = "reward"
    n_samples: int = 1
    max_failures: int | None = 64
    cache: str | None = None
    budget_file: str | None = None
    send_values: bool = False
    scorer: str = "minilm"
    scorer_layer: int | None = None
    scorer_idf: bool = False
    long_texts: LongTexts = "cut"
    device: str = "auto"

    def task(self, models: SharedModels = SHARED_MODELS) -> EditTask:
        """Make the task.

        Args:
            models: Loads and shares episodes and models.

        Raises:
            ValueError: Something named does not exist or does not fit, an argument has no effect, or prompts must not
                be sent to the LLM.
            LLMError: The endpoint needs a key that is not set in the environment.
        """
        try:
            return self._task(models)
        except ValueError as error:
            raise ValueError(_in_python(str(error))) from error

    def _task(self, models: SharedModels) -> EditTask:
        llm_options = LLMOptions(**{each.name: getattr(self, each.name) for each in fields(LLMOptions)})
        scored = self.reward in REWARDS.builtin or self.components == "all"
        if not scored:
            of_bertscore = ("scorer", "scorer_layer", "scorer_idf", "long_texts")
            idle = [name for name in of_bertscore if getattr(self, name) != getattr(PMLMOptions, name)]
            _refuse(idle, f"with reward={self.reward!r}")
        all_splits, episodes = models.episodes(self.episodes, self.split)
        llm = models.llm(llm_options, self.device, self.cache, self.budget_file)
        if self.episodes not in (DEMO, DEMO_ZH):
            check_sent(Path(self.episodes), llm, self.send_values)
        alone = self.reward == BERTSCORE and self.components == "reward"  # which needs no other patients
        training = None if alone and not self.scorer_idf else models.training(self.episodes)
        idf = tuple(episode.reference for episode in training or ()) if self.scorer_idf else None
        scorer = models.scorer(self.scorer, self.scorer_layer, self.device, self.long_texts, idf) if scored else None
        if scorer is not None:
            scorer.check_reads(episode.reference for episode in episodes if is_chinese(episode.language))
        conditions = () if alone else all_splits.conditions
        reply_reward = models.reply_reward(
            self.reward, self.reward_kwargs, self.device, scorer, training, conditions, self.components
        )
        # All splits of a set get the same number of slots, so that one policy fits them all.
        max_words = all_splits.max_words if self.max_words is None else self.max_words
        return EditTask(
            episodes,
            models.encoder(self.encoder, self.encoder_kwargs, self.device),
            models.reward(episodes, llm, reply_reward, self.n_samples, self.max_failures),
            EditRules(self.n_edits, max_words, self.protect),
            self.observation,
            self.patient,
        )


Kind = TypeVar("Kind", bound=TaskOptions)


def task_from(kind: type[TaskOptions], task: EditTask | None, given: Mapping[str, Any]) -> EditTask:
    """Return the given task, or make one from the other arguments.

    Args:
        kind: The class of the env's arguments.
        task: The task, or None.
        given: The other arguments.

    Raises:
        ValueError: Both are given, or an argument is unknown, has the wrong type, or has no effect.
    """
    if task is None:
        return options_from(kind, given).task()
    if not isinstance(task, EditTask):
        raise ValueError(f"task is {_type_of(task)}: {_OBJECTS}")
    _refuse(sorted(given), "together with task, which already defines it")
    return task


def options_from(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """Check arguments: each must be known, and be a name, a number or a path; numbers may be numpy's.

    Raises:
        ValueError: One is not.
    """
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    kinds = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    for name, value in given.items():
        if name not in names:
            close = get_close_matches(name, names, n=1)
            advice = f"did you mean {close[0]}?" if close else kind.otherwise
            if not isinstance(value, str | Real | Collection | None):
                advice = _OBJECTS
            raise ValueError(f"{kind.env_id} has no argument {name}: {advice}")
        expected = _mismatch(value, kinds[name])
        if expected and isinstance(value, str | Real | None):
            raise ValueError(f"{name} is {value!r}: give {expected}")
        if expected:
            raise ValueError(f"{name} is {_type_of(value)}: give {expected} here, or {_OBJECTS}")
    try:
        options = kind(**given)
        EditRules(options.n_edits, protect=options.protect)  # before anything is loaded
    except ValueError as error:
        raise ValueError(_in_python(str(error))) from None
    return options


def _refuse(idle: list[str], where: str) -> None:
    """Refuse arguments that have no effect."""
    if idle:
        raise ValueError(f"{', '.join(idle)} has no effect {where}: leave it out")


def _mismatch(value: Any, kind: Any) -> str:
    """Return what should have been given; "" if ``value`` has the right type."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "" if isinstance(value, str) and value in inside else f"one of {', '.join(map(repr, inside))}"
    if origin is Collection:
        fits = isinstance(value, Collection) and all(isinstance(each, str) for each in value)
        return "" if fits else "a tuple of strings"
    if kind is Kwargs:
        return "" if isinstance(value, Mapping | str | None) else "a dictionary"
    if kind == int | float:
        number = isinstance(value, Real) and not isinstance(value, bool)
        return "" if number else "a whole number, or a share such as 0.2"
    if inside:  # a union
        expected = [_mismatch(value, each) for each in inside]
        return "" if "" in expected else " or ".join(expected)
    if kind is type(None):
        return "" if value is None else "None"
    number = not isinstance(value, bool)
    if kind is int:
        return "" if number and isinstance(value, Integral) else "a whole number"
    if kind is float:
        return "" if number and isinstance(value, Real) else "a number"
    if kind is bool:
        return "" if isinstance(value, bool) else "True or False"
    return "" if isinstance(value, str) else "a string"


def _type_of(value: Any) -> str:
    """Return an object's class for a message; its repr might be long, or contain a patient's data."""
    return f"of type {type(value).__name__}"


def _in_python(message: str) -> str:
    """Replace option names of the command line by Python names in a message."""
    names = {each.name.replace("_", "-"): each.name for each in fields(PMLMOptions)}
    return re.sub(r"--([a-z][a-z-]*)", lambda match: names.get(match[1], match[0]), message)
