"""Chinese patients through every stage, without an LLM: prompts, episodes, scores, and who must not score them."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from bert_score import BERTScorer

from agents.cli.demo import DemoConfig, OwnPatients
from agents.model_options import ModelOptions
from pmlm_env.cohort.simulator import simulate_cohort
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.words import joined
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights import CHINESE_MODEL
from tests.commands import pmlm
from tests.tiny_models import save_chinese_bert

pytestmark = pytest.mark.real

REFUSED = r"the {} minilm does not know Chinese \(\d\d% of the text's Chinese characters are not in its vocabulary\): "


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chinese_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, quick_stages: None) -> Path:
    folder = tmp_path_factory.mktemp("chinese")
    assert pmlm("simulate", "--out", folder / "cohort", "--patients", 240, "--language", "zh") == 0
    limits = ["--max-train", 6, "--max-validation", 0, "--max-test", 4]
    options = ["--k", 5, "--n-folds", 2, "--device", "cpu", *limits]
    assert pmlm("prepare", "--cohort", folder / "cohort", "--out", folder / "prepared", *options) == 0
    return folder / "prepared"


def test_prompts_labels_and_letters_are_chinese(prepared: Path) -> None:
    episodes = EpisodeSet.load(prepared)
    assert len(episodes) == 10
    for episode in episodes:
        assert episode.language == "zh"
        assert episode.prompt.startswith("一名孕产妇今日出院。")
        assert any(episode.predicted in word for word in episode.words)
        assert "出院" in episode.reference


def test_an_episode_is_played_through_gym_make(prepared: Path, bert: Path) -> None:
    models = {"encoder": str(bert), "scorer": str(bert), "llm": "responder:obstetric-zh"}
    env = gym.make("PMLM-v0", episodes=str(prepared), n_edits=3, components="all", device="cpu", **models)
    observation, info = env.reset(seed=0)
    episode = EpisodeSet.load(prepared).of("train")[info["episode_index"]]
    n = len(episode.words)
    assert observation["action_mask"].sum() == n
    assert observation["embeddings"][:n].any(axis=1).all()
    slots = [1, n - 1, 4]
    for slot in slots:
        _, reward, terminated, _, info = env.step(np.int64(slot))
    assert terminated
    assert info["prompt"] == joined(episode.words, episode.spaces, [i not in slots for i in range(n)])
    assert " " not in info["prompt"]
    assert np.isfinite(reward)
    assert info["components"]["diagnosis_named"] == (episode.predicted == episode.label)


def test_a_run_ends_with_a_table_that_says_what_is_counted(
    prepared: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--encoder", bert, "--scorer", bert, "--llm", "responder:obstetric-zh", "--device", "cpu"]
    agent = ["--budget", 24, "--patients", 3, "--rollouts", 2, "--n-edits", 3]
    assert pmlm("train", "--episodes", prepared, "--run", tmp_path / "run", *agent, *models) == 0
    capsys.readouterr()
    assert pmlm("evaluate", "--run", tmp_path / "run", "--cases", 1) == 0
    out = capsys.readouterr().out
    assert "; BLEU-4 and ROUGE-L (R-L) by Chinese character\n" in out
    assert "after (agent)" in out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert '"language":"zh"' in page.replace(" ", "")
    capsys.readouterr()
    assert pmlm("show", "--run", tmp_path / "run") == 0
    assert "妊娠" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["encoder", "scorer"])
def test_a_model_of_english_is_refused_before_a_reply_is_bought(prepared: Path, bert: Path, role: str) -> None:
    models = {"encoder": str(bert), "scorer": str(bert), role: "minilm", "llm": "responder:obstetric-zh"}
    with pytest.raises(ValueError, match=REFUSED.format(role)):
        gym.make("PMLM-v0", episodes=str(prepared), device="cpu", **models).reset(seed=0)


def test_the_command_line_says_the_same_in_one_line(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--budget", 24, "--llm", "responder:obstetric-zh", "--device", "cpu", "--run", tmp_path / "run"]
    assert pmlm("train", "--episodes", prepared, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the scorer minilm does not know Chinese" in error
    assert error.endswith(
        f"use --scorer bert-base-chinese from the hub, or --scorer {CHINESE_MODEL}, which needs no hub"
    )


def test_a_byte_vocabulary_of_english_is_refused_too() -> None:
    letters = [patient.reference for patient in simulate_cohort(3, language="zh")]
    with pytest.raises(
        ValueError, match=r"scorer smollm2-135m does not know Chinese \(it breaks a character into 1\.\d pi"
    ):
        BertScorer("smollm2-135m", 4, "cpu").check_reads(letters)


def test_an_llm_that_answers_in_chinese_now_and_then_does_not_end_a_run_in_english() -> None:
    scorer, letter = BertScorer("minilm", device="cpu"), simulate_cohort(3, language="zh")[0].reference
    english = ["She may go home, and should rest."]
    assert len(letter) > 50
    assert scorer.f1([letter], english)[0] < scorer.f1(["She should rest at home."], english)[0]
    with pytest.raises(ValueError, match=REFUSED.format("scorer")):
        scorer.f1(english, [letter])


def test_english_letters_with_a_chinese_name_are_scored_as_before() -> None:
    scorer = BertScorer("minilm", device="cpu")
    text = "Discharge diagnosis: anemia (贫血). Advice: take iron and rest at home for a week." * 10
    assert scorer.f1([text], [text])[0] == pytest.approx(1)


def test_scores_of_a_chinese_bert_equal_those_of_bert_score(bert: Path) -> None:
    letters = [patient.reference for patient in simulate_cohort(6, language="zh")]
    ours = BertScorer(str(bert), 3, "cpu").f1(letters[:3], letters[3:])
    with torch.inference_mode():
        _, _, theirs = BERTScorer(str(bert), num_layers=3, device="cpu").score(letters[:3], letters[3:])
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    assert BertScorer(str(bert), 3, "cpu").f1(letters, letters) == pytest.approx(np.ones(6), abs=1e-6)


def test_deleting_a_word_changes_only_the_context_of_the_others(bert: Path) -> None:
    words = ["一名", "孕妇", "今日", "出院。"]
    encoder = WordEncoder(str(bert), "cpu")
    kept = np.array([[True, True, False, True]])
    alone = encoder.encode([[words[0], words[1], words[3]]], np.ones((1, 3), dtype=np.bool_))[0]
    torch.testing.assert_close(encoder.encode([words], kept)[0][kept[0]], alone)


def test_the_demo_chooses_models_that_know_chinese() -> None:
    models = DemoConfig(language="zh").models
    assert (models.encoder, models.scorer) == (CHINESE_MODEL, CHINESE_MODEL)
    own = DemoConfig(language="zh", models=ModelOptions(scorer="bert-base-chinese")).models
    assert (own.encoder, own.scorer) == (CHINESE_MODEL, "bert-base-chinese")
    assert DemoConfig().models.scorer == "minilm"
    with pytest.raises(
        ValueError, match="--language is the language of simulated patients: leave it out with --cohort"
    ):
        DemoConfig(language="zh", files=OwnPatients(Path("data")))
