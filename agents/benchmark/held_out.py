"""Which patients agents learn from, and which are held out."""

from __future__ import annotations

from pathlib import Path

from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.core.outcomes import Outcomes


class MissingRepliesError(RuntimeError):
    """Held-out patients' replies are missing, so that a run has no result."""


def complete(outcomes: Outcomes, split: Split) -> Outcomes:
    """Return the outcomes of held-out patients.

    Raises:
        MissingRepliesError: A reply is missing.
    """
    if n_failed := int(outcomes.failed.sum()):
        last = [error for error in outcomes.errors if error][-1]
        raise MissingRepliesError(
            f"{n_failed} {split} patient{'s' if n_failed > 1 else ''} got no reply, the last because: {last}. See to "
            "that, then run the command again: it asks for the missing replies only"
        )
    return outcomes


def training_and_held_out(episodes: EpisodeSet, split: Split) -> tuple[EpisodeSet, EpisodeSet]:
    """Separate training patients from held-out patients; see ``Patients``."""
    train = episodes.of("train")
    if split == "validation" and all(episode.split != split for episode in episodes):
        n_left = len(train) - len(train) // 4
        return train[:n_left], train[n_left:]
    return train, episodes.of(split)


def same_patients(folder: Path, held_out: EpisodeSet) -> EpisodeSet:
    """Return the same patients' episodes from another prepared folder, in the same order.

    Raises:
        ValueError: A patient is missing from the folder.
    """
    everybody = EpisodeSet.load(folder)
    by_id = {episode.patient_id: episode for episode in everybody}
    missing = [episode.patient_id for episode in held_out if episode.patient_id not in by_id]
    if missing:
        raise ValueError(
            f"{folder} has no prompt of patient {missing[0]} ({len(missing)} are missing): prepare it with the same "
            "cohort, seed and limits as the other folder"
        )
    return everybody.part(by_id[episode.patient_id] for episode in held_out)
