"""A run folder may come from a stranger: it does not decide alone where prompts and keys go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm.responder import Responder
from tests.commands import pmlm
from tests.llm.endpoint import KEY, Endpoint, chat, serve
from tests.real.runs import options, prepare, small_bert

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.usefixtures("hashed_sentences", "no_figures")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        server.answer = lambda count, prompt: chat(Responder().generate([prompt])[0].text)
        yield server


@pytest.fixture(scope="module")
def trained(endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates, whose replies came from an address of its own; not to be changed."""
    work = tmp_path_factory.mktemp("work")
    train = ["--episodes", prepare(work / "prepared"), "--run", work / "run", *options(), "--budget", 12]
    assert pmlm("train", *train, "--llm", "openai:m", "--base-url", endpoint.url) == 0
    return work / "run"


@pytest.fixture
def run(trained: Path) -> Path:
    copy = trained.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    return shutil.copytree(trained, copy)


def change(run: Path, **models: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    config["settings"]["models"] |= models
    (run / "config.json").write_text(json.dumps(config))


def command(name: str, run: Path) -> list[object]:
    out, asking = run.parent / "refined.jsonl", ["--encoder", small_bert(), "--reply"]
    return {
        "evaluate": ["evaluate", "--run", run],
        "train": ["train", "--run", run, "--resume", "--budget", 20],
        "refine": ["refine", "--model", run, "--episodes", run.parent / "prepared", "--out", out, *asking],
    }[name]


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """What a command says in one line of what it refuses."""
    capsys.readouterr()
    assert pmlm(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix(f"pmlm {arguments[0]}: ")


@pytest.mark.parametrize("name", ["evaluate", "train", "refine"])
def test_an_address_that_only_the_run_names_gets_nothing_until_it_is_given_again(
    name: str, run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    before = endpoint.n_requests
    assert refused(capsys, *command(name, run)) == (
        f"{run / 'config.json'} changes where or how the prompts and the key for its LLM are sent, and a run folder "
        f"may come from somebody else: nothing was sent. If you trust it, add --base-url {endpoint.url}"
    )
    assert endpoint.n_requests == before
    assert pmlm(*command(name, run), "--base-url", endpoint.url) == 0
    assert endpoint.n_requests > before


@pytest.mark.parametrize("name", ["evaluate", "train", "refine"])
@pytest.mark.parametrize("llm", ["openai:m", "mine:m"])
def test_a_providers_file_that_only_the_run_names_says_no_more_than_limits_and_prices(
    llm: str, name: str, run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = llm.partition(":")[0]
    file = run / "providers.toml"
    file.write_text(f'[{provider}]\nbase_url = "{endpoint.url}"\napi_key_env = "OPENAI_API_KEY"\n')
    change(run, llm=llm, base_url=None, providers="providers.toml")
    before = endpoint.n_requests
    assert refused(capsys, *command(name, run)).endswith(f"If you trust it, add --providers {file}")
    assert endpoint.n_requests == before
    assert pmlm(*command(name, run), "--providers", file) == 0
    assert endpoint.n_requests > before


@pytest.mark.parametrize(
    "setting", ['headers = { x-more = "env:HOME" }', 'api_key_env = "HOME"', "extra_body = {a = 1}"]
)
def test_a_run_does_not_decide_what_is_sent_with_the_prompts(
    setting: str, run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "providers.toml").write_text(f"[openai]\n{setting}\n")
    change(run, providers="providers.toml")
    before = endpoint.n_requests
    said = refused(capsys, *command("evaluate", run), "--base-url", endpoint.url)
    assert said.endswith(f"If you trust it, add --providers {run / 'providers.toml'}")
    assert endpoint.n_requests == before


def test_limits_and_prices_of_the_run_need_not_be_given_again(run: Path, endpoint: Endpoint) -> None:
    (run / "providers.toml").write_text("[openai]\nconcurrency = 2\n[openai.prices.m]\nprompt = 1\ncompletion = 1\n")
    change(run, providers="providers.toml")
    assert pmlm(*command("train", run), "--base-url", endpoint.url) == 0
    assert json.loads((run / "spent.json").read_text())["cost"] > 0


def test_kept_replies_are_evaluated_without_the_address(run: Path, endpoint: Endpoint) -> None:
    evaluate = command("evaluate", run)
    assert pmlm(*evaluate, "--base-url", endpoint.url) == 0
    first, before = (run / "evaluation.json").read_text(), endpoint.n_requests
    assert pmlm(*evaluate, "--replay") == 0
    assert (run / "evaluation.json").read_text() == first
    assert endpoint.n_requests == before


def test_a_run_is_evaluated_with_replies_from_the_address_that_it_was_trained_with(
    run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    before = endpoint.n_requests
    other = "http://127.0.0.1:9/v1"
    assert refused(capsys, *command("evaluate", run), "--base-url", other) == (
        f"--base-url {other} is not the address that {run / 'config.json'} has: give that one"
    )
    assert endpoint.n_requests == before


def test_the_next_command_has_what_must_be_given_again(
    run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pmlm(*command("train", run), "--base-url", endpoint.url) == 0
    assert f"Next: pmlm evaluate --run {run} --base-url {endpoint.url}\n" in capsys.readouterr().out


def test_an_address_in_a_settings_file_that_the_user_names_counts_as_given(run: Path, endpoint: Endpoint) -> None:
    settings = run.parent / "settings.toml"
    settings.write_text(f'base-url = "{endpoint.url}"\n')
    assert pmlm(*command("evaluate", run), "--config", settings) == 0
    assert pmlm(*command("train", run), "--config", settings) == 0


def test_several_endpoints_that_only_the_run_names_get_nothing_until_they_are_given_again(
    run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "providers.toml"
    file.write_text(f'[[openai.endpoints]]\nbase_url = "{endpoint.url}"\n')
    change(run, llm="openai:m", base_url=None, providers="providers.toml")
    before = endpoint.n_requests
    said = refused(capsys, *command("evaluate", run))
    assert said.endswith(f"If you trust it, add --providers {file}")
    assert endpoint.n_requests == before


@pytest.mark.parametrize("name", ["evaluate", "train", "refine"])
def test_a_server_for_replies_that_only_the_run_names_gets_nothing_until_it_is_given_again(
    name: str, run: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "postgresql://me@127.0.0.1:1/replies"
    content = json.loads((run / "config.json").read_text())
    content["settings"]["calls"]["cache"] = url
    (run / "config.json").write_text(json.dumps(content))
    before = endpoint.n_requests
    said = refused(capsys, *command(name, run), "--base-url", endpoint.url)
    assert said.endswith(f"nothing was sent. If you trust it, add --cache {url}")
    capsys.readouterr()
    if name != "refine":  # which may use another cache
        assert pmlm(*command(name, run), "--base-url", endpoint.url, "--cache", url) == 1
        assert "127.0.0.1:1/replies cannot be reached" in capsys.readouterr().err  # it tried
    assert endpoint.n_requests == before
