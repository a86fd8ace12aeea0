"""Kept replies to other prompts of the same patients, for the question "what if these words were deleted?"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmlm_env.core.traces import Trace
from pmlm_env.core.words import joined
from pmlm_env.llm.storage.cache import ReplyCache

#: The deleted slots of a prompt.
Deleted = tuple[int, ...]


def kept_replies(file: Path, identity: str, traces: Sequence[Trace]) -> dict[str, dict[Deleted, list[str]]]:
    """Return the cached replies to prompts that can be made by deleting words from patients' initial prompts.

    Args:
        file: The cache; a missing one has no replies.
        identity: The LLM's identity; replies of others are left out.
        traces: One trace of each patient.

    Returns:
        For each patient ID, the replies by the slots that were deleted, in the order of their samples. Where deleting
        either of two equal words gives the same prompt, the slots are those of one of them.

    Raises:
        DatabaseError: The file is damaged.
    """
    cache = ReplyCache(file)
    prompts: dict[str, dict[int, str]] = {}
    try:
        for stored in cache.of(identity):
            prompts.setdefault(stored.request["prompt"], {})[stored.request["sample"]] = stored.reply["text"]
    finally:
        cache.close()
    words = {prompt: prompt.split() for prompt in prompts}
    found: dict[str, dict[Deleted, list[str]]] = {}
    for trace in traces:
        found[trace.patient_id] = own = {}
        for prompt, samples in prompts.items():
            deleted = _deleted(trace, words[prompt])
            if deleted is not None and _prompt(trace, deleted) == prompt:
                own[deleted] = [samples[number] for number in sorted(samples)]
    return found


def _deleted(trace: Trace, words: Sequence[str]) -> Deleted | None:
    """Return the slots that are not among the words, or None if the words are not left by deletions."""
    rest = iter(trace.words)
    if not all(word in rest for word in words):  # in order: each search goes on where the last one ended
        return None
    left = iter(words)
    word = next(left, None)
    deleted = []
    for slot, initial in enumerate(trace.words):
        if initial == word:
            word = next(left, None)
        else:
            deleted.append(slot)
    return tuple(deleted)


def _prompt(trace: Trace, deleted: Deleted) -> str:
    return joined(trace.words, trace.spaces, [slot not in deleted for slot in range(len(trace.words))])
