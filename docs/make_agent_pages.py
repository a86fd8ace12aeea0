"""Put the settings, results and commands of each agent into docs/agents/<NAME>.md, and a list of all into its README.

Run ``python docs/make_agent_pages.py`` after a change of the registry, of settings, or of the committed benchmark. What
stands before the marks of a page is written by hand.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from docstring_parser import parse

from agents.registry import AGENTS, COMPARED, DEFAULT, class_of, settings_of
from agents.report.tables import table
from pmlm_env.llm import LLMOptions

FOLDER = Path(__file__).resolve().parent / "agents"
COMMAND = "python docs/make_agent_pages.py"
#: The committed benchmark, and the rows to compare an agent with.
REPORT = FOLDER.parents[1] / "benchmarks" / "results" / "report.md"
BESIDE = ("keep-all", "random-n", "single-rule", "echo")

_MARKS = re.compile(r"<!-- made -->.*<!-- end of made -->", re.DOTALL)


def page(name: str, text: str) -> str:
    """Return an agent's page with what is made from code and results between its marks.

    Args:
        name: The agent.
        text: The page as it is.

    Raises:
        ValueError: The page has no marks.
    """
    parts = [
        _facts(name),
        "## Settings",
        _settings(name),
        "## Results",
        *_results(name),
        "## Commands",
        _commands(name),
    ]
    return _between_marks(text, parts, name)


def overview(text: str) -> str:
    """Return the page of all agents, with a row for each: the first paragraph of its page, and what it needs.

    Raises:
        ValueError: The page has no marks.
    """
    rows = []
    for name in AGENTS:
        kind, prose = class_of(name), (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        about = " ".join(prose.split("\n\n")[1].split()).rstrip(".")
        shown = f"**[{name}]({name}.md)**" if name == DEFAULT else f"[{name}]({name}.md)"
        rows.append(f"| {shown} | {about} | {_yes(kind.learns)} | {_yes(kind.needs_embeddings)} |")
    heads = ["| agent | what it is | learns from replies | needs the word encoder |", "|---|---|---|---|"]
    return _between_marks(text, ["\n".join([*heads, *rows])], "README")


def _between_marks(text: str, parts: list[str], name: str) -> str:
    block = "\n\n".join(["<!-- made -->", *parts, "<!-- end of made -->"])
    new, n = _MARKS.subn(lambda _: block, text)
    if n != 1:
        raise ValueError(f"docs/agents/{name}.md has no place for its tables: add <!-- made --><!-- end of made -->")
    return new


def _facts(name: str) -> str:
    kind = class_of(name)
    rows = {
        "class": f"`{kind.__module__}:{kind.__qualname__}`",
        "learns from replies": _yes(kind.learns),
        "results depend on the seed": _yes(kind.seeded),
        "needs the word encoder": _yes(kind.needs_embeddings),
        "settings that `pmlm tune` searches": ", ".join(f"`{each}`" for each in kind.space) or "none",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {head} | {value} |" for head, value in rows.items())])


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _settings(name: str) -> str:
    """Return a table of the agent's settings: option, default, default on PMLMLite-v0 if it differs, meaning."""
    config, lite = settings_of(name), settings_of(name, "lite")
    about = {
        each.arg_name: " ".join((each.description or "").split()).replace("``", "`").replace("|", "\\|")
        for kind in reversed(type(config).__mro__)
        for each in parse(kind.__doc__ or "").params
    }
    rows = []
    for each in fields(config):
        value, other = getattr(config, each.name), getattr(lite, each.name)
        default = _shown(value) + (f" (on Lite {_shown(other)})" if other != value else "")
        rows.append(f"| `--{each.name.replace('_', '-')}` | {default} | {about[each.name]} |")
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) if rows else "It has none."


def _shown(value: Any) -> str:
    if value == LLMOptions.llm:  # it differs where ``$PMLM_DEFAULT_LLM`` is set
        return "the default LLM"
    values = value if isinstance(value, tuple) else (value,)
    return "`" + " ".join(str(each) for each in values) + "`"


def _results(name: str) -> list[str]:
    """Return the agent's rows in the committed tables, with those of some others."""
    lite, real = REPORT.read_text(encoding="utf-8").split("\n## ")[1:]
    llm = _rows(real, "| reply of |", name)
    on_llm = "With the default LLM, 96 test patients ([the whole table](README.md#with-the-default-llm)):"
    on_lite = (
        "On `PMLMLite-v0`, change of F1 in points, 64 test patients ([the whole table](README.md#on-pmlmlite-v0)):"
    )
    played = _rows(lite, "| agent |", name)
    if not (llm or played):
        return ["It was not measured yet."]
    return [
        *([on_llm, llm] if llm else ["With the default LLM it was not measured."]),
        *([on_lite, played] if played else ["On `PMLMLite-v0` it was not measured."]),
    ]


def _rows(section: str, heads: str, name: str) -> str:
    """Return the table that begins with these heads, with the agent's row and some others; "" without the agent."""
    lines = section[section.index(heads) :].partition("\n\n")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    agents = [row[0].partition(",")[0].strip(" *†") for row in rows]
    if name not in agents:
        return ""
    shown = [row for agent, row in zip(agents, rows, strict=True) if agent in (name, *BESIDE)]
    return table(lines[0].strip("| ").split(" | "), shown)


def _commands(name: str) -> str:
    agent = "" if name == DEFAULT else f" --agent {name}"
    lines = [
        f"pmlm train --episodes prepared --run runs/{name}{agent}",
        f"pmlm evaluate --run runs/{name}",
        f"pmlm benchmark --agents {name} --budget 600 2000 10000 --seeds 10",
    ]
    real = f"pmlm benchmark --env real --episodes prepared --agents {name} --budget 300 --seeds 3"
    block = "\n".join(["```bash", *lines, real, "```"])
    return (
        f"{block}\n\n`pmlm simulate` and `pmlm prepare` make the folder `prepared`, as in "
        "[the committed benchmark](../../benchmarks/README.md#agents)"
        f"{f',{chr(10)}whose results are above' if name in COMPARED else ''}."
    )


def pages() -> dict[Path, str]:
    """Return all pages as they should be, by file."""
    made = {FOLDER / f"{name}.md": page(name, (FOLDER / f"{name}.md").read_text(encoding="utf-8")) for name in AGENTS}
    readme = FOLDER / "README.md"
    return {**made, readme: overview(readme.read_text(encoding="utf-8"))}


def main() -> None:
    """Write the pages."""
    for file, text in pages().items():
        file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
