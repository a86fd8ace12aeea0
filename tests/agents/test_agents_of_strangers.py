"""Loading an untrusted saved agent: everything is checked before anything is built; an error is one line."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from agents.base import Agent
from agents.policies.distributions import MaskedCategorical
from agents.problem import BudgetSpentError
from agents.registry import load, make, settings_of
from tests.problems import make_problem

#: Agents to save: a network with a lexicon, a lexicon, a value network, a Stable-Baselines3 agent, JSON-only agents.
SETTINGS: dict[str, dict[str, Any]] = {
    "leave-one-out": {"hidden": 4, "lexicon": True, "patients": 4},
    "lexicon": {"patients": 4},
    "q-soft": {"hidden": 4, "gradient_steps": 1},
    "ppo": {"hidden": 4, "width": 3},
    "surrogate": {},
    "tree-surrogate": {"members": 2, "trees": 5, "depth": 2},
    "single-rule": {},
    "phrase-rule": {},
    "task-grips": {},
    "random-p": {},
    "self-information-low": {"model": "bigram"},
}


@cache
def _fitted(name: str) -> Agent:
    agent = make(name, settings_of(name, changes=SETTINGS[name]))
    with suppress(BudgetSpentError):
        agent.fit(make_problem(100, n=16))
    return agent


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def save(name: str = "leave-one-out") -> Path:
        _fitted(name).save(tmp_path / "agent")
        return tmp_path / "agent"

    return save


def _refused(folder: Path | str) -> str:
    """What ``load`` says, in one line."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        load(folder)
    return str(error.value)


def _set(folder: Path, part: str, **values: Any) -> None:
    """Change some values of a part of ``config.json``, or of the whole."""
    path = folder / "config.json"
    content = json.loads(path.read_text())
    (content[part] if part else content).update(values)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "part", "key", "value", "message"),
    [
        ("leave-one-out", "", "agent", "evil", "there is no agent 'evil' here: install the package that adds it"),
        ("leave-one-out", "", "agent", ["evil"], "it should contain agent, settings, seed, shape, learned"),
        ("leave-one-out", "", "seed", -1, "seed is -1: use a whole number from 0"),
        ("leave-one-out", "", "seed", 10**30, "seed is 10000"),
        (
            "leave-one-out",
            "",
            "auto_map",
            {"AutoModel": "evil.Model"},
            "it should contain agent, settings, seed, shape",
        ),
        ("leave-one-out", "settings", "hidden", 40_000, "hidden is 40000: use 1 to 4,096"),
        ("leave-one-out", "settings", "hidden", 4.0, "hidden is 4.0: use a whole number"),
        ("leave-one-out", "settings", "hidden", True, "hidden is True: use a whole number"),
        ("leave-one-out", "settings", "dropout", 1.5, "dropout is 1.5: use a number from 0 to below 1"),
        ("leave-one-out", "settings", "normalize", 1, "normalize is 1: use true or false"),
        ("leave-one-out", "settings", "distribution", ["softmax"], r"distribution is \['softmax'\]: use one of"),
        ("leave-one-out", "settings", "auto_map", "evil.Model", "there is no setting 'auto_map'"),
        ("leave-one-out", "shape", "n_edits", "3", "n_edits is '3'"),
        ("leave-one-out", "shape", "n_edits", -3, "n_edits is -3: use a whole number from 0 to 10,000"),
        ("leave-one-out", "shape", "n_edits", 1.5, "n_edits is 1.5: use a whole number, 0 or more, or a share"),
        ("leave-one-out", "shape", "embedding_size", 10**12, "embedding_size is 1000000000000: use a whole number"),
        ("leave-one-out", "shape", "patient_size", -128, "patient_size is -128: use a whole number from 1 to 4,096"),
        ("leave-one-out", "shape", "max_words", 10**9, "max_words is 1000000000: use a whole number from 1 to 16,384"),
        ("leave-one-out", "shape", "encoder", 7, "encoder is 7"),
        ("leave-one-out", "shape", "protect", [7], r"protect\[0\] is 7"),
        ("leave-one-out", "learned", "evil", 7, "learned contains 'evil', 'lexicon'; for the agent leave-one-out it"),
        ("leave-one-out", "learned", "lexicon", "word", r"lexicon is 'word': use a list of \[role, word\]"),
        ("lexicon", "learned", "lexicon", [["self"]], r"lexicon holds \['self'\]: use \[role, word\]"),
        ("lexicon", "learned", "lexicon", [["self", 3]], r"lexicon holds \['self', 3\]: use \[role, word\]"),
        ("lexicon", "learned", "lexicon", [["doctor", "well"]], r"lexicon holds \['doctor', 'well'\]: use one of"),
        ("lexicon", "learned", "lexicon", [["self", "two words"]], r"\['self', 'two words'\]: use one of"),
        ("lexicon", "learned", "lexicon", [["self", "well"]] * 2, r"lexicon holds \['self', 'well'\] twice"),
        ("surrogate", "learned", "lexicon", 7, "lexicon is 7: use a list"),
        ("surrogate", "learned", "coefficients", [1.0], "there are 1 coefficients: a lexicon like this has "),
        ("surrogate", "learned", "coefficients", ["1.0"], r"coefficients is \['1.0'\]: use a list of numbers"),
        ("surrogate", "learned", "coefficients", {}, "coefficients is {}: use a list of numbers"),
        ("tree-surrogate", "settings", "depth", 10**6, "depth is 1000000: use a whole number from 1 to 8"),
        ("tree-surrogate", "learned", "places", "all", r"places is 'all': use a list of \[role, place\]"),
        ("tree-surrogate", "learned", "places", [["self", 1.0]], r"places holds \['self', 1.0\]: use \[role, place\]"),
        ("tree-surrogate", "learned", "places", [["doctor", 1]], r"places holds \['doctor', 1\]: use one of"),
        ("tree-surrogate", "learned", "places", [["self", 12]], r"\['self', 12\]: .* whole number from 0 to 11"),
        ("tree-surrogate", "learned", "places", [["self", 1]] * 2, "places holds the same place twice"),
        ("tree-surrogate", "learned", "labels", [7], r"labels is \[7\]: use a list of texts"),
        ("tree-surrogate", "learned", "lexicon", [], "a tree looks at a feature that is none of the "),
        (
            "q-soft",
            "settings",
            "q_temperature",
            10**40,
            r"q_temperature is 1e\+40: use a number above 0, at most 1,000",
        ),
        ("q-soft", "settings", "kind", "soft", "there is no setting 'kind'"),
        (
            "q-soft",
            "learned",
            "lexicon",
            [],
            "learned contains 'lexicon'; for the agent q-soft it should contain nothing",
        ),
        ("ppo", "settings", "width", 10**6, "width is 1000000: use 2 to 1,024"),
        ("ppo", "settings", "observation", "text", "observation is 'text': use one of embeddings, index"),
        ("ppo", "learned", "policy_class", "evil.Policy", "learned contains 'policy_class'; for the agent ppo it"),
        ("single-rule", "learned", "rule", "all", r"rule is 'all': use a list of \[role, place\]"),
        ("single-rule", "learned", "rule", [["self", 1.0]], r"rule holds \['self', 1.0\]: use \[role, place\]"),
        ("single-rule", "learned", "rule", [["self", True]], r"rule holds \['self', True\]: use \[role, place\]"),
        ("single-rule", "learned", "rule", [["doctor", 1]], r"rule holds \['doctor', 1\]: use one of"),
        ("single-rule", "learned", "rule", [[["self"], 1]], r"rule holds \[\['self'\], 1\]: use one of"),
        ("single-rule", "learned", "rule", [["self", -1]], r"rule holds \['self', -1\]: .* whole number from 0 to 11"),
        ("single-rule", "learned", "rule", [["self", 12]], r"rule holds \['self', 12\]: .* whole number from 0 to 11"),
        ("single-rule", "learned", "rule", [["self", 1]] * 2, "rule holds the same place twice"),
        (
            "phrase-rule",
            "learned",
            "rule",
            [["self", 1]],
            r"rule holds \['self', 1\]: use \[role, sentence, marked, place",
        ),
        (
            "phrase-rule",
            "learned",
            "rule",
            [["self", 0, 1, 0]],
            r"\['self', 0, 1, 0\]: use \[role, sentence",
        ),
        ("phrase-rule", "learned", "rule", [["doctor", 0, True, 0]], r"\['doctor', 0, True, 0\]: use one of"),
        ("phrase-rule", "learned", "rule", [["self", 0, True, 12]], "True, 12.: use one of .* numbers from 0 to 11"),
        ("phrase-rule", "learned", "rule", [["self", 0, True, 0]] * 2, "rule holds the same place twice"),
        ("task-grips", "learned", "keys", {"self": 1}, r"keys is {'self': 1}: use a list of \[role, word\]"),
        ("task-grips", "learned", "keys", [["self", None]], r"keys holds \['self', None\]: use \[role, word\]"),
        ("task-grips", "learned", "keys", [["self", ""]], r"keys holds \['self', ''\]: use one of .* and one word"),
        ("random-p", "learned", "keep", 0.51, r"keep is 0.51: it must be one of the settings' \(0.5, 0.7"),
        ("random-p", "learned", "keep", [0.5], r"keep is \[0.5\]: it must be one of"),
        ("self-information-low", "learned", "pairs", 7, r"pairs is 7: use a list of \[word, word, count\]"),
        ("self-information-low", "learned", "pairs", [["a", "b"]], r"pairs holds \['a', 'b'\]: use \[word, word"),
        ("self-information-low", "learned", "pairs", [["a", "b", True]], "pairs holds .*: use"),
        ("self-information-low", "learned", "pairs", [["a", "b", 0]], "pairs holds .* a count from 1"),
        ("self-information-low", "learned", "pairs", [["a", "b c", 3]], "pairs holds .* use two words"),
        ("self-information-low", "learned", "pairs", [["a", "b", 3]] * 2, "pairs holds .* use two words, once"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_file(
    folder: Callable[[str], Path], name: str, part: str, key: str, value: Any, message: str
) -> None:
    path = folder(name)
    _set(path, part, **{key: value})
    error = _refused(path)
    assert error.startswith(f"{path}/config.json: ")
    assert re.search(message, error)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_was_learned_is_all_there_or_the_agent_is_refused(folder: Callable[[str], Path], name: str) -> None:
    path = folder(name)
    content = json.loads((path / "config.json").read_text())
    for key in content["learned"]:
        less = {**content, "learned": {other: value for other, value in content["learned"].items() if other != key}}
        (path / "config.json").write_text(json.dumps(less))
        assert f"for the agent {name} it should contain" in _refused(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "is damaged: it is not JSON"),
        (b'{"a":' * 200_000, "is damaged: it is not JSON"),
        (b"\xff\xfe{}", "is damaged: it is not JSON"),
        (b"", "is damaged: it is not JSON"),
        (b"[]", "instead of an object"),
        (b'{"seed": ' + b"9" * 5_000 + b"}", "is damaged: it is not JSON"),
        (b'{"agent": "ppo", "agent": "ppo"}', "'agent' occurs twice"),
        (b'{"agent": "ppo", "seed": NaN}', "it contains NaN, which is not a number"),
        (b'{"agent": "ppo", "seed": -Infinity}', "it contains -Infinity, which is not a number"),
        (b"{}", "it should contain agent, settings, seed, shape, learned"),
    ],
)
def test_a_config_that_is_no_such_json_is_named(folder: Callable[..., Path], content: bytes, message: str) -> None:
    path = folder()
    (path / "config.json").write_bytes(content)
    error = _refused(path)
    assert error.startswith(f"{path}/config.json")
    assert message in error


def test_of_a_config_of_gigabytes_no_more_than_its_size_is_read(folder: Callable[..., Path]) -> None:
    path = folder()
    os.truncate(path / "config.json", 5 * 2**30)  # a sparse file, which takes no disk space
    assert "config.json is larger than 16 MiB" in _refused(path)


_FIRST = {
    "leave-one-out": "word.bias",
    "lexicon": "table.weight",
    "q-soft": "word.bias",
    "ppo": "features_extractor.word.bias",
}


def _extra(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors["evil"] = torch.zeros(3)
    return "has an unexpected tensor 'evil'; expected "


def _missing(tensors: dict[str, torch.Tensor], name: str) -> str:
    del tensors[name]
    return f"lacks the tensor {name}"


def _other_shape(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = torch.zeros(5)
    return f"{name} is F32 [5], expected F32 ["


def _other_type(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name] = tensors[name].double()
    return f"{name} is F64 ["


def _nan(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name].view(-1)[0] = torch.nan
    return f"'{name}' has numbers that are not finite"


def _infinite(tensors: dict[str, torch.Tensor], name: str) -> str:
    tensors[name].view(-1)[-1] = -torch.inf
    return f"'{name}' has numbers that are not finite"


@pytest.mark.parametrize("change", [_extra, _missing, _other_shape, _other_type, _nan, _infinite])
@pytest.mark.parametrize("name", _FIRST)
def test_weights_that_cannot_be_are_named(
    folder: Callable[[str], Path], name: str, change: Callable[[dict[str, torch.Tensor], str], str]
) -> None:
    path = folder(name)
    tensors = load_file(path / "model.safetensors")
    message = change(tensors, _FIRST[name])
    save_file(tensors, path / "model.safetensors")
    error = _refused(path)
    assert error.startswith(f"{path}/model.safetensors")
    assert message in error


@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - _FIRST.keys()))
def test_an_agent_without_weights_takes_none(folder: Callable[[str], Path], name: str) -> None:
    path = folder(name)
    save_file({"evil": torch.zeros(3)}, path / "model.safetensors")
    assert "has an unexpected tensor 'evil'" in _refused(path)


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_truncated_weights_are_damage(folder: Callable[..., Path], left: int) -> None:
    weights = folder() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:left])
    assert _refused(weights.parent).startswith(f"{weights} is damaged")


def test_a_header_that_claims_more_than_the_file_holds_is_damage(folder: Callable[..., Path]) -> None:
    header = json.dumps({"word.bias": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = folder()
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert "model.safetensors is damaged" in _refused(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(folder: Callable[..., Path], name: str) -> None:
    path = folder()
    (path / name).unlink()
    assert _refused(path) == f"{path} is not a saved agent: {path / name} is missing"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    folder: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = folder()
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    assert "is a link to a file outside its folder" in _refused(path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder: Callable[..., Path]) -> None:
    path = folder()
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    assert "config.json is not a regular file" in _refused(path)


def test_the_hubs_own_links_are_followed(folder: Callable[..., Path], tmp_path: Path) -> None:
    repository = tmp_path / "models--me--mine"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for path in folder().iterdir():
        path.rename(repository / "blobs" / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    assert load(snapshot).config.hidden == 4


@pytest.mark.parametrize("name", SETTINGS)
def test_an_agent_can_be_saved_over_the_files_that_it_was_loaded_from(
    folder: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    path = folder(name)
    shutil.copytree(path, tmp_path / "before")
    agent = load(path)
    for _ in range(2):
        agent.save(path)
    for file in path.iterdir():
        assert file.read_bytes() == (tmp_path / "before" / file.name).read_bytes()


@pytest.mark.parametrize("name", list(_FIRST))
def test_weights_too_large_to_compute_with_are_an_error_and_not_the_first_words(
    folder: Callable[[str], Path], name: str
) -> None:
    path = folder(name)
    tensors = load_file(path / "model.safetensors")
    save_file({name: torch.full_like(value, 3e38) for name, value in tensors.items()}, path / "model.safetensors")
    with pytest.raises(ValueError, match="the policy's scores are not finite"):
        load(path).refine(make_problem(judged=False))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_that_no_probabilities_can_be_made_of_are_an_error(value: float) -> None:
    legal = torch.tensor([[True, True, False]])
    MaskedCategorical(torch.tensor([[0.0, -torch.inf, value]]), legal)  # allowed: probability 0, illegal slot
    for scores in ([value, 0.0, 0.0], [-torch.inf, -torch.inf, 0.0]):
        with pytest.raises(ValueError, match="not finite"):
            MaskedCategorical(torch.tensor([scores]), legal)


@pytest.mark.parametrize("model", ["/etc", "someone/model", "package.module:Class", "https://evil.example/x", ""])
def test_a_language_model_that_is_not_bundled_is_not_loaded_on_a_saved_agents_word(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    for loader in ("load_model", "load_tokenizer", "resolve"):
        monkeypatch.setattr(f"agents.baselines.self_information.{loader}", lambda *_, **__: pytest.fail("loaded"))
    path = folder("self-information-low")
    _set(path, "settings", model=model)
    _set(path, "", learned={})
    assert f"ranks words by the model {model!r}, which is not bundled" in _refused(path)


@pytest.mark.parametrize("name", ["package.module:Class", "https:x", "no such agent", "a/b\x1b[2J"])
def test_a_name_that_no_repository_can_have_is_one_line(name: str) -> None:
    assert "is neither a folder nor a repository" in _refused(name)


@pytest.mark.parametrize("path", ["./mine", "/nowhere/mine", "runs/mine/checkpoint", "~/nowhere"])
def test_a_folder_that_is_not_there_is_said_to_be_no_saved_agent(path: str) -> None:
    assert _refused(path).startswith(f"{path} is not there: name the folder of a saved agent")


def test_a_repository_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
    assert _refused("me/mine").startswith("'me/mine' is neither a folder nor")
