from __future__ import annotations

import gc
import pickle
import re
from dataclasses import replace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmlm_env import Episode, EpisodeSet
from pmlm_env.core.edits import Edit, EditBatch, EditRules, apply_edits, deletions, kept_after
from pmlm_env.core.protection import editable_words
from tests.standins import make_episodes

WORDS = make_episodes(1)[0].words


def _batch(n_edits: int = 3, protect: tuple[str, ...] = (), n: int = 1) -> EditBatch:
    batch = EditBatch(make_episodes(n), n, EditRules(n_edits, 15, protect))
    batch.load(range(n), range(n))
    return batch


def _slots(batch: EditBatch) -> tuple[int, ...]:
    return tuple(edit.slot for edit in batch.edits([0])[0])


def test_a_word_that_occurs_twice_is_deleted_once() -> None:
    batch = _batch()
    words = list(WORDS)
    twin = next(i for i in range(len(words)) if words.count(words[i]) > 1) if len(set(words)) < len(words) else 0
    before = batch.prompts([0])[0].split()
    batch.apply([twin])
    assert batch.prompts([0])[0].split() == before[:twin] + before[twin + 1 :]


def test_slots_are_those_of_the_initial_prompt_at_every_step() -> None:
    batch = _batch()
    words = WORDS
    for slot in (2, 5, 3):
        batch.apply([slot])
    assert _slots(batch) == (2, 5, 3)
    assert batch.prompts([0])[0] == " ".join(word for slot, word in enumerate(words) if slot not in (2, 3, 5))


@pytest.mark.parametrize("slot", [12, 14, 15, -1, 10_000])
def test_padding_and_out_of_range_slots_are_no_ops_that_use_up_a_step(slot: int) -> None:
    batch = _batch()
    before = batch.prompts([0])[0]
    assert batch.apply([slot]).tolist() == [True]
    assert batch.prompts([0])[0] == before
    assert batch.steps.tolist() == [1]


def test_a_deleted_word_cannot_be_deleted_again() -> None:
    batch = _batch()
    assert batch.apply([4]).tolist() == [False]
    assert batch.apply([4]).tolist() == [True]
    assert _slots(batch) == (4,)


def test_words_of_a_protected_role_stay() -> None:
    batch = _batch(protect=("instruction",))
    assert batch.legal[0].tolist() == [True] * 9 + [False] * 6
    assert batch.apply([11]).tolist() == [True]


def test_it_is_done_when_the_budget_is_used_up_and_not_before() -> None:
    batch = _batch(n_edits=2)
    batch.apply([0])
    assert not batch.done[0]
    batch.apply([1])
    assert batch.done[0]


def test_it_is_done_when_no_word_is_left_that_may_go() -> None:
    batch = _batch(n_edits=100, protect=("background", "self", "peer"))
    for slot in (9, 10, 11):
        assert not batch.done[0]
        batch.apply([slot])
    assert batch.done[0]
    assert len(batch.prompts([0])[0].split()) == 9


def test_nothing_is_deleted_beyond_the_budget() -> None:
    batch = _batch(n_edits=1)
    batch.apply([0])
    assert batch.apply([1]).tolist() == [True]
    assert _slots(batch) == (0,)


def test_a_share_is_rounded_to_the_nearest_number_of_words_halves_up_and_at_least_one() -> None:
    n_words = np.arange(1, 401)
    for thousandths in range(1, 1001):  # in whole numbers: n * thousandths / 1000 + 1/2, rounded down
        expected = np.maximum((2 * n_words * thousandths + 1000) // 2000, 1)
        np.testing.assert_array_equal(EditRules(thousandths / 1000).budgets(n_words), expected)


@pytest.mark.parametrize(("share", "budget"), [(0.29, 15), (1e-9, 1), (1.0, 50), (np.float64(0.29), 15)])
def test_a_share_is_the_decimal_number_that_was_given(share: float, budget: int) -> None:
    assert EditRules(share).budgets(50) == budget  # 0.29 * 50 is 14.499999999999998 in floating point


def test_of_one_word_and_all_words_the_type_decides() -> None:
    assert EditRules(1).budgets([5, 40]).tolist() == [1, 1]
    assert EditRules(1.0).budgets([5, 40]).tolist() == [5, 40]
    assert EditRules(np.int64(7)).budgets([[5], [40]]).tolist() == [[7], [7]]


def test_each_prompt_has_its_own_budget_and_protected_words_count_as_words() -> None:
    episodes = EpisodeSet([make_episodes(1, n)[0] for n in (4, 12, 20)])
    batch = EditBatch(episodes, 3, EditRules(0.5, protect=("background", "self", "peer")))
    batch.load(range(3), range(3))
    assert batch.budgets.tolist() == [2, 6, 10]
    done = []
    while not batch.done.all():
        batch.apply(batch.legal.argmax(axis=1), ~batch.done)
        done.append(batch.done.tolist())
    assert done == [[True, False, False], [True, False, False], [True, True, False], [True, True, False], [True] * 3]
    assert [len(edits) for edits in batch.edits(range(3))] == [1, 3, 5]  # all of the instruction


@pytest.mark.parametrize("wrong", [-1, -0.1, 0.0, 1.5, 2.0, float("nan"), float("inf"), "20%", True, None, [3]])
def test_an_edit_budget_that_is_none_is_one_line(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^n_edits is .*: use a whole number, 0 or more, or a share of the [^\n]*$"):
        EditRules(wrong)


def test_more_edits_than_a_share_amounts_to_are_refused() -> None:
    episodes = make_episodes(2)
    edits = [deletions(episodes[0], range(3)), deletions(episodes[1], range(4))]
    with pytest.raises(ValueError, match="patient P1: 4 edits, but only 3 are allowed"):
        apply_edits(episodes, [0, 1], edits, EditRules(0.25))


def test_rows_that_rest_are_left_alone() -> None:
    batch = _batch(n=3)
    batch.apply([0, 0, 0], np.array([True, False, True]))
    assert batch.steps.tolist() == [1, 0, 1]
    assert batch.kept[:, 0].tolist() == [False, True, False]


def test_a_prompt_longer_than_the_slots_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^max_words is 0: use a whole number, 1 or more, or leave"):
        EditRules(max_words=0)
    with pytest.raises(ValueError, match="max_words is 11, but the prompt of patient P0 has 12 words"):
        EditBatch(make_episodes(1), 1, EditRules(1, 11))


@pytest.mark.parametrize("most", [15.0, True, "15"])
def test_a_number_of_slots_that_is_not_whole_is_refused(most: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_words is .*: use a whole number, 1 or more, or leave it out"):
        EditRules(max_words=most)


def test_a_number_of_slots_may_be_numpys() -> None:
    assert type(EditRules(max_words=np.int64(15)).max_words) is int


@given(st.lists(st.integers(-2, 16), max_size=20))
def test_any_actions_leave_a_subsequence_of_the_words(actions: list[int]) -> None:
    batch = _batch(n_edits=8)
    for slot in actions:
        batch.apply([slot])
    expected, legal = list(range(12)), []
    for slot in actions[:8]:  # a brute-force account of the rules
        if slot in expected:
            expected.remove(slot)
            legal.append(slot)
    assert _slots(batch) == tuple(legal)
    assert batch.prompts([0])[0].split() == [WORDS[slot] for slot in expected]


def _episode(*words: str, role: str = "instruction") -> Episode:
    roles: Any = (role,) * len(words)
    return Episode("P0", "train", words, roles, np.zeros(2, np.float32), "x", "", "", ())


@pytest.mark.parametrize(
    ("protect", "kept"),
    [
        (("digits",), "3 of 10, B12"),
        (("negations",), "No not without, doesn't denies"),
        (("digits", "negations"), "3 of 10, No not without, doesn't denies B12"),
        ("digits", "3 of 10, B12"),
    ],
)
def test_digits_and_negations_can_be_protected(protect: Any, kept: str) -> None:
    episodes = EpisodeSet([_episode(*"3 of 10, had No pain not now, without, nothing doesn't denies B12".split())])
    batch = EditBatch(episodes, 1, EditRules(20, 20, protect))
    batch.load([0], [0])
    batch_words = episodes[0].words
    expected = [word in kept.split() and word != "of" for word in batch_words]
    assert (~batch.legal[0, : len(batch_words)]).tolist() == expected


@pytest.mark.parametrize("wrong", [("instructions",), "numbers", ("digits", "verbs")])
def test_a_name_that_protects_nothing_known_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"protect names '.*': use some of .*'digits', 'negations'"):
        EditRules(protect=wrong)


def test_a_prompt_with_no_word_that_may_go_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"patient P0: protect=.* leaves no word"):
        EditBatch(EpisodeSet([_episode("1", "2")]), 1, EditRules(protect=("digits",)))


@pytest.mark.parametrize("wrong", [[1], [1, 2, 3], [[1, 2]], [0.5, 1.0], ["a", "b"]])
def test_actions_of_the_wrong_number_or_kind_are_refused_and_cost_nothing(wrong: Any) -> None:
    batch = _batch(n=2)
    with pytest.raises(ValueError, match="actions must be 2 whole numbers"):
        batch.apply(wrong)
    assert batch.steps.tolist() == [0, 0]


def test_a_prompt_of_one_word_can_be_emptied() -> None:
    batch = EditBatch(EpisodeSet([_episode("one")]), 1, EditRules(5, 3))
    batch.load([0], [0])
    assert batch.apply([0]).tolist() == [False]
    assert batch.done[0]
    assert list(batch.prompts([0])) == [""]


def test_prompts_are_a_sequence_of_texts() -> None:
    batch = _batch(n=3)
    batch.apply([0, 1, 2])
    prompts = batch.prompts([0, 2])
    assert len(prompts) == 2
    assert list(prompts) == prompts[:] == [prompts[0], prompts[-1]]
    assert prompts[0].split() == list(WORDS[1:])


def test_edits_are_values_that_say_what_was_done_where() -> None:
    batch = _batch(n=2)
    for slots in ([3, 0], [1, 5]):
        batch.apply(slots)
    words = [episode.words for episode in make_episodes(2)]
    assert batch.edits([1, 0]) == [
        (Edit("delete", 0, words[1][0]), Edit("delete", 5, words[1][5])),
        (Edit("delete", 3, words[0][3]), Edit("delete", 1, words[0][1])),
    ]


def test_edits_are_equal_whatever_the_policy_thought_of_them() -> None:
    assert Edit("delete", 1, "no", 0.25) == Edit("delete", 1, "no")
    assert len({Edit("delete", 1, "no", 0.25), Edit("delete", 1, "no", 0.5)}) == 1
    assert Edit("delete", 1, "no") != Edit("delete", 2, "no")


@given(st.lists(st.integers(0, 14), max_size=12))
def test_the_edits_of_a_batch_make_its_prompts_again(actions: list[int]) -> None:
    batch = _batch(n_edits=5)
    for action in actions:
        batch.apply([action])
    (edits,) = batch.edits([0])
    assert list(apply_edits(make_episodes(1), [0], [edits], EditRules(5))) == list(batch.prompts([0]))
    np.testing.assert_array_equal(kept_after(make_episodes(1), [0], [edits], EditRules(5, 15)), batch.kept)
    assert edits == deletions(make_episodes(1)[0], [edit.slot for edit in edits])


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Edit("delete", 12, "word")], "patient P0: edit 1, delete 12: the prompt has slots 0 to 11"),
        ([Edit("delete", -1, WORDS[-1])], "edit 1, delete -1: the prompt has slots 0 to 11"),
        ([Edit("delete", 2, "other")], "edit 1, delete 2: another word is in that slot"),
        ([Edit("delete", 2, WORDS[2])] * 2, "edit 2, delete 2: the word was already deleted"),
        ([Edit("delete", 11, WORDS[11])], "edit 1, delete 11: the word is protected"),
        ([Edit("insert", 2, WORDS[2])], "edit 1, insert 2: the operations are delete"),  # type: ignore[arg-type]
        ([Edit("delete", slot, WORDS[slot]) for slot in range(4)], "4 edits, but only 3 are allowed"),
    ],
)
def test_an_illegal_edit_is_refused_in_one_line(edits: list[Edit], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        apply_edits(make_episodes(2), [0], [edits], EditRules(3, protect=("instruction",)))
    assert "\n" not in str(caught.value)


def test_without_rules_any_number_of_words_may_go() -> None:
    episodes = make_episodes(2)
    edits = [deletions(episodes[i], range(12)) for i in (1, 0)]
    assert list(apply_edits(episodes, [1, 0], edits)) == ["", ""]


def test_line_breaks_stay_in_refined_prompts() -> None:
    episode = replace(_episode("Say:", "-", "one", "-", "two"), spaces=("\n", " ", "\n", " ", ""))
    batch = EditBatch(EpisodeSet([episode]), 1, EditRules(2))
    batch.load([0], [0])
    assert batch.prompts([0])[0] == episode.prompt == "Say:\n- one\n- two"
    batch.apply([3])
    assert batch.prompts([0])[0] == "Say:\n- one\ntwo"
    batch.apply([4])
    assert batch.prompts([0])[0] == "Say:\n- one"


def test_negations_of_another_language_cannot_be_protected() -> None:
    episodes = EpisodeSet([replace(_episode("no", "pain"), language="de")])
    with pytest.raises(ValueError, match="patient P0: the prompt's language is 'de', and negations are known in Eng"):
        EditBatch(episodes, 1, EditRules(protect=("negations",)))


@pytest.mark.parametrize("language", ["en", "en-GB", "EN"])
def test_negations_of_any_english_can_be_protected(language: str) -> None:
    episodes = EpisodeSet([replace(episode, language=language) for episode in make_episodes(1)])
    EditBatch(episodes, 1, EditRules(protect=("negations",)))


def test_a_pickle_of_a_batch_goes_on_alike() -> None:
    batch = _batch()
    batch.apply([2])
    edits = batch.edits([0])
    twin = pickle.loads(pickle.dumps(batch))
    assert twin.edits([0]) == edits


def test_which_words_may_be_edited_is_found_once_for_a_set_and_goes_with_it() -> None:
    episodes = make_episodes(3)
    found = editable_words(episodes, ("peer",))
    assert editable_words(episodes, ["peer"]) is found
    assert not (found == editable_words(episodes)).all()
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = False
    gone = ref(found)
    del found, episodes
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([()], "the edits of 2 prompts should be a list of as many tuples of Edit, not 1"),
        (iter([(), ()]), "the edits of 2 prompts should be a list of as many tuples of Edit, not a list_iterator"),
        (None, "the edits of 2 prompts should be a list of as many tuples of Edit, not a NoneType"),
        (
            [(), [3, 4]],
            "patient P1: the edits are a list, or have something else than Edit in it: use a tuple of Edit, as",
        ),
        ([None, ()], "patient P0: the edits are a NoneType, or have something else than Edit"),
    ],
)
def test_edits_that_are_none_are_told_by_patient(edits: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        apply_edits(make_episodes(2), [0, 1], edits)
