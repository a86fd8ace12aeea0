"""Counts of edits by step and slot, for a heat map such as the paper's Figure 6."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pmlm_env.core.traces import Trace


def edit_counts(traces: Iterable[Trace]) -> npt.NDArray[np.int64]:
    """Count how often each slot is edited at each step.

    Args:
        traces: The traces of the episodes to include, such as those of one variant.

    Returns:
        Counts, int64 (steps, slots): one row for each step of the longest episode, one column for each word of the
        longest prompt.
    """
    traces = list(traces)
    steps = max((len(trace.edits) for trace in traces), default=0)
    slots = max((len(trace.words) for trace in traces), default=0)
    counts = np.zeros((steps, slots), dtype=np.int64)
    for trace in traces:
        for step, edit in enumerate(trace.edits):
            counts[step, edit.slot] += 1
    return counts
