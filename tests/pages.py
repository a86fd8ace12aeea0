"""The pages of the documents, and what stands in their code blocks."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: All pages by their names, such as "docs/llm/README.md".
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}


def blocks(page: str, language: str) -> list[str]:
    """Return a page's code blocks of a language, without the indentation of those in lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def block(page: str, language: str, after: str) -> str:
    """Return the first code block of a language that stands after a text of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page].partition(after)[2], re.DOTALL | re.MULTILINE)[0]
