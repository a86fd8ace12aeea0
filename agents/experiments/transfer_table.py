"""The tables and figures of ``transfer``: agents that learned from one LLM, with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agents.experiments.groups import Run, by_settings, sections, without_llm
from agents.experiments.reply_table import Values, level_of, minus, values_of
from agents.experiments.rows import ECHO, RANDOM, UNEDITED
from agents.experiments.stacks import by_row, change, percent, share
from agents.report.tables import table
from pmlm_env.io.text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Metrics that have a matrix and a figure, and their names.
_SHOWN = {"bertscore_f1": "F1", "margin": "margin"}

#: What replied, to prompts of which row, and from which LLM the agent learned ("" if from none).
_Key = tuple[str, str, str]


def transfer_tables(runs: Sequence[Run]) -> str:
    """Return the tables for each set of patients and models.

    Args:
        runs: The runs of ``transfer``, each with its ``cell`` and its ``result``.
    """
    return sections(runs, lambda group, own: _tables(group, _found(own)), without_llm) + "\n"


def transfer_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return the changes of F1 and margin for each pair, for the last run's patients and models.

    Args:
        runs: As for ``transfer_tables``.
    """
    from agents.report.figures import forest  # matplotlib takes a second to import

    found = next(_found(own) for _, own in by_settings(runs, without_llm) if runs[-1] in own)
    drawn = {}
    for metric, name in _SHOWN.items():
        rows = {}
        for (llm, row, source), stack in found.items():
            untouched = found.get((llm, UNEDITED, ""))
            if untouched is not None and row not in (UNEDITED, ECHO):
                change_of = minus(stack, untouched, metric)
                if change_of is not None:
                    pair = " \u2192 ".join(name.removeprefix("local:") for name in (source, llm) if name)
                    rows[f"{row}, {pair}"] = change_of
        if rows:
            drawn[name.lower()] = forest(
                rows, "", f"{name}, change from the LLM's untouched prompts, points", scale=100
            )
    return drawn


def _found(runs: Sequence[Run]) -> dict[_Key, Values]:
    """Return the results of each LLM by row and by what the agent learned from."""
    found: dict[_Key, Values] = {}
    for row, of_row in by_row(runs).items():
        for (llm, source), own in by_settings(of_row, _pair):
            found[llm, row, source] = values_of(own)
    return found


def _pair(cell: Mapping[str, Any]) -> list[str]:
    """Return which LLM replies, and from which one the agent learned."""
    return [cell["models"]["llm"], cell.get("learned_from", {}).get("llm", "")]


def _tables(group: Mapping[str, Any], found: Mapping[_Key, Values]) -> str:
    patients = group["patients"]
    n_test = next(iter(found.values()))["bertscore_f1"].shape[1]
    llms = list(dict.fromkeys(llm for llm, _, _ in found))
    agents = list(dict.fromkeys(row for _, row, source in found if source))
    parts = [
        f"{as_text(patients['cohort'])}, template {as_text(patients['pipeline']['template'])}: {n_test} test "
        f"patients, at most {patients['train']} training patients, an edit budget of {group['models']['n_edits']}. F1 "
        "and all changes in points, with 95 % intervals over patients, and over seeds where there are several.",
    ]
    for agent in agents:
        for metric, name in _SHOWN.items():
            sources = list(dict.fromkeys(source for _, row, source in found if row == agent))
            rows = [
                [as_text(source or f"({row})"), *(_change(found, llm, row, source, metric) for llm in llms)]
                for row, source in [*((agent, source) for source in sources), (RANDOM, "")]
            ]
            parts += [
                "",
                f"The change of {name} from the replies of each LLM (columns) to the untouched prompts, when "
                f"{as_text(agent)} edits them that learned from each LLM (rows):",
                "",
                table(["learned from", *map(as_text, llms)], rows),
            ]
    heads = [
        "LLM", "prompts edited by", "learned from", "F1", "F1, change", f"F1, minus {RANDOM}",
        "F1, minus learned from the LLM itself", "margin, change", "right, %", "wrong, %", "seeds",
    ]  # fmt: skip
    rows = [_row(found, *key) for key in sorted(found, key=_place)]
    return "\n".join([*parts, "", "All rows:", "", table(heads, rows)])


def _place(key: _Key) -> tuple[str, int, str, bool, str]:
    """Return what rows are sorted by: the LLM; untouched, random, agents, echo; the agent's own LLM first."""
    llm, row, source = key
    order = {UNEDITED: 0, RANDOM: 1, ECHO: 3}
    return llm, order.get(row, 2), row, source != llm, source


def _row(found: Mapping[_Key, Values], llm: str, row: str, source: str) -> list[str]:
    stack = found[llm, row, source]
    own = _minus(found, (llm, row, source), (llm, row, llm), "bertscore_f1") if source not in ("", llm) else ""
    return [
        as_text(llm),
        {UNEDITED: "nobody", ECHO: f"*{ECHO}*"}.get(row, as_text(row)),
        as_text(source),
        percent(level_of(stack, "bertscore_f1")),
        _change(found, llm, row, source, "bertscore_f1") if row != UNEDITED else "",
        _minus(found, (llm, row, source), (llm, RANDOM, ""), "bertscore_f1") if row not in (RANDOM, UNEDITED) else "",
        own,
        _change(found, llm, row, source, "margin") if row != UNEDITED else "",
        *(share(level_of(stack, metric)) for metric in ("diagnosis_named", "wrong_diagnosis_named")),
        str(len(stack["words"])),
    ]


def _change(found: Mapping[_Key, Values], llm: str, row: str, source: str, metric: str) -> str:
    return _minus(found, (llm, row, source), (llm, UNEDITED, ""), metric)


def _minus(found: Mapping[_Key, Values], ours: _Key, theirs: _Key, metric: str) -> str:
    """Return the difference of two rows; "-" if one of them is missing."""
    if ours not in found or theirs not in found:
        return "-"
    return change(minus(found[ours], found[theirs], metric))
