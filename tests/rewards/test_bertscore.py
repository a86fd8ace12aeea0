"""BERTScore with small random models of many kinds: their layers, their limits, and texts beyond them."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from bert_score import BERTScorer

from agents.benchmark.patients import patients_of
from agents.model_options import ModelOptions
from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.encoders.once import OnceEncoder
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights.transformer import states_of
from tests.commands import pmlm
from tests.standins import make_episodes
from tests.tiny_models import WORDS, save_model, text

#: Kinds of model, with how many positions the table of each has for texts of 32 pieces; None = it has no table.
KINDS = {
    "bert": 32, "roberta": 34, "xlm-roberta": 34, "camembert": 34, "mpnet": 34, "longformer": 34, "distilbert": 32,
    "albert": 32, "electra": 32, "deberta-v2": 32, "gpt2": 32, "bart": 32, "xlm": 32, "xlnet": None, "t5": None,
}  # fmt: skip


def test_encoder_and_scorer_compute_in_float32_whatever_pytorchs_default_is(tmp_path: Path) -> None:
    folder, kept = str(save_model(tmp_path, "bert", 32)), np.ones((1, 3), dtype=np.bool_)

    def results() -> list[torch.Tensor]:
        encoders = WordEncoder(folder, "cpu"), OnceEncoder(folder, "cpu")
        scorers = [BertScorer(folder, device="cpu", long_texts="chunks", idf=idf) for idf in (None, [text(50)])]
        embeddings = [encoder.encode([WORDS[:3]], kept) for encoder in encoders]
        return [*embeddings, *(scorer.score([text(40), ""], [text(60), "w1"]).f1 for scorer in scorers)]

    expected = results()
    torch.set_default_dtype(torch.float64)
    try:
        found = results()
    finally:
        torch.set_default_dtype(torch.float32)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)  # of the same dtype, too


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_beyond_the_models_input_is_cut_there_whatever_the_kind(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind, KINDS[kind], limit=None if KINDS[kind] else 32)
    scorer = BertScorer(str(folder), device="cpu")
    own = scorer.limit - (0 if kind == "gpt2" else 2)  # GPT-2 has no special tokens
    assert scorer.limit == 32
    long, beginning, longer_by_one = text(100), text(100).split()[:own], text(100).split()[: own + 1]
    replies = [long, long, " ".join(longer_by_one)]
    f1 = scorer.score(replies, [" ".join(beginning), text(9, 1), " ".join(beginning)]).f1
    assert f1[[0, 2]].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert f1[1].item() == pytest.approx(scorer.score([" ".join(beginning)], [text(9, 1)]).f1.item(), abs=1e-5)


def test_an_encoder_with_positions_of_its_own_name_is_cut_at_their_end(tmp_path: Path) -> None:
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in _LED.items()}
    positions = {f"max_{part}_position_embeddings": 32 for part in ("encoder", "decoder")}
    scorer = BertScorer(str(save_model(tmp_path, "led", None, d_model=16, attention_window=8, **sizes, **positions)))
    assert scorer.limit == 32
    assert scorer.score([text(100)], [text(100)]).f1.item() == pytest.approx(1, abs=1e-5)


_LED = {"layers": 4, "attention_heads": 2, "ffn_dim": 16}


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "albert", "electra", "xlnet"])
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_it_is_bert_scores_own_number_whatever_the_layer_and_the_kind(kind: str, layer: int, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind, KINDS[kind], limit=32)
    replies, references = [text(9, 1), text(40, 2), "w1"], [text(7, 3), text(12, 4), "w1 w2"]
    ours = BertScorer(str(folder), layer, "cpu").score(replies, references)
    theirs = BERTScorer(model_type=str(folder), num_layers=layer, device="cpu").score(replies, references)
    for a, b in zip((ours.precision, ours.recall, ours.f1), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "albert", "electra", "xlnet"])
def test_with_idf_it_is_bert_scores_own_number_too(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path, kind, KINDS[kind], limit=32)
    replies, references = [text(9, 1), text(100, 2), "w1", text(7, 9)], [text(7, 3), text(12, 4), "w1 w2", text(70, 5)]
    letters = [*references, "w1 w5 w9", "w2 w3 w5", "w5"]
    ours = BertScorer(str(folder), 3, "cpu", idf=letters).score(replies, references)
    theirs = BERTScorer(model_type=str(folder), num_layers=3, device="cpu", idf=True, idf_sents=letters, nthreads=0)
    for a, b in zip((ours.precision, ours.recall, ours.f1), theirs.score(replies, references), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_with_idf_what_stands_in_every_letter_counts_for_nothing(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    scorer = BertScorer(folder, device="cpu", idf=["w1 w2", "w1 w3"])
    scores = scorer.score(["w1", "w1 w2", "w4"], ["w1 w2", "w1 w2", "w1"])
    assert [scores.precision[0], scores.recall[2]] == [0, 0]
    assert scores.f1.tolist() == pytest.approx([0, 1, 0], abs=1e-6)


def test_with_idf_and_chunks_pieces_at_the_end_of_a_long_letter_count_as_seen(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    letters = [" ".join([*WORDS[:20] * 3, "w33"]), " ".join([*WORDS[:20] * 3, "w33"])]
    replies, references = ["w33 w30"], ["w33 w25"]
    cut, chunks = (
        BertScorer(folder, device="cpu", long_texts=how, idf=letters).score(replies, references).precision.item()
        for how in ("cut", "chunks")
    )
    alone = BertScorer(folder, device="cpu", idf=["w33", "w33"]).score(replies, references).precision.item()
    assert chunks == pytest.approx(alone, abs=1e-6)
    assert cut != pytest.approx(alone, abs=1e-3)


@pytest.mark.parametrize(("depth", "layer"), [(1, 1), (2, 2), (4, 3), (6, 5), (8, 6), (12, 9), (24, 18)])
def test_by_default_the_layer_is_the_one_at_three_quarters_of_the_depth(depth: int, layer: int, tmp_path: Path) -> None:
    assert BertScorer(str(save_model(tmp_path, "bert", 32, num_hidden_layers=depth)), device="cpu").num_layers == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [("minilm", 5), ("roberta-large", 17), ("FacebookAI/roberta-large", 17), ("google-bert/bert-base-uncased", 9)],
)
def test_models_that_bert_score_knows_have_its_layer(name: str, layer: int) -> None:
    assert BertScorer(name, device="cpu").num_layers == layer


@pytest.mark.parametrize("layer", [0, -1, 5, True, 2.5])
def test_a_layer_that_the_model_has_not_is_told_at_once(layer: object, tmp_path: Path) -> None:
    folder = save_model(tmp_path, "bert", 32)
    with pytest.raises(ValueError, match=rf"^scorer layer {layer}: .* has layers 1 to 4 \(--scorer-layer"):
        BertScorer(str(folder), layer, "cpu")  # type: ignore[arg-type]


def test_the_tokenizers_own_limit_holds_where_it_is_less(tmp_path: Path) -> None:
    assert BertScorer(str(save_model(tmp_path, "roberta", 34, limit=20)), device="cpu").limit == 20


def test_in_chunks_what_stands_at_the_end_of_a_long_text_counts(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "roberta", 34))
    body, diagnosis = " ".join(WORDS[:20] * 5), "w33 w34 w35"
    references = [body, f"{body} {diagnosis}"]
    cut = BertScorer(folder, device="cpu").score([diagnosis] * 2, references)
    chunks = BertScorer(folder, device="cpu", long_texts="chunks").score([diagnosis] * 2, references)
    assert cut.f1[0] == cut.f1[1]
    assert chunks.f1[1] > chunks.f1[0]
    assert chunks.precision[1] > chunks.precision[0]


@pytest.mark.parametrize("n", [31, 32, 60, 61, 100, 513])
def test_in_chunks_no_piece_is_lost_or_told_twice(n: int, tmp_path: Path) -> None:
    scorer = BertScorer(str(save_model(tmp_path, "bert", 32)), device="cpu", long_texts="chunks")
    scores = scorer.score([text(n)], [text(n)])
    assert [scores.precision.item(), scores.recall.item()] == pytest.approx([1, 1], abs=1e-5)
    vectors, own, _ = scorer._references[text(n)]
    assert len(vectors) == n + 2
    assert own == slice(1, n + 1)


def test_in_chunks_a_piece_in_the_middle_sees_its_neighbors_on_both_sides(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    chunks = BertScorer(folder, device="cpu", long_texts="chunks")
    words = text(200).split()
    vectors = chunks._embed([" ".join(words)])[0].vectors
    for place in range(5, 195):  # another word three places away changes the vector of every word
        other = [*words[: place - 3], "w0" if words[place - 3] != "w0" else "w1", *words[place - 2 :]]
        others = chunks._embed([" ".join(other)])[0].vectors
        assert float((vectors[place + 1] - others[place + 1]).abs().max()) > 1e-6


def test_texts_within_the_limit_score_the_same_to_the_last_bit_in_chunks_or_not(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "roberta", 34))
    replies, references = [text(n, n) for n in range(1, 31)], [text(31 - n, 50 + n) for n in range(1, 31)]
    cut, chunks = (
        BertScorer(folder, device="cpu", long_texts=how).score(replies, references).f1 for how in ("cut", "chunks")
    )
    assert cut.tolist() == chunks.tolist()


def test_scores_do_not_depend_on_what_was_scored_before(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    replies, letters, prompts = [text(9), text(5)], [text(11), text(7)], [text(13), text(5)]
    used = BertScorer(folder, device="cpu")
    for _ in range(2):  # the second time, all texts have been scored before
        for texts, references, once in (
            (replies, letters, False),
            (replies, prompts, True),
            (letters, prompts, True),
            (prompts, replies, True),
            (replies[:1], prompts[1:], False),
        ):
            fresh = BertScorer(folder, device="cpu").score(texts, references)
            again = (used.score_once if once else used.score)(texts, references)
            assert again.f1.tolist() == fresh.f1.tolist()


def test_replies_are_embedded_once_for_their_letters_and_their_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = BertScorer(str(save_model(tmp_path, "bert", 32)), device="cpu")
    passes: list[object] = []

    def counted(*arguments: object) -> object:
        passes.append(arguments)
        return states_of(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("pmlm_env.rewards.bertscore.states_of", counted)
    replies, prompts = [text(9), text(5)], [text(13), text(6)]
    scorer.score(replies, [text(11), text(7)])
    assert len(passes) == 4
    scorer.score_once(replies, prompts)
    assert len(passes) == 6
    scorer.score_once([text(8), text(4)], prompts)
    assert len(passes) == 8


def test_a_text_that_is_cut_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    with caplog.at_level(logging.WARNING, "pmlm_env"):
        scorer = BertScorer(folder, device="cpu")
        scorer.score([text(30)], [text(30)])
        assert caplog.messages == []
        scorer.score([text(40)], [text(50)])
        scorer.score([text(60)], [text(70)])
        assert len(caplog.messages) == 1
        assert "52 pieces, more than the 32" in caplog.messages[0]
        assert "--long-texts chunks" in caplog.messages[0]
        BertScorer(folder, device="cpu", long_texts="chunks").score([text(40)], [text(50)])
    assert len(caplog.messages) == 1


def test_what_is_neither_cut_nor_chunks_is_refused() -> None:
    with pytest.raises(ValueError, match="long_texts is 'whole': use one of cut, chunks"):
        BertScorer(long_texts="whole")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    make_episodes(4, n_marked=0).save(folder)
    return folder


def test_the_env_takes_any_folder_as_scorer_with_a_layer_of_ones_choice(prepared: Path, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "roberta", 34))
    options = {"episodes": str(prepared), "encoder": folder, "scorer": folder, "llm": "responder", "n_edits": 1}
    scores = set()
    for more in ({}, {"scorer_layer": 3}, {"scorer_layer": 1}, {"long_texts": "chunks"}):
        env = gym.make("PMLM-v0", **options, **more)
        env.reset(options={"episode": 0})
        scores.add(env.step(0)[-1]["initial_score"])
    assert len(scores) == 3  # layer 3 is the default; the responder's text is beyond 32 pieces


def test_a_layer_out_of_range_is_one_line_on_the_command_line(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(save_model(tmp_path / "model", "bert", 32))
    options = ["--episodes", str(prepared), "--run", str(tmp_path / "run"), "--llm", "responder", "--device", "cpu"]
    capsys.readouterr()
    assert pmlm("train", *options, "--encoder", folder, "--scorer", folder, "--scorer-layer", "7") == 2
    assert capsys.readouterr().err.strip().splitlines() == [
        f"pmlm train: scorer layer 7: {folder} has layers 1 to 4 (--scorer-layer)"
    ]


def test_in_the_env_idf_weights_are_those_of_the_training_letters_whatever_the_split(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    everybody = [replace(episode, reference=f"w{i} w1") for i, episode in enumerate(make_episodes(6, n_marked=0))]
    splits: list[Split] = ["train", "train", "train", "train", "test", "test"]
    episodes = [replace(episode, split=split) for episode, split in zip(everybody, splits, strict=True)]
    EpisodeSet(episodes).save(tmp_path / "prepared")
    env = gym.make(
        "PMLM-v0", episodes=str(tmp_path / "prepared"), split="test", encoder=folder, scorer=folder, llm="responder",
        n_edits=1, scorer_idf=True, device="cpu",
    )  # fmt: skip
    env.reset(options={"episode": 0})
    info = env.step(0)[-1]
    scorer = BertScorer(folder, device="cpu", idf=[episode.reference for episode in episodes[:4]])
    assert info["initial_score"] == scorer.f1([info["initial_reply"]], [episodes[4].reference])[0]
    assert info["initial_score"] != BertScorer(folder, device="cpu").f1([info["initial_reply"]], ["w4 w1"])[0]


def test_idf_without_training_letters_is_an_error_in_ones_own_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(save_model(tmp_path, "bert", 32))
    test = [replace(episode, split="test") for episode in make_episodes(2, n_marked=0)]
    EpisodeSet(test).save(tmp_path / "prepared")
    options = {"episodes": str(tmp_path / "prepared"), "encoder": folder, "scorer": folder, "llm": "responder"}
    with pytest.raises(ValueError, match=r"^the scorer's idf weights .* there are none \(scorer_idf\)$"):
        gym.make("PMLM-v0", **options, split="test", scorer_idf=True)
    with pytest.raises(ValueError, match=r"there are none \(--scorer-idf\)$"):
        BertScorer(folder, device="cpu", idf=[])


def test_a_run_trained_with_idf_is_evaluated_with_idf(prepared: Path, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", "bert", 32))
    scores = []
    for name, more in (("without", ()), ("with", ("--scorer-idf",))):
        run = tmp_path / name
        options = ["--episodes", prepared, "--run", run, "--llm", "responder", "--device", "cpu", "--budget", 6]
        options += ["--encoder", folder, "--scorer", folder, "--rollouts", 2, "--n-edits", 1]
        assert pmlm("train", *options, *more) == 0
        assert pmlm("evaluate", "--run", run, "--split", "train") == 0
        before = [json.loads(line) for line in (run / "traces.jsonl").read_text(encoding="utf-8").splitlines()]
        scores.append([trace["before"]["bertscore_f1"] for trace in before if trace["variant"] == "keep_all"])
    assert scores[0]
    assert scores[0] != scores[1]


def test_a_layer_out_of_range_is_told_in_pythons_words_where_python_asked(prepared: Path, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", "bert", 32))
    options = {"episodes": str(prepared), "encoder": folder, "scorer": folder, "llm": "responder"}
    with pytest.raises(ValueError, match=r"^scorer layer 7: .* has layers 1 to 4 \(scorer_layer\)$"):
        gym.make("PMLM-v0", **options, scorer_layer=7)


def test_results_with_another_layer_or_with_chunks_are_other_results(prepared: Path, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", "bert", 32))

    def identity(**more: Any) -> dict[str, Any]:
        models = ModelOptions(llm="responder", encoder=folder, scorer=folder, device="cpu", **more)
        return patients_of("real", "validation", prepared, tmp_path / "run", models).identity

    assert not {"scorer_layer", "scorer_idf", "long_texts"} & identity().keys()  # as before there was a choice
    assert identity(scorer_layer=2)["scorer_layer"] == 2
    assert identity(scorer_idf=True)["scorer_idf"] is True
    assert identity(long_texts="chunks")["long_texts"] == "chunks"


def test_a_run_does_not_go_on_with_another_layer(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = str(save_model(tmp_path / "model", "bert", 32)), tmp_path / "run"
    options = ["--episodes", prepared, "--run", run, "--llm", "responder", "--device", "cpu", "--patients", 2]
    options += ["--encoder", folder, "--scorer", folder, "--budget", 6, "--rollouts", 2, "--n-edits", 1]
    for more, code in (((), 0), (("--resume", "--scorer-layer", 1), 2)):
        capsys.readouterr()
        assert pmlm("train", *options, *more) == code
    assert re.search(r"scorer.layer", capsys.readouterr().err)


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert", "deberta-v2", "electra"])
def test_the_words_encoder_keeps_to_the_same_limit(kind: str, tmp_path: Path) -> None:
    encoder = WordEncoder(str(save_model(tmp_path, kind, KINDS[kind])), "cpu")
    words = text(90).split()
    vectors = encoder.encode([words], np.ones((1, 90), dtype=bool))[0]
    assert bool(vectors.isfinite().all())
    assert bool(vectors.any(dim=1).all())
    alone = encoder.encode([words[30:60]], np.ones((1, 30), dtype=bool))[0]
    np.testing.assert_allclose(vectors[30:60].numpy(), alone.numpy(), atol=1e-5)  # 30 words and two special tokens


@pytest.mark.real
def test_on_a_cpu_a_score_is_the_same_alone_and_among_others_to_the_last_digit() -> None:
    replies = [" ".join(["take iron daily, and return for review in two weeks"] * n) for n in range(1, 12)]
    references = ["iron daily; review in two weeks"] * len(replies)
    together = BertScorer("minilm", device="cpu").score(replies, references)
    for i, (reply, reference) in enumerate(zip(replies, references, strict=True)):
        alone = BertScorer("minilm", device="cpu").score([reply], [reference])
        assert (alone.precision, alone.recall, alone.f1) == (
            together.precision[i : i + 1],
            together.recall[i : i + 1],
            together.f1[i : i + 1],
        )
