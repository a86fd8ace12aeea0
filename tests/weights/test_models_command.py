"""``pmlm models``, and what ``pmlm doctor`` says of the models."""

from __future__ import annotations

import pytest

from agents.cli import doctor
from pmlm_env.weights import BUNDLED, fetching, resolve
from pmlm_env.weights import bundled as weights
from tests.commands import pmlm
from tests.weights.index import Index


def test_an_unknown_name_is_one_line_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("models", "--fetch", "nowhere") == 2
    assert capsys.readouterr().err == (
        f"pmlm models: unknown model 'nowhere': the bundled models are {', '.join(BUNDLED)}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ([], None),
        (["--fetch"], ["minilm", "smollm2-135m"]),
        (["--fetch", "minilm", "qwen2.5-coder-0.5b"], ["minilm", "qwen2.5-coder-0.5b"]),
    ],
)
def test_fetch_without_a_name_gets_the_small_ones(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], got: list[str] | None
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(fetching, "_make_ready", lambda name, download_missing: fetched.append(name))
    assert pmlm("models", *arguments) == 0
    assert fetched == (got or [])


def test_models_are_listed_with_their_state(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.describe("tiny").endswith("not downloaded: run `pmlm models --fetch tiny` (0 MB)")
    index.model.path.parent.mkdir(parents=True)
    index.model.path.write_bytes(index.content)
    assert "downloaded, not unpacked" in weights.describe("tiny")
    there = resolve("tiny")
    assert weights.describe("tiny").endswith(f"ready in {there}")


@pytest.mark.parametrize(
    ("ready", "commands"),
    [
        ({"minilm", "smollm2-135m"}, []),
        ({"minilm", "qwen2.5-coder-1.5b"}, []),
        ({"minilm"}, ["pmlm models --fetch smollm2-135m"]),
        ({"smollm2-135m"}, ["pmlm models --fetch minilm"]),
    ],
)
def test_an_encoder_and_any_llm_are_enough(
    monkeypatch: pytest.MonkeyPatch, ready: set[str], commands: list[str]
) -> None:
    monkeypatch.setattr(doctor, "state", lambda name: "ready" if name in ready else "downloaded")
    assert [line.split("`")[1] for line in doctor._needed()] == commands
