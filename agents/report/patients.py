"""What an agent did to the prompts of evaluated patients, as text for the terminal, made from a run's traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.evaluation.controls import CONTROLS
from agents.evaluation.variants import AGENT, KEEP_ALL
from agents.report.page.patients import metric
from agents.report.page.variants import VARIANTS
from pmlm_env.core.languages import language_of
from pmlm_env.core.traces import Trace, TraceFile
from pmlm_env.core.words import joined, letters, split
from pmlm_env.io.text import printable
from pmlm_env.io.text_table import terminal_width, text_table, wrapped
from pmlm_env.rewards.base import REWARD

#: The traces of one patient in one evaluation, by variant or control.
ByVariant = Mapping[str, Trace]

#: Number of words that a line lists.
_MOST_WORDS = 20

_F1 = "bertscore_f1"


def newest_traces(traces: Iterable[Trace]) -> dict[str, dict[str, Trace]]:
    """Return each patient's traces by variant, from the newest evaluation that has this patient.

    Patients without a trace of the untouched prompt or of the agent's are left out.

    Args:
        traces: A run's traces, in the order of the file: an evaluation's traces follow one another.
    """
    found: dict[str, dict[str, Trace]] = {}
    for trace in traces:
        theirs = found.setdefault(trace.patient_id, {})
        if theirs and _evaluation(next(iter(theirs.values()))) != _evaluation(trace):
            theirs.clear()
        theirs[trace.variant] = trace
    return {patient: theirs for patient, theirs in found.items() if {KEEP_ALL, AGENT} <= theirs.keys()}


def refined_traces(path: Path, run: str | None = None) -> dict[str, ByVariant]:
    """Return the traces that ``pmlm refine`` wrote into a file, by patient; they have neither scores nor a reference.

    Args:
        path: The file.
        run: The name of a run folder, to read only the traces of its agent; None = all.

    Raises:
        ValueError: The file is damaged, or was written by another command.
    """
    traces = TraceFile(path).read()
    if any(trace.variant != AGENT for trace in traces):
        raise ValueError(f"{path} was not written by pmlm refine: name its --out file")
    return {trace.patient_id: {AGENT: trace} for trace in traces if run is None or trace.run == run}


def list_patients(patients: Mapping[str, ByVariant], in_points: bool) -> str:
    """Return a table of patients: condition, score before and after, change, and conditions that the reply names.

    The largest gain comes first; patients without all replies come last.

    Args:
        patients: See ``newest_traces``; at least one patient.
        in_points: Whether the run's reward is a fraction, and is shown in points.
    """
    traces = [variants[AGENT] for variants in patients.values()]
    traces.sort(key=lambda trace: float("inf") if trace.reward is None else -trace.reward)
    own = REWARD in next((trace.after for trace in traces if not trace.error), {})
    score = metric(REWARD if own else _F1, in_points)
    heads = ["patient", "condition", "predicted", "before", "after", "change", "right", "wrong"]
    rows = [[trace.patient_id, trace.label, trace.predicted, *_score_cells(trace, score)] for trace in traces]
    unit = " in points" if score["scale"] == 100 else ""
    splits = Counter(trace.split for trace in traces)
    return "\n".join(
        [
            f"Patients: {', '.join(f'{n} {split}' for split, n in splits.items())}; "
            f"{'the reward' if own else 'BERTScore F1'}{unit}, largest gain first",
            "right, wrong: whether the reply names the patient's condition and another, before > after",
            "",
            *text_table(heads, rows),
        ]
    )


def show_patient(variants: ByVariant, in_points: bool) -> str:
    """Return one patient's prompt with the deleted words marked, and their replies, reference and score components.

    Args:
        variants: The patient's traces; see ``newest_traces``, and ``refined_traces`` for patients without scores.
        in_points: Whether the run's reward is a fraction, and is shown in points.
    """
    trace, untouched = variants[AGENT], variants.get(KEEP_ALL)
    width = terminal_width()
    parts = [
        _heading(trace, in_points),
        _section(
            "Prompt, with the deleted words in brackets, numbered in the order of deletion" if trace.edits else
            "Prompt, of which no word was deleted",
            _marked(trace),
            width,
        ),
        *_edits(trace),
        *([] if untouched is None else _replies("Reply to the untouched prompt", untouched, width)),
        *_replies("Reply to the refined prompt", trace, width),
        *([_section("Reference: what the patient's doctor wrote", trace.reference, width)] * bool(trace.reference)),
    ]  # fmt: skip
    if trace.after and trace.before:
        parts += [*_shared_words(trace, width), _components(trace, in_points), _others(variants, width)]
    return "\n\n".join(parts)


def _evaluation(trace: Trace) -> tuple[str, str, int]:
    return trace.split, trace.agent, trace.seed


def _score_cells(trace: Trace, score: Mapping[str, Any]) -> list[str]:
    """Return the cells of a patient's scores; of a patient without all replies, dashes, and why in the last cell."""
    if trace.error or not trace.after or not trace.before:
        return ["-"] * 4 + [f"no reply: {trace.error}"]
    named = [
        f"{_share(trace.before.get(which))} > {_share(trace.after.get(which))}"
        for which in ("diagnosis_named", "wrong_diagnosis_named")
    ]
    numbers = [_number(side[score["name"]], score) for side in (trace.before, trace.after)]
    return [*numbers, _number(trace.reward, score, "+"), *named]


def _number(value: float | None, score: Mapping[str, Any], sign: str = "") -> str:
    """Format a metric as the page does; see ``agents.report.page.patients.metric``."""
    if value is None:
        return "-"
    return _share(value) if score["digits"] is None else f"{score['scale'] * value:{sign}.{score['digits']}f}"


def _share(value: float | None) -> str:
    """Format the share of a patient's replies that name something: usually there is one reply."""
    if value is None:
        return "-"
    return {0.0: "no", 1.0: "yes"}.get(value, f"{value:.0%}")


def _heading(trace: Trace, in_points: bool) -> str:
    lines = [f"Patient {trace.patient_id} ({trace.split if trace.reference else 'new'}), edited by {trace.agent}"]
    probability = trace.probabilities.get(trace.predicted)
    sure = "" if probability is None else f" ({probability:.0%})"
    lines += [f"Condition: {trace.label or 'unknown'}; predicted: {trace.predicted}{sure}"]
    if trace.peers:
        counts = Counter(peer.label for peer in trace.peers).most_common()
        lines += [f"Peers: {', '.join(f'{count} {label}' for label, count in counts)}"]
    if trace.error:
        lines += [f"A reply is missing: {trace.error}"]
    elif trace.after:
        f1 = [_number(side[_F1], metric(_F1, in_points)) for side in (trace.before, trace.after)]
        lines += [f"BERTScore F1: {f1[0]} > {f1[1]} points"]
        if REWARD in trace.after:
            earned = _number(trace.reward, metric(REWARD, in_points), "+")
            lines += [f"The edits earn {earned}{' points' if in_points else ''} of the run's reward"]
        named = {"the right condition": "diagnosis_named", "a wrong condition": "wrong_diagnosis_named"}
        lines += [
            "; ".join(
                f"names {what}: {_share(trace.before.get(name))} > {_share(trace.after.get(name))}"
                for what, name in named.items()
            ).capitalize()
        ]
    return "\n".join(printable(" ".join(line.split())) for line in lines)


def _section(title: str, text: str, width: int) -> str:
    lines = [line for each in printable(text).split("\n") for line in wrapped(each, width - 2) or [""]]
    return "\n".join([title, *(f"  {line}".rstrip() for line in lines)])


def _marked(trace: Trace) -> str:
    words = list(trace.words)
    for step, edit in enumerate(trace.edits, start=1):
        words[edit.slot] = f"[{step}:{edit.word}]"
    return joined(words, trace.spaces)


def _edits(trace: Trace) -> list[str]:
    if not trace.edits:
        return []
    rows = [
        [str(step), edit.word, trace.roles[edit.slot], "-" if edit.probability is None else f"{edit.probability:.3f}"]
        for step, edit in enumerate(trace.edits, start=1)
    ]
    return ["\n".join(text_table(["order", "deleted", "role", "probability"], rows))]


def _replies(title: str, trace: Trace, width: int) -> list[str]:
    n = len(trace.replies)
    return [
        _section(title + (f", {number} of {n}" if n > 1 else ""), reply.text, width)
        for number, reply in enumerate(trace.replies, start=1)
    ]


def _shared_words(trace: Trace, width: int) -> list[str]:
    """Return how many words of the reference the (first) replies have, and which of them the edits changed."""
    reference = _words(trace.reference)
    before, after = (
        [word for word in _words(reply) if word in reference]
        for reply in (trace.initial_reply, trace.replies[0].text)
    )  # fmt: skip
    lines = [f"Of the {len(reference)} longer words of the reference, {len(before)} > {len(after)} are in the reply"]
    for what, words, others in (("Gained", after, before), ("Lost", before, after)):
        if changed := [word for word in words if word not in others]:
            more = f" and {len(changed) - _MOST_WORDS} more" if len(changed) > _MOST_WORDS else ""
            lines += [f"{what}: {' '.join(changed[:_MOST_WORDS])}{more}"]
    return ["\n".join(line for each in lines for line in wrapped(printable(each), width))]


def _words(text: str) -> list[str]:
    """Return the different words of a text in order, without punctuation; short ones, such as "and", say little."""
    words = dict.fromkeys(letters(word.text) for word in split(text, language_of(text)))
    return [word for word in words if len(word) > 3 or not (word.isascii() and word.isalpha())]


def _components(trace: Trace, in_points: bool) -> str:
    rows: list[Sequence[str]] = []
    for name, after in trace.after.items():
        before, shown = trace.before[name], metric(name, in_points)
        change = None if before is None or after is None else after - before
        signed = "" if shown["digits"] is None else _number(change, shown, "+")
        rows.append([name, _number(before, shown), _number(after, shown), signed])
    table = text_table(["component", "before", "after", "change"], rows)
    return "\n".join(["Fractions are in %, margin is in points", *table])


def _others(variants: ByVariant, width: int) -> str:
    """Return the F1 of the other replies to the patient: to prompts that were edited otherwise, and the controls'."""
    others = [name for name in VARIANTS if name in variants and name not in (AGENT, KEEP_ALL)]
    f1 = {name: _number(variants[name].after.get(_F1), metric(_F1, True)) for name in others}
    named = [f"{'control ' if name in CONTROLS else ''}{VARIANTS[name]} {value}" for name, value in f1.items()]
    return "\n".join(wrapped(f"BERTScore F1 of other replies, in points: {', '.join(named)}", width))
