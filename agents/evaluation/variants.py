"""Evaluation results computed from traces: metrics of each prompt variant, and the before / after table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.baselines.single_rule import role_places
from agents.evaluation.bootstrap import Interval, mean_interval
from agents.evaluation.controls import CONTROLS
from pmlm_env.core.languages import is_chinese
from pmlm_env.core.traces import Trace
from pmlm_env.rewards.base import REWARD, mean_of
from pmlm_env.rewards.registry import REWARDS

#: The variants of a prompt: unedited, or edited at random, by the agent, or by the best single rule.
KEEP_ALL, RANDOM, AGENT, RULE = "keep_all", "random", "agent", "single_rule"


def evaluation_of(traces: Iterable[Trace], seed: int) -> dict[str, Any]:
    """Compute the results of an evaluation from its traces.

    Args:
        traces: The traces of one evaluation: every variant and control of every patient.
        seed: Seed for the bootstrap resamples.

    Returns:
        ``summary`` (see ``summarise``; plus ``edits``, the number of distinct sets of edits in each variant),
        ``n_patients``, and ``without_reply``, the patients excluded because a reply is missing.

    Raises:
        RuntimeError: No patient has all replies, so there is nothing to compare.
    """
    traces = list(traces)
    complete = with_all_replies(traces)
    if not complete:
        why = next(trace.error for trace in reversed(traces) if trace.error)
        raise RuntimeError(f"no patient has all replies, so that nothing can be compared; the last error: {why}")
    by_variant: dict[str, list[Trace]] = {}
    for trace in complete:
        by_variant.setdefault(trace.variant, []).append(trace)
    scores = {
        variant: {
            name: np.array([trace.after[name] for trace in theirs], dtype=np.float64)  # None becomes NaN
            for name in complete[0].after
        }
        for variant, theirs in by_variant.items()
    }
    paid = {variant: np.array([trace.reward for trace in theirs]) for variant, theirs in by_variant.items()}
    edits = {
        variant: len({frozenset((edit.operation, role_places(t.roles)[edit.slot]) for edit in t.edits) for t in theirs})
        for variant, theirs in by_variant.items()
        if variant not in CONTROLS
    }
    everyone, ours = (dict.fromkeys(trace.patient_id for trace in each) for each in (traces, complete))
    return {
        "summary": {**summarise(scores, seed, paid if REWARD in complete[0].after else None), "edits": edits},
        "n_patients": len(ours),
        "without_reply": [patient for patient in everyone if patient not in ours],
    }


def with_all_replies(traces: Iterable[Trace]) -> list[Trace]:
    """Return the traces of the patients who have replies to all variants."""
    traces = list(traces)
    left_out = {trace.patient_id for trace in traces if trace.error}
    return [trace for trace in traces if trace.patient_id not in left_out]


def summarise(
    scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
    seed: int,
    rewards: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> dict[str, Any]:
    """Return means and differences of variants and controls.

    Args:
        scores: For each variant and control, an array for each metric (see ``ReplyMetrics``), float64 (N,), with
            patients in the same order.
        seed: Seed for the bootstrap resamples.
        rewards: What each variant and control earned over the initial prompt, float64 (N,), if it was trained with
            another reward than BERTScore F1.

    Returns:
        The mean of every metric by variant and control, over the patients for whom it has a value; and ``delta`` (of
        F1), ``margin_delta`` and, if there are ``rewards``, ``reward_delta``: mean differences, paired by patient, with
        95 % intervals ``ci95``, which are None if there are too few patients.
    """
    summary: dict[str, Any] = {
        variant: {name: _plain(mean_of(values[name])) for name in values} for variant, values in scores.items()
    }
    pairs = {variant: (variant, KEEP_ALL) for variant in scores if variant != KEEP_ALL}
    pairs |= {f"{AGENT}_over_{variant}": (AGENT, variant) for variant in (RANDOM, "echo", RULE) if variant in scores}
    changes = {
        "delta": {variant: values["bertscore_f1"] for variant, values in scores.items()},
        "margin_delta": {variant: values["margin"] for variant, values in scores.items()},
        **({"reward_delta": rewards} if rewards else {}),
    }
    for key, values in changes.items():
        summary[key] = {}
        for name, (first, second) in pairs.items():
            difference = values[first] - values[second]
            if np.isfinite(difference).all():
                interval = mean_interval(difference, np.random.default_rng(seed))
                bounds = None if interval.low is None else [interval.low, interval.high]
                summary[key][name] = {"mean": interval.mean, "ci95": bounds}
    return summary


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


#: The table's columns: metric, header, scale factor, decimals.
COLUMNS = (
    ("bleu4", "BLEU-4", 100, 1), ("rougeL", "R-L", 100, 1), ("bertscore_precision", "P", 100, 1),
    ("bertscore_recall", "R", 100, 1), ("bertscore_f1", "F1", 100, 2), ("margin", "margin", 100, 2),
    ("diagnosis_named", "right", 100, 0), ("wrong_diagnosis_named", "wrong", 100, 0), ("advice", "advice", 100, 0),
    ("copy", "copy", 100, 1), ("words", "words", 1, 0), ("cut", "cut", 100, 0),
)  # fmt: skip

_NAMES = {
    KEEP_ALL: "before (keep all)",
    RANDOM: "random deletion",
    RULE: "best single rule",
    AGENT: "after (agent)",
}


def cell(value: float | None, scale: float, digits: int) -> str:
    """Return a mean as the text of a table's cell."""
    return "-" if value is None else f"{scale * value:.{digits}f}"


def table(evaluation: dict[str, Any]) -> str:
    """Return the before / after table with the controls, and the changes of the reward and F1 below it, as text.

    Args:
        evaluation: The content of ``evaluation.json``.

    Raises:
        ValueError: The evaluation lacks the agent or the echo control.
    """
    summary = evaluation["summary"]
    if "echo" not in summary or AGENT not in summary:
        raise ValueError("this evaluation has no echo beside the agent: make it again with `pmlm evaluate`")
    missing = len(evaluation["without_reply"])
    left_out = f", {missing} more left out because a reply is missing" if missing else ""
    own = REWARD in summary[AGENT]
    heads = [*(["reward"] if own else []), *(head for _, head, _, _ in COLUMNS)]
    # The rewards of this package are made of fractions; nobody knows the unit of others.
    in_points = own and evaluation["models"]["reward"] in REWARDS.builtin
    in_own_unit = " and reward" if own and not in_points else ""
    units = f"all figures but words{in_own_unit} in %, margin in points"
    lines = [f"{evaluation['n_patients']} held-out patients{left_out}; {units}"]
    if is_chinese(evaluation.get("language", "en")):
        lines[0] += "; BLEU-4 and ROUGE-L (R-L) by Chinese character"
    lines += [" " * 22 + "".join(f"{head:>8}" for head in heads) + f"{'edits':>7}"]
    for variant in (*_NAMES, *CONTROLS):
        if variant not in summary:
            continue
        score = summary[variant].get(REWARD)
        cells = [f"{100 * score:8.2f}" if in_points else f"{score:8.4g}"] if own else []
        cells += (f"{cell(summary[variant][metric], scale, digits):>8}" for metric, _, scale, digits in COLUMNS)
        name = _NAMES.get(variant, f"control: {variant}")
        lines.append(f"{name:22}" + "".join(cells) + f"{summary['edits'].get(variant, '-'):>7}")
    lines += ["", *(f"{name}: {what}." for name, what in CONTROLS.items() if name in summary)]
    labels = {
        RANDOM: "random - keep all",
        AGENT: "agent - keep all",
        f"{AGENT}_over_{RANDOM}": "agent - random",
        "echo": "echo - keep all",
        f"{AGENT}_over_echo": "agent - echo",
        RULE: "rule - keep all",
        f"{AGENT}_over_{RULE}": "agent - rule (personal)",
    }
    n = evaluation["n_patients"]
    changes = [("delta", "BERTScore F1 in points", 100, "+.2f")]
    if own:
        unit, scale, form = (" in points", 100, "+.2f") if in_points else ("", 1, "+.4g")
        changes.insert(0, ("reward_delta", f"the reward {evaluation['models']['reward']}{unit}", scale, form))
    for key, what, scale, form in changes:
        lines += ["", f"Change of {what}, mean and 95 % interval, paired by patient:"]
        deltas = summary[key]
        lines += [_difference(label, deltas[name], n, scale, form) for name, label in labels.items() if name in deltas]
    if AGENT in summary["margin_delta"]:
        lines += ["", "Change of the margin in points:"]
        lines.append(_difference("agent - keep all", summary["margin_delta"][AGENT], n))
    return "\n".join(lines)


def _difference(label: str, delta: dict[str, Any], n_patients: int, scale: float = 100, form: str = "+.2f") -> str:
    change = Interval(scale * delta["mean"], *(scale * bound for bound in delta["ci95"] or ()))
    start = f"{label:24} {change.mean:{form.replace('+', '+6')}}  "
    if change.low is None:
        return f"{start}too few patients ({n_patients}) for an interval"
    return f"{start}[{change.low:{form}}, {change.high:{form}}]  {change.verdict}"
