"""The flat arguments of ``gym.make("PMLM-v0", ...)``: names, numbers and paths that stand for an EditTask."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import Split
from pmlm_env.core.task import EditTask, ObservationForm
from pmlm_env.envs.shared_models import SHARED_MODELS, SharedModels
from pmlm_env.llm.specs import LLMOptions
from pmlm_env.rewards.options import LongTexts

_LIVE = "make an EditTask(episodes, encoder, reward) of live objects, and pass it as task"


@dataclass(frozen=True)
class TaskOptions:
    """What all envs of this package take; see ``PMLMEnv``.

    Attributes:
        env_id: The env whose arguments these are, for messages.
        otherwise: What to do about an argument that it does not take.
    """

    env_id: ClassVar[str]
    otherwise: ClassVar[str]

    n_edits: int = EditRules.n_edits
    max_words: int | None = EditRules.max_words
    observation: ObservationForm = "embeddings"
    protect: Collection[str] = EditRules.protect

    def task(self) -> EditTask:
        """Make the task."""
        raise NotImplementedError


@dataclass(frozen=True)
class PMLMOptions(LLMOptions, TaskOptions):
    """The arguments of ``PMLM-v0``; see ``PMLMEnv``."""

    env_id: ClassVar[str] = "PMLM-v0"
    otherwise: ClassVar[str] = "its arguments are listed in docs/environments/PMLM-v0.md"

    episodes: str = "demo"
    split: Split = "train"
    encoder: str = "minilm"
    n_samples: int = 1
    max_failures: int | None = 64
    cache: str | None = None
    budget_file: str | None = None
    scorer: str = "minilm"
    scorer_layer: int | None = None
    long_texts: LongTexts = "cut"
    device: str = "auto"

    def task(self, models: SharedModels = SHARED_MODELS) -> EditTask:
        """Make the task.

        Args:
            models: Who loads and shares what is named.

        Raises:
            ValueError: Something named does not exist or does not fit, or an argument has no effect.
            LLMError: The environment holds no key that the endpoint needs.
        """
        try:
            return self._made(models)
        except ValueError as error:
            raise ValueError(_in_python(str(error))) from error

    def _made(self, models: SharedModels) -> EditTask:
        llm_options = LLMOptions(**{each.name: getattr(self, each.name) for each in fields(LLMOptions)})
        if self.llm == "responder":
            idle = [each.name for each in fields(LLMOptions) if each.name not in ("llm", "base_url", "providers")]
            _refuse([name for name in idle if getattr(self, name) != getattr(LLMOptions, name)], "with llm='responder'")
        everything, episodes = models.episodes(self.episodes, self.split)
        llm = models.llm(llm_options, self.device, self.cache, self.budget_file)
        scorer = models.scorer(self.scorer, self.scorer_layer, self.device, self.long_texts)
        # All splits of a set have the same number of slots, so that one policy plays them all.
        max_words = everything.max_words if self.max_words is None else self.max_words
        return EditTask(
            episodes,
            models.encoder(self.encoder, self.device),
            models.reward(episodes, llm, scorer, self.n_samples, self.max_failures),
            EditRules(self.n_edits, max_words, self.protect),
            self.observation,
        )


Kind = TypeVar("Kind", bound=TaskOptions)


def task_from(kind: type[TaskOptions], task: EditTask | None, given: Mapping[str, Any]) -> EditTask:
    """Return the live task, or make the one that flat arguments stand for.

    Args:
        kind: The env's arguments.
        task: The live task, or None.
        given: The flat arguments.

    Raises:
        ValueError: Both are given, or an argument is unknown, of the wrong type, or without effect.
    """
    if task is None:
        return options_from(kind, given).task()
    if not isinstance(task, EditTask):
        raise ValueError(f"task is {_shown(task)}: {_LIVE}")
    _refuse(sorted(given), "beside task, which holds it already")
    return task


def options_from(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """Check flat arguments: they must be known, and names, numbers or paths.

    Raises:
        ValueError: One is not.
    """
    kinds = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    for name, value in given.items():
        if name not in names:
            close = get_close_matches(name, names, n=1)
            cure = f"did you mean {close[0]}?" if close else kind.otherwise
            if not isinstance(value, str | Real | Collection | None):
                cure = _LIVE
            raise ValueError(f"{kind.env_id} takes no {name}: {cure}")
        wanted = _unless_it_fits(value, kinds[name])
        if wanted and isinstance(value, str | Real | None):
            raise ValueError(f"{name} is {value!r}: give {wanted}")
        if wanted:
            raise ValueError(f"{name} is {_shown(value)}: give {wanted} here, or {_LIVE}")
    return kind(**given)


def _refuse(idle: list[str], where: str) -> None:
    """Refuse arguments that have no effect."""
    if idle:
        raise ValueError(f"{', '.join(idle)} has no effect {where}: leave it out")


def _unless_it_fits(value: Any, kind: Any) -> str:
    """Return what should have been given; "" if ``value`` is of that kind."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "" if isinstance(value, str) and value in inside else f"one of {', '.join(map(repr, inside))}"
    if origin is Collection:
        fits = isinstance(value, Collection) and all(isinstance(each, str) for each in value)
        return "" if fits else "a tuple of strings"
    if inside:  # a union
        wanted = [_unless_it_fits(value, each) for each in inside]
        return "" if "" in wanted else " or ".join(wanted)
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


def _shown(value: Any) -> str:
    """Name a live object by its class: its own text might be long, or a patient's."""
    return f"of type {type(value).__name__}"


def _in_python(message: str) -> str:
    """Return a message about options of the command line with the names that they have in Python."""
    names = {each.name.replace("_", "-"): each.name for each in fields(PMLMOptions)}
    return re.sub(r"--([a-z][a-z-]*)", lambda match: names.get(match[1], match[0]), message)
