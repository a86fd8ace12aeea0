"""A rule-based substitute for the downstream LLM, without a model, randomness or medical knowledge."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass

from pmlm_env.cohort.naming.mentions import Mention, find_mentions
from pmlm_env.cohort.schema import OBSTETRIC, Schema
from pmlm_env.llm import obstetric_sentences
from pmlm_env.llm.base import LLM, Completion, Reply, Request

#: Upper bound on the length of a reply, in words.
MAX_TOKENS = 200

_FIRST_WEIGHT = 4.0  # the first condition of a prompt is usually the predicted one
_PEERS = 10.0
_RIVAL_SHARE = 0.5

_SHARE_BEFORE = re.compile(r"(\d+)\s*(?:/|of|out of)\s*(\d+)\b[^\d.;!?\n]*$", re.IGNORECASE)
_COUNT_AFTER = re.compile(r"\s*[:=(x\u00d7]\s*(\d+)\b(?:\s*(?:/|of|out of)\s*(\d+)\b)?", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")

_GENERAL_ADVICE = "Rest well and eat regularly. Come back if anything changes."
_PADDING = (
    "There are many possible causes of abnormal tests, such as diet, stress and lack of sleep. This information does "
    "not replace a doctor's visit."
)


@dataclass(frozen=True)
class _Sentences:
    """Sentences that depend on the kind of patients: recommendations by label, and others."""

    recommendations: Mapping[str, str]
    follow_up: str
    chatter: str


_GENERAL = _Sentences(
    {},
    "Return to the clinic for follow-up in one week.",
    "Good health depends on many things that change from day to day.",
)
_OBSTETRIC = _Sentences(obstetric_sentences.RECOMMENDATIONS, obstetric_sentences.FOLLOW_UP, obstetric_sentences.CHATTER)
_RECOMMENDATION = "Take medicines as prescribed. Have the laboratory tests repeated in four weeks."


class Responder(LLM):
    """Replies by fixed rules to words in the prompt, for tests and benchmarks of algorithms.

    Its scores say nothing about language models or medicine. As with a language model, some deletions help, some harm
    and most have no effect. The rules:

    - The condition with the most weight in the prompt is the diagnosis. "6 of 10" before a condition, or ": 6"
      after it, weighs 6; any other mention weighs 1, and the first one 4. Ties go to the earlier condition.
    - The second condition is also named if it has at least half that weight.
    - "diagnosis" makes the reply start with "Discharge diagnosis" instead of "Perhaps".
    - "advice" or "recommendation" adds a recommendation instead of general advice; if the schema's templates are
      ``obstetric``, it is specific to the condition.
    - "medical" or "clinical" adds a follow-up visit.
    - "brief", "concise" or "short" leaves out a paragraph of padding.

    A prompt that names none of the schema's labels gets a reply without a condition. Tokens are words separated by
    whitespace.

    Args:
        schema: Its labels are the conditions; by default the schema ``obstetric``.
    """

    is_remote = False

    def __init__(self, schema: Schema | None = None) -> None:
        """Prepare what is said of each label."""
        usual = Schema.load(OBSTETRIC)
        schema = schema or usual
        self._sentences = _OBSTETRIC if schema.templates == usual.templates else _GENERAL
        # Unlike in a reply, the name of a label without a finding, such as "normal", names it in a prompt.
        self._phrases = {label.name: (label.name, *label.aliases) for label in schema.labels}
        self._said = {
            label.name: label.aliases[0] if label.no_finding and label.aliases else label.name
            for label in schema.labels
        }
        self._identity = "responder:v1"
        if (schema.templates, schema.labels) != (usual.templates, usual.labels):
            content = json.dumps([schema.templates, *map(asdict, schema.labels)])
            self._identity += f":{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def identity(self) -> str:
        """Everything that the replies depend on: the rules and the schema's labels and kind of patients."""
        return self._identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request. Equal prompts get equal replies; no reply is empty."""
        replies = [self._reply(request.prompt) for request in requests]
        yield {
            index: Completion(reply, len(request.prompt.split()), len(reply.split()), "stop")
            for index, (request, reply) in enumerate(zip(requests, replies, strict=True))
        }

    def _reply(self, prompt: str) -> str:
        words = set(_WORD.findall(prompt.lower()))
        weights = self._weigh(prompt)
        ranked = sorted(weights, key=weights.__getitem__, reverse=True)  # stable: ties keep the order of mention
        named = self._said[ranked[0]] if ranked else "not clear from what is given"
        parts = [f"Discharge diagnosis: {named}." if words & {"diagnosis", "diagnoses"} else f"Perhaps: {named}."]
        if len(ranked) > 1 and weights[ranked[1]] >= _RIVAL_SHARE * weights[ranked[0]]:
            parts.append(f"Also consider {self._said[ranked[1]]}.")
        if ranked and words & {"advice", "advise", "recommend", "recommendation", "recommendations"}:
            parts.append(f"Recommendation: {self._sentences.recommendations.get(ranked[0], _RECOMMENDATION)}")
        else:
            parts.append(_GENERAL_ADVICE)
        if words & {"medical", "clinical"}:
            parts.append(self._sentences.follow_up)
        if not words & {"brief", "briefly", "concise", "short"}:
            parts += [self._sentences.chatter, _PADDING]
        return " ".join(parts)

    def _weigh(self, prompt: str) -> dict[str, float]:
        """Return the weight of each condition that the prompt names, in order of first mention."""
        weights: dict[str, float] = {}
        last_end = 0
        for mention in find_mentions(prompt, self._phrases):
            if not mention.named:
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
