"""The nearest training patients by each built-in retriever, against a loop and worked examples."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import pytest

from pmlm_env.retrieval import RETRIEVERS, CosineRetriever, Peer, Retriever

Make = Callable[..., Retriever]

NORTH, EAST, NORTH_EAST = [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]


@pytest.fixture(params=["cosine", "faiss"])
def make(request: pytest.FixtureRequest) -> Make:
    """The class of a retriever."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
    return RETRIEVERS.find(request.param)


@pytest.fixture
def three(make: Make) -> Retriever:
    return make(np.array([NORTH, EAST, NORTH_EAST], np.float32), ["n", "e", "ne"], ["up", "right", "both"])


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


def test_peers_are_those_of_a_loop_ties_included(make: Make) -> None:
    rng = np.random.default_rng(0)
    train = rng.integers(-1, 2, (80, 4)).astype(np.float32)  # 81 different vectors at most: many are equal
    train_ids = [f"t{i}" for i in range(80)]
    queries = np.concatenate([train[:20], rng.integers(-2, 3, (20, 4)).astype(np.float32)])
    query_ids = train_ids[:20] + [f"q{i}" for i in range(20)]
    found = make(train, train_ids, ["x"] * 80).peers(queries, query_ids, k=10)
    for peers, query, query_id in zip(found, queries, query_ids, strict=True):
        assert ids_of(peers) == by_loops(train, train_ids, query, query_id, 10)


def test_a_peer_comes_with_her_label_and_the_cosine(three) -> None:
    (peers,) = three.peers(np.array([[0.0, 5.0]], np.float32), ["new"], k=2)
    assert peers == [Peer("n", "up", 1.0), Peer("ne", "both", pytest.approx(math.sqrt(0.5)))]


def test_length_is_of_no_account(three) -> None:
    near, far = three.peers(np.array([[1.0, 2.0], [100.0, 200.0]], np.float32), ["a", "b"], k=3)
    assert near == far


def test_of_equally_near_patients_the_earlier_comes_first(make: Make) -> None:
    retriever = make(np.array([EAST, NORTH, NORTH, NORTH], np.float32), list("abcd"), ["x"] * 4)
    (peers,) = retriever.peers(np.array([NORTH], np.float32), ["new"], k=2)
    assert ids_of(peers) == ["b", "c"]


def test_a_training_patient_is_never_her_own_peer(three) -> None:
    (peers,) = three.peers(np.array([NORTH], np.float32), ["n"], k=2)
    assert ids_of(peers) == ["ne", "e"]


def test_another_patient_with_her_vector_may_be_her_peer(make: Make) -> None:
    retriever = make(np.array([NORTH, NORTH], np.float32), ["a", "b"], ["x", "y"])
    assert ids_of(retriever.peers(np.array([NORTH], np.float32), ["b"], k=1)[0]) == ["a"]


def test_many_patients_at_once_get_what_each_would_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("cosine", "faiss"):  # seven patients at once, or one
        monkeypatch.setattr(f"pmlm_env.retrieval.{module}.CHUNK", 7 * 50, raising=False)
    rng = np.random.default_rng(1)
    train = rng.standard_normal((50, 8)).astype(np.float32)
    queries = rng.standard_normal((30, 8)).astype(np.float32)
    ids = [f"q{i}" for i in range(len(queries))]
    queries[-1], ids[-1] = train[0], "t0"
    retriever = make(train, [f"t{i}" for i in range(50)], ["x"] * 50)
    found = retriever.peers(queries, ids, k=5)
    assert len(found) == len(queries)
    for i in range(30):
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


def test_a_training_patient_twice_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="patient a is among the training patients more than once"):
        make(np.array([NORTH, EAST, NORTH], np.float32), ["a", "b", "a"], ["x"] * 3)


def test_a_vector_that_is_not_finite_is_refused_by_name(three) -> None:
    with pytest.raises(ValueError, match="patient worse"):
        three.peers(np.array([NORTH, [np.nan, 0]], np.float32), ["bad", "worse"], k=1)


def test_every_vector_needs_an_id_and_a_label(make: Make, three) -> None:
    with pytest.raises(ValueError, match="1 vectors, 2 ids and 1 labels"):
        make(np.array([NORTH], np.float32), ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="1 vectors and 2 ids"):
        three.peers(np.array([NORTH], np.float32), ["a", "b"], k=1)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-9, 1e-7, 1e-4])
@pytest.mark.parametrize("k", [1, 10, 99])
def test_faiss_finds_the_peers_of_cosine_where_float32_cannot_tell_patients_apart(noise: float, k: int) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((4, 128))
    vectors = centers[rng.integers(0, 4, 500)] + noise * rng.standard_normal((500, 128))
    vectors[::50] = 0.0
    ids = [f"t{i}" for i in range(450)] + [f"q{i}" for i in range(50)]
    exact, approximate = (RETRIEVERS.make(name, vectors[:450], ids[:450], ["x"] * 450) for name in ("cosine", "faiss"))
    found = approximate.peers(vectors, ids, k)
    for peers, expected in zip(found, exact.peers(vectors, ids, k), strict=True):
        assert ids_of(peers) == ids_of(expected)
        assert [peer.similarity for peer in peers] == pytest.approx([peer.similarity for peer in expected], abs=2e-9)


def test_faiss_compares_only_few_patients_anew_where_float32_can_tell_them_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("faiss")
    vectors = np.random.default_rng(0).standard_normal((500, 128)).astype(np.float32)
    retriever = RETRIEVERS.make("faiss", vectors, [f"t{i}" for i in range(500)], ["x"] * 500)
    compared = 0
    search = CosineRetriever._nearest

    def counting(self: CosineRetriever, units: np.ndarray, *arguments: object) -> object:
        nonlocal compared
        compared += len(units)
        return search(self, units, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CosineRetriever, "_nearest", counting)
    retriever.peers(vectors, [f"t{i}" for i in range(500)], k=10)
    assert compared == 0


def test_faiss_that_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "pmlm_env.retrieval.faiss", raising=False)
    with pytest.raises(ValueError, match=r"faiss needs faiss: install it with `pip install 'pmlm-env\[faiss\]'`"):
        RETRIEVERS.find("faiss")
