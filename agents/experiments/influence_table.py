"""The tables and the figure of ``influence``: what words are worth, and whether agents delete those that harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from agents import registry
from agents.benchmark.edit_summary import FEWEST_PROMPTS
from agents.evaluation.bootstrap import FEWEST, Interval
from agents.evaluation.bounds import bounds_of_change
from agents.experiments.groups import Run, by_settings, sections
from agents.experiments.reply_table import interval_of, level_of, minus, values_of
from agents.experiments.rows import ECHO, OTHER_REPLY, WORDS
from agents.experiments.stacks import by_row, change, percent, share
from agents.report.tables import table
from pmlm_env.io.text import as_code, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of words at either end of the table of words.
_N_WORDS = 10

#: Effects that the tables show, in points.
_SHOWN = {"bertscore_f1": "F1", "margin": "margin", "diagnosis_named": "right"}

#: One value for each word of each patient's prompt.
_PerWord = Sequence[npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Words:
    """The words of the prompts and their effects.

    Attributes:
        patients: The patients.
        changes: The change of each metric when a word is left out; NaN for protected words.
        kinds: Each word's place in the vocabulary; -1 if it is not there.
        roles: Each word's role.
        vocabulary: Words with their roles.
    """

    patients: Sequence[str]
    changes: Mapping[str, _PerWord]
    kinds: Sequence[npt.NDArray[np.int64]]
    roles: Sequence[npt.NDArray[np.str_]]
    vocabulary: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> _Words:
        """Read the result of the run of the words."""
        return cls(
            result["patients"],
            {name: [np.array(row, dtype=np.float64) for row in rows] for name, rows in result["changes"].items()},
            [np.array([-1 if place is None else place for place in row]) for row in result["words"]],
            [np.array(row) for row in result["roles"]],
            [(word, role) for word, role in result["vocabulary"]],
        )

    @cached_property
    def common(self) -> list[int]:
        """The places in the vocabulary of the words that the table of words is chosen from, by their change of F1."""
        least = FEWEST if len(self.patients) >= FEWEST else FEWEST_PROMPTS
        n_prompts = [sum(bool((kinds == place).any()) for kinds in self.kinds) for place in range(len(self.vocabulary))]
        return sorted(
            (place for place, n in enumerate(n_prompts) if n >= least and not np.isnan(self.f1(place))), key=self.f1
        )

    def f1(self, place: int) -> float:
        """Return the mean change of F1 when a word of the vocabulary is left out; NaN if it is protected."""
        found = _means(self.changes["bertscore_f1"], self.of_kind(place))
        return float(np.nanmean(found)) if not np.isnan(found).all() else float("nan")

    def of_kind(self, place: int) -> list[npt.NDArray[np.bool_]]:
        """Return which words of each prompt are a word of the vocabulary."""
        return [kinds == place for kinds in self.kinds]

    def of_role(self, role: str) -> list[npt.NDArray[np.bool_]]:
        """Return which words of each prompt have a role."""
        return [roles == role for roles in self.roles]

    def effect(self, name: str, which: Sequence[npt.NDArray[np.bool_]]) -> Interval | None:
        """Return the change of a metric, the mean over some words of a patient and then over patients."""
        interval = interval_of(_means(self.changes[name], which)[None])
        return None if interval is None else interval.within(*bounds_of_change(name))


@dataclass(frozen=True)
class _Deletions:
    """The deletions of one agent.

    Attributes:
        ranks: For each seed and patient, 0 for a word that stays, and for the others the more the earlier they go.
        steps: Likewise, the step at which a word goes, starting at 1; NaN if it stays.
    """

    ranks: Sequence[_PerWord]
    steps: Sequence[_PerWord]

    @classmethod
    def of(cls, runs: Sequence[Run], words: _Words) -> _Deletions:
        """Read the runs of an agent, one for each seed.

        Raises:
            ValueError: Their patients are not those of the words.
        """
        if any(run["result"]["patients"] != words.patients for run in runs):
            raise ValueError("runs have other patients, though the same settings")
        steps = []
        for run in runs:
            of_seed = [np.full(len(kinds), np.nan) for kinds in words.kinds]
            for row, slots in zip(of_seed, run["result"]["slots"], strict=True):
                row[slots] = np.arange(1, len(slots) + 1)
            steps.append(of_seed)
        ranks = [[np.nan_to_num(len(row) + 1 - row) for row in of_seed] for of_seed in steps]
        return cls(ranks, steps)

    def share(self, which: Sequence[npt.NDArray[np.bool_]]) -> Interval | None:
        """Return the share of some words that are deleted, the mean over a patient's and then over patients."""
        return interval_of(self._shares(which))

    def mean_share(self, which: Sequence[npt.NDArray[np.bool_]]) -> float:
        """Return the mean of ``share``."""
        return float(np.nanmean(self._shares(which)))

    def _shares(self, which: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
        deleted = [[(rank > 0).astype(np.float64) for rank in of_seed] for of_seed in self.ranks]
        return np.array([_means(of_seed, which) for of_seed in deleted])

    def step(self, which: Sequence[npt.NDArray[np.bool_]]) -> float:
        """Return the mean step at which those of some words go that do; NaN if none goes."""
        found = np.concatenate([row[chosen] for each in self.steps for row, chosen in zip(each, which, strict=True)])
        found = found[~np.isnan(found)]
        return float(found.mean()) if len(found) else float("nan")

    def correlation(self, changes: _PerWord) -> Interval | None:
        """Return Spearman's rank correlation of effect and deletion, the mean over seeds and patients.

        It is computed within a prompt: words that stay are tied, and words that go count the more the earlier they go.
        Patients whose words all have the same effect, or are all treated alike, have none.
        """
        found = [[_spearman(*pair) for pair in zip(changes, of_seed, strict=True)] for of_seed in self.ranks]
        interval = interval_of(np.array(found))
        return None if interval is None else interval.within(-1, 1)

    def summed(self, changes: _PerWord) -> npt.NDArray[np.float64]:
        """Return the sum of the single effects of the words that are deleted, float64 (seeds, patients)."""
        return np.array(
            [[row[rank > 0].sum() for row, rank in zip(changes, of_seed, strict=True)] for of_seed in self.ranks]
        )

    def signs(self, changes: _PerWord) -> tuple[float, float, float]:
        """Return the shares of the deleted words whose leaving out helps, harms, and changes nothing."""
        gone = [row[rank > 0] for of_seed in self.ranks for row, rank in zip(changes, of_seed, strict=True)]
        effects = np.concatenate(gone)
        effects = effects[~np.isnan(effects)]
        if not len(effects):
            return (float("nan"),) * 3
        return float((effects > 0).mean()), float((effects < 0).mean()), float((effects == 0).mean())


def influence_tables(runs: Sequence[Run]) -> str:
    """Return the tables for each set of patients and models.

    Args:
        runs: The runs of ``influence``, each with its ``cell`` and its ``result``.
    """
    return sections(runs, _tables) + "\n"


def influence_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return a figure of the words' effects against how often they are deleted, for the last run's patients and models.

    Args:
        runs: As for ``influence_tables``.
    """
    from agents.report.word_figures import word_scatter  # matplotlib takes a second to import

    _, own = next((group, own) for group, own in by_settings(runs) if runs[-1] in own)
    words, rows = _read(own)
    if words is None or not words.common or not (agents := _agents(rows)):
        return {}
    x = [100 * words.f1(place) for place in words.common]
    names = [words.vocabulary[place][0] for place in words.common]
    y = {
        name: [100 * deletions.mean_share(words.of_kind(place)) for place in words.common]
        for name, deletions in ((name, _Deletions.of(of_agent, words)) for name, of_agent in agents.items())
    }
    return {"words": word_scatter(names, x, y, registry.DEFAULT)}


def _read(runs: Sequence[Run]) -> tuple[_Words | None, dict[str, list[Run]]]:
    """Return the words, if their run is complete, and the runs by row."""
    rows = by_row(runs)
    words = rows.get(WORDS)
    return _Words.of(words[0]["result"]) if words else None, rows


def _agents(rows: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    return {name: own for name, own in rows.items() if name not in (WORDS, ECHO)}


def _tables(group: Mapping[str, Any], runs: Sequence[Run]) -> str:
    words, rows = _read(runs)
    if words is None:
        return "The words' effects are missing: give the command again."
    agents = {name: _Deletions.of(own, words) for name, own in _agents(rows).items()}
    untouched = values_of(rows[WORDS])
    patients, models = group["patients"], group["models"]
    parts = [
        f"{as_text(patients['cohort'])}, {as_text(models['llm'])}, template "
        f"{as_text(patients['pipeline']['template'])}: {len(words.patients)} test patients, at most "
        f"{patients['train']} training patients, an edit budget of {models['n_edits']}. F1, margin, and all changes in "
        "points; 95 % intervals are over patients, and over seeds where there are several.",
        "",
        "When one word is left out, by role:",
        "",
        _role_table(words, agents),
        "",
        f"By word, those whose leaving out lowers and raises F1 the most, {_N_WORDS} each. They are the extremes of "
        f"{len(words.common)} words, so that chance is part of their effects:",
        "",
        _word_table(words, agents),
        "",
        "The prompts that agents edited, and whether the words that they delete are those whose leaving out helps:",
        "",
        _agent_table(words, agents, rows, untouched),
    ]
    return "\n".join(parts)


def _role_table(words: _Words, agents: Mapping[str, _Deletions]) -> str:
    rows = []
    for role in dict.fromkeys(str(role) for roles in words.roles for role in roles):
        which = words.of_role(role)
        rows.append(
            [
                as_text(role),
                f"{np.mean([chosen.sum() for chosen in which]):.1f}",
                *(change(words.effect(name, which)) for name in _SHOWN),
                share(words.effect(OTHER_REPLY, which)),
                *(share(deletions.share(which)) for deletions in agents.values()),
            ]
        )
    return table(["role", "words", *_effect_heads(), *(f"deleted by {as_text(name)}, %" for name in agents)], rows)


def _word_table(words: _Words, agents: Mapping[str, _Deletions]) -> str:
    places = words.common
    if len(places) > 2 * _N_WORDS:
        places = places[:_N_WORDS] + places[-_N_WORDS:]
    rows = []
    for place in places:
        (word, role), which = words.vocabulary[place], words.of_kind(place)
        rows.append(
            [
                as_code(word),
                as_text(role),
                str(sum(bool(chosen.any()) for chosen in which)),
                *(change(words.effect(name, which)) for name in _SHOWN),
                share(words.effect(OTHER_REPLY, which)),
                *(
                    cell
                    for deletions in agents.values()
                    for cell in (share(deletions.share(which)), _number(deletions.step(which), 1))
                ),
            ]
        )
    of_agents = [head for name in agents for head in (f"deleted by {as_text(name)}, %", "at step")]
    return table(["word", "role", "prompts", *_effect_heads(), *of_agents], rows)


def _agent_table(
    words: _Words,
    agents: Mapping[str, _Deletions],
    rows: Mapping[str, list[Run]],
    untouched: Mapping[str, npt.NDArray[np.float64]],
) -> str:
    heads = [
        "prompts edited by", "F1", "F1, change", "sum of the single changes", "margin, change", "right, %", "wrong, %",
        "rank correlation with the change of F1", "of the margin", "deleted words that help / harm / do nothing, %",
        "seeds",
    ]  # fmt: skip
    f1 = words.changes["bertscore_f1"]
    lines = []
    for name, own in {"nobody": rows[WORDS], **_agents(rows), **{n: rows[n] for n in (ECHO,) if n in rows}}.items():
        found, deletions = values_of(own), agents.get(name)
        of_words = ["", "", "", ""]
        if deletions is not None:
            of_words = [
                change(interval_of(deletions.summed(f1))),
                _correlation(deletions.correlation(f1)),
                _correlation(deletions.correlation(words.changes["margin"])),
                " / ".join(_number(100 * share, 0) for share in deletions.signs(f1)),
            ]
        compared = name != "nobody"
        lines.append(
            [
                f"*{name}*" if name == ECHO else as_text(name),
                percent(level_of(found, "bertscore_f1")),
                change(minus(found, untouched, "bertscore_f1")) if compared else "",
                of_words[0],
                change(minus(found, untouched, "margin")) if compared else "",
                share(level_of(found, "diagnosis_named")),
                share(level_of(found, "wrong_diagnosis_named")),
                *of_words[1:],
                str(len(own)),
            ]
        )
    return table(heads, lines)


def _effect_heads() -> list[str]:
    return [*(f"{name}, change" for name in _SHOWN.values()), "another reply, %"]


def _means(values: _PerWord, which: Sequence[npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
    """Return each patient's mean over some of the words, leaving out those without a value; NaN if there are none."""
    chosen = [row[mask] for row, mask in zip(values, which, strict=True)]
    there = [row[~np.isnan(row)] for row in chosen]
    return np.array([row.mean() if len(row) else np.nan for row in there])


def _spearman(effects: npt.NDArray[np.float64], ranks: npt.NDArray[np.float64]) -> float:
    there = ~np.isnan(effects)
    effects, ranks = effects[there], ranks[there]
    if len(effects) < 2 or not np.ptp(effects) or not np.ptp(ranks):
        return float("nan")
    return float(stats.spearmanr(effects, ranks).statistic)


def _correlation(value: Interval | None) -> str:
    if value is None:
        return "-"
    if value.low is None or value.high is None:
        return f"{value.mean:+.2f}"
    return f"{value.mean:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _number(value: float, decimals: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{decimals}f}"
