"""Hooks of the website (`make docs`): pages from outside docs/, and links to files that are no pages.

README.md is the first page, the notebook is a page with its stored results, and a link to any other file of the
repository leads to a copy of that file. So the same Markdown can be read on the site and in the repository.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

#: Files outside docs/ that are pages, with their places on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks/benchmarks.md",  # a README would be the index of its section
    "benchmarks/results/report.md": "benchmarks/results/report.md",
    "examples/tour.ipynb": "tour.md",
    "integrations/pmlm_openenv/README.md": "openenv.md",
}
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=notebook(text) if source.endswith(".ipynb") else text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to where their targets are on the site."""
    place = page.file.src_uri
    source = next((ROOT / name for name, own in PAGES.items() if own == place), DOCS / place)

    def moved(link: re.Match[str]) -> str:
        if ":" in link[1]:
            return link[0]
        target = (source.parent / link[1]).resolve()
        target = target / "README.md" if target.is_dir() else target
        return f"]({os.path.relpath(_place(target, config, files), Path(place).parent)}{link[2] or ''})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(moved, part) for part in parts)


def _place(target: Path, config: MkDocsConfig, files: Files) -> str:
    """Return where a file of the repository is on the site, and put a copy there if it is not."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    name = target.relative_to(ROOT).as_posix()
    place = PAGES.get(name, name)
    if files.get_file_from_path(place) is None:
        files.append(File.generated(config, place, abs_src_path=str(target)))
    return place


def notebook(text: str) -> str:
    """Return a notebook as Markdown: its text, its code, and the results that are stored in it."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [_result(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _result(output: dict[str, Any]) -> str:
    """Return a stored result as Markdown: a picture, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Result](data:image/png;base64,{''.join(data['image/png']).strip()})"
    return f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"
