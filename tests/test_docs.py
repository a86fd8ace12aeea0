from __future__ import annotations

import json
import re
from pathlib import Path

import gymnasium as gym
import pytest

import pmlm_env  # noqa: F401  # registers the environments
from tests.scripts import load_script

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
# Those of gymnasium/envs/toy_text/taxi.py.
HEADINGS = [
    "Description", "Action Space", "Observation Space", "Starting State", "Rewards", "Episode End", "Information",
    "Arguments", "References", "Version History",
]  # fmt: skip


SCRIPT = load_script(ROOT / "docs" / "make_env_pages.py")
PAGES: dict[str, str] = SCRIPT.pages()


def test_committed_pages_are_those_the_script_makes() -> None:
    assert not SCRIPT.differing(), f"pages in docs/environments differ from the docstrings: run `{SCRIPT.COMMAND}`"


def test_every_registered_environment_has_a_page() -> None:
    ours = {env_id for env_id in gym.registry if env_id.startswith("PMLM")}
    assert "PMLM-v0" in ours
    assert ours <= PAGES.keys()


@pytest.mark.parametrize("env_id", PAGES)
def test_a_docstring_has_the_headings_of_gymnasium(env_id: str) -> None:
    assert re.findall(r"^## (.+)$", PAGES[env_id], re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("env_id", PAGES)
def test_a_page_opens_with_its_id_and_says_where_to_edit(env_id: str) -> None:
    entry_point = gym.spec(env_id).entry_point
    assert PAGES[env_id].startswith(f"# {env_id}\n")
    assert f"Made from the docstring of `{entry_point}`" in PAGES[env_id]


def test_a_changed_missing_or_left_over_page_is_found(tmp_path: Path) -> None:
    for env_id, text in PAGES.items():
        (tmp_path / f"{env_id}.md").write_text(text, encoding="utf-8")
    assert SCRIPT.differing(tmp_path) == []
    (tmp_path / "PMLM-v0.md").write_text(PAGES["PMLM-v0"] + "more", encoding="utf-8")
    (tmp_path / "PMLMOld-v0.md").write_text("", encoding="utf-8")
    assert SCRIPT.differing(tmp_path) == ["PMLM-v0", "PMLMOld-v0"]
    (tmp_path / "PMLM-v0.md").unlink()
    assert "PMLM-v0" in SCRIPT.differing(tmp_path)


def _anchors(page: Path) -> set[str]:
    """The names by which a page's headings can be linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if path.startswith("http"):
            continue
        target = (page.parent / path).resolve() if path else page.resolve()
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_the_table_of_retrievers_is_the_measured_one_and_their_peers_are_the_same() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "retrieval.json").read_text(encoding="utf-8"))
    table = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for each in measured:
        seconds = f"{each['seconds']:.2f}" if each["seconds"] < 10 else f"{each['seconds']:.0f}"
        cells = (f"{each['patients']:,}", f"`{each['retriever']}`", seconds, f"{each['alone_milliseconds']:.2f}")
        assert f"| {' | '.join(cells)} | {each['peak_mib']:.0f} |" in table
    assert len({(each["patients"], each["peers"]) for each in measured}) == 3
