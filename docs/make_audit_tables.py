"""Put the audits in docs/results/audit into docs/rewards.md, between its marks.

Run ``python docs/make_audit_tables.py``. New audits: the ``--out`` of ``pmlm audit``, named REWARD_LLM.json, with
_TEMPLATE or _SPLIT where it is another than usual.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agents.evaluation.adversaries import CEILINGS, JUDGED
from agents.evaluation.audit_report import UNTOUCHED
from agents.evaluation.variants import COLUMNS, cell
from agents.report.tables import table

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "rewards.md"


def page(text: str) -> str:
    """Return the page with the tables.

    Args:
        text: The page as it is.

    Raises:
        ValueError: The page has no place for them.
    """
    files = sorted((FOLDER / "results" / "audit").glob("*.json"))
    audits = {file.stem.replace("_", ", "): json.loads(file.read_text(encoding="utf-8")) for file in files}
    llms = {audit["models"]["llm"]: audit for name, audit in audits.items() if name.count(", ") == 1}
    parts = [_earnings(audits), *(_components(llm, audit) for llm, audit in sorted(llms.items()))]
    block = "\n\n".join(["<!-- audits -->", *parts, "<!-- end of audits -->"])
    new, n = re.subn(r"<!-- audits -->.*<!-- end of audits -->", lambda _: block, text, flags=re.DOTALL)
    if n != 1:
        raise ValueError(f"{PAGE} has no place for audits: add <!-- audits --><!-- end of audits -->")
    return new


def _earnings(audits: dict[str, Any]) -> str:
    """Return what texts earn in each audit, in points."""
    rows = [[name, *(_earned(audit, name) for audit in audits.values())] for name in JUDGED]
    rows += [[f"*{name}*", *(_earned(audit, name) for audit in audits.values())] for name in CEILINGS]
    verdict = ["", *("failed" if audit["winners"] else "**passed**" for audit in audits.values())]
    return table(["text", *audits], [*rows, verdict])


def _earned(audit: dict[str, Any], name: str) -> str:
    earns = audit["texts"][name]["earns"]
    low, high = earns["ci95"]
    text = f"{100 * earns['mean']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    return f"**{text}**" if name in audit["winners"] else text


def _components(llm: str, audit: dict[str, Any]) -> str:
    """Return what the texts of an audit are like; the searched ones depend on the reward, and are left out."""
    columns = [column for column in COLUMNS if column[0] not in ("bleu4", "rougeL")]
    rows = [
        [name, *(cell(audit["texts"][name]["components"][metric], *form) for metric, _, *form in columns)]
        for name in (UNTOUCHED, *JUDGED, *CEILINGS)
        if name not in ("best-text", "best-ending")
    ]
    return table([f"`{llm}`", *(head for _, head, _, _ in columns)], rows)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
