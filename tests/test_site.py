"""The website is built without a warning and without the network, and leads nowhere else to show a page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agents.registry import AGENTS
from tests.pages import ROOT
from tests.scripts import load_script

pytest.importorskip("material", reason="needs the extra docs: pip install --editable '.[docs]'")
pytestmark = pytest.mark.once

#: `mkdocs build`, with sockets that connect to nothing.
BUILD = """
import socket, sys
def refuse(self, address):
    raise AssertionError(f"the build connects to {address}")
socket.socket.connect = socket.socket.connect_ex = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--site-dir", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


class _Page(HTMLParser):
    """What a page loads when it is shown, and its text outside code."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text, self._inside = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "prefetch"):
            self.loads.append(values["href"])
        self.loads += [values["src"]] if "src" in values else []
        self._inside += tag in ("code", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside else data


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, _Page]:
    """The site's pages, read, by their paths."""
    read = {}
    for file in sorted(site.rglob("*.html")):
        read[str(file.relative_to(site))] = page = _Page()
        page.feed(file.read_text(encoding="utf-8"))
    return read


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[str, _Page]) -> None:
    assert len(pages) > 60
    for name, page in pages.items():
        assert page.loads, name
        for source in page.loads:
            assert not re.match(r"(\w+:)?//", source), f"{name} loads {source}"
            path = source.partition("?")[0]
            assert source.startswith(("data:", "/")) or (site / name).parent.joinpath(path).exists(), (name, source)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(\w+:)?//|@import", style.read_text(encoding="utf-8")), style


def test_no_markdown_is_left_as_it_was_written(pages: dict[str, _Page]) -> None:
    """Python-Markdown wants an empty line before a list or table, and four spaces before what is inside an item."""
    for name, page in pages.items():
        assert not re.search(r"\n- |\|\s*-{3}|\]\(|```|<!--", page.text), name


def test_readme_is_the_first_page_with_its_picture(site: Path, pages: dict[str, _Page]) -> None:
    assert "images/method.svg" in pages["index.html"].loads
    assert (site / "images" / "method.svg").exists()


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_has_a_page_in_the_navigation(name: str, site: Path) -> None:
    assert (site / "agents" / f"{name}.html").exists()
    assert f'href="agents/{name}.html"' in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("envs", "pmlm_env.envs.prompt_edit.PMLMEnv.step"),
        ("cohort", "pmlm_env.cohort.sources.tables.read_cohort"),
        ("pipeline", "pmlm_env.pipeline.fitted.Pipeline.prompt_for"),
        ("rewards", "pmlm_env.rewards.guarded.GuardedSettings"),
        ("llm", "pmlm_env.llm.base.LLM"),
        ("agents", "agents.base.Agent.refine"),
        ("evaluation", "pmlm_env.core.traces.Trace"),
        ("experiments", "agents.experiments.base.Experiment"),
    ],
)
def test_the_reference_has_what_people_import(page: str, name: str, site: Path) -> None:
    assert f'id="{name}"' in (site / "api" / f"{page}.html").read_text(encoding="utf-8")


def test_a_link_to_a_file_that_is_no_page_leads_to_a_copy(site: Path) -> None:
    copy = site / "examples" / "cleanrl_ppo.py"
    assert copy.read_bytes() == (ROOT / "examples" / "cleanrl_ppo.py").read_bytes()
    assert 'href="examples/cleanrl_ppo.py"' in (site / "rl-libraries.html").read_text(encoding="utf-8")


def test_the_notebook_is_a_page_with_its_results(pages: dict[str, _Page]) -> None:
    assert any(source.startswith("data:image/png") for source in pages["tour.html"].loads)


def test_the_pages_of_agents_are_those_that_the_script_makes() -> None:
    script = load_script(ROOT / "docs" / "make_agent_pages.py")
    for file, text in script.pages().items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name} is out of date: run `{script.COMMAND}`"


def test_the_notebook_prints_what_is_stored_in_it() -> None:
    pytest.importorskip("nbclient")
    import nbformat

    script = load_script(ROOT / "docs" / "run_notebook.py")
    stored, fresh = nbformat.read(script.NOTEBOOK, as_version=4), script.fresh_run()

    def printed(notebook: nbformat.NotebookNode) -> list[str]:
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        return [output.get("text", "a picture") for output in outputs]

    assert printed(fresh) == printed(stored), "run `python docs/run_notebook.py`"
    assert "best possible" in "".join(printed(stored))
