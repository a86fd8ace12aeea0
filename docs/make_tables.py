"""Put the tables and figures of the runs in docs/results/NAME into docs/experiments.md, between their marks.

Run ``python docs/make_tables.py``. New runs: ``pmlm experiment NAME --out docs/results``, or copy their files.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from agents.experiments import EXPERIMENTS

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "experiments.md"


def page(text: str) -> str:
    """Return the page with tables and figures between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    Args:
        text: The page as it is.

    Raises:
        ValueError: The page lacks an experiment's marks.
    """
    for file in sorted((FOLDER / "results").glob("*/runs.jsonl")):
        name = file.parent.name
        runs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        figures = "".join(f"\n![{f.stem}](results/{name}/{f.name})\n" for f in sorted(file.parent.glob("*.svg")))
        table = EXPERIMENTS.find(name)(out=FOLDER / "results").table(runs)
        block = f"<!-- {name} -->\n\n{table}{figures}\n<!-- end of {name} -->"
        text, n = re.subn(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _, new=block: new, text, flags=re.DOTALL)
        if n != 1:
            raise ValueError(f"{PAGE} has no place for the tables of {name}: add <!-- {name} --><!-- end of {name} -->")
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
