"""A saved agent on unseen prompts: what it edits, what it keeps, and which input it rejects."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import registry
from agents.base import Agent
from agents.problem import BudgetSpentError
from agents.serving.refine import Refiner
from pmlm_env.core.words import Prompt, Word
from tests.commands import pmlm
from tests.problems import N_EDITS, N_WORDS, make_problem
from tests.standins import HashEncoder, make_episodes


class OtherEncoder(HashEncoder):
    """Embeds words by other numbers than in training."""

    hidden_size = 5
    model_name = "other"


def fitted(name: str = "leave-one-out", decoys: bool = False, **settings: Any) -> Agent:
    """An agent that has had a budget of 60 completions; with ``decoys`` half of each prompt is protected."""
    agent = registry.make(name, registry.settings_of(name, changes={"patients": 3, "rollouts": 4, **settings}))
    with suppress(BudgetSpentError):
        agent.fit(make_problem(60, decoys=decoys))
    return agent


def refused(capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """What ``pmlm refine`` says in one line of what it does not take."""
    assert pmlm("refine", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The folder of a saved agent that looks at embeddings, and beside it some prompts."""
    fitted().save(tmp_path / "agent")
    make_episodes().save(tmp_path / "prepared")
    return tmp_path / "agent"


@pytest.mark.parametrize("name", ["leave-one-out", "lexicon"])
def test_a_refinement_is_the_prompt_after_its_edits(name: str) -> None:
    episodes = make_episodes(4, seed=1)
    for episode, refined in zip(episodes, Refiner(fitted(name), HashEncoder()).refine_all(episodes), strict=True):
        assert len(refined.edits) == N_EDITS
        slots = [edit.slot for edit in refined.edits]
        assert refined.prompt.split() == [word for slot, word in enumerate(episode.words) if slot not in slots]
        for edit in refined.edits:
            assert (edit.operation, edit.word) == ("delete", episode.words[edit.slot])
            assert edit.probability is not None
            assert 0 < edit.probability <= 1


def test_a_prompt_alone_is_refined_as_among_others() -> None:
    episodes = make_episodes(4, seed=1)
    refiner = Refiner(fitted(), HashEncoder())
    for prompts in ([(e.words, e.roles) for e in episodes], [e.initial for e in episodes]):
        alone = [refiner.refine(prompt, e.vector) for prompt, e in zip(prompts, episodes, strict=True)]
        assert alone == refiner.refine_all(episodes)


def test_the_line_breaks_of_a_prompt_stay() -> None:
    episode = make_episodes(1)[0]
    words = tuple(Word(word, "\n") for word in episode.words[:-1])
    refined = Refiner(fitted(), HashEncoder()).refine(
        Prompt((*words, Word(episode.words[-1], "")), episode.roles), episode.vector
    )
    assert refined.prompt.count("\n") == N_WORDS - N_EDITS - 1


def test_what_was_protected_in_training_stays_protected_and_more_can_be_added() -> None:
    agent = fitted(decoys=True)  # protects peer and instruction words
    for protect, free in (((), range(6)), (("background",), range(3, 6))):
        for refined in Refiner(agent, HashEncoder(), protect).refine_all(make_episodes(4)):
            assert {edit.slot for edit in refined.edits} <= set(free)
            assert len(refined.prompt.split()) == N_WORDS - N_EDITS


def test_an_agent_that_looks_at_no_embeddings_takes_any_encoder() -> None:
    episodes, agent = make_episodes(4), fitted("lexicon")
    assert Refiner(agent, OtherEncoder()).refine_all(episodes) == Refiner(agent, HashEncoder()).refine_all(episodes)


def test_embeddings_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="the encoder's embeddings have 5 numbers, 16 in training: use the encoder"):
        Refiner(fitted(), OtherEncoder())


@pytest.mark.parametrize("name", ["leave-one-out", "lexicon"])
def test_a_patient_vector_of_another_length_is_refused(name: str) -> None:
    episode = make_episodes(1)[0]
    with pytest.raises(ValueError, match="the patient vector has 7 numbers, 128 in training"):
        Refiner(fitted(name), HashEncoder()).refine((episode.words, episode.roles), np.zeros(7))


def test_an_agent_that_has_learned_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the agent lexicon has learned nothing yet: call fit first"):
        Refiner(registry.make("lexicon"), HashEncoder())


def test_an_encoder_that_is_not_bundled_is_not_loaded_on_the_agents_word_alone(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["shape"]["encoder"] = "evil/encoder"
    (saved / "config.json").write_text(json.dumps(config))
    assert refused(capsys, "--model", saved, "--episodes", saved.parent / "prepared", "--split", "train") == (
        "pmlm refine: the agent was trained with the encoder 'evil/encoder', which is not bundled and is not loaded on "
        "the agent's word alone: name it with --encoder FOLDER_OR_HUB_NAME (in Python: encoder=...)"
    )


@pytest.mark.real
@pytest.mark.parametrize("encoder", ["minilm", "once"])
def test_an_encoder_of_the_bundled_model_is_loaded(saved: Path, encoder: str) -> None:
    config = json.loads((saved / "config.json").read_text())
    config["shape"]["encoder"] = encoder
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"embeddings have 384 numbers, 16 in training: .*, {encoder!r}"):
        Refiner.from_pretrained(saved)


def test_edits_can_be_written_as_json() -> None:
    (refined, *_) = Refiner(fitted("lexicon"), HashEncoder()).refine_all(make_episodes(2))
    lines = json.loads(json.dumps([asdict(edit) for edit in refined.edits]))
    assert [set(line) for line in lines] == [{"operation", "slot", "word", "probability"}] * N_EDITS


def test_a_lexicon_says_which_words_of_the_training_prompts_are_saved_with_it(tmp_path: Path) -> None:
    agent = fitted("lexicon")
    agent.save(tmp_path)
    forms = json.loads((tmp_path / "config.json").read_text())["learned"]["lexicon"]
    assert agent.words() == tuple(sorted({text.strip() for _, text in forms} - {""}))
    assert set(agent.words()) == {"mark1", "mark1*"}  # only words that occur in three or more of the six prompts
    assert fitted("leave-one-out").words() == ()
    assert fitted("leave-one-out", lexicon=True).words() == agent.words()


def test_a_misspelt_run_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("the hub was asked")

    monkeypatch.setattr("huggingface_hub.snapshot_download", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match=r"^runs/trian is not there: name the folder of a saved agent, such as "):
        Refiner.from_pretrained("runs/trian")
