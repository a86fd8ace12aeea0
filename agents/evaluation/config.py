"""Settings of ``pmlm evaluate`` and ``pmlm audit``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from agents.evaluation.bootstrap import FEWEST
from agents.model_options import CallOptions, ModelOptions
from agents.run_folder import one_path
from agents.settings import from_plain, refuse_idle
from pmlm_env.core.episodes import Split
from pmlm_env.llm.storage.location import check_given


@dataclass(frozen=True)
class EvaluationCalls(CallOptions):
    """Options for calls to the LLM of a run that is evaluated; by default as in training, except for ``send_values``.

    Attributes:
        replay: Use cached replies only, and never call the LLM; a reply missing from the cache is an error. Always on
            for a run that was trained so.
        max_failures: Stop the evaluation after this many consecutive episodes without a reply; None = as in training.
    """

    replay: tyro.conf.FlagCreatePairsOff[bool] = False
    max_failures: int | None = None

    def over(self, saved: Mapping[str, Any], file: Path) -> CallOptions:
        """Return the options of training, with those given here in their place.

        ``send_values`` is as given here: a run folder may come from somebody else, who must not decide that.

        Args:
            saved: ``calls`` in the run's settings.
            file: The run's ``config.json``, for messages.

        Raises:
            ValueError: The run stores its replies elsewhere than in ``cache``, or on a server that is not given.
        """
        check_given(self.cache, saved.get("cache"), file)
        if self.cache is not None and not one_path(str(self.cache), saved.get("cache")):
            where = saved.get("cache") or "the run folder"
            raise ValueError(f"the replies of this run are stored in {where}: leave out --cache")
        given = {name: value for name, value in vars(self).items() if value is not None and value is not False}
        return from_plain(CallOptions, {**saved, "send_values": False, **given})


@dataclass(frozen=True)
class EvaluateConfig:
    """Edit held-out patients' prompts with a trained agent, and compare the replies with those of baselines.

    The baselines are the unedited prompts, random edits, and zero-call controls such as an echo of the prompt; with
    --rule-calls also the best single rule, which shows how much of the agent's gain comes from personalization.

    Attributes:
        run: The run folder that ``pmlm train`` wrote. Results are written to its ``evaluation.json``, and a record of
            each episode, with prompts and replies, to its ``traces.jsonl``.
        split: The patients to evaluate on.
        episodes: The prepared folder that the run was trained on, if it has been moved.
        base_url: The address of the run's LLM, if it is not the provider's own. It has to be given again, because a run
            folder may come from somebody else, and prompts and the key are sent there.
        providers: Likewise the file with your own providers, if it has the address of the run's LLM, or headers and the
            like that are sent to it.
        calls: Options for LLM calls, and spending limits of the whole run.
        rule_calls: Number of LLM calls for finding the best single rule on training patients; for a fair comparison,
            use as many as training did. 0 = no rule.
        seed: Seed for the random edits, the rule search, and the bootstrap resamples.
        cases: Number of patients to print with prompts, replies, and references: the patients whose F1 fell most.
        allow_import: Import and run the classes that the run names as ``package.module:Class``. Do so only if you trust
            the run.
    """

    run: Path = Path("runs/train")
    split: Split = "test"
    episodes: Path | None = None
    base_url: str | None = None
    providers: str | None = None
    calls: EvaluationCalls = field(default_factory=EvaluationCalls)
    rule_calls: int = 0
    seed: int = 0
    cases: int = 0
    allow_import: bool = False

    def __post_init__(self) -> None:
        """Check ``rule_calls`` and ``cases``.

        Raises:
            ValueError: One of them is negative.
        """
        if min(self.rule_calls, self.cases) < 0:
            raise ValueError(f"rule-calls ({self.rule_calls}) and cases ({self.cases}) must be 0 or more")


#: Options of ``ModelOptions`` that are for edits.
_OF_EDITS = ("encoder", "encoder_kwargs", "n_edits", "protect")


@dataclass(frozen=True)
class AuditConfig:
    """Audit a reward: try what it pays for texts that nobody wrote for the patient, before an agent learns from it.

    The LLM replies to the untouched prompts of some patients, which is all that it is asked for. Then other texts take
    the place of these replies: the prompt itself, half of the reply, the same letter for everybody, and others, some of
    them searched on training patients. A text wins if it earns more than the untouched reply, with the 95 % interval
    of the mean over patients above zero. Exit code 0: no text wins; 1: a text wins, or the audit failed; 2: bad input.

    Attributes:
        episodes: A folder that ``pmlm prepare`` wrote.
        split: The patients to audit on. With ``train``, texts are searched on the other half of the training patients.
        patients: Maximum number of patients to audit on, drawn at random, and of training patients to search texts on.
            The LLM replies once to each of both.
        out: The file to write. It has the results, and no texts of patients.
        models: The LLM, and the reward to audit with its models.
        calls: How the LLM is called, and limits on what this command spends. By default, replies are kept beside
            ``out``.
        seed: Seed for drawing patients, for random letters, and for the bootstrap resamples.
    """

    episodes: Path = Path("prepared")
    split: Split = "validation"
    patients: int = 48
    out: Path = Path("audit.json")
    models: ModelOptions = field(default_factory=ModelOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        """Check ``patients``, ``out`` and ``seed``, and that every option has an effect.

        Raises:
            ValueError: There are too few patients for an interval, ``out`` cannot be written or the seed is negative,
                or an option has no effect.
        """
        if self.patients < FEWEST:
            raise ValueError(f"--patients {self.patients} is too few for an interval: use {FEWEST} or more")
        if self.out.suffix != ".json" or self.out.is_dir():  # rather than lose what took minutes, or another file
            raise ValueError(f"--out {self.out} is not a JSON file: name one that ends in .json")
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed} is negative: use a whole number, 0 or more")
        refuse_idle(self, {f"models.{name}": "no prompt is edited: leave it out" for name in _OF_EDITS})
