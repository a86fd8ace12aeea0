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
    models, texts, best = found["models"], found["texts"], found["best"]
    reward, patients = models["reward"], f"{found['patients']} {found['split']} patients"
    builtin = reward in REWARDS.builtin
    form, scale = ("+.2f", 100) if builtin else ("+.4g", 1)
    columns = [column for column in COLUMNS if column[0] not in ("bleu4", "rougeL")]

    def line(name: str) -> str:
        row = texts[name]
        values = (f"{cell(row['components'][metric], factor, digits):>7}" for metric, _, factor, digits in columns)
        return f"{name:{_NAME}}{_earns(row.get('earns'), scale, form):{_EARNS}}{''.join(values)}"

    lines = [
        f"What texts earn under the reward {reward} in place of {models['llm']}'s replies to the untouched prompts of "
        f"{patients}{_missing(found['without_reply'])}: what an edit would earn that made the LLM reply so, "
        f"mean and 95 % interval, {'in points' if builtin else 'in the unit of the reward'}; then what the replies are "
        "like, in % (margin in points, words in words).",
        "",
        f"{'':{_NAME}}{'earns':{_EARNS}}{''.join(f'{head:>7}' for _, head, _, _ in columns)}",
        *(line(name) for name in (UNTOUCHED, *JUDGED) if name in texts),
    ]
    if ceilings := [name for name in CEILINGS if name in texts]:
        lines += ["not judged, because they are letters to similar patients:", *map(line, ceilings)]
    lines += ["", *(f"{name}: {about}." for name, about in _ABOUT.items() if name in texts)]
    lines += _on_search(found)
    lines += [f'{name} is "{text}"' for name, text in best.items()]
    return "\n".join([*lines, "", *_verdict(found, form, scale)])


def _earns(earns: Mapping[str, Any] | None, scale: float, form: str) -> str:
    if earns is None:
        return "0"
    low, high = earns["ci95"]
    return f"{scale * earns['mean']:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def _missing(n: int) -> str:
    return f" ({n} patients without a reply are left out)" if n else ""


def _on_search(found: Mapping[str, Any]) -> list[str]:
    """Say on whom texts were searched, or why they were not."""
    if not found["searched_on"]:
        return ["There is no training patient with a label, a letter and a reply: no letters were tried."]
    return [
        f"Letters are those of {found['letters']} training patients. {' and '.join(found['best'])} were searched on "
        f"{found['searched_on']} training patients, none of whom is among those above."
    ]


def _verdict(found: Mapping[str, Any], form: str, scale: float) -> list[str]:
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
    ]
