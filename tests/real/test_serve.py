"""Against a server that nobody here wrote: ``transformers serve`` with the bundled LLM, in float32."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.core.edits import EditRules
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.core.task import EditTask
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv
from pmlm_env.llm import LLM, Budget, Completion, LLMError, LLMOptions, Request, load_llm
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.pipeline import demo_episodes
from pmlm_env.rewards.bertscore import BertScorer, BertScoreReward
from pmlm_env.rewards.delta import DeltaReward
from pmlm_env.weights import DEFAULT_LLM, resolve

pytestmark = pytest.mark.real

MAX_TOKENS = 8


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for module in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(module, reason="needs the server's packages: pip install 'pmlm-env[dev]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [
        sys.executable, "-m", "transformers.cli.transformers", "serve", resolve(DEFAULT_LLM), "--host", "127.0.0.1",
        "--port", str(port), "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    with log.open("w") as out:
        server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=out, stderr=out)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the weights are there."""
    for _ in range(1500):
        if server.poll() is not None:
            break
        try:
            if httpx.get(health, timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")


def _served(url: str, model: str | None = None, budget: Budget | None = None) -> LLM:
    model = model or resolve(DEFAULT_LLM)
    options = LLMOptions(f"transformers-serve:{model}", url, max_new_tokens=MAX_TOKENS, on_truncated="keep")
    return load_llm(options, budget=budget)


def _here() -> LocalLLM:
    return LocalLLM(max_new_tokens=MAX_TOKENS, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def episodes() -> EpisodeSet:
    return EpisodeSet(list(demo_episodes().of("train"))[:4])


def test_it_says_what_the_local_llm_says_in_the_order_of_the_prompts(url: str, episodes: EpisodeSet) -> None:
    prompts = [episode.prompt for episode in episodes]
    budget = Budget()
    theirs, ours = _served(url, budget=budget).generate(prompts), _here().generate(prompts)
    assert [reply.text for reply in theirs] == [reply.text for reply in ours]
    assert [reply.prompt_tokens for reply in theirs] == [reply.prompt_tokens for reply in ours]
    assert (budget.usage.calls, budget.usage.prompt_tokens) == (4, sum(reply.prompt_tokens for reply in theirs))


def test_a_training_update_over_http_gives_the_rewards_of_one_in_this_process(url: str, episodes: EpisodeSet) -> None:
    encoder, scorer = WordEncoder(device="cpu"), BertScoreReward(BertScorer(device="cpu"))
    config = ReinforceConfig(patients=2, rollouts=2)
    updates, weights = [], []
    for llm in (_served(url), _here()):
        task = EditTask(episodes, encoder, DeltaReward(episodes, llm, scorer), EditRules(n_edits=4))
        env = PMLMVectorEnv(4, autoreset_mode="Disabled", array_type="torch", task=task)
        torch.manual_seed(0)
        trainer = Reinforce(WordPolicy(PolicyConfig(encoder.hidden_size, 128, 32)), env, config, seed=0)
        updates.append(trainer.update())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trainer.policy.parameters()]))
    np.testing.assert_array_equal(updates[0].deltas, updates[1].deltas)
    assert updates[0].deltas.std() > 0
    assert torch.equal(*weights)


def test_its_errors_are_told_in_one_line(url: str) -> None:
    (reply,) = _served(url, model="no-such-model").ask([Request("Hello")])
    assert isinstance(reply, LLMError)
    assert "no-such-model at http://127.0.0.1" in str(reply)
    assert "HTTP 400" in str(reply)
    assert "\n" not in str(reply)


def test_a_lone_reply_counts_its_tokens(url: str) -> None:
    (reply,) = _served(url).generate(["Name one fruit."])
    assert isinstance(reply, Completion)
    assert 0 < reply.completion_tokens <= MAX_TOKENS
    assert reply.model
