"""The rows of the tables, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.benchmark.config import LLM_IDENTITY

#: The row of the training patients' label frequencies, which are predicted for everybody.
MAJORITY = "majority class"

#: The paper's four time-series models.
SERIES = ("lstm", "cnn", "rocket", "transformer")

#: What a time-series model reads besides zero-padded values.
_SWITCHES = {
    "": {"true_lengths": False, "missingness": False},
    "+lengths": {"true_lengths": True, "missingness": False},
    "+missingness": {"true_lengths": False, "missingness": True},
    "+both": {"true_lengths": True, "missingness": True},
}

#: The row of the paper's own kind of predictor, a language model; it takes hours.
LLM = "lora-llm"

#: Rows besides ``LLM``, each with its predictor and that predictor's arguments.
ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    MAJORITY: (MAJORITY, {}),
    "boosted-trees": ("boosted-trees", {}),
    "logistic": ("logistic", {}),
    **{name + switch: (name, kwargs) for name in SERIES for switch, kwargs in _SWITCHES.items()},
}

#: In table 2: the fine-tuned LLM's own replies to the raw-data prompts.
TUNED = "lora-tuned"

#: Agents that are controls in every table: replies to the pipeline's unedited prompts, and random deletion.
UNEDITED, RANDOM = "keep-all", "random-n"

#: The control whose reply is the untouched prompt.
ECHO = "echo"

#: In influence: the row of the words' effects, and, beside changes of metrics, whether a word changes the reply at all.
WORDS, OTHER_REPLY = "words", "other_reply"

#: In transfer: what names an LLM among the models of a run.
LLM_NAMES = ("llm", LLM_IDENTITY)
