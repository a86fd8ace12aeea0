"""A policy folder that somebody else made: all of it is checked before anything is built, and a fault is one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from agents.cli.main import main
from agents.policies.distributions import MaskedCategorical
from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.reinforce import Reinforce
from agents.serving.refine import Refiner
from agents.training.checkpoint import load_checkpoint, save_checkpoint
from tests.problems import make_problem
from tests.standins import HashEncoder, make_episodes

SIZE = HashEncoder.hidden_size


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A whole policy with a network and a lexicon."""
    WordPolicy(PolicyConfig(SIZE, hidden=4), Lexicon.of(make_episodes(6))).save_pretrained(tmp_path / "policy")
    make_episodes(6).save(tmp_path / "prepared")
    return tmp_path / "policy"


def _refused(policy: Path | str, capsys: pytest.CaptureFixture[str], prepared: Path, *options: str) -> str:
    """What ``pmlm refine`` says, in one line, of a policy that it does not take; nothing is built for it."""
    with pytest.raises(SystemExit) as stop:
        main("refine", ["--model", str(policy), "--episodes", str(prepared), "--split", "train", *options])
    assert stop.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert len(error.splitlines()) == 1
    return error.removeprefix("pmlm refine: ").strip()


def _set(policy: Path, **values: Any) -> None:
    path = policy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden", 40_000, "hidden is 40000: use a whole number from 0 to 4,096"),
        ("hidden", 4.0, "hidden is 4.0: use a whole number"),
        ("hidden", None, "hidden is None: use a whole number"),
        ("hidden", True, "hidden is True: use a whole number"),
        ("n_edits", "3", "n_edits is '3': use a whole number from 1 to 10,000"),
        ("n_edits", 0, "n_edits is 0: use a whole number"),
        ("n_edits", -3, "n_edits is -3: use a whole number"),
        ("n_edits", 10**9, "n_edits is 1000000000: use a whole number"),
        ("n_edits", [3], r"n_edits is \[3\]: use a whole number"),
        ("embedding_size", 10**12, "embedding_size is 1000000000000: use a whole number from 1 to 8,192"),
        ("patient_size", -128, "patient_size is -128: use a whole number from 1 to 4,096"),
        ("positions", 10**9, "positions is 1000000000: use a whole number from 0 to 16,384"),
        ("dropout", 1.5, "dropout is 1.5: use a number from 0 to below 1"),
        ("dropout", False, "dropout is False: use a number"),
        ("dropout", "0.1", "dropout is '0.1': use a number"),
        ("normalize", 1, "normalize is 1: use true or false"),
        ("patient", "yes", "patient is 'yes': use true or false"),
        ("distribution", ["softmax"], r"distribution is \['softmax'\]: use one of"),
        ("encoder", 7, "encoder is 7: use the name of a model"),
        ("auto_map", {"AutoModel": "evil.Model"}, "there is no setting 'auto_map' in this version"),
        ("lexicon", "word", r"lexicon is 'word': use a list of \[role, word\]"),
        ("lexicon", [["self"]], r"lexicon holds \['self'\]: use \[role, word\]"),
        ("lexicon", [["self", 3]], r"lexicon holds \['self', 3\]: use \[role, word\]"),
        ("lexicon", [["doctor", "well"]], r"lexicon holds \['doctor', 'well'\]: use one of"),
        ("lexicon", [["self", "two words"]], r"lexicon holds \['self', 'two words'\]: use one of"),
        ("lexicon", [["self", "well"], ["self", "well"]], r"lexicon holds \['self', 'well'\] twice"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_file_and_value(
    policy: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, message: str
) -> None:
    _set(policy, **{key: value})
    error = _refused(policy, capsys, policy.parent / "prepared")
    assert error.startswith(f"{policy}/config.json: ")
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "is damaged: it is not JSON"),
        (b'{"a":' * 200_000, "is damaged: it is not JSON"),
        (b"\xff\xfe{}", "is damaged: it is not JSON"),
        (b'{"hidden": ' + b"9" * 5_000 + b"}", "is damaged: it is not JSON"),
        (b'{"embedding_size": 16, "embedding_size": 17}', "'embedding_size' occurs twice"),
        (b'{"embedding_size": 16, "dropout": NaN}', "it contains NaN, which is not a number"),
        (b'{"embedding_size": 16, "dropout": -Infinity}', "it contains -Infinity, which is not a number"),
        (b'{"embedding_size": 16, "dropout": 1e999}', "dropout is inf"),
        (b"{}", "embedding_size is missing"),
    ],
)
def test_settings_that_are_no_such_json_are_named(
    policy: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (policy / "config.json").write_bytes(content)
    error = _refused(policy, capsys, policy.parent / "prepared")
    assert error.startswith(f"{policy}/config.json")
    assert message in error


def test_of_settings_of_gigabytes_no_more_than_their_size_is_read(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(policy / "config.json", 5 * 2**30)  # a hole: it takes no disk
    assert "config.json is larger than 16 MiB" in _refused(policy, capsys, policy.parent / "prepared")


def _extra(tensors: dict[str, torch.Tensor]) -> None:
    tensors["evil"] = torch.zeros(3)


def _missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["word.bias"]


def _other_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["word.bias"] = torch.zeros(5)


def _other_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors["word.bias"] = tensors["word.bias"].double()


def _whole_numbers(tensors: dict[str, torch.Tensor]) -> None:
    tensors["word.bias"] = torch.zeros(4, dtype=torch.int64)


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["body.2.weight"][0, 0] = torch.nan


def _infinite(tensors: dict[str, torch.Tensor]) -> None:
    tensors["table.weight"][1] = -torch.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_extra, "has an unexpected tensor 'evil'; expected "),
        (_missing, "lacks the tensor word.bias"),
        (_other_shape, "word.bias is F32 [5], expected F32 [4]"),
        (_other_type, "word.bias is F64 [4], expected F32 [4]"),
        (_whole_numbers, "word.bias is I64 [4], expected F32 [4]"),
        (_nan, "'body.2.weight' has numbers that are not finite"),
        (_infinite, "'table.weight' has numbers that are not finite"),
    ],
)
def test_weights_that_cannot_be_are_named(
    policy: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, torch.Tensor]], None],
    message: str,
) -> None:
    tensors = load_file(policy / "model.safetensors")
    change(tensors)
    save_file(tensors, policy / "model.safetensors")
    error = _refused(policy, capsys, policy.parent / "prepared")
    assert error.startswith(f"{policy}/model.safetensors")
    assert message in error


def test_a_header_that_claims_more_than_the_file_holds_is_damage(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = json.dumps({"word.bias": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (policy / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert "model.safetensors is damaged" in _refused(policy, capsys, policy.parent / "prepared")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (policy / name).rename(tmp_path / "elsewhere")
    (policy / name).symlink_to(tmp_path / "elsewhere")
    assert "is a link to a file outside its folder" in _refused(policy, capsys, tmp_path / "prepared")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (policy / "config.json").unlink()
    os.mkfifo(policy / "config.json")
    assert "config.json is not a regular file" in _refused(policy, capsys, policy.parent / "prepared")


def test_the_hubs_own_links_are_followed(policy: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--me--mine"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in policy.iterdir():
        path.rename(repository / "blobs" / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    assert WordPolicy.from_pretrained(snapshot).config.hidden == 4


def test_a_policy_can_be_saved_over_the_files_that_it_was_loaded_from(policy: Path) -> None:
    before = load_file(policy / "model.safetensors")
    loaded = WordPolicy.from_pretrained(policy)
    for _ in range(2):
        loaded.save_pretrained(policy)
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
    assert load_file(policy / "model.safetensors").keys() == before.keys()


@pytest.mark.parametrize("encoder", ["/etc", "someone/encoder", "package.module:Class", "https://evil.example/x", ""])
def test_an_encoder_that_is_not_bundled_is_not_loaded_on_a_policys_word(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr("agents.serving.refine.WordEncoder", lambda *_: pytest.fail("an encoder was loaded"))
    _set(policy, encoder=encoder)
    error = _refused(policy, capsys, policy.parent / "prepared")
    assert error.startswith(f"the policy was trained with the encoder {encoder!r}, which is not bundled")
    assert "--encoder" in error


def test_the_encoder_that_the_user_names_is_taken(policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = []
    monkeypatch.setattr("agents.serving.refine.WordEncoder", lambda name, device: named.append(name) or HashEncoder())
    _set(policy, encoder="someone/encoder")
    assert len(Refiner.from_pretrained(policy, encoder="mine").refine_all(make_episodes(6))) == 6
    assert named == ["mine"]


def test_weights_too_large_to_compute_with_are_an_error_and_not_the_first_words(policy: Path) -> None:
    tensors = load_file(policy / "model.safetensors")
    save_file({name: torch.full_like(value, 3e38) for name, value in tensors.items()}, policy / "model.safetensors")
    refiner = Refiner(WordPolicy.from_pretrained(policy), HashEncoder())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the policy's scores are not finite"):
        refiner.refine_all(make_episodes(6))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_no_probabilities_can_be_made_of_are_an_error(value: float) -> None:
    legal = torch.tensor([[True, True, False]])
    MaskedCategorical(torch.tensor([[0.0, -torch.inf, value]]), legal)  # of an illegal slot, and a probability of 0
    for scores in ([value, 0.0, 0.0], [-torch.inf, -torch.inf, 0.0]):
        with pytest.raises(ValueError, match="not finite"):
            MaskedCategorical(torch.tensor([scores]), legal)


def test_more_edits_than_a_prompt_has_words_leave_what_may_not_go(policy: Path) -> None:
    _set(policy, n_edits=10_000)
    (first, *_) = Refiner(WordPolicy.from_pretrained(policy), HashEncoder()).refine_all(make_episodes(6))  # type: ignore[arg-type]
    assert len(set(first.deleted)) == len(first.deleted) <= 12


def test_an_encoder_of_another_size_is_named(policy: Path) -> None:
    encoder = HashEncoder()
    encoder.hidden_size = 8
    with pytest.raises(ValueError, match="embeddings of 8 numbers, but of 16 in training"):
        Refiner(WordPolicy.from_pretrained(policy), encoder).refine_all(make_episodes(6))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["package.module:Class", "https:x", "no such policy", "a/b\x1b[2J"])
def test_a_name_that_no_repository_can_have_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make_episodes(6).save(tmp_path / "prepared")
    assert "is neither a folder nor a repository" in _refused(name, capsys, tmp_path / "prepared")


def test_a_repository_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    make_episodes(6).save(tmp_path / "prepared")
    monkeypatch.setattr("agents.policies.word_policy.snapshot_download", missing)
    assert _refused("me/mine", capsys, tmp_path / "prepared").startswith("'me/mine' is neither a folder nor")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.exp_avg", None),
        ("0.exp_avg", torch.zeros(7)),
        ("0.exp_avg", torch.full((4, SIZE), torch.nan)),
        ("0.step", torch.zeros(4, SIZE)),
        ("99.step", torch.zeros(())),
        ("evil", torch.zeros(())),
    ],
)
def test_what_an_optimiser_of_a_checkpoint_cannot_have_is_an_error(
    tmp_path: Path, name: str, value: torch.Tensor | None
) -> None:
    def trainer() -> Reinforce:
        problem = make_problem()
        policy = WordPolicy(PolicyConfig(SIZE, hidden=4), Lexicon.of(problem.episodes))
        env = problem.env(4, observation=policy.observation)
        return Reinforce(policy, env, ReinforceConfig(patients=2, rollouts=2), 0)

    first = trainer()
    first.update()
    save_checkpoint(tmp_path / "checkpoint", first, {"updates": 1, "initial": {}})
    file = tmp_path / "checkpoint" / "trainer.safetensors"
    load_checkpoint(file.parent, trainer())
    tensors = load_file(file)
    tensors.pop(name, None)
    save_file(tensors if value is None else {**tensors, name: value}, file)
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z"):
        load_checkpoint(file.parent, trainer())
