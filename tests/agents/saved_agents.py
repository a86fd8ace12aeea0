"""Load each agent in a folder, refine new prompts, and print the edits as JSON; run in a separate process.

Usage: python -m tests.agents.saved_agents FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agents.base import Agent
from agents.registry import load
from tests.problems import make_problem


def edits_of_new_prompts(agent: Agent) -> list[list[list[Any]]]:
    """The edits of prompts that no agent was fitted on, as JSON has them."""
    edits = agent.refine(make_problem(judged=False, decoys=True, n=16, seed=5))
    return [[[each.operation, each.slot, each.word, each.probability] for each in own] for own in edits]


if __name__ == "__main__":
    print(
        json.dumps(
            {
                path.name: edits_of_new_prompts(load(path, allow_import=True))
                for path in sorted(Path(sys.argv[1]).iterdir())
            }
        )
    )
