"""How much of a prompt can be deleted: the score against the share of words deleted, for several agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agents import registry
from agents.experiments.on_patients import PatientsExperiment
from agents.experiments.rows import ECHO
from agents.model_options import ModelOptions
from pmlm_env.core.edits import EditRules, apply_edits
from pmlm_env.core.protection import editable_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.base import Edits

#: Shares of a prompt's words that are deleted, and those with ``quick``.
SHARES: tuple[int | float, ...] = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_QUICK_SHARES: tuple[int | float, ...] = (0, 0.3, 0.9)

#: Of the metrics of ``agents.evaluation.metrics``, those that a run has.
METRICS = ("bertscore_f1", "margin", "diagnosis_named", "wrong_diagnosis_named", "words", "cut")


@dataclass(frozen=True)
class DeletionCurve(PatientsExperiment):
    """How much of a prompt can be deleted at no loss.

    Each agent learns with the edit budget (``--n-edits``, here three tenths of the words by default), then goes on
    deleting words of the test patients' prompts until one tenth is left. At 0, 10, ..., 90 % of the words deleted, the
    LLM's reply is judged, beside the number of prompt tokens and the echo of the prompt. The tables say what each agent
    can delete at no loss.

    Attributes:
        agents: Agents that choose the words. They have to go on deleting for as long as they are asked to.
        price: Price of a million prompt tokens, in any currency, for the amount that deletion saves; by default that
            of the providers' file, if it has one.
    """

    agents: tuple[str, ...] = (registry.DEFAULT, "surrogate", "self-information-low", "random-n")
    models: ModelOptions = field(default_factory=lambda: ModelOptions(n_edits=0.3))
    price: float | None = None

    name: ClassVar[str] = "deletion-curve"
    packages: ClassVar[Sequence[str]] = ("pmlm-env", "numpy", "torch", "transformers")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: A number is out of range, or an option has no effect.
        """
        from pmlm_env.llm.storage.budget import Price

        super().__post_init__()
        if self.price is not None:
            Price(self.price, 0)  # checks it

    def cells(self) -> list[dict[str, Any]]:
        """Return the runs, one seed after another, and the echo.

        Raises:
            ValueError: There is no such agent, or the cohort or the LLM cannot be used.
        """
        kinds = {name: registry.class_of(name) for name in self.agents}
        same = self.identity(self.models)
        rows = [
            {"agent": name, "seed": seed, "budget": self.budget_of(name)}
            for seed in range(self.n_seeds)
            for name, kind in kinds.items()
            if seed == 0 or kind.seeded
        ]
        echo = [{"agent": ECHO, "seed": 0, "budget": 0}] if rows else []
        return [{**row, **same} for row in [*rows, *echo]]

    def n_calls(self, cell: Mapping[str, Any]) -> int:
        """Return the most calls of the LLM that a run makes: the agent's, and a reply at each share."""
        if cell["agent"] == ECHO:
            return 0
        replies = len(_QUICK_SHARES if self.quick else SHARES) * self.limits["test"]
        return int(cell["budget"]) + replies * self.models.n_samples

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Let an agent choose the order of deletion, and judge the replies at each share.

        Raises:
            ValueError: The cohort has too few patients, or the agent deletes fewer words than it is asked to.
        """
        patients = self.judge(self.pipeline, self.models)
        if cell["agent"] == ECHO:
            with patients.working():
                echo = patients.control(ECHO)
            metrics = {name: [echo["metrics"][name]] for name in METRICS}
            return {"patients": echo["patients"], "shares": [0], "metrics": metrics}
        agent = registry.make(cell["agent"], seed=cell["seed"])
        lengths, editable = patients.held_out.lengths, editable_words(patients.held_out, patients.protect).sum(axis=1)
        shares = _QUICK_SHARES if self.quick else SHARES
        n_deleted = [np.minimum(EditRules(share).budgets(lengths), editable) for share in shares]
        with patients.working():
            order = patients.refined(agent, cell["budget"], shares[-1])
            _check_orders(cell["agent"], order, n_deleted[-1].tolist())
            everyone = range(len(lengths))
            prompts = [
                list(apply_edits(patients.held_out, everyone, [e[:n] for e, n in zip(order, at, strict=True)]))
                for at in n_deleted
            ]
            replies = patients.replies([prompt for at in prompts for prompt in at])
            tokens = np.array([samples[0].prompt_tokens for samples in replies]).reshape(len(shares), -1)
            found = [patients.answered(at)["metrics"] for at in prompts]
        return {
            "patients": [episode.patient_id for episode in patients.held_out],
            "shares": shares,
            "prompt_words": [(lengths - at).tolist() for at in n_deleted],
            "prompt_tokens": tokens.tolist(),
            "metrics": {name: [metrics[name] for metrics in found] for name in METRICS},
        }

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        """Return the tables for each set of patients and models; see ``agents.experiments.curve_table``."""
        from agents.experiments.curve_table import curve_tables

        return curve_tables(runs, self._price)

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the curves of the last run's patients and models; see ``agents.experiments.curve_table``."""
        from agents.experiments.curve_table import curve_figures

        return curve_figures(runs)

    @property
    def _price(self) -> float | None:
        """The price of a million prompt tokens, if it is known."""
        from pmlm_env.llm import price_of

        known = price_of(self.models)
        return self.price if self.price is not None or known is None else known.prompt


def _check_orders(agent: str, order: Edits, n_words: Sequence[int]) -> None:
    """Check that an agent deleted as many words of each prompt as it was asked to.

    Raises:
        ValueError: It deleted fewer.
    """
    for edits, n in zip(order, n_words, strict=True):
        if len(edits) < n:
            raise ValueError(
                f"the agent {agent} deleted {len(edits)} words of a prompt instead of {n}: the curve needs an agent "
                "that goes on deleting, such as surrogate"
            )
