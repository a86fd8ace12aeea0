"""Options that several commands share: the models, and calls to the LLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.run_folder import one_path
from pmlm_env.core.edits import EditRules
from pmlm_env.llm import Limits, LLMOptions


@dataclass(frozen=True)
class ModelOptions(LLMOptions):
    """The models and the edits: everything that decides a run's results.

    Attributes:
        n_samples: Replies to each prompt, of which the mean F1 counts; more than 1 is for LLMs whose replies vary.
        encoder: The words' encoder: ``minilm``, a directory or a hub name.
        scorer: BERTScore's model: ``minilm``, a directory or a hub name.
        scorer_layer: The layer whose states BERTScore compares; by default bert-score's own for the model, or the one
            at three quarters of its depth.
        long_texts: What BERTScore does with texts beyond the scorer's input, which is 512 pieces as a rule: ``cut``
            them, or embed them in ``chunks`` and compare all of them.
        n_edits: The edit budget: limit on edits of each prompt (the paper's n).
        protect: Words that are not edited: roles (``background``, ``self``, ``peer``, ``instruction``), ``digits``
            (words with a digit) and ``negations`` (no, not, without, denies, ...); none by default, as published.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    n_samples: int = 1
    encoder: str = "minilm"
    scorer: str = "minilm"
    scorer_layer: int | None = None
    long_texts: Literal["cut", "chunks"] = "cut"
    n_edits: int = 10
    protect: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check what can be checked before anything loads.

        Raises:
            ValueError: ``n_edits`` is negative, or ``protect`` names neither a role nor a kind of words.
        """
        EditRules(self.n_edits, protect=self.protect)


@dataclass(frozen=True)
class CallOptions(Limits):
    """Calls to the LLM; these options may change when a run is resumed.

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
