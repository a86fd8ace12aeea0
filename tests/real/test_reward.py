from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from bert_score import BERTScorer

from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights import resolve
from tests.commands import pmlm

pytestmark = pytest.mark.real

REPLIES = [
    "The discharge diagnosis is gestational diabetes.",
    "She is well.",
    "x",
    "Take iron; come back in two weeks. " * 80,  # beyond 512 pieces: cut, as bert-score does
    "  The discharge diagnosis is gestational diabetes.  ",
    "妊娠 diabetes, naïve café №5 😀",
]
REFERENCES = [
    "Discharge diagnosis: gestational diabetes. Advice: watch the diet.",
    "Discharge diagnosis: gestational diabetes. Advice: watch the diet.",
    "Thalassemia.",
    "Discharge diagnosis: anemia. Take iron.",
    "y",
    "Gestational diabetes.",
]


def test_it_is_bert_scores_own_number() -> None:
    ours = BertScorer("minilm", device="cpu").score(REPLIES, REFERENCES)
    theirs = BERTScorer(model_type=resolve("minilm"), num_layers=5, device="cpu").score(REPLIES, REFERENCES)
    for a, b in zip((ours.precision, ours.recall, ours.f1), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_many_pairs_of_many_lengths_are_bert_scores_own_numbers_too() -> None:
    replies = [" ".join(REFERENCES[i % 4].split()[: 1 + i % 7]) + f" {i}" for i in range(70)]
    references = [f"{i}. " + REFERENCES[i % 5] * (1 + i % 3) for i in range(70)]
    ours = BertScorer("minilm", device="cpu").score(replies, references).f1
    theirs = BERTScorer(model_type=resolve("minilm"), num_layers=5, device="cpu").score(replies, references)[2]
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-5)


def test_with_idf_it_is_bert_scores_own_number_too() -> None:
    letters = [*REFERENCES, "Discharge diagnosis: thalassemia. Advice: take folic acid.", "Discharge: well."]
    ours = BertScorer("minilm", device="cpu", idf=letters).score(REPLIES, REFERENCES)
    theirs = BERTScorer(
        model_type=resolve("minilm"), num_layers=5, device="cpu", idf=True, idf_sents=letters, nthreads=0
    ).score(REPLIES, REFERENCES)
    for a, b in zip((ours.precision, ours.recall, ours.f1), theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


def test_a_reference_is_embedded_once_and_holds_no_more_memory_than_it_needs() -> None:
    scorer = BertScorer("minilm", device="cpu")
    scorer.score(REPLIES, REFERENCES)
    kept = dict(scorer._references)
    scorer.score(REPLIES[:2], REFERENCES[:2])
    for text, (vectors, *_) in scorer._references.items():
        assert vectors is kept[text].vectors
        assert vectors.untyped_storage().nbytes() == vectors.nbytes


def test_a_reference_already_seen_gives_the_same_score() -> None:
    scorer = BertScorer("minilm", device="cpu")
    first = scorer.score(REPLIES[:2], REFERENCES[:2]).f1
    again = scorer.score(REPLIES[1:2], REFERENCES[1:2]).f1
    np.testing.assert_allclose(again.numpy(), first[1:].numpy(), atol=1e-6)


def test_an_empty_text_scores_nothing_and_the_reference_itself_everything() -> None:
    f1 = BertScorer("minilm", device="cpu").score(["", "x", REFERENCES[0]], [REFERENCES[0], "", REFERENCES[0]]).f1
    assert f1[:2].tolist() == [0.0, 0.0]
    assert f1[2].item() == pytest.approx(1.0, abs=1e-6)


def test_a_layer_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="layers 1 to 6"):
        BertScorer("minilm", num_layers=7, device="cpu").score(["a"], ["b"])


def test_a_folder_that_is_a_copy_of_minilm_scores_as_minilm_does(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(resolve("minilm"), tmp_path / "copy"))
    copy, minilm = (BertScorer(name, device="cpu").score(REPLIES, REFERENCES) for name in (str(folder), "minilm"))
    assert copy.f1.tolist() == minilm.f1.tolist()


#: 1,034 words, the last two of which are the diagnosis.
SUMMARY = " ".join(["The visit went well and all values were in their usual range."] * 86) + " Gestational diabetes"


def test_in_chunks_a_diagnosis_at_the_end_of_a_long_summary_counts() -> None:
    assert len(SUMMARY.split()) == 1034
    replies, references = (
        ["Diagnosis: gestational diabetes."] * 2,
        [SUMMARY.removesuffix(" Gestational diabetes"), SUMMARY],
    )
    cut = BertScorer("minilm", device="cpu").score(replies, references).f1
    chunks = BertScorer("minilm", device="cpu", long_texts="chunks").score(replies, references).f1
    assert cut[0] == cut[1]
    assert chunks[1] > chunks[0] + 0.05


@pytest.mark.usefixtures("quick_stages")
def test_prepare_counts_the_references_that_the_scorer_cannot_take_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said_by(command: str, *options: object) -> str:
        assert pmlm(command, *options) == 0
        return capsys.readouterr().out

    cohort = tmp_path / "cohort"
    said_by("simulate", "--out", cohort, "--patients", 90)
    options = ("--cohort", cohort, "--out", tmp_path / "prepared", "--n-folds", 2)
    assert "pieces" not in said_by("prepare", *options)
    lines = (cohort / "patients.csv").read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("reference")
    rows = list(csv.reader(lines))
    for row in rows[1:4]:
        row[place] = SUMMARY
    with (cohort / "patients.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    said = said_by("prepare", *options)
    assert "3 of 90 references are longer than the 512 pieces" in said
    assert "default scorer, minilm" in said
    assert "--long-texts chunks" in said
