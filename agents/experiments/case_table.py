"""The table of ``cases``: for each patient, the prompts and replies of the systems side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agents.benchmark.config import RAW
from agents.evaluation.variants import AGENT, KEEP_ALL
from agents.report.tables import table
from pmlm_env.core.traces import Trace
from pmlm_env.core.words import single_spaces
from pmlm_env.io.text import as_text

#: The systems, as traces name them.
SYSTEMS = (RAW, KEEP_ALL, AGENT, "echo")

#: Those whose prompts and replies are shown.
_SHOWN = {RAW: "raw-data prompt", KEEP_ALL: "our prompt, unedited", AGENT: "our prompt, edited by {agent}"}

#: Scores: component, name, factor, format.
_SCORES = (
    ("bertscore_f1", "F1", 100, ".2f"), ("margin", "margin", 100, ".2f"), ("diagnosis_named", "right", 1, ".2g"),
    ("wrong_diagnosis_named", "wrong", 1, ".2g"), ("words", "words", 1, ".0f"),
)  # fmt: skip

#: Numbers that may be laboratory values, without those of units such as x10^9/L. A single digit may be any count.
_NUMBER = re.compile(r"(?<![\w^.])(?<!\d,)(?:\d+(?:[.,]\d+)+|\d{2,})(?![\w^])")


def case_tables(runs: Sequence[Mapping[str, Any]], traces: Sequence[Trace], *, raw_values: bool) -> str:
    """Return the systems side by side, for each run and patient, as Markdown.

    Args:
        runs: The runs of ``cases``.
        traces: Their traces; runs without traces have their scores alone.
        raw_values: Whether to show prompts with laboratory values, and such values in the replies.
    """
    by_run: dict[tuple[str, str], dict[str, Trace]] = {}
    for trace in traces:
        by_run.setdefault((trace.run, trace.patient_id), {})[trace.variant] = trace
    parts = []
    for run in runs:
        cell, result = run["cell"], run["result"]
        parts.append(
            f"### {as_text(cell['patients']['cohort'])}, {as_text(cell['models']['llm'])}, prompts edited by "
            f"{as_text(cell['row'])} ({cell.get('budget', 0):,} calls)"
        )
        hidden = () if raw_values else (RAW, KEEP_ALL, AGENT) if result["values_in_prompts"] else (RAW,)
        for place, patient in enumerate(result["patients"]):
            scores = {system: result["metrics"][system][place] for system in SYSTEMS}
            parts.append(_case(patient, cell["row"], scores, by_run.get((result["run"], patient), {}), hidden))
    return "\n\n".join(parts) + "\n"


def _case(
    patient: str,
    agent: str,
    scores: Mapping[str, Mapping[str, float | None]],
    traces: Mapping[str, Trace],
    hidden: Sequence[str],
) -> str:
    names = {system: name.format(agent=as_text(agent)) for system, name in _SHOWN.items()}
    rows = [[names.get(system, "*echo*"), *_scores(each)] for system, each in scores.items()]
    scored = table(["reply to", *(name for _, name, _, _ in _SCORES)], rows)
    if not traces:
        return f"#### {as_text(patient)}\n\nThe prompts and replies are not here: traces.jsonl lacks them.\n\n{scored}"
    numbers = {system: set().union(*map(_meant, _NUMBER.findall(traces[system].prompt))) for system in names}
    values = set().union(*(numbers[system] for system in hidden))
    values -= set().union(*(numbers[system] for system in names if system not in hidden))
    prompts = ["prompt", *(_prompt(traces[system], system in hidden) for system in names)]
    n_replies = max(len(traces[system].replies) for system in names)
    head = f"reply, the first of {n_replies} (scores are means)" if n_replies > 1 else "reply"
    replies = [head, *(_masked(traces[system].replies[0].text, values) for system in names)]
    some = traces[KEEP_ALL]
    return "\n\n".join(
        [
            f"#### {as_text(patient)}: {as_text(some.label)}",
            f"Stage 1 predicts {as_text(some.predicted)}; conditions of the peers, nearest first: "
            f"{as_text(', '.join(peer.label for peer in some.peers))}.",
            f"The doctor's reply: {_masked(some.reference, values)}",
            _side_by_side(["", *names.values()], [prompts, replies]),
            scored,
        ]
    )


def _side_by_side(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of texts, all left-aligned."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])


def _prompt(trace: Trace, hidden: bool) -> str:
    """Return a prompt as Markdown, with deleted words struck out."""
    if hidden:
        return f"*{len(trace.words)} words, not shown because they contain laboratory values (--raw-values)*"
    deleted = {edit.slot for edit in trace.edits}
    spaces = trace.spaces or single_spaces(len(trace.words))
    words = (
        f"<del>{as_text(word)}</del>{' ' * bool(space)}" if slot in deleted else f"{as_text(word)}{' ' * bool(space)}"
        for slot, (word, space) in enumerate(zip(trace.words, spaces, strict=True))
    )
    return "".join(words).strip()


def _masked(reply: str, values: set[float]) -> str:
    """Return a letter or reply as Markdown, with # in place of some numbers."""
    return as_text(_NUMBER.sub(lambda found: found[0] if values.isdisjoint(_meant(found[0])) else "#", reply))


def _meant(number: str) -> set[float]:
    """Return what a number may mean: its comma may mark decimals, group thousands, or part two numbers."""
    parts = [part for part in number.split(",") if _NUMBER.fullmatch(part)]
    readings = (number.replace(",", "."), number.replace(",", ""), *parts)
    return {float(reading) for reading in readings if reading.count(".") < 2}


def _scores(components: Mapping[str, float | None]) -> list[str]:
    found = ((components.get(name), factor, form) for name, _, factor, form in _SCORES)
    return ["-" if value is None else format(factor * value, form) for value, factor, form in found]
