"""Text reports on single held-out patients: prompts and replies before and after editing, and score changes."""

from __future__ import annotations

from collections.abc import Iterable

from agents.evaluation.variants import AGENT, with_all_replies
from pmlm_env.core.languages import n_words
from pmlm_env.core.traces import Trace
from pmlm_env.core.words import joined
from pmlm_env.rewards.base import REWARD

_FIGURES = {"bertscore_precision": "precision", "bertscore_recall": "recall", "rougeL": "ROUGE-L"}
_NAMED = {"diagnosis_named": "the right diagnosis", "wrong_diagnosis_named": "a wrong diagnosis"}


def first_cases(traces: Iterable[Trace], n: int) -> str:
    """Return the first ``n`` patients of an evaluation as text; see ``worst_cases``."""
    everyone = _of_agent(traces)
    cases = everyone[:n]
    return "\n\n".join([f"The first {len(cases)} of {len(everyone)} patients:", *map(_case, cases)])


def worst_cases(traces: Iterable[Trace], n: int) -> str:
    """Return the ``n`` patients whose score the agent lowered most, as text; fewer if it lowered the score of fewer.

    The score is BERTScore F1, or that of the reward if the agent was trained with another one.

    Deleted words are in brackets. The text contains references and replies, so it must not leave the machine.

    Args:
        traces: The traces of one evaluation; patients with a missing reply are excluded.
        n: Maximum number of patients.
    """
    everyone = _of_agent(traces)
    fell = sorted((trace for trace in everyone if _earned(trace) < 0), key=_earned)
    cases, score = fell[:n], "reward" if everyone and REWARD in everyone[0].after else "F1"
    if not cases:
        return f"{len(fell)} of {len(everyone)} patients' {score} fell."
    head = f"{len(fell)} of {len(everyone)} patients' {score} fell; the {len(cases)} that fell most:"
    return "\n\n".join([head, *map(_case, cases)])


def _of_agent(traces: Iterable[Trace]) -> list[Trace]:
    return [trace for trace in with_all_replies(traces) if trace.variant == AGENT]


def _change(trace: Trace, component: str) -> float:
    before, after = trace.before[component], trace.after[component]
    return float("nan") if before is None or after is None else after - before


def _earned(trace: Trace) -> float:
    return float("nan") if trace.reward is None else trace.reward


def _case(trace: Trace) -> str:
    edited = {edit.slot for edit in trace.edits}
    prompt = joined([f"[{word}]" if slot in edited else word for slot, word in enumerate(trace.words)], trace.spaces)
    reply = trace.replies[0].text
    figures = [f"{name} {100 * _change(trace, component):+.1f}" for component, name in _FIGURES.items()]
    changes = {name: _change(trace, component) for component, name in _NAMED.items()}
    named = [f"{name} {'gained' if change > 0 else 'lost'}" for name, change in changes.items() if change]
    scores = [f"F1 {100 * _change(trace, 'bertscore_f1'):+.1f} points"]
    if REWARD in trace.after:
        scores.insert(0, f"reward {trace.reward:+.4g}")
    lengths = f"{n_words(trace.initial_reply)} -> {n_words(reply)} words"
    return "\n".join(
        [
            f"{trace.patient_id}, {trace.label}: {', '.join(scores)}",
            f"  prompt     {_one_line(prompt)}",
            f"  before     {_one_line(trace.initial_reply)}",
            f"  after      {_one_line(reply)}",
            f"  reference  {_one_line(trace.reference)}",
            f"  changes    {', '.join([*figures, lengths, *named])}",
        ]
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
