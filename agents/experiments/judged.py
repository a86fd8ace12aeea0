"""The replies to prompts that were edited, as experiments record them: scores and slots, and no text of a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agents import registry
from agents.benchmark.edit_summary import FEWEST_PROMPTS
from agents.evaluation.controls import CONTROLS
from pmlm_env.core.episodes import EpisodeSet

if TYPE_CHECKING:
    from agents.base import Edits
    from agents.benchmark.patients import RealPatients


def edited(cell: Mapping[str, Any], patients: RealPatients) -> dict[str, Any]:
    """Get and judge the replies of a row of a table, with the slots that were edited.

    Args:
        cell: The run. Its row is a zero-call control, or an agent, with its ``seed`` and, if it learns, its ``budget``.
        patients: The patients.

    Returns:
        Their ids, the metrics of their replies, and, for an agent, the slots of each prompt in order, as JSON values.
    """
    row = cell["row"]
    with patients.working():
        if row in CONTROLS:
            found = patients.control(row)
            return {"patients": found["patients"], "metrics": found["metrics"]}
        agent = registry.make(row, seed=cell["seed"])
        return judged(patients, patients.refined(agent, cell.get("budget", 0), patients.n_edits))


def judged(patients: RealPatients, edits: Edits) -> dict[str, Any]:
    """Return which slots of the held-out patients' prompts were edited, and the metrics of the replies.

    Args:
        patients: The patients, with the LLM that replies.
        edits: The edits of each held-out patient's prompt.

    Raises:
        ValueError: An edit is not allowed, or there are too many.
        RuntimeError: A reply is missing.
    """
    found = patients.judged(edits)
    slots = [[edit.slot for edit in each] for each in edits]
    return {"patients": found["patients"], "slots": slots, "metrics": found["metrics"]}


def common_words(words: Iterable[Sequence[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Return the words, each with its role, that occur in enough prompts to be no patient's own, most frequent first.

    Args:
        words: The words of each prompt with their roles.
    """
    counts = Counter(word for of_prompt in words for word in set(of_prompt))
    return [word for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= FEWEST_PROMPTS]


def words_of(episodes: EpisodeSet) -> list[list[tuple[str, str]]]:
    """Return the words of each prompt with their roles."""
    return [list(zip(episode.words, map(str, episode.roles), strict=True)) for episode in episodes]
