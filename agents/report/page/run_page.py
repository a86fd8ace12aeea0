"""The page of a run: ``report.html``, made from its traces, its evaluation and its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jinja2 import UndefinedError

from agents.evaluation.bootstrap import Interval, mean_interval
from agents.evaluation.controls import CONTROLS
from agents.evaluation.heat_map import edit_counts
from agents.evaluation.rules import rule_lines
from agents.evaluation.variants import AGENT, COLUMNS, KEEP_ALL, RANDOM, RULE, cell, with_all_replies
from agents.report.page.html import embedded, page
from agents.report.page.kept import kept_replies
from agents.report.page.patients import patients_data
from agents.report.page.svg import inline
from agents.report.page.variants import VARIANTS
from agents.report.training import training_summary
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.labels import Label
from pmlm_env.core.traces import Trace
from pmlm_env.core.words import Role
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write
from pmlm_env.llm.storage.location import is_url
from pmlm_env.rewards.base import REWARD
from pmlm_env.rewards.components import COMPONENTS
from pmlm_env.rewards.registry import REWARDS

#: The columns beside F1, which stands first, with its interval.
_COLUMNS = [column for column in COLUMNS if column[0] != "bertscore_f1"]

#: Number of words in the table of the words that are deleted most often.
_MOST_WORDS = 16


def write_run_page(run: RunFolder) -> Path:
    """Write ``report.html`` into the folder of a run that was evaluated, and return its path.

    The page has patients' texts, so that only its owner can read it. It is made anew from what the folder has, and it
    is the same page each time.

    Raises:
        ValueError: The run was not evaluated, or a file of the folder is damaged.
        DatabaseError: The reply cache is damaged.
        OSError: The page cannot be written.
    """
    with run.locked():
        settings = run.settings()
        anew = f"make it again with `pmlm evaluate --run {run.path}`"
        if not run.evaluation.is_file():
            raise ValueError(f"{run.path} was not evaluated: run `pmlm evaluate --run {run.path}` first")
        evaluation = read_object(run.evaluation, anew)
        try:
            of = {"split": evaluation["split"], "agent": evaluation["agent"], "seed": evaluation["seed"]}
            own = [trace for trace in run.traces if all(getattr(trace, key) == of[key] for key in of)]
            if not own:
                raise ValueError(f"{run.traces.path} has no trace of the evaluation in {run.evaluation}: {anew}")
            text = page("run.html", **_content(run, settings, evaluation, own))
        except (KeyError, TypeError, AttributeError, UndefinedError) as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"{run.evaluation} is damaged, or of an earlier version ({said}): {anew}") from None
        write(run.page, text)
        return run.page


def _content(
    run: RunFolder, settings: Mapping[str, Any], evaluation: Mapping[str, Any], traces: Sequence[Trace]
) -> dict[str, Any]:
    """Return the variables of the template."""
    from agents.report.figures import svg  # matplotlib takes a second to import
    from agents.report.page import figures

    summary, models = evaluation["summary"], evaluation["models"]
    own = REWARD in summary[AGENT]
    in_points = not own or models["reward"] in REWARDS.builtin
    scale = 100 if in_points else 1
    complete = with_all_replies(traces)
    metrics = run.metrics()
    first = {trace.patient_id: trace for trace in reversed(traces)}
    cache = settings["calls"].get("cache")
    # A server is not asked: a page needs no password, and a run folder may come from somebody else.
    file = None if is_url(cache) else Path(cache or run.replies)
    replies = kept_replies(file, settings.get("llm_identity", ""), list(first.values()))
    score = f"the reward {models['reward']}" if own else "BERTScore F1"
    drawn = {
        "changes": (
            figures.changes(
                _changes(summary, "delta", 100), "change of BERTScore F1 from the untouched prompt, points"
            ),
            "Change of BERTScore F1 of each variant and control, with 95 % intervals",
        ),
        "wrong": (
            figures.wrong_conditions(_wrong(summary)),
            "BERTScore F1 of each variant and control against the share of replies that name a wrong condition",
        ),
        "lengths": (figures.lengths(_lengths(complete)), "Number of words of the replies"),
        "roles": (figures.roles(_role_shares(complete)), "Share of each role's words that is deleted"),
    }
    if metrics:
        label = f"change of {score}{', points' if in_points else ''}"
        drawn["training"] = figures.training(metrics, scale, label), f"{label} against completions spent"
    patients = patients_data(traces, _conditions(run, settings), replies, in_points)
    plots = {name: inline(svg(figure), name, title) for name, (figure, title) in drawn.items()}
    return {
        "title": run.path.resolve().name,
        "has_texts": True,
        "evaluation": evaluation,
        "models": models,
        "settings": settings,
        "score": score,
        "plots": plots,
        "conclusion": _conclusion(summary),
        "headline": _headline(summary, own, scale, in_points),
        "rows": _table(summary, complete, evaluation["seed"], own, scale),
        "heads": [head for _, head, _, _ in _COLUMNS],
        "training": training_summary(metrics, in_points).split("\n"),
        "heat": _heat(complete),
        "deleted": _deleted(complete),
        "outcomes": _outcomes(complete),
        "rules": rule_lines(complete),
        "variants": VARIANTS,
        "controls": {name: what for name, what in CONTROLS.items() if name in summary},
        "components": COMPONENTS,
        "left_out": patients["left_out"],
        "data": embedded(patients),
    }


def _conditions(run: RunFolder, settings: Mapping[str, Any]) -> tuple[Label, ...] | None:
    """Return the conditions that replies may name; None if the prepared folder is not there, or has changed."""
    folder = Path(settings["episodes"])
    if not folder.is_dir():
        return None
    everybody = EpisodeSet.load(folder)
    try:
        run.check_episodes(everybody.digest)
    except ValueError:
        return None
    return everybody.conditions


def _interval(delta: Mapping[str, Any], scale: float) -> Interval:
    return Interval(scale * delta["mean"], *(scale * bound for bound in delta["ci95"] or ()))


def _changes(summary: Mapping[str, Any], key: str, scale: float) -> dict[str, Interval]:
    """Return the changes of all variants and controls from the untouched prompt."""
    return {name: _interval(delta, scale) for name, delta in summary[key].items() if name in VARIANTS}


def _conclusion(summary: Mapping[str, Any]) -> str:
    """Return in words whether the agent's prompts are better than the untouched ones, and which controls beat them."""
    change = _interval(summary["delta"][AGENT], 100)
    said = {
        "better": "By BERTScore F1, replies to the agent's prompts are better than replies to the untouched ones.",
        "worse": "By BERTScore F1, replies to the agent's prompts are worse than replies to the untouched ones.",
        "": "There are too few patients to tell whether the agent's prompts are better than the untouched ones.",
    }
    own = summary[AGENT]["bertscore_f1"]
    above = [name for name in CONTROLS if name in summary and summary[name]["bertscore_f1"] > own]
    higher = f"Controls, which need no LLM, with a higher mean: {', '.join(above)}."
    controls = higher if above else "All controls have a lower mean."
    return f"{said.get(change.verdict, 'By BERTScore F1, no difference to the untouched prompts is shown.')} {controls}"


def _headline(summary: Mapping[str, Any], own: bool, scale: float, in_points: bool) -> list[dict[str, Any]]:
    """Return the comparisons at the top of the page: what is compared, the change and its verdict."""
    asked = [
        *([("reward_delta", AGENT, "agent against the untouched prompt, by the reward", scale)] if own else []),
        ("delta", AGENT, "agent against the untouched prompt", 100),
        ("delta", f"{AGENT}_over_{RANDOM}", "agent against random deletion", 100),
        ("delta", f"{AGENT}_over_{RULE}", "agent against the best single rule: the personal part", 100),
        ("delta", f"{AGENT}_over_echo", "agent against the echo of the prompt", 100),
        ("margin_delta", AGENT, "agent against the untouched prompt, by the margin", 100),
    ]
    found = []
    for key, name, what, factor in asked:
        if name in summary[key]:
            change = _interval(summary[key][name], factor)
            unit = "points" if factor == 100 else ""
            found.append({"what": what, "change": change, "unit": unit, "digits": 2 if in_points else 4})
    return found


def _table(
    summary: Mapping[str, Any], traces: Sequence[Trace], seed: int, own: bool, scale: float
) -> list[dict[str, Any]]:
    """Return the rows of the table of variants and controls."""
    rows = []
    changes = _changes(summary, "delta", 100)
    for name in VARIANTS:
        if name not in summary:
            continue
        f1 = [trace.after["bertscore_f1"] for trace in traces if trace.variant == name]
        interval = mean_interval(100 * np.array(f1, dtype=np.float64), np.random.default_rng(seed)).within(0, 100)
        reward = summary[name].get(REWARD) if own else None
        rows.append(
            {
                "name": name,
                "control": name in CONTROLS,
                "f1": interval,
                "change": changes.get(name),
                "reward": None if reward is None else scale * reward,
                "cells": [cell(summary[name].get(metric), factor, digits) for metric, _, factor, digits in _COLUMNS],
                "edits": summary["edits"].get(name),
            }
        )
    return rows


def _wrong(summary: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {
        name: (100 * summary[name]["wrong_diagnosis_named"], 100 * summary[name]["bertscore_f1"])
        for name in VARIANTS
        if name in summary
    }


def _lengths(traces: Iterable[Trace]) -> dict[str, list[float]]:
    """Return the numbers of words of the replies of each variant that asks an LLM, and of the doctors' replies."""
    words: dict[str, list[float]] = {}
    for trace in traces:
        if trace.variant not in CONTROLS:
            words.setdefault(trace.variant, []).append(float(trace.after["words"] or 0))
    ordered = {name: words[name] for name in VARIANTS if name in words}
    letters = []
    for trace in traces:
        n_words, ratio = trace.after["words"], trace.after.get("length_ratio")
        if trace.variant == KEEP_ALL and n_words and ratio:
            letters.append(n_words / ratio)
    return {**ordered, **({"doctor's reply": letters} if letters else {})}


def _role_shares(traces: Sequence[Trace]) -> dict[str, dict[str, float]]:
    """Return the share of each role's words, in percent, that each variant deletes."""
    shares: dict[str, dict[str, float]] = {}
    for variant in (AGENT, RANDOM, RULE):
        there: Counter[str] = Counter()
        gone: Counter[str] = Counter()
        for trace in traces:
            if trace.variant == variant:
                there.update(trace.roles)
                gone.update(trace.roles[edit.slot] for edit in trace.edits)
        if there:
            shares[variant] = {role: 100 * gone[role] / there[role] for role in get_args(Role) if there[role]}
    return shares


def _heat(traces: Sequence[Trace]) -> dict[str, Any]:
    """Return how often the agent edits each slot at each step: the cells that are not 0, and the role of each slot."""
    own = [trace for trace in traces if trace.variant == AGENT]
    counts = edit_counts(own)
    roles = [Counter(trace.roles[slot] for trace in own if slot < len(trace.roles)) for slot in range(counts.shape[1])]
    cells = []
    for step, slot in np.argwhere(counts).tolist():
        words = Counter(
            trace.words[slot] for trace in own if len(trace.edits) > step and trace.edits[step].slot == slot
        )
        word, _ = words.most_common(1)[0]
        cells.append({"step": step, "slot": slot, "n": int(counts[step, slot]), "word": word})
    return {
        "steps": counts.shape[0],
        "slots": counts.shape[1],
        "most": int(counts.max(initial=0)),
        "patients": len(own),
        "cells": cells,
        "roles": [names.most_common(1)[0][0] for names in roles],
    }


def _deleted(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return the words that the agent deletes most often, by word and role."""
    there: Counter[tuple[str, str]] = Counter()
    gone: dict[tuple[str, str], list[tuple[int, float | None]]] = {}
    for trace in traces:
        if trace.variant != AGENT:
            continue
        there.update(set(zip(trace.words, trace.roles, strict=True)))
        for step, edit in enumerate(trace.edits, start=1):
            gone.setdefault((edit.word, trace.roles[edit.slot]), []).append((step, edit.probability))
    most = sorted(gone, key=lambda word: (-len(gone[word]), word))[:_MOST_WORDS]
    return [
        {
            "word": word,
            "role": role,
            "times": len(gone[word, role]),
            "patients": there[word, role],
            "step": float(np.mean([step for step, _ in gone[word, role]])),
            "probability": _mean([probability for _, probability in gone[word, role]]),
        }
        for word, role in most
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _outcomes(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return what the agent's edits did to the conditions that replies name, each with the mean change of F1."""
    own = [trace for trace in traces if trace.variant == AGENT]
    found = []
    for name, what in (("diagnosis_named", "right condition"), ("wrong_diagnosis_named", "wrong condition")):
        became = [_became(trace.before[name] or 0, trace.after[name] or 0) for trace in own]
        for happened in ("gained", "lost", "still named", "never named"):
            those = [trace for trace, each in zip(own, became, strict=True) if each == happened]
            changes = [100 * (t.after["bertscore_f1"] or 0) - 100 * (t.before["bertscore_f1"] or 0) for t in those]
            mean = float(np.mean(changes)) if changes else None
            good = {"gained": 1, "lost": -1}.get(happened, 0) * (1 if what == "right condition" else -1)
            found.append({"what": f"{what} {happened}", "patients": len(those), "change": mean, "good": good})
    return found


def _became(before: float, after: float) -> str:
    """Return what became of a condition, from the shares of a patient's replies that name it."""
    if before == after:
        return "still named" if after else "never named"
    return "gained" if after > before else "lost"
