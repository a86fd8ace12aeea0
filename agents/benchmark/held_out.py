"""Which patients agents learn from, and which are held out."""

from __future__ import annotations

from pathlib import Path

from pmlm_env.core.episodes import EpisodeSet, Split


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
