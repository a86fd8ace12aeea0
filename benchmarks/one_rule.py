"""Prompts that all lack the same words: python -m benchmarks.one_rule --episodes prepared --out one-rule --places ...

The replies to these prompts (``pmlm benchmark --agents keep-all``) show what the words that an agent deletes most gain
without the agent; see docs/learning.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from pmlm_env.core.episode import Episode
from pmlm_env.core.episodes import EpisodeSet


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Attributes:
        episodes: The folder of ``pmlm prepare``.
        out: The folder to write.
        places: The words to delete, the most important first: ROLE:WORD:N for the Nth time that the word stands in the
            part of the prompt with that role, such as instruction:two:2. A place that a prompt lacks is skipped.
        most: The maximum number of words to delete from a prompt.
    """

    episodes: Path
    out: Path
    places: tuple[str, ...]
    most: int = 10


def without_places(episode: Episode, places: Sequence[str], most: int) -> Episode:
    """Return an episode whose prompt lacks the first ``most`` of the places that it has."""
    times: Counter[str] = Counter()
    slots: dict[str, int] = {}
    for slot, (role, word) in enumerate(zip(episode.roles, episode.words, strict=True)):
        times[f"{role}:{word}"] += 1
        slots[f"{role}:{word}:{times[f'{role}:{word}']}"] = slot
    gone = {*[slots[place] for place in places if place in slots][:most]}
    kept = [slot for slot in range(len(episode.words)) if slot not in gone]
    return replace(
        episode,
        words=tuple(episode.words[slot] for slot in kept),
        roles=tuple(episode.roles[slot] for slot in kept),
        spaces=(*(episode.spaces[slot] for slot in kept[:-1]), "") if episode.spaces else (),
    )


def main(options: Options) -> None:
    """Write the folder."""
    episodes = EpisodeSet.load(options.episodes)
    for place in options.places:
        if all(without_places(each, [place], 1).words == each.words for each in episodes):
            sys.exit(f"no prompt has {place}: use ROLE:WORD:N, such as instruction:two:2")
    episodes.part(without_places(each, options.places, options.most) for each in episodes).save(options.out)


if __name__ == "__main__":
    main(tyro.cli(Options))
