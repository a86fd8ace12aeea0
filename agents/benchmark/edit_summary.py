"""A summary of an agent's edits, without any patient's prompt."""

from __future__ import annotations

from collections import Counter
from typing import Any

from agents.base import Edits
from agents.baselines.single_rule import role_places
from pmlm_env.core.episodes import EpisodeSet

#: Maximum number of words listed in a run's line, and the minimum number of prompts in which a word must have been
#: deleted to be listed: results are shared more freely than prompts, and a word that occurs in only one patient's
#: prompt may identify that patient.
_N_WORDS, FEWEST_PROMPTS = 20, 3


def summary_of(edits: Edits, prompts: EpisodeSet) -> dict[str, Any]:
    """Return the words that were deleted most often, with roles and counts, and in how many ways prompts were edited.

    Args:
        edits: The edits of each prompt.
        prompts: The prompts.
    """
    words = [[(edit.word, prompts[i].roles[edit.slot]) for edit in each] for i, each in enumerate(edits)]
    places = [role_places(episode.roles) for episode in prompts]
    ways = {frozenset(places[i][edit.slot] for edit in each) for i, each in enumerate(edits)}
    times = Counter(word for each in words for word in each)
    n_prompts = Counter(word for each in words for word in set(each))
    common = [(word, n) for word, n in times.most_common() if n_prompts[word] >= FEWEST_PROMPTS]
    return {"deleted": [[word, role, n] for (word, role), n in common[:_N_WORDS]], "edits": len(ways)}
