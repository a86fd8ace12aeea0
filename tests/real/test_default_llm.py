"""Whether the default LLM writes better letters than replies that need no LLM."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from agents.evaluation.controls import control_replies
from agents.evaluation.metrics import ReplyMetrics
from agents.problem import blind
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.pipeline import demo_episodes
from pmlm_env.rewards.bertscore import BertScorer
from pmlm_env.weights import BUNDLED, describe, state

pytestmark = [pytest.mark.once, pytest.mark.real, pytest.mark.large]

N_EACH = 12


@pytest.fixture(scope="module")
def default_llm() -> str:
    """The default of a user, who has no ``$PMLM_DEFAULT_LLM`` as the tests do."""
    code = "from pmlm_env.weights import DEFAULT_LLM; print(DEFAULT_LLM)"
    env = {name: value for name, value in os.environ.items() if name != "PMLM_DEFAULT_LLM"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    return out.stdout.strip()


def test_the_default_llm_beats_echo_facts_and_label_on_f1_and_the_echo_on_margin(default_llm: str) -> None:
    """On training and validation patients, with the default template; docs/templates.md has more of them."""
    assert default_llm in BUNDLED
    if state(default_llm) == "missing":
        pytest.skip(f"{default_llm} is the default LLM: {describe(default_llm)}")
    episodes = demo_episodes()
    training = episodes.of("train")
    chosen = EpisodeSet([*list(training)[:N_EACH], *list(episodes.of("validation"))[:N_EACH]])
    assert len(chosen) == 2 * N_EACH
    scorer = BertScorer()
    prompts = [episode.prompt for episode in chosen]
    said = control_replies(blind(chosen), training, scorer.f1)
    said = {name: said[name] for name in ("echo", "facts", "label")}
    said["llm"] = [reply.text for reply in LocalLLM(default_llm).generate(prompts)]
    metrics = ReplyMetrics(chosen, training, scorer)
    f1, margin = (
        {name: float(np.mean(metrics(replies, prompts)[metric])) for name, replies in said.items()}
        for metric in ("bertscore_f1", "margin")
    )
    assert f1["llm"] > max(f1["echo"], f1["facts"], f1["label"]), f1
    assert margin["llm"] > margin["echo"], margin
