"""A rule-based substitute for the downstream LLM, without a model, randomness or medical knowledge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import asdict

from pmlm_env.cohort.naming.mentions import Mention, find_mentions
from pmlm_env.cohort.schema import OBSTETRIC, Schema
from pmlm_env.core.languages import is_chinese
from pmlm_env.llm.base import LLM, Completion, Reply, Request
from pmlm_env.llm.responder_words import CHINESE, ENGLISH

#: Upper bound on the length of a reply, in words; a Chinese character counts as one.
MAX_TOKENS = 200

_FIRST_WEIGHT = 4.0  # the first condition of a prompt is usually the predicted one
_PEERS = 10.0
_RIVAL_SHARE = 0.5


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
    whitespace. If the schema's language is Chinese, so are the replies and the words above, and tokens are characters.

    Args:
        schema: Its labels are the conditions; by default the schema ``obstetric``.
    """

    is_remote = False

    def __init__(self, schema: Schema | None = None) -> None:
        """Prepare what is said of each label."""
        usual = Schema.load(OBSTETRIC)
        schema = schema or usual
        self._language = schema.language
        self._words = CHINESE if is_chinese(schema.language) else ENGLISH
        self._sentences = self._words.sentences[schema.templates == usual.templates]
        # Unlike in a reply, the name of a label without a finding, such as "normal", names it in a prompt.
        self._phrases = {label.name: (label.name, *label.aliases) for label in schema.labels}
        self._said = {
            label.name: label.aliases[0] if label.no_finding and label.aliases else label.name
            for label in schema.labels
        }
        self._identity = "responder:v1"
        if (schema.templates, schema.labels, self._words) != (usual.templates, usual.labels, ENGLISH):
            spoken = ["zh"] if self._words is CHINESE else []
            content = json.dumps([*spoken, schema.templates, *map(asdict, schema.labels)])
            self._identity += f":{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def identity(self) -> str:
        """Everything that the replies depend on: the rules and the schema's labels and kind of patients."""
        return self._identity

    def replies(self, requests: Sequence[Request]) -> Generator[dict[int, Reply], None, None]:
        """Reply to each request. Equal prompts get equal replies; no reply is empty."""
        replies = [self._reply(request.prompt) for request in requests]
        yield {
            index: Completion(reply, self._words.size(request.prompt), self._words.size(reply), "stop")
            for index, (request, reply) in enumerate(zip(requests, replies, strict=True))
        }

    def _reply(self, prompt: str) -> str:
        words, weights = self._words, self._weigh(prompt)
        asks = {part for part, markers in words.markers.items() if words.found(prompt, markers)}
        ranked = sorted(weights, key=weights.__getitem__, reverse=True)  # stable: ties keep the order of mention
        named = self._said[ranked[0]] if ranked else words.unclear
        parts = [(words.diagnosis if "diagnosis" in asks else words.perhaps).format(named)]
        if len(ranked) > 1 and weights[ranked[1]] >= _RIVAL_SHARE * weights[ranked[0]]:
            parts.append(words.also.format(self._said[ranked[1]]))
        if ranked and "advice" in asks:
            parts.append(words.recommendation.format(self._sentences.recommendations.get(ranked[0], words.usual)))
        else:
            parts.append(words.general)
        if "follow-up" in asks:
            parts.append(self._sentences.follow_up)
        if "brief" not in asks:
            parts += [self._sentences.chatter, words.padding]
        return words.between.join(parts)

    def _weigh(self, prompt: str) -> dict[str, float]:
        """Return the weight of each condition that the prompt names, in order of first mention."""
        weights: dict[str, float] = {}
        last_end = 0
        for mention in find_mentions(prompt, self._phrases, self._language):
            if not mention.named:
                continue
            weight = self._count(prompt, mention, last_end) or (1.0 if weights else _FIRST_WEIGHT)
            weights[mention.label] = weights.get(mention.label, 0.0) + weight
            last_end = mention.end
        return weights

    def _count(self, prompt: str, mention: Mention, last_end: int) -> float | None:
        """Return the number of peers with the condition, out of ten, if the prompt states it."""
        after, before = self._words.count_after, self._words.share_before
        found = after.match(prompt, mention.end) or before.search(prompt, last_end, mention.start)
        if found is None:
            return None
        count, total = int(found[1]), int(found[2] or _PEERS)
        return _PEERS * count / total if total else None
