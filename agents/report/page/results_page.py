"""The page of results: ``report.html`` of a benchmark or of experiments, made from their tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup

from agents.report.page.html import page
from agents.report.page.svg import inline
from agents.report.results import experiment_tables
from pmlm_env.io.files import make_folder, write


def write_results_page(results: Path, out: Path) -> Path:
    """Write ``report.html`` from what is in a folder of results, and return its path; only its owner can read it.

    Args:
        results: The folder with the tables and figures of experiments.
        out: The folder for the page, with the ``report.md`` of a benchmark if there is one.

    Raises:
        ValueError: A figure is damaged.
        OSError: A file cannot be read or written.
    """
    parts: list[dict[str, Any]] = []
    if (report := out / "report.md").is_file():
        parts.append(_part("benchmark", "Benchmark", report, []))
    tables = experiment_tables(results)
    shared = Counter(table.parent.name for table in tables)
    for table in tables:
        folder = table.parent
        # Of several experiments with the same name, such as of several models, the folders tell which is which.
        name = folder.relative_to(results).as_posix() if shared[folder.name] > 1 else folder.name
        parts.append(_part(name, name, table, sorted(folder.glob("*.svg"))))
    has_texts = any(table.with_name("traces.jsonl").is_file() for table in tables)
    make_folder(out)
    write(
        path := out / "report.html",
        page("results.html", title=out.resolve().name, parts=parts, has_texts=has_texts),
    )
    return path


def _part(name: str, title: str, file: Path, pictures: Sequence[Path]) -> dict[str, Any]:
    """Return a section of the page: the Markdown of a file, and pictures that it does not show itself."""
    text = file.read_text(encoding="utf-8", errors="replace")
    first, _, rest = text.partition("\n")
    if first.startswith("# "):  # the page has a title of its own for each section
        title, text = first[2:], rest
    body = Markup(_markdown(file.parent, name).render(text))
    drawn = [(picture.stem, _picture(picture, name, picture.stem)) for picture in pictures]
    return {"id": name, "title": title, "body": body, "figures": drawn}


def _markdown(folder: Path, name: str) -> MarkdownIt:
    """Return a renderer of our own Markdown; others may write it, so HTML but <del> and links stay text."""

    def image(
        self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        path = folder / unquote(str(tokens[i].attrs["src"]))
        if path.suffix != ".svg" or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            return str(Markup.escape(tokens[i].content))
        return str(_picture(path, name, tokens[i].content))

    def html(
        self: RendererHTML, tokens: Sequence[Token], i: int, options: OptionsDict, env: MutableMapping[str, Any]
    ) -> str:
        content = tokens[i].content
        return content if content in ("<del>", "</del>") else str(Markup.escape(content))

    def opened(*_: Any) -> str:
        return '<div class="card scroll"><table class="sortable">'

    def closed(*_: Any) -> str:
        return "</table></div>"

    markdown = MarkdownIt("commonmark", {"html": True}).enable("table").disable(["link", "autolink"])
    rules: Mapping[str, Any] = {
        **{"image": image, "html_inline": html, "html_block": html},
        **{"table_open": opened, "table_close": closed},
    }
    for rule, function in rules.items():
        markdown.add_render_rule(rule, function)
    return markdown


def _picture(path: Path, name: str, title: str) -> Markup:
    """Return a picture as an element of the page.

    Raises:
        ValueError: The file is no SVG.
    """
    try:
        return inline(path.read_text(encoding="utf-8", errors="replace"), f"{name}-{path.stem}", title)
    except ValueError as error:
        raise ValueError(f"{path} is not SVG ({error}): remove it, and make it again") from None
