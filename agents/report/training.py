"""A summary of training: the change of the sampled deltas, and the time spent in each model."""

from __future__ import annotations

from typing import Any

import numpy as np

from agents.evaluation.bootstrap import FEWEST


def quarters(metrics: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sampled deltas of the first and the last quarter of the updates or batches."""
    quarter = max(1, len(metrics) // 4)
    first, last = metrics[:quarter], metrics[-quarter:]
    return tuple(np.array([d for line in part for d in line["deltas"]]) for part in (first, last))  # type: ignore[return-value]


def training_summary(metrics: list[dict[str, Any]], in_points: bool = True) -> str:
    """Return two lines: the change of the sampled deltas, and the time spent in each model.

    Fewer than four updates have no quarters: the first is compared with the last.

    Args:
        metrics: The lines of ``metrics.jsonl``: one per update, or per batch for an agent without updates.
        in_points: Whether the reward is a fraction, so that changes are shown in points.
    """
    if not metrics:
        return "No episode was played in training"
    end = metrics[-1]
    failed = sum(line["failed"] for line in metrics)
    left_out = f"\n{failed} episodes got no reply from the LLM and were left out" if failed else ""
    times = (
        f"Wall time in the LLM {end['share_llm']:.0%}, encoder {end['share_encoder']:.0%}, "
        f"reward {end['share_scorer']:.0%}, everything else {1 - end['share_models']:.0%}{left_out}"
    )
    head, scale = f"Sampled deltas on training patients{', in points' if in_points else ''}:", 100 if in_points else 1
    first, last = quarters(metrics)
    if not len(first) or not len(last):
        return "Too few episodes got a reply to compare the first updates with the last"
    if len(metrics) == 1:
        return f"{head} {scale * first.mean():+.2f} in the only update\n{times}"
    part = "quarter" if len(metrics) >= 4 else "update"
    gain, fewest = last.mean() - first.mean(), min(len(first), len(last))
    if fewest < FEWEST:
        interval = f"too few episodes ({fewest}) for an interval"
    else:  # Welch's interval: the two quarters have different rollouts.
        half = 1.96 * float(np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)))
        interval = f"[{scale * (gain - half):+.2f}, {scale * (gain + half):+.2f}]"
    return (
        f"{head} first {part} {scale * first.mean():+.2f}, last {part} {scale * last.mean():+.2f}, "
        f"gain {scale * gain:+.2f} {interval}\n{times}"
    )
