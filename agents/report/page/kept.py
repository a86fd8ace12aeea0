"""Kept replies to other prompts of the same patients, for the question "what if these words were deleted?"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmlm_env.core.traces import Trace
from pmlm_env.core.words import joined
from pmlm_env.llm.storage.cache import ReplyCache

#: The deleted slots of a prompt.
Deleted = tuple[int, ...]


def kept_replies(file: Path | None, identity: str, traces: Sequence[Trace]) -> dict[str, dict[Deleted, list[str]]]:
    """Return the cached replies to prompts that can be made by deleting words from patients' initial prompts.

    Args:
        file: The cache; a missing one, or None, has no replies.
        identity: The LLM's identity; replies of others are left out.
        traces: One trace of each patient.

    Returns:
        For each patient ID, the replies by the slots that were deleted, in the order of their samples. Where deleting
        either of two equal words gives the same prompt, the slots are those of one of them.

    Raises:
        DatabaseError: The file is damaged.
    """
    cache = ReplyCache(file)  # in memory, without a file
    prompts: dict[str, dict[int, str]] = {}
    try:
        for stored in cache.of(identity):
            prompts.setdefault(stored.request["prompt"], {})[stored.request["sample"]] = stored.reply["text"]
    finally:
        cache.close()
    words = {prompt: prompt.split() for prompt in prompts}  # without those of languages that have no spaces
    found: dict[str, dict[Deleted, list[str]]] = {}
    for trace in traces:
        found[trace.patient_id] = own = {}
        for prompt, samples in prompts.items():
            spaced = "" not in trace.spaces[:-1]
            deleted = _deleted(trace, words[prompt]) if spaced else _deleted_from_text(trace, prompt)
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


def _deleted_from_text(trace: Trace, prompt: str) -> Deleted | None:
    """Return the slots that are not in a prompt whose words no space separates, or None if it has other words.

    Of several possible answers, it is one of them.
    """
    # For each slot, the places in the prompt where it may begin, each with the place where the slot before begins and
    # whether that one was kept.
    ways: list[dict[int, tuple[int, bool]]] = [{0: (0, False)}]
    for word, space in zip(trace.words, trace.spaces, strict=True):
        here = {place: (place, False) for place in ways[-1]}
        for place in ways[-1]:
            if prompt.startswith(word, place):
                end = place + len(word)
                here[end if end == len(prompt) else end + len(space)] = (place, True)
        ways.append(here)
    place, deleted = len(prompt), []
    if place not in ways[-1]:
        return None
    for slot in range(len(trace.words) - 1, -1, -1):
        place, kept = ways[slot + 1][place]
        if not kept:
            deleted.append(slot)
    return tuple(reversed(deleted))


def _prompt(trace: Trace, deleted: Deleted) -> str:
    return joined(trace.words, trace.spaces, [slot not in deleted for slot in range(len(trace.words))])
