"""benchmarks.one_rule: the same places go from every prompt, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.one_rule import Options, main, without_places
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.words import Role
from tests.standins import make_episodes

pytestmark = pytest.mark.once

_WORDS = ("Of", "10", "peers,", "9", "of", "10", "had", "of", "Write", "of")
_PEER: Role = "peer"
_INSTRUCTION: Role = "instruction"
_ROLES: tuple[Role, ...] = (*[_PEER] * 8, _INSTRUCTION, _INSTRUCTION)


@pytest.mark.parametrize(
    ("places", "most", "prompt"),
    [
        ([], 10, "Of 10 peers, 9 of 10 had of Write of"),
        (["peer:of:1"], 10, "Of 10 peers, 9 10 had of Write of"),
        (["peer:of:2", "peer:10:2"], 10, "Of 10 peers, 9 of had Write of"),
        (["peer:of:3", "instruction:of:1", "self:of:1"], 10, "Of 10 peers, 9 of 10 had of Write"),
        (["peer:of:3", "peer:had:1", "peer:of:1", "peer:Of:1"], 2, "Of 10 peers, 9 10 of Write of"),
    ],
)
def test_the_first_places_that_a_prompt_has_are_deleted(places: list[str], most: int, prompt: str) -> None:
    (episode,) = make_episodes(1)
    episode = replace(episode, words=_WORDS, roles=_ROLES)
    edited = without_places(episode, places, most)
    assert edited.prompt == prompt
    assert len(edited.roles) == len(edited.words)
    assert (edited.patient_id, edited.reference, edited.peers) == (episode.patient_id, episode.reference, episode.peers)


def test_spaces_stay_with_their_words_and_none_follows_the_last() -> None:
    (episode,) = make_episodes(1)
    spaces = ("\n", *[""] * 7, " ", "")
    edited = without_places(replace(episode, words=_WORDS, roles=_ROLES, spaces=spaces), ["instruction:of:1"], 10)
    assert edited.prompt == "Of\n10peers,9of10hadofWrite"


def test_the_command_writes_a_folder_and_says_which_place_no_prompt_has(tmp_path: Path) -> None:
    episodes = EpisodeSet(make_episodes(3))
    episodes.save(tmp_path / "prepared")
    first = episodes[0]
    place = f"{first.roles[0]}:{first.words[0]}:1"
    main(Options(tmp_path / "prepared", tmp_path / "out", (place,)))
    written = EpisodeSet.load(tmp_path / "out")[0]
    assert written.words == first.words[1:]
    with pytest.raises(SystemExit, match="no prompt has self:nowhere:1: use ROLE:WORD:N"):
        main(Options(tmp_path / "prepared", tmp_path / "other", (place, "self:nowhere:1")))
    assert not (tmp_path / "other").exists()
