"""The replies of each control, on made-up patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from agents.benchmark.patients import patients_of
from agents.evaluation.controls import CONTROLS, control_replies
from agents.problem import blind
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.envs.lite import lite_episodes
from pmlm_env.envs.lite.reward import word_f1

pytestmark = pytest.mark.once

LETTERS = ("random-letter", "fixed-letter", "peer-letter", "label-letter")


def _f1(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    return np.array([word_f1(text, reference) for text, reference in zip(texts, references, strict=True)])


def _episode(name: str, letter: str, label: str, vector: Sequence[float] = (1, 0), predicted: str = "") -> Episode:
    return Episode(
        patient_id=name,
        split="train",
        words=("Leaves", "today.", f"Tests-of-{name}:", predicted or label, *"Peers say hm. Write a note.".split()),
        roles=("background",) * 2 + ("self",) * 2 + ("peer",) * 3 + ("instruction",) * 3,
        vector=np.array(vector, dtype=np.float32),
        reference=letter,
        label=label,
        predicted=predicted or label,
        peers=(label,),
    )  # fmt: skip


TRAINING = EpisodeSet(
    [
        _episode("t0", "Scar. Rest at home.", "scar", (1, 0)),
        _episode("t1", "Scar. Rest well, eat well.", "scar", (0, 1)),
        _episode("t2", "Scar. Rest well at home.", "scar", (-1, 0)),
        _episode("t3", "GDM. Eat less sugar.", "gdm", (0.6, 0.8)),
        _episode("t4", "", "gdm", (0.6, -0.8)),
    ]
)
HELD_OUT = EpisodeSet(
    [
        _episode("h0", "An own letter.", "gdm", (0.5, 0.7), predicted="scar"),
        _episode("h1", "Another one.", "scar", (3, -4.1), predicted="gdm"),
        _episode("h2", "A third.", "scar", (-2, 0.1), predicted="rupture"),
    ]
)


def test_the_prompt_its_facts_and_its_label_are_the_replies() -> None:
    replies = control_replies(HELD_OUT, TRAINING, _f1)
    assert replies.keys() == CONTROLS.keys()
    assert replies["echo"][0] == "Leaves today. Tests-of-h0: scar Peers say hm. Write a note."
    assert replies["facts"][0] == "Leaves today. Tests-of-h0: scar Peers say hm."
    assert replies["label"] == ["scar", "gdm", "rupture"]


def test_facts_keep_the_line_breaks_of_the_prompt() -> None:
    spaces = (" ", "\n", " ", "\n\n", " ", " ", "\n", " ", " ", "")
    episode = replace(HELD_OUT[0], spaces=spaces)
    replies = control_replies(EpisodeSet([episode]), TRAINING, _f1)
    assert replies["facts"] == ["Leaves today.\nTests-of-h0: scar\n\nPeers say hm."]


def test_letters_of_a_worked_example() -> None:
    replies = control_replies(HELD_OUT, TRAINING, _f1)
    # h1 is nearest to t4, who has no letter; next is t0 (cosine .59), then t3 (-.29). h2 is nearest to t2.
    assert replies["peer-letter"] == ["GDM. Eat less sugar.", "Scar. Rest at home.", "Scar. Rest well at home."]
    assert replies["fixed-letter"] == ["Scar. Rest well at home."] * 3
    assert replies["label-letter"] == ["Scar. Rest well at home.", "GDM. Eat less sugar.", "Scar. Rest well at home."]
    assert set(replies["random-letter"]) <= {episode.reference for episode in list(TRAINING)[:4]}


@pytest.fixture(scope="module")
def training() -> EpisodeSet:
    """Patients whose letters all differ, with vectors that are nearly alike or not at all."""
    rng = np.random.default_rng(5)
    return EpisodeSet(
        [
            replace(e, reference=f"{e.reference} {' '.join(f'w{n}' for n in rng.integers(9, size=4))} {i}.")
            for i, e in enumerate(lite_episodes({"train": 60}))
        ]
    )


@pytest.fixture(scope="module")
def held_out() -> EpisodeSet:
    return EpisodeSet(
        [replace(e, vector=(2 * e.vector).astype(np.float32)) for e in lite_episodes({"test": 25}, seed=1)]
    )


def _medoid(letters: Sequence[str]) -> str:
    """The letter that is most like the others, one pair at a time."""
    likeness = [
        sum(word_f1(other, letter) for j, other in enumerate(letters) if j != i) for i, letter in enumerate(letters)
    ]
    return letters[int(np.argmax(likeness))]


def test_the_nearest_peers_letter_is_that_of_brute_force(training: EpisodeSet, held_out: EpisodeSet) -> None:
    replies = control_replies(held_out, training, _f1)["peer-letter"]
    for episode, letter in zip(held_out, replies, strict=True):
        a = episode.vector.astype(float)
        cosines = {
            other.reference: float(a @ other.vector / np.linalg.norm(a) / np.linalg.norm(other.vector))
            for other in training
        }
        assert cosines[letter] == pytest.approx(max(cosines.values()), abs=1e-6)
    assert len(set(replies)) > 5


def test_typical_letters_are_those_of_brute_force(training: EpisodeSet, held_out: EpisodeSet) -> None:
    replies = control_replies(held_out, training, _f1)
    assert replies["fixed-letter"] == [_medoid([episode.reference for episode in training])] * len(held_out)
    for episode, letter in zip(held_out, replies["label-letter"], strict=True):
        theirs = [other.reference for other in training if other.label == episode.predicted]
        assert letter == (_medoid(theirs) if theirs else replies["fixed-letter"][0])


def test_no_patient_gets_their_own_letter_where_test_patients_are_training_patients_too(training: EpisodeSet) -> None:
    own = [episode.reference for episode in training]
    for seed in range(8):
        replies = control_replies(training, training, _f1, seed)
        for name in ("random-letter", "fixed-letter", "peer-letter", "label-letter"):
            assert not [a for a, b in zip(replies[name], own, strict=True) if a == b], name


def test_random_letters_depend_on_the_seed_and_reach_all(training: EpisodeSet, held_out: EpisodeSet) -> None:
    drawn = [control_replies(held_out, training, _f1, seed)["random-letter"] for seed in (0, 0, *range(1, 12))]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({letter for letters in drawn for letter in letters}) > 0.9 * len(training)


def test_no_letter_and_no_label_of_those_held_out_is_read(training: EpisodeSet, held_out: EpisodeSet) -> None:
    honest = control_replies(held_out, training, _f1)
    other = EpisodeSet([replace(e, reference=f"Another letter to {e.patient_id}.", label="normal") for e in held_out])
    assert control_replies(blind(held_out), training, _f1) == honest == control_replies(other, training, _f1)


def test_where_the_only_letter_is_the_patients_own_there_is_no_letter() -> None:
    one = TRAINING.part(TRAINING[:1])
    assert list(control_replies(one, one, _f1)) == list(control_replies(TRAINING, one, _f1)) == [*CONTROLS][:3]
    assert set(control_replies(HELD_OUT, one, _f1)["label-letter"]) == {one[0].reference}


def test_without_letters_those_that_need_them_are_left_out_and_asking_for_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replies = control_replies(HELD_OUT, blind(TRAINING), _f1)
    assert list(replies) == [name for name in CONTROLS if name not in LETTERS]
    held_out = patients_of("lite", "test")
    monkeypatch.setattr(held_out, "train", blind(held_out.train))
    held_out.control("echo")
    with pytest.raises(ValueError, match="fixed-letter needs letters of training patients"):
        held_out.control("fixed-letter")


def test_a_vector_of_zeros_is_like_nobody_and_gets_a_letter_all_the_same() -> None:
    nobody = EpisodeSet([replace(HELD_OUT[0], vector=np.zeros(2, dtype=np.float32))])
    assert control_replies(nobody, TRAINING, _f1)["peer-letter"][0] in {e.reference for e in TRAINING}
