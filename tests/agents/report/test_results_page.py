"""The page of a benchmark, and of experiments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from matplotlib.figure import Figure

from agents.experiments.base import Experiment, run_experiment
from tests.agents.report.runs import benchmark, write
from tests.commands import pmlm


@dataclass(frozen=True)
class Sums(Experiment):
    """An experiment that adds numbers."""

    name: ClassVar[str] = "sums"
    packages: ClassVar[Sequence[str]] = ()

    def cells(self) -> list[dict[str, Any]]:
        return [{"n": n} for n in (1, 2)]

    def run(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        return {"sum": 10 * cell["n"]}

    def table(self, runs: Sequence[Mapping[str, Any]]) -> str:
        rows = [f"| {run['cell']['n']} | {run['result']['sum']} |" for run in runs]
        return "\n".join(["**Sums** of numbers.", "", "| n | sum |", "| --- | ---: |", *rows, ""])

    def figures(self, runs: Sequence[Mapping[str, Any]]) -> Mapping[str, Figure]:
        figure = Figure(figsize=(2, 2))
        figure.subplots().plot([1, 2], [10, 20])
        return {"line": figure}


def _text(page: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page).split())


def test_the_page_of_a_benchmark_has_its_tables_and_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path, benchmark())
    assert pmlm("report", folder) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    rows = [
        line for line in (folder / "report.md").read_text().splitlines() if line.startswith("| ") and "---" not in line
    ]
    assert page.count("<tr>") == len(rows)
    titles = re.findall('<svg[^>]* aria-label="([^"]*)"', page)
    assert len(titles) == 5
    assert "Test delta against budget, with 95 % intervals" in titles
    assert "Benchmark of the agents" in _text(page)


def test_an_experiment_writes_a_page_with_its_table_and_figures(tmp_path: Path) -> None:
    run_experiment(Sums(out=tmp_path))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "n sum 1 10 2 20" in _text(page)
    assert page.count("<figure") == 1
    assert "<strong>Sums</strong> of numbers." in page


def test_experiments_and_a_benchmark_in_one_folder_share_the_page(tmp_path: Path) -> None:
    """Both write to ``results`` by default."""
    run_experiment(Sums(out=tmp_path))
    write(tmp_path, benchmark())
    assert pmlm("report", tmp_path) == 0
    text = _text((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Benchmark of the agents" in text
    assert "n sum 1 10 2 20" in text


def test_experiments_of_the_same_name_are_headed_by_their_folders(tmp_path: Path) -> None:
    for folder in ("small", "large"):
        run_experiment(Sums(out=tmp_path / folder))
    assert pmlm("report", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    names = ["large/sums", "small/sums"]
    assert re.findall('<a href="#([^"]*)">(.*?)</a>', page) == [(name, name) for name in names]
    assert re.findall('<section class="part" id="([^"]*)">', page) == names
    ids = re.findall(' id="([^"]*)"', page)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("env", ["my patients", "größe", "a(b", "a=b+c"])
def test_pictures_of_an_env_with_any_allowed_name_are_on_the_page(tmp_path: Path, env: str) -> None:
    folder = write(tmp_path, [{**line, "env": env} for line in benchmark()])
    assert pmlm("report", folder) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert len(re.findall('<svg[^>]* aria-label="([^"]*)"', page)) == 5
    assert "figures/" not in page
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(re.findall(' id="([^"]*)"', page))


def test_experiments_alone_need_no_runs_of_a_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_experiment(Sums(out=tmp_path))
    (tmp_path / "report.html").unlink()
    capsys.readouterr()
    assert pmlm("report", tmp_path) == 0
    assert capsys.readouterr().out == f"page: {tmp_path / 'report.html'}\n"
    assert not (tmp_path / "report.md").exists()


def test_the_page_goes_where_out_says(tmp_path: Path) -> None:
    run_experiment(Sums(out=tmp_path))
    assert pmlm("report", tmp_path, "--out", tmp_path / "new" / "folder") == 0
    assert (tmp_path / "new" / "folder" / "report.html").is_file()


def test_a_folder_without_results_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("report", tmp_path) == 2
    assert "contains no runs" in capsys.readouterr().err


def test_tables_and_pictures_of_others_bring_no_markup_script_or_link(tmp_path: Path) -> None:
    folder = tmp_path / "sums"
    folder.mkdir()
    (folder / "runs.jsonl").write_text(json.dumps({"cell": {}, "result": {}}) + "\n")
    (folder / "table.md").write_text(
        "<script>alert(1)</script> <img src=x> [there](https://example.org) ![p](https://example.org/a.svg)\n"
        "![up](../secret.svg)\n\n| a |\n| --- |\n| <b>x</b> |\n"
    )
    evil = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" onload="alert(1)">'
        '<style>* {display: none}</style><script>alert(1)</script><a xlink:href="https://example.org"><path/></a>'
        '<image href="https://example.org/a.png"/><foreignObject><p>hi</p></foreignObject><path id="x" d="M1 1"/></svg>'
    )
    (folder / "line.svg").write_text(evil)
    (tmp_path / "secret.svg").write_text(evil.replace("M1 1", "M7 7"))
    assert pmlm("report", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    main = page[page.index("<main") : page.index("</main>")]
    assert set(re.findall(r"<(\w+)", main)) <= set(
        "main h1 h2 section p div table thead tbody tr th td figure figcaption svg path image".split()
    )
    assert "onload" not in main
    assert 'd="M1 1"' in main
    assert "M7 7" not in main
    assert not re.search(r'(href|src)="http', main)
    assert "&lt;script&gt;alert(1)" in main


def test_deleted_words_in_the_table_of_cases_are_struck_out_and_the_page_says_that_it_has_texts(tmp_path: Path) -> None:
    run_experiment(Sums(out=tmp_path))
    assert "contains patients" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    (tmp_path / "sums" / "table.md").write_text("| prompt |\n| --- |\n| Say <del>it</del> &lt;del>now |\n")
    (tmp_path / "sums" / "traces.jsonl").touch()
    assert pmlm("report", tmp_path) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>Say <del>it</del> &lt;del&gt;now</td>" in page
    assert "This page contains patients' texts." in page


def test_a_damaged_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_experiment(Sums(out=tmp_path))
    (tmp_path / "sums" / "line.svg").write_text("<svg")
    assert pmlm("report", tmp_path) == 2
    assert f"{tmp_path / 'sums' / 'line.svg'} is not SVG" in capsys.readouterr().err
