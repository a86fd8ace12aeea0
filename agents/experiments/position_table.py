"""The tables and the figure of ``figure-6``: which positions agents delete, at which steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from agents.evaluation.heat_map import slot_counts
from agents.experiments.groups import Run, by_settings, sections
from agents.experiments.reply_table import Values, interval_of, level_of, minus, values_of
from agents.experiments.rows import ECHO, UNEDITED
from agents.experiments.stacks import by_row, change, percent, share
from agents.report.tables import table
from pmlm_env.io.text import as_code, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Number of positions that the table of an agent has.
_MOST = 10

_HEAD = (
    "prompts edited by", "F1", "F1, change", "margin, change", "right, %", "wrong, %",
    "positions with half of the deletions", "different edits", "seeds",
)  # fmt: skip


def position_tables(runs: Sequence[Run]) -> str:
    """Return the tables for each set of patients and models.

    Args:
        runs: The runs of ``figure-6``, each with its ``cell`` and its ``result``.
    """
    return sections(runs, lambda group, own: _tables(group, by_row(own))) + "\n"


def position_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return the heat maps of all agents, for the last run's patients and models.

    Args:
        runs: As for ``position_tables``.
    """
    from agents.report.word_figures import heat_maps  # matplotlib takes a second to import

    rows = next(by_row(own) for _, own in by_settings(runs) if runs[-1] in own)
    agents = _agents(rows)
    if UNEDITED not in rows or not agents:
        return {}
    there = rows[UNEDITED][0]["result"]["positions"]
    shares = {name: _shares(own, len(there)).mean(axis=(0, 1)) for name, own in agents.items()}
    return {"heat-map": heat_maps(shares, [role for role, _, _ in there])}


def _agents(rows: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    return {name: own for name, own in rows.items() if name not in (ECHO, UNEDITED)}


def _shares(runs: Sequence[Run], n_positions: int) -> npt.NDArray[np.float64]:
    """Return whether a position is deleted at a step, float64 (seeds, patients, steps, positions)."""
    counts = [[slot_counts([slots], n_positions) for slots in run["result"]["slots"]] for run in runs]
    steps = max(1, *(len(each) for of_seed in counts for each in of_seed))  # a heat map has a row at least
    return np.array(
        [[np.pad(each, ((0, steps - len(each)), (0, 0))) for each in of_seed] for of_seed in counts], dtype=np.float64
    )


def _tables(group: Mapping[str, Any], rows: Mapping[str, list[Run]]) -> str:
    if UNEDITED not in rows:
        return "The untouched prompts are missing: give the command again."
    patients, models = group["patients"], group["models"]
    untouched, there = values_of(rows[UNEDITED]), rows[UNEDITED][0]["result"]["positions"]
    parts = [
        f"{as_text(patients['cohort'])}, {as_text(models['llm'])}, template "
        f"{as_text(patients['pipeline']['template'])}: {len(rows[UNEDITED][0]['result']['patients'])} test patients, "
        f"at most {patients['train']} training patients, an edit budget of {models['n_edits']}. F1 and all changes in "
        "points; 95 % intervals are over patients, and over seeds where there are several.",
        "",
        table(_HEAD, [_row(name, own, untouched) for name, own in rows.items()]),
    ]
    for name, own in _agents(rows).items():
        parts += [
            "",
            f"The positions that {as_text(name)} deletes most often, the word that most prompts have there, and the "
            "mean step at which it goes:",
            "",
            _position_table(_shares(own, len(there)), there),
        ]
    return "\n".join(parts)


def _row(name: str, runs: Sequence[Run], untouched: Values) -> list[str]:
    found, compared = values_of(runs), name != UNEDITED
    slots = [run["result"].get("slots", []) for run in runs]
    return [
        f"*{name}*" if name == ECHO else as_text(name),
        percent(level_of(found, "bertscore_f1")),
        *(change(minus(found, untouched, metric)) if compared else "" for metric in ("bertscore_f1", "margin")),
        *(share(level_of(found, metric)) for metric in ("diagnosis_named", "wrong_diagnosis_named")),
        *([_half(slots), _ways(slots)] if any(any(of_seed) for of_seed in slots) else ["", ""]),
        str(len(runs)),
    ]


def _half(slots: Sequence[Sequence[Sequence[int]]]) -> str:
    """Return the least number of positions that half of an agent's deletions fall on, the mean over seeds."""
    found = []
    for of_seed in slots:
        counts = np.sort(np.bincount(np.concatenate([np.array(each, dtype=np.int64) for each in of_seed])))[::-1]
        found.append(int(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) + 1)
    return f"{np.mean(found):.0f}"


def _ways(slots: Sequence[Sequence[Sequence[int]]]) -> str:
    """Return in how many different ways an agent edits the prompts, the mean over seeds."""
    return f"{np.mean([len({frozenset(each) for each in of_seed}) for of_seed in slots]):.0f}"


def _position_table(shares: npt.NDArray[np.float64], there: Sequence[tuple[str, str | None, int]]) -> str:
    deleted = shares.sum(axis=2)
    steps = np.arange(1, shares.shape[2] + 1)
    rows = []
    for position in np.argsort(-deleted.mean(axis=(0, 1)), kind="stable")[:_MOST].tolist():
        own, (role, word, _) = deleted[:, :, position], there[position]
        if own.any():
            at = (shares[:, :, :, position] * steps).sum() / own.sum()
            rows.append(
                [
                    str(position + 1),
                    "(varies)" if word is None else as_code(word),
                    as_text(role),
                    share(interval_of(own)),
                    f"{at:.1f}",
                ]
            )
    if not rows:
        return "It deletes none."
    return table(["position", "word", "role", "prompts in which it is deleted, %", "step"], rows)
