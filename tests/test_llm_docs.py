"""docs/llm: what it names exists, and what it tells people to write is accepted."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from agents.cli.doctor import DoctorConfig
from agents.cli.reading import read
from agents.training.config import TrainConfig
from pmlm_env.llm import Budget, LLMOptions, Price
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.http.providers import _SETTINGS, Provider, load_providers
from pmlm_env.llm.specs import _IN_PROCESS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.once

DOCS = Path(__file__).resolve().parents[1] / "docs" / "llm"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
INDEX = PAGES["README.md"]


def _blocks(language: str) -> list[tuple[str, str]]:
    """Pages and the code blocks of a language in them."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return [
        (page, block) for page, text in PAGES.items() for block in re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def _command_lines() -> Iterator[tuple[str, str]]:
    for page, block in _blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("pmlm "):
                yield page, " ".join(line.split())


COMMANDS = list(_command_lines())
TOMLS = [(page, block, tomllib.loads(block)) for page, block in _blocks("toml")]
PROVIDER_FILES = [(page, block) for page, block, table in TOMLS if any(isinstance(v, dict) for v in table.values())]
BUDGET_FILES = [(page, block) for page, block, table in TOMLS if not any(isinstance(v, dict) for v in table.values())]


def _settings() -> dict[str, str]:
    """The index's table of settings: each setting's default as it stands there."""
    part = INDEX.split("## A providers file")[1]
    return dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", part, re.MULTILINE))


@pytest.mark.parametrize("provider", load_providers().values(), ids=lambda provider: provider.name)
def test_every_provider_is_on_the_index_and_has_a_page_with_its_address_key_and_command(provider: Provider) -> None:
    row = re.search(rf"^\| `{provider.name}:MODEL` \|.*`(\w+)` \| \[.*\]\((.+\.md)\) \|$", INDEX, re.MULTILINE)
    assert row is not None, f"{provider.name} is not on the index"
    variable, page = row.groups()
    assert variable == provider.settings["api_key_env"]
    assert variable in PAGES[page]
    assert provider.settings["base_url"] in PAGES[page]
    assert re.search(rf'^pmlm doctor --llm "?{provider.name}:', PAGES[page], re.MULTILINE)


@pytest.mark.parametrize("kind", _IN_PROCESS)
def test_every_llm_of_this_process_is_on_the_index(kind: str) -> None:
    assert re.search(rf"^\| `{kind}:NAME_OR_(PATH|DIR)` \|.*\.md\) \|$", INDEX, re.MULTILINE)


def test_no_page_is_left_out_of_the_index() -> None:
    pages_of_llms = PAGES.keys() - {"README.md", "prefill.md"}
    assert pages_of_llms == set(re.findall(r"\((\S+\.md)\) \|$", INDEX, re.MULTILINE))


def test_the_index_lists_every_setting_of_a_provider_and_no_other() -> None:
    assert _settings().keys() == _SETTINGS.keys()


@pytest.mark.parametrize("name", _settings())
def test_a_settings_default_is_that_of_the_code(name: str) -> None:
    said = _settings()[name]
    if name in ("base_url", "api_key_env"):  # tests/llm/test_specs.py
        assert said in ("none: write it", "`NAME_API_KEY`")
        return
    provider, chat = Provider("mine", {}), OpenAIChat("some-model")
    default = getattr(provider if hasattr(provider, name) else chat, name)
    said_value = None if said == "none" else tomllib.loads(f"x = {said.strip('`')}")["x"]
    assert said_value == (None if default == () else default)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_house_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        linked = DOCS / (file or page)
        assert linked.is_file(), target
        titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_too_long_to_read(page: str) -> None:
    assert max(map(len, PAGES[page].splitlines())) <= 120


@pytest.mark.parametrize(("page", "block"), PROVIDER_FILES)
def test_a_providers_file_of_the_docs_is_accepted(tmp_path: Path, page: str, block: str) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(block, encoding="utf-8")
    for provider in load_providers(file).values():
        OpenAIChat("some-model", **provider.settings)


@pytest.mark.parametrize(("page", "block"), BUDGET_FILES)
def test_a_budget_file_of_the_docs_is_accepted(tmp_path: Path, page: str, block: str) -> None:
    file = tmp_path / "group.toml"
    file.write_text(block, encoding="utf-8")
    limits = Budget(price=Price(1.0, 1.0), group=file).accounts[1].limits
    assert vars(limits) == tomllib.loads(block)


def test_the_docs_have_files_and_commands_to_test() -> None:
    assert len(PROVIDER_FILES) >= 8
    assert len(BUDGET_FILES) == 1
    assert len(COMMANDS) >= 30


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_line_of_the_docs_is_understood(page: str, line: str) -> None:
    _, command, *rest = shlex.split(line, comments=True)
    config = read(command, import_module(f"agents.cli.{command}").Config, rest)
    options = config.models if isinstance(config, TrainConfig) else config
    llm = getattr(options, "llm", None)
    if isinstance(options, LLMOptions | DoctorConfig) and llm is not None:
        kind, _, model = llm.partition(":")
        assert model
        own = f"class {model}(LLM)" in PAGES[page]
        assert (
            kind in {*_IN_PROCESS, *load_providers()}
            or own
            or (options.providers is not None and f"[{kind}]" in PAGES[page])
        )


@pytest.mark.parametrize(("page", "block"), _blocks("python"))
def test_the_python_of_the_docs_compiles(page: str, block: str) -> None:
    compile(block, page, "exec")


def test_the_llm_of_ones_own_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = (block for page, block in _blocks("python") if page == "README.md" and "(LLM)" in block)
    exec(compile(block, "README.md", "exec", dont_inherit=True), {"__name__": "an_llm_of_ones_own"})
    assert capsys.readouterr().out == "DRINK WATER.\n"
