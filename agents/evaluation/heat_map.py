"""Counts of edits by step and slot, for a heat map such as the paper's Figure 6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    slots = [[edit.slot for edit in trace.edits] for trace in traces]
    return slot_counts(slots, max((len(trace.words) for trace in traces), default=0))


def slot_counts(slots: Sequence[Sequence[int]], n_slots: int) -> npt.NDArray[np.int64]:
    """Count how often each of the first slots is edited at each step.

    Args:
        slots: The slots that are edited in each prompt, in order.
        n_slots: Number of slots to count; edits of later ones are left out.

    Returns:
        Counts, int64 (steps, n_slots): one row for each step of the longest sequence of edits.
    """
    counts = np.zeros((max(map(len, slots), default=0), n_slots), dtype=np.int64)
    for of_prompt in slots:
        for step, slot in enumerate(of_prompt):
            if slot < n_slots:
                counts[step, slot] += 1
    return counts
