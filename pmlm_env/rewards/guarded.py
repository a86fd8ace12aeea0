"""GuardedReward: a weighted sum of components, and gates that edits must not trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.io.toml import read_toml, shown
from pmlm_env.rewards.base import ScoredReply, Values
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.rewards.components import COMPONENTS, Components

#: The limit of a gate that is set by the letters of training patients.
LETTERS = "letters"

#: The share of letters on the allowed side of such a limit.
_SHARE = 0.95

#: Maximum number of letters that such limits are computed from.
_MOST_LETTERS = 128

#: The largest number in settings; scores of larger ones could be infinite.
_LARGEST = 1e9

_HERE = Path(__file__).parent

#: The settings of the reward ``guarded``.
BUILT_IN = _HERE / "guarded.toml"


@dataclass(frozen=True)
class Gate:
    """A limit on one component.

    Attributes:
        component: The component's name.
        side: The side of the limit on which the gate trips.
        limit: The limit, or ``LETTERS``: the 95th percentile (for ``below``, the 5th) of the component over training
            patients' letters, each against its own patient's prompt.
        slack: How much further beyond the limit than the initial reply the new one may be.
    """

    component: str
    side: Literal["above", "below"]
    limit: float | str
    slack: float = 0.0


@dataclass(frozen=True)
class GuardedSettings:
    """The settings of ``GuardedReward``.

    Attributes:
        weights: The weight of each component in the score.
        gates: The gates.
        penalty: What an edit that trips a gate loses at least, in the unit of the score.
    """

    weights: Mapping[str, float]
    gates: tuple[Gate, ...] = ()
    penalty: float = 0.0

    @classmethod
    def read(cls, settings: str | Path | Mapping[str, Any]) -> GuardedSettings:
        """Read settings from a TOML file, or from the same tables as a mapping.

        Raises:
            ValueError: The file cannot be read, or something in it is not allowed; the message names it.
        """
        where = "the settings of the reward" if isinstance(settings, Mapping) else str(settings)
        table = settings_table(settings)
        _check_names(table, ("weights", "gates", "penalty"), where)
        weights = _table(table, "weights", COMPONENTS, where)
        for name, value in weights.items():
            if not _is_number(value):
                raise ValueError(f"{where}: weights.{name} is {shown(value)}: use a number from -1e9 to 1e9")
        if not any(weights.values()):
            raise ValueError(f"{where}: weights has no component with a weight: give one or more")
        penalty = table.get("penalty", 0.0)
        if not _is_number(penalty) or penalty < 0:
            raise ValueError(f"{where}: penalty is {shown(penalty)}: use a number from 0 to 1e9")
        gates = _table(table, "gates", COMPONENTS, where)
        return cls(weights, tuple(_gate(name, gates, where) for name in gates), penalty)


def settings_table(settings: Any) -> Mapping[str, Any]:
    """Return the tables of settings, which are a TOML file or these tables; their names are not checked.

    Raises:
        ValueError: They are neither, or the file cannot be read.
    """
    if isinstance(settings, Mapping):
        return settings
    if not isinstance(settings, str | Path) or "\0" in str(settings):
        raise ValueError("the settings of the reward are neither a file nor tables: name a TOML file")
    return read_toml(Path(settings).expanduser())


def _gate(name: str, gates: Mapping[str, Any], where: str) -> Gate:
    gate = dict(_table(gates, name, ("above", "below", "slack"), f"{where}: gates"))
    slack = gate.pop("slack", 0.0)
    if not _is_number(slack) or slack < 0:
        raise ValueError(f"{where}: gates.{name}.slack is {shown(slack)}: use a number from 0 to 1e9")
    if len(gate) != 1:
        raise ValueError(f"{where}: gates.{name} has {' and '.join(gate) or 'no limit'}: give either above or below")
    ((side, limit),) = gate.items()
    if limit != LETTERS and not _is_number(limit):
        raise ValueError(
            f'{where}: gates.{name}.{side} is {shown(limit)}: use a number from -1e9 to 1e9, or "{LETTERS}"'
        )
    return Gate(name, side, limit, slack)


def _table(parent: Mapping[str, Any], name: str, allowed: Mapping[str, Any] | tuple[str, ...], where: str) -> Any:
    """Return a table inside another one, whose names are checked; an empty one if there is none."""
    table = parent.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: {name} is {shown(table)}: use a table")
    _check_names(table, tuple(allowed), f"{where}: {name}")
    return table


def _check_names(table: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    if unknown := [name for name in table if name not in allowed]:
        raise ValueError(f"{where} has an unknown name, {unknown[0]!r}: use {', '.join(allowed)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


class GuardedReward:
    """A weighted sum of components, with gates against replies that raise it by a trick.

    An edit earns the change of the sum from the initial prompt's reply; a component without a value before or after
    counts as unchanged. A gate trips if the reply to the refined prompt is beyond the gate's limit, and further beyond
    it than the reply to the initial prompt, by more than the gate's slack. Then the edit earns
    ``min(change, 0) - penalty``.

    Args:
        settings: A TOML file, or its tables as a mapping; see docs/rewards.md. None = the built-in ``guarded.toml``.
        scorer: BERTScore; by default with its default model.
        training: Training patients, whose letters ``margin`` and the limit ``"letters"`` need.
        conditions: The conditions that replies are searched for; None = those of ``training``.

    Attributes:
        settings: The settings.
        names: The components with a weight or a gate.

    Raises:
        ValueError: The settings are not allowed, or need letters of training patients that are not there.
    """

    def __init__(
        self,
        settings: str | Path | Mapping[str, Any] | None = None,
        scorer: BertScorer | None = None,
        training: EpisodeSet | None = None,
        conditions: Iterable[Label] | None = None,
    ) -> None:
        """Read the settings."""
        self.settings = GuardedSettings.read(BUILT_IN if settings is None else settings)
        used = {*self.settings.weights, *(gate.component for gate in self.settings.gates)}
        if conditions is None:
            conditions = () if training is None else training.conditions
        self._components = Components(used, scorer or BertScorer(), training, conditions)
        self.names = self._components.names
        self._training = [episode for episode in training or () if episode.reference.strip()]
        if "margin" in used and len({episode.label for episode in self._training}) < 2:
            raise ValueError("the component margin needs letters of training patients of two conditions or more")
        if "advice" in used and self._components.advice is None:
            raise ValueError("the component advice needs the bundled encoder: get it with `pmlm models --fetch minilm`")
        if not self._training and any(gate.limit == LETTERS for gate in self.settings.gates):
            raise ValueError(f'the limit "{LETTERS}" needs letters of training patients, and there are none')

    def components(self, replies: Sequence[ScoredReply]) -> dict[str, npt.NDArray[np.float64]]:
        """Return the components with a weight or a gate, each float64 (N,); NaN where one has no value."""
        return self._components(replies)

    def score(self, components: Values) -> npt.NDArray[np.float64]:
        """Return the weighted sum of the components that have a value, float64 (N,)."""
        return self._sum(components)

    def change(self, before: Values, after: Values) -> npt.NDArray[np.float64]:
        """Return what edits earn, float64 (N,)."""
        change = self._sum({name: after[name] - before[name] for name in self.settings.weights})
        return np.where(self.tripped(before, after), np.minimum(change, 0.0) - self.settings.penalty, change)

    def tripped(self, before: Values, after: Values) -> npt.NDArray[np.bool_]:
        """Return whether any gate trips, bool (N,)."""
        trips = np.zeros(len(next(iter(after.values()))), dtype=np.bool_)
        for gate in self.settings.gates:
            sign = 1.0 if gate.side == "above" else -1.0
            old, new = sign * before[gate.component], sign * after[gate.component]
            trips |= (new > sign * self.limits[gate.component]) & (new > old + gate.slack)
        return trips

    @cached_property
    def limits(self) -> dict[str, float]:
        """The limit of each gate, by component."""
        some = np.random.default_rng(0).permutation(len(self._training))[:_MOST_LETTERS]
        chosen = [self._training[i] for i in np.sort(some).tolist()]
        letters = [ScoredReply(e.reference, e, e.prompt, False, e.reference) for e in chosen]
        names = [gate.component for gate in self.settings.gates if gate.limit == LETTERS]
        values = self._components(letters, names) if names else {}
        share = {"above": _SHARE, "below": 1 - _SHARE}
        return {
            gate.component: _quantile(values[gate.component], share[gate.side])
            if gate.limit == LETTERS
            else float(gate.limit)
            for gate in self.settings.gates
        }

    def _sum(self, values: Values) -> npt.NDArray[np.float64]:
        """Return the weighted sum of values, of which NaN counts as 0."""
        weighted = [weight * np.nan_to_num(values[name]) for name, weight in self.settings.weights.items()]
        return np.sum(weighted, axis=0, dtype=np.float64)


def _quantile(values: npt.NDArray[np.float64], share: float) -> float:
    """Return a quantile of the values that are not NaN; without any, NaN, a limit that never trips."""
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) else float("nan")


class MarginReward(GuardedReward):
    """The change of the margin.

    Args:
        scorer: BERTScore; by default with its default model.
        training: Training patients, whose letters the margin is computed against.
    """

    def __init__(self, scorer: BertScorer | None = None, training: EpisodeSet | None = None) -> None:
        """Read the built-in settings."""
        super().__init__(_HERE / "margin.toml", scorer, training)
