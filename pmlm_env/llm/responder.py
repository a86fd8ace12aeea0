"""A rule-based substitute for the downstream LLM, without a model, randomness or medical knowledge."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence

from pmlm_env.cohort.naming.english import Mention, find_mentions
from pmlm_env.cohort.schema import LABELS
from pmlm_env.llm.base import LLM, Completion, Reply, Request

#: Unlike in a reply, the word "normal" in a prompt names the label.
_PHRASES = {label.name: (label.name, *label.aliases) for label in LABELS}

#: Upper bound on the length of a reply, in words.
MAX_TOKENS = 200

_FIRST_WEIGHT = 4.0  # the first condition of a prompt is usually the predicted one
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
    """Replies by fixed rules to words in the prompt, for tests and benchmarks of algorithms.

    Its scores say nothing about language models or medicine. As with a language model, some deletions help, some harm
    and most have no effect. The rules:

    - The condition with the most weight in the prompt is the diagnosis. "6 of 10" before a condition, or ": 6"
      after it, weighs 6; any other mention weighs 1, and the first one 4. Ties go to the earlier condition.
    - The second condition is also named if it has at least half that weight.
    - "diagnosis" makes the reply start with "Discharge diagnosis" instead of "Perhaps".
    - "advice" or "recommendation" adds advice specific to the condition instead of general advice.
    - "medical" or "clinical" adds a follow-up visit.
    - "brief", "concise" or "short" leaves out a paragraph of padding.

    A prompt that names none of the paper's conditions gets a reply without a condition. Tokens are words separated by
    whitespace.
    """

    identity = "responder:v1"
    is_remote = False

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request. Equal prompts get equal replies; no reply is empty."""
        replies = [_reply(request.prompt) for request in requests]
        yield {
            index: Completion(reply, len(request.prompt.split()), len(reply.split()), "stop")
            for index, (request, reply) in enumerate(zip(requests, replies, strict=True))
        }


def _reply(prompt: str) -> str:
    words = set(_WORD.findall(prompt.lower()))
    weights = _weigh(prompt)
    ranked = sorted(weights, key=weights.__getitem__, reverse=True)  # stable: ties keep the order of mention
    condition = ranked[0] if ranked else ""
    named = {"normal": "normal pregnancy", "": "not clear from what is given"}.get(condition, condition)

    parts = [f"Discharge diagnosis: {named}." if words & {"diagnosis", "diagnoses"} else f"Perhaps: {named}."]
    if len(ranked) > 1 and weights[ranked[1]] >= _RIVAL_SHARE * weights[condition]:
        second = "normal pregnancy" if ranked[1] == "normal" else ranked[1]
        parts.append(f"Also consider {second}.")
    wants_advice = words & {"advice", "advise", "recommend", "recommendation", "recommendations"}
    parts.append(f"Recommendation: {_ADVICE[condition]}" if wants_advice and condition else _GENERIC_ADVICE)
    if words & {"medical", "clinical"}:
        parts.append("Return to the obstetric clinic for follow-up in one week.")
    if not words & {"brief", "briefly", "concise", "short"}:
        parts.append(_PADDING)
    return " ".join(parts)


def _weigh(prompt: str) -> dict[str, float]:
    """Return the weight of each condition that the prompt names, in order of first mention."""
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
    """Return the number of peers with the condition, out of ten, if the prompt states it."""
    found = _COUNT_AFTER.match(prompt, mention.end) or _SHARE_BEFORE.search(prompt, last_end, mention.start)
    if found is None:
        return None
    count, total = int(found[1]), int(found[2] or _PEERS)
    return _PEERS * count / total if total else None
