"""Refined prompts and their replies as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pmlm_env.core.traces import Trace
from pmlm_env.io.text_table import text_table

#: Number of patients that are shown.
_MOST_PATIENTS = 50


def table(traces: Sequence[Trace], with_replies: bool) -> str:
    """Return a table of patients: predicted condition, peers, deleted words, and the beginning of the reply.

    Args:
        traces: At least one patient's trace each.
        with_replies: Whether replies were requested.
    """
    shown = traces[:_MOST_PATIENTS]
    heads = ["patient", "predicted", f"peers (of {len(traces[0].peers)})", "deleted", *["reply"] * with_replies]
    lines = text_table(heads, [_cells(trace)[: len(heads)] for trace in shown])
    if len(traces) > len(shown):
        lines.append(f"... and {len(traces) - len(shown):,} more")
    return "\n".join(lines)


def _cells(trace: Trace) -> list[str]:
    probability = trace.probabilities.get(trace.predicted)
    predicted = trace.predicted if probability is None else f"{trace.predicted} {probability:.0%}"
    peers = Counter(peer.label for peer in trace.peers).most_common()
    deleted = " ".join(edit.word for edit in sorted(trace.edits, key=lambda edit: edit.slot))
    reply = f"no reply: {trace.error}" if trace.error else " ".join(reply.text for reply in trace.replies)
    return [trace.patient_id, predicted, ", ".join(f"{count} {label}" for label, count in peers), deleted, reply]
