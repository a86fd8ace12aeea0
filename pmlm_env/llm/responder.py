"""A rule-based stand-in for the downstream LLM: no model, no randomness, no medicine."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from pmlm_env.cohort.naming.english import Mention, find_mentions
from pmlm_env.cohort.schema import LABELS
from pmlm_env.llm.base import LLM, Completion, Reply, Request

#: Unlike a diagnosis in a reply, a label in a prompt may be the bare word "normal".
_PHRASES = {label.name: (label.name, *label.aliases) for label in LABELS}

#: More than any reply has, a token being a word.
MAX_TOKENS = 200

_FIRST_WEIGHT = 4.0  # the first condition of a prompt is usually the patient's own
_PEERS = 10.0
_RIVAL_SHARE = 0.5

_SHARE_BEFORE = re.compile(r"(\d+)\s*(?:/|of|out of)\s*(\d+)\b[^\d.;!?\n]*$", re.IGNORECASE)
_COUNT_AFTER = re.compile(r"\s*[:=(x\u00d7]\s*(\d+)\b(?:\s*(?:/|of|out of)\s*(\d+)\b)?", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")

_ADVICE: dict[str, str] = {
    "normal": "Keep a balanced diet and regular gentle exercise. Continue routine antenatal visits.",
    "uterine scar": "Have the thickness of the scar checked by ultrasound. Discuss the mode of delivery early.",
    "acute fetal distress (heart type)": "Lie on the left side and take oxygen. Repeat fetal heart monitoring daily.",
    "pregnancy complicated with placental dysfunction": (
        "Count fetal movements every day. Check placental blood flow and fetal growth by ultrasound each week."
    ),
    "gestational hypertension": "Measure blood pressure twice a day. Limit salt and report headache or blurred vision.",
    "premature rupture of membranes": "Stay in bed with the hips raised. Watch temperature and amniotic fluid.",
    "pregnancy complicated with hypothyroidism": "Take levothyroxine as prescribed. Recheck TSH every four weeks.",
    "uterine rupture": "Avoid another pregnancy for two years. Come at once with abdominal pain or bleeding.",
    "acute fetal distress (amniotic fluid type)": (
        "Have the newborn's breathing observed. Follow the amniotic fluid by ultrasound."
    ),
    "umbilical cord entanglement": "Count fetal movements every day. Recheck the cord by ultrasound before delivery.",
    "thalassemia": "Recheck haemoglobin every month. Have the partner tested and seek genetic counselling.",
    "gestational diabetes": "Follow a diabetic diet and walk after meals. Monitor fasting and post-meal glucose.",
}
_GENERIC_ADVICE = "Rest well and eat regularly. Come back if anything changes."
_PADDING = (
    "Pregnancy is a special time that brings many changes to body and mind. There are many possible causes of "
    "abnormal tests, such as diet, stress and lack of sleep. This information does not replace a doctor's visit."
)


class Responder(LLM):
    """Replies by fixed rules to the words it finds in the prompt: for tests and for benchmarks of algorithms.

    It is no language model, knows no medicine, and what it scores says nothing about any LLM. What it has in common
    with one is what a deletion policy needs: some deletions help, some harm, most do neither. The rules:

    - The condition with the most weight in the prompt is the diagnosis. "6 of 10" before a condition, or ": 6"
      after it, weighs 6; any other mention weighs 1, and the very first 4. Of equals, the earlier wins.
    - A rival with at least half that weight is named too, as something to consider.
    - The word "diagnosis" gives the reply its heading, without which it only guesses.
    - "advice" or "recommendation" brings the condition's own advice; without, advice that fits anyone.
    - "medical" or "clinical" brings the follow-up.
    - "brief", "concise" or "short" leaves out a paragraph of padding.

    A prompt that names none of the paper's conditions gets a reply about none, by the same rules.
    Tokens are words parted by white space.
    """

    identity = "responder:v1"

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request; the same prompt always gets the same reply, and none an empty one."""
        replies = [_reply(request.prompt) for request in requests]
        yield {
            place: Completion(reply, len(request.prompt.split()), len(reply.split()), "stop")
            for place, (request, reply) in enumerate(zip(requests, replies, strict=True))
        }


def _reply(prompt: str) -> str:
    words = set(_WORD.findall(prompt.lower()))
    weights = _weigh(prompt)
    ranked = sorted(weights, key=weights.__getitem__, reverse=True)  # stable: of equals, the earlier
    condition = ranked[0] if ranked else ""
    named = {"normal": "normal pregnancy", "": "not clear from what is given"}.get(condition, condition)

    parts = [f"Discharge diagnosis: {named}." if words & {"diagnosis", "diagnoses"} else f"Perhaps: {named}."]
    if len(ranked) > 1 and weights[ranked[1]] >= _RIVAL_SHARE * weights[condition]:
        rival = "normal pregnancy" if ranked[1] == "normal" else ranked[1]
        parts.append(f"Also consider {rival}.")
    asked = words & {"advice", "advise", "recommend", "recommendation", "recommendations"}
    parts.append(f"Recommendation: {_ADVICE[condition]}" if asked and condition else _GENERIC_ADVICE)
    if words & {"medical", "clinical"}:
        parts.append("Return to the obstetric clinic for follow-up in one week.")
    if not words & {"brief", "briefly", "concise", "short"}:
        parts.append(_PADDING)
    return " ".join(parts)


def _weigh(prompt: str) -> dict[str, float]:
    """Return the weight of each condition that the prompt names, in the order of first mention."""
    weights: dict[str, float] = {}
    last_end = 0
    for mention in find_mentions(prompt, _PHRASES):
        if mention.denied:
            continue
        weight = _count(prompt, mention, last_end) or (1.0 if weights else _FIRST_WEIGHT)
        weights[mention.label] = weights.get(mention.label, 0.0) + weight
        last_end = mention.end
    return weights


def _count(prompt: str, mention: Mention, last_end: int) -> float | None:
    """Return how many of ten peers the prompt gives to a mentioned condition, if it says so."""
    found = _COUNT_AFTER.match(prompt, mention.end) or _SHARE_BEFORE.search(prompt, last_end, mention.start)
    if found is None:
        return None
    count, total = int(found[1]), int(found[2] or _PEERS)
    return _PEERS * count / total if total else None
