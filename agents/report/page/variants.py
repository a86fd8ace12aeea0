"""The names of variants and controls on the page."""

from __future__ import annotations

from agents.evaluation.controls import CONTROLS
from agents.evaluation.variants import AGENT, KEEP_ALL, RANDOM, RULE

#: Variants and controls in the order of the page, with what they are called there.
VARIANTS = {
    KEEP_ALL: "untouched prompt",
    AGENT: "agent",
    RANDOM: "random deletion",
    RULE: "best single rule",
    **{name: name for name in CONTROLS},
}
