"""Options of ``pmlm benchmark`` and ``pmlm tune``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.cluster.options import ClusterOptions
from agents.evaluation.controls import CONTROLS
from agents.model_options import CallOptions, ModelOptions
from agents.registry import COMPARED, BenchmarkEnv, entry
from agents.search.searches import SEARCHES
from agents.settings import changed, check_count, option, plain, same_value
from agents.training.config import MOST_COMPLETIONS
from pmlm_env.llm.specs import is_custom
from pmlm_env.rewards.base import BERTSCORE

#: Name of the row for replies to unedited raw-data prompts.
RAW = "raw-data"

#: Largest numbers of seeds and trials.
_MOST_SEEDS, _MOST_TRIALS = 10_000, 100_000


@dataclass(frozen=True)
class BenchmarkConfig:
    """Run agents on the same patients with the same budgets, and append one line per run to OUT/ENV/runs.jsonl.

    Runs already in the file are not repeated, so an interrupted benchmark can be continued. Every benchmark includes
    the zero-call controls: the scores of replies that need no LLM. The file contains the test patients' IDs and results
    and the words deleted from three or more of their prompts; it contains no prompts or replies.

    Attributes:
        agents: Agents to run; by default all built-in ones but those that ask an LLM themselves, such as
            ``llm-editor``. ``agents/registry.py`` lists their names; the name of an installed package's agent and
            ``package.module:Class`` are possible, too.
        oracles: Searches to run on each test patient with that patient's own reference; reported separately. Names are
            in ``agents.search.searches.SEARCHES``.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for fitting; each budget is a separate run.
        oracle_budget: Completions for the search on each test patient.
        seeds: Number of seeds, starting at 0.
        tuned: File of settings found by `pmlm tune`; agents not in the file use their defaults.
        editor: The LLM of the agents that ask one themselves, in place of that of their settings.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        raw: With ``real``, a folder of the same patients prepared with ``--template raw``. Adds a row for the LLM's
            replies to these unedited prompts, the paper's "before". They contain laboratory values, which the LLM sees.
        out: Output folder.
        run: With ``real``, the folder for the reply cache and the record of spending. All runs share the cache, but a
            budget counts what the agent would have spent alone.
        models: Used with ``real``; ``n_edits`` and ``protect`` also apply to ``lite``.
        calls: With ``real``, limits on the total spending of all runs.
        cluster: Where runs are done.
    """

    agents: tuple[str, ...] = COMPARED
    oracles: tuple[str, ...] = ()
    env: BenchmarkEnv = "lite"
    budget: tuple[int, ...] = (600, 2_000)
    oracle_budget: int = 60
    seeds: int = 10
    tuned: Path | None = None
    editor: str | None = None
    episodes: Path = Path("prepared")
    raw: Path | None = None
    out: Path = Path("results")
    run: Path = Path("runs/benchmark")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: An agent or search is unknown or cannot be used, or a number is out of range.
        """
        for name in self.agents:
            entry(name)
            if name in (*CONTROLS, RAW):
                raise ValueError(f"the agent {name} has the name of a control: name it by package.module:Class")
        if unknown := [name for name in self.oracles if name not in SEARCHES]:
            raise ValueError(f"there is no oracle {unknown[0]!r}: use some of {', '.join(SEARCHES)}")
        if self.editor is not None and not self.asking:
            raise ValueError("--editor has no effect: no agent asks an LLM itself; name llm-editor, or leave it out")
        if not self.budget:
            raise ValueError("--budget has no number: give one or more")
        for budget in self.budget:
            check_count("budget", budget, MOST_COMPLETIONS)
        check_count("oracle-budget", self.oracle_budget, MOST_COMPLETIONS)
        if self.oracle_budget != BenchmarkConfig.oracle_budget and not self.oracles:
            raise ValueError("--oracle-budget has no effect: name a search with --oracles, or leave it out")
        check_count("seeds", self.seeds, _MOST_SEEDS)
        check_env(self)

    @property
    def asking(self) -> tuple[str, ...]:
        """The agents that ask an LLM themselves."""
        return tuple(name for name in self.agents if hasattr(entry(name).config, "editor"))


@dataclass(frozen=True)
class TuneConfig:
    """Tune each agent on the validation patients with the same number of trials; write the best to OUT/ENV/tuned.json.

    The first trial uses the defaults, so the result is never worse than the defaults on these patients. Agents already
    in the file are not tuned again, so an interrupted tuning can be continued. Test patients are not used.
    `pmlm benchmark --tuned FILE` reads the settings.

    Attributes:
        agents: Agents to tune, as for ``pmlm benchmark``; by default all built-in ones that have tunable settings.
        env: ``lite``: PMLMLite-v0's patients. ``real``: a prepared folder, the LLM and BERTScore.
        budget: Completions for each fit.
        trials: Number of settings tried for each agent, including the defaults.
        seeds: Fits per trial; the objective is the mean of their mean deltas.
        episodes: With ``real``, a folder that ``pmlm prepare`` wrote.
        out: Output folder.
        run: With ``real``, the folder for the reply cache and the record of spending; all fits share the cache.
        models: Used with ``real``; ``n_edits`` and ``protect`` also apply to ``lite``.
        calls: With ``real``, limits on the total spending of all fits.
        seed: Seed of the sampler.
        batch: Trials of an agent that are chosen at a time, before the results of any of them are known: those of a
            batch can be done at the same time with ``--ray``. The results depend on it.
        cluster: Where fits are done.
    """

    agents: tuple[str, ...] = ()
    env: BenchmarkEnv = "lite"
    budget: int = 600
    trials: int = 20
    seeds: int = 2
    episodes: Path = Path("prepared")
    out: Path = Path("results")
    run: Path = Path("runs/tune")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    seed: int = 0
    batch: int = 1
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        """Check the names and numbers.

        Raises:
            ValueError: An agent is unknown or cannot be used, or a number is out of range.
        """
        for name in self.agents:
            entry(name)
        check_count("budget", self.budget, MOST_COMPLETIONS)
        check_count("trials", self.trials, _MOST_TRIALS)
        check_count("batch", self.batch, _MOST_TRIALS)
        check_count("seeds", self.seeds, _MOST_SEEDS)
        check_env(self)


def check_env(config: Any) -> None:
    """Check that ``--env lite`` is not combined with options that only affect real patients and models.

    Args:
        config: A dataclass with ``env``, and options that only have an effect with ``real``.

    Raises:
        ValueError: Such an option is set.
    """
    needs, has = {"episodes", "raw", "run", "models", "calls"}, {"models.n_edits", "models.protect"}
    idle = [option(name) for name in changed(config) if name.partition(".")[0] in needs and name not in has]
    if config.env == "lite" and idle:
        raise ValueError(
            f"{', '.join(idle)} has no effect with --env lite, whose patients and replies are simulated: "
            "leave it out, or give --env real"
        )


#: Model options that set where models run; they do not affect replies or scores.
_WHERE = ("base_url", "providers", "device")

#: Options added later, which older results do not record, with the values in effect for those results.
_LATER: dict[str, Any] = {
    "scorer_layer": None, "scorer_idf": False, "long_texts": "cut", "protect": [], "reward": BERTSCORE,
    "reward_kwargs": {}, "encoder_kwargs": {}, "llm_kwargs": {}, "chat_template_kwargs": {},
}  # fmt: skip

#: What an identity says of vectors, labels, predictions and roles, besides prompts and letters. Older results lack it.
DATA = "data"

#: A hash of what else determines an LLM's replies. Older results lack it, unless the LLM is one of the user's own.
LLM_IDENTITY = "llm_identity"


def model_identity(models: ModelOptions, llm_identity: str) -> dict[str, Any]:
    """Return the model options that determine the results, as JSON values.

    An LLM of the user's own may also read settings from elsewhere, such as the environment, an endpoint's are in the
    providers' file, and a model's folder may be replaced: the identity is included, without where the LLM runs, and as
    a hash, because results are handed on.
    """
    settings = {name: value for name, value in plain(models).items() if name not in _WHERE}
    if identity := llm_identity if is_custom(models) else _without_place(llm_identity):
        settings[LLM_IDENTITY] = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {name: value for name, value in settings.items() if value != _LATER.get(name, ...)}


def _without_place(llm_identity: str) -> str:
    """Return the identity of an endpoint's LLM without its address, or of a model's files; "" if the name says it."""
    try:
        parts = json.loads(llm_identity)
    except ValueError:
        return ""
    if "base_url" in parts or "endpoints" in parts:
        return json.dumps({name: parts[name] for name in sorted({*parts} - {"base_url", "endpoints"})})
    files = str(parts.get("local") or parts.get("vllm"))
    return files if "@" in files else ""  # a digest or a commit, which a bundled model's name stands for


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs between the patients and models of two results."""
    names = {*before, *now} - {name for name in (DATA, LLM_IDENTITY) if name not in before or name not in now}
    return sorted(name for name in names if not same_value(name, before.get(name), now.get(name)))


def check_identity(file: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that the results in a file come from the same patients and models.

    Raises:
        ValueError: The patients or models differ.
    """
    if other := differences(before, now):
        said = ", ".join(
            # Arguments of somebody's class may be secret.
            f"other {name}" if name.endswith("_kwargs") else f"{name} {before.get(name)!r}, not {now.get(name)!r}"
            for name in other
        )
        raise ValueError(f"{file} has results with {said}: use the same, or another --out")
