"""The results of an audit as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.evaluation.adversaries import ADVERSARIES, CEILINGS, JUDGED
from agents.evaluation.controls import CONTROLS
from agents.evaluation.variants import COLUMNS, cell
from pmlm_env.rewards.registry import REWARDS

#: The name of the row of the replies to untouched prompts.
UNTOUCHED = "untouched"

_ABOUT = {UNTOUCHED: "the LLM's reply to the untouched prompt", **CONTROLS, **ADVERSARIES}

#: Widths of the table's first two columns.
_NAME, _EARNS = 17, 28


def audit_report(found: Mapping[str, Any]) -> str:
    """Return the results of ``agents.evaluation.audit.audit`` as text, which may quote letters of patients.

    It says all that its readers need to know: they may never have seen the project.
    """
    models, texts = found["models"], found["texts"]
    reward, patients = models["reward"], f"{found['patients']} {found['split']} patients"
    builtin = reward in REWARDS.builtin
    form, scale = ("+.2f", 100) if builtin else ("+.4g", 1)
    columns = [column for column in COLUMNS if column[0] not in ("bleu4", "rougeL")]

    def line(name: str) -> str:
        row = texts[name]
        values = (f"{cell(row['components'][metric], factor, digits):>7}" for metric, _, factor, digits in columns)
        return f"{name:{_NAME}}{_earns(row.get('earns'), scale, form):{_EARNS}} {''.join(values)}"

    lines = [
        f"Reward {reward}: what texts earn that nobody wrote for the patient",
        "",
        f"Each text takes the place of {models['llm']}'s replies to the untouched prompts of {patients}. It earns what "
        f"an edit would earn that made the LLM reply so: mean and 95 % interval{', in points' if builtin else ''}. The "
        "other columns say what the texts are like: means, all but words in %, margin in points.",
        "",
        f"{'':{_NAME}}{'earns':{_EARNS}} {''.join(f'{head:>7}' for _, head, _, _ in columns)}",
        *(line(name) for name in (UNTOUCHED, *JUDGED) if name in texts),
    ]
    if ceilings := [name for name in CEILINGS if name in texts]:
        lines += ["not judged, because they are letters to similar patients:", *map(line, ceilings)]
    lines += ["", *(f"{name}: {about}." for name, about in _ABOUT.items() if name in texts)]
    lines += _on_patients(found)
    lines += [f'{name} is "{" ".join(text.split())}"' for name, text in found["best"].items()]
    return "\n".join([*lines, "", *_verdict(found)])


def _earns(earns: Mapping[str, Any] | None, scale: float, form: str) -> str:
    if earns is None:
        return "0"
    low, high = earns["ci95"]
    return f"{scale * earns['mean']:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def _on_patients(found: Mapping[str, Any]) -> list[str]:
    """Say whose letters were tried, on whom texts were searched, and who is left out."""
    n_letters, n_searched, n_missing = found["letters"], found["searched_on"], found["without_reply"]
    lines = [
        f"{found['asked']} replies to untouched prompts were asked for, {found['llm_calls']} of them by new calls.",
        f"Letters are those of {n_letters} training patients."
        if n_letters
        else "No letters were tried, because no training patient has one.",
        f"{n_searched} training patients, none of whom is judged here, served to search {' and '.join(found['best'])}."
        if n_searched
        else "No text was searched, because no training patient has a label, a letter and a reply.",
    ]
    return [*lines, f"Patients without a reply, who are left out: {n_missing}."] if n_missing else lines


def _verdict(found: Mapping[str, Any]) -> list[str]:
    reward, winners, texts = found["models"]["reward"], found["winners"], found["texts"]
    n_judged = sum(row.get("judged", False) for row in texts.values())
    if not winners:
        return [
            f"PASSED: under {reward}, none of {n_judged} texts is shown to earn more than the reply to the untouched "
            "prompt."
        ]
    return [
        f"FAILED: under {reward}, {', '.join(winners)} earn{'s' if len(winners) == 1 else ''} more than the reply to "
        "the untouched prompt.",
        "An agent that learns from this reward can raise it by making the LLM reply like that, which helps no patient. "
        "A gain in this reward is evidence of better replies only as far as it is beyond what these texts earn.",
        f"Each interval is for one text by itself, so one of {n_judged} texts may win by chance: repeat a narrow win "
        "with more --patients.",
    ]
