from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import pmlm
from tests.llm.endpoint import Answer, Endpoint, chat, serve


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve() as state:
        yield state


def _doctor(*arguments: str) -> int:
    return pmlm("doctor", *arguments)


def test_it_makes_one_real_call_and_tells_what_came_back(endpoint: Endpoint, capsys: Any) -> None:
    endpoint.script(chat("She helps at births.", model="some-model-2026-01"))
    assert _doctor("--llm", "openai:some-model", "--base-url", endpoint.url) == 0
    said = capsys.readouterr().out
    assert endpoint.n_requests == 1
    assert "openai:some-model answers as some-model-2026-01, in " in said
    assert "12 tokens in, 3 out: 'She helps at births.'" in said


def test_a_reply_that_was_cut_is_a_reply_here_and_it_says_so(endpoint: Endpoint, capsys: Any) -> None:
    endpoint.script(chat("She", "length"))
    assert _doctor("--llm", "openai:m", "--base-url", endpoint.url, "--max-new-tokens", "7") == 0
    assert endpoint.bodies[0]["max_tokens"] == 7
    assert "cut at max_new_tokens=7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer(401, {}), "HTTP 401: check the key"),
        (Answer(404, {}), "HTTP 404: check base_url and the model's name"),
        (chat("", "length"), "the model used all tokens for reasoning and gave no reply"),
        (Answer(429, {"error": {"message": "You have no money left", "code": "insufficient_quota"}}), "no money left"),
    ],
)
def test_what_is_wrong_is_one_line(endpoint: Endpoint, capsys: Any, answer: Answer, message: str) -> None:
    endpoint.script(answer)
    assert _doctor("--llm", "openai:m", "--base-url", endpoint.url) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"pmlm doctor: m at {endpoint.url}: ")
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, {"error": {"message": "Rate limit exceeded: free-models-per-day"}}),
        Answer(500, {"error": {"message": "overloaded"}}),
        Answer(400, {"error": {"message": "Unsupported parameter: max_tokens"}}),
        chat(delivery="reset"),
    ],
    ids=["quota of the day", "overloaded", "refused", "reset"],
)
def test_a_request_that_fails_is_not_repeated_while_a_person_waits(
    endpoint: Endpoint, capsys: Any, answer: Answer
) -> None:
    endpoint.script(answer)
    assert _doctor("--llm", "openai:m", "--base-url", endpoint.url) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert endpoint.n_requests == 1


def test_what_a_server_calls_its_model_cannot_drive_the_terminal(endpoint: Endpoint, capsys: Any) -> None:
    endpoint.script(chat("\x1b[2JEat\u202e well.", model="some\x1b]0;title\x07-\u202emodel"))
    assert _doctor("--llm", "openai:m", "--base-url", endpoint.url) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_a_missing_key_is_named_before_anything_is_sent(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZAI_API_KEY", raising=False)
    assert _doctor("--llm", "zai:glm-4.7") == 1
    assert "put it in the environment variable ZAI_API_KEY" in capsys.readouterr().err


def test_an_unknown_name_tells_those_there_are(capsys: Any) -> None:
    assert _doctor("--llm", "openia:gpt") == 2
    assert "unknown LLM 'openia:gpt'" in (said := capsys.readouterr().err)
    assert "gemini, llama-cpp, ollama, openai, openai-reasoning" in said


def test_a_file_of_providers_adds_to_those_that_are_built_in(endpoint: Endpoint, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(f'[ward7]\nbase_url = "{endpoint.url}"\nextra_body = {{ think = false }}\nsend_seed = false\n')
    assert _doctor("--llm", "ward7:m", "--providers", str(file)) == 0
    assert endpoint.bodies[0]["think"] is False
    assert "seed" not in endpoint.bodies[0]
    assert "ward7:m answers" in capsys.readouterr().out
