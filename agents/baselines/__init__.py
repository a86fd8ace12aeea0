"""What learning is compared with: controls, filters, and searches of one prompt or of a whole task."""

from agents.baselines.controls import KeepAll, RandomN, RandomP
from agents.baselines.self_information import SelfInformation
from agents.baselines.single_rule import SingleRule
from agents.baselines.task_search import TaskGenetic, TaskGrips
from agents.search.base import Candidate, EditablePrompt, Search, run
from agents.search.oracle import SEARCHES, Refinement, search_prompts

__all__ = [
    "SEARCHES",
    "Candidate",
    "EditablePrompt",
    "KeepAll",
    "RandomN",
    "RandomP",
    "Refinement",
    "Search",
    "SelfInformation",
    "SingleRule",
    "TaskGenetic",
    "TaskGrips",
    "run",
    "search_prompts",
]
