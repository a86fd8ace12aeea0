"""The nearest training patients, against a loop and worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pmlm_env.retrieval import CosineRetriever, Peer
from pmlm_env.retrieval.cosine import CHUNK

NORTH, EAST, NORTH_EAST = [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]


@pytest.fixture
def three() -> CosineRetriever:
    return CosineRetriever(np.array([NORTH, EAST, NORTH_EAST], np.float32), ["n", "e", "ne"], ["up", "right", "both"])


def by_loops(train: np.ndarray, train_ids: list[str], query: np.ndarray, query_id: str, k: int) -> list[str]:
    """Find the peers of one patient one training patient at a time."""
    cosines = []
    for vector, train_id in zip(train, train_ids, strict=True):
        dot = sum(float(a) * float(b) for a, b in zip(vector, query, strict=True))
        lengths = math.sqrt(sum(float(a) ** 2 for a in vector)) * math.sqrt(sum(float(b) ** 2 for b in query))
        if train_id != query_id:
            cosines.append((train_id, round(dot / lengths, 9) if lengths else 0.0))
    return [train_id for train_id, _ in sorted(cosines, key=lambda pair: -pair[1])][:k]  # sorted() is stable


def ids_of(peers: list[Peer]) -> list[str]:
    return [peer.patient_id for peer in peers]


def test_peers_are_those_of_a_loop_ties_included() -> None:
    rng = np.random.default_rng(0)
    train = rng.integers(-1, 2, (80, 4)).astype(np.float32)  # 81 different vectors at most: many are equal
    train_ids = [f"t{i}" for i in range(80)]
    queries = np.concatenate([train[:20], rng.integers(-2, 3, (20, 4)).astype(np.float32)])
    query_ids = train_ids[:20] + [f"q{i}" for i in range(20)]
    found = CosineRetriever(train, train_ids, ["x"] * 80).peers(queries, query_ids, k=10)
    for peers, query, query_id in zip(found, queries, query_ids, strict=True):
        assert ids_of(peers) == by_loops(train, train_ids, query, query_id, 10)


def test_a_peer_comes_with_her_label_and_the_cosine(three) -> None:
    (peers,) = three.peers(np.array([[0.0, 5.0]], np.float32), ["new"], k=2)
    assert peers == [Peer("n", "up", 1.0), Peer("ne", "both", pytest.approx(math.sqrt(0.5)))]


def test_length_is_of_no_account(three) -> None:
    near, far = three.peers(np.array([[1.0, 2.0], [100.0, 200.0]], np.float32), ["a", "b"], k=3)
    assert near == far


def test_of_equally_near_patients_the_earlier_comes_first() -> None:
    retriever = CosineRetriever(np.array([EAST, NORTH, NORTH, NORTH], np.float32), list("abcd"), ["x"] * 4)
    (peers,) = retriever.peers(np.array([NORTH], np.float32), ["new"], k=2)
    assert ids_of(peers) == ["b", "c"]


def test_a_training_patient_is_never_her_own_peer(three) -> None:
    (peers,) = three.peers(np.array([NORTH], np.float32), ["n"], k=2)
    assert ids_of(peers) == ["ne", "e"]


def test_another_patient_with_her_vector_may_be_her_peer() -> None:
    retriever = CosineRetriever(np.array([NORTH, NORTH], np.float32), ["a", "b"], ["x", "y"])
    assert ids_of(retriever.peers(np.array([NORTH], np.float32), ["b"], k=1)[0]) == ["a"]


def test_many_patients_at_once_get_what_each_would_alone() -> None:
    rng = np.random.default_rng(1)
    train = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rng.standard_normal((CHUNK + 5, 8)).astype(np.float32)
    ids = [f"q{i}" for i in range(len(queries))]
    queries[-1], ids[-1] = train[0], "t0"
    retriever = CosineRetriever(train, [f"t{i}" for i in range(50)], ["x"] * 50)
    found = retriever.peers(queries, ids, k=5)
    assert len(found) == len(queries)
    for i in (0, CHUNK - 1, CHUNK, CHUNK + 4):
        assert found[i] == retriever.peers(queries[i : i + 1], ids[i : i + 1], k=5)[0]


def test_a_vector_of_zeros_is_equally_near_to_all(three) -> None:
    (peers,) = three.peers(np.zeros((1, 2), np.float32), ["new"], k=3)
    assert [(peer.patient_id, peer.similarity) for peer in peers] == [("n", 0), ("e", 0), ("ne", 0)]


def test_all_others_can_be_asked_for_and_not_one_more(three) -> None:
    vectors = np.array([NORTH, EAST], np.float32)
    assert [len(peers) for peers in three.peers(vectors, ["new", "newer"], k=3)] == [3, 3]
    with pytest.raises(ValueError, match="patient e has 2 other training patients, too few for 3 peers"):
        three.peers(vectors, ["new", "e"], k=3)


def test_no_peers_cannot_be_asked_for(three) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        three.peers(np.array([NORTH], np.float32), ["new"], k=0)


def test_nobody_asked_about_gets_nothing(three) -> None:
    assert three.peers(np.empty((0, 2), np.float32), [], k=3) == []


def test_a_training_patient_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="patient a is among the training patients more than once"):
        CosineRetriever(np.array([NORTH, EAST, NORTH], np.float32), ["a", "b", "a"], ["x"] * 3)


def test_a_vector_that_is_not_finite_is_refused_by_name(three) -> None:
    with pytest.raises(ValueError, match="patient worse"):
        three.peers(np.array([NORTH, [np.nan, 0]], np.float32), ["bad", "worse"], k=1)


def test_every_vector_needs_an_id_and_a_label(three) -> None:
    with pytest.raises(ValueError, match="1 vectors, 2 ids and 1 labels"):
        CosineRetriever(np.array([NORTH], np.float32), ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="1 vectors and 2 ids"):
        three.peers(np.array([NORTH], np.float32), ["a", "b"], k=1)
