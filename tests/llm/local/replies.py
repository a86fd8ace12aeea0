"""What a model of a few thousand weights replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.llm.local.local_llm import LocalLLM

PROMPT = "What is it?"


def ask(folder: Path | str, prompt: str = PROMPT, **settings: Any) -> Reply:
    llm = LocalLLM(str(folder), **{"max_new_tokens": 80, "device": "cpu", "dtype": torch.float32, **settings})
    return llm.ask([Request(prompt)])[0]


def error_of(folder: Path | str, **settings: Any) -> str:
    with pytest.raises(LLMError) as caught:
        ask(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def text_of(reply: Reply) -> str:
    return reply.text if isinstance(reply, Completion) else str(reply)
