"""Everything that computes does so on a GPU; where there is none, on one that is pretended.

To run it on a GPU, call ``pytest tests/gpu_checks.py`` in the repository's folder: where torch sees a GPU, it uses the
first one, and skips the test of the pretended one. It needs the bundled MiniLM, which is downloaded at its first use.
``test_gpu.py`` does the same in a process of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version

from agents.base import Agent
from agents.policies.agent import PolicyAgent
from agents.policy_gradient.agent import NetworkAgent
from agents.policy_gradient.config import NetworkConfig
from agents.problem import BudgetSpentError
from agents.registry import load, make, settings_of
from pmlm_env.device import choose_device
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.encoders.once import OnceEncoder
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.rewards.bertscore import BertScorer
from tests.llm.tiny_llms import tiny_model
from tests.pretend_gpu import pretend_gpu
from tests.problems import N_EDITS, make_problem, slots_of
from tests.standins import FORM

OURS = ["lexicon", "leave-one-out", "actor-critic", "reinforce", "sparsemax", "q-dqn", "q-soft"]
SB3 = ["maskable-ppo", "a2c", "dqn"]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    if torch.cuda.is_available():
        yield torch.device("cuda:0")
        return
    with pretend_gpu() as device:
        for module in ("pmlm_env.encoders.bert", "pmlm_env.llm.local.local_llm", "pmlm_env.rewards.bertscore"):
            chosen = {str(device): device, "cpu": torch.device("cpu")}
            monkeypatch.setattr(f"{module}.choose_device", chosen.__getitem__)
        yield device


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a real GPU")
def test_the_pretended_gpu_takes_no_tensor_of_the_cpu_and_gives_none_away() -> None:
    with pretend_gpu() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert (there + 1).device == torch.tensor([1.0], device=device).device == device
        assert (there + there).tolist() == (there.cpu() + here).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match="bring them to one device"):
            there + here
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="wrong size"):
            torch.Generator(device).set_state(torch.Generator().get_state())
    with pytest.raises(NotImplementedError):
        torch.ones(3, device=device)


def _fitted(kind: str, device: torch.device | str) -> Agent:
    few = {"gradient_steps": 2} if kind.startswith("q-") else {}  # on a pretended GPU each one takes long
    few |= {"learning_starts": 20} if kind == "dqn" else {}
    agent = make(kind, settings_of(kind, "lite", few))
    with suppress(BudgetSpentError):
        agent.fit(make_problem(48, decoys=True, n=8, device=device))  # enough for a step of any optimizer
    return agent


def _refine(agent: Agent, device: torch.device | str) -> list[tuple[int, ...]]:
    return slots_of(agent.refine(make_problem(judged=False, decoys=True, n=8, seed=5, device=device)))


def _refined(kind: str, device: torch.device | str) -> list[tuple[int, ...]]:
    return _refine(_fitted(kind, device), device)


@pytest.mark.parametrize("kind", OURS)
def test_our_agents_learn_there_what_they_learn_on_the_cpu(gpu: torch.device, kind: str) -> None:
    there = _refined(kind, gpu)
    if gpu.type == "cuda":  # it draws other numbers
        assert all(len(set(slots)) == N_EDITS for slots in there)
    else:
        assert there == _refined(kind, "cpu")


@pytest.mark.parametrize("kind", SB3)
def test_stable_baselines3s_agents_learn_there(gpu: torch.device, kind: str) -> None:
    assert all(len(set(slots)) == N_EDITS for slots in _refined(kind, gpu))


@pytest.mark.parametrize("kind", ["lexicon", "leave-one-out", "q-dqn", "ppo", "dqn"])
def test_an_agent_of_the_cpu_refines_alike_on_the_gpu_and_back(gpu: torch.device, tmp_path: Path, kind: str) -> None:
    agent = _fitted(kind, "cpu")
    agent.save(tmp_path / "cpu")
    there = load(tmp_path / "cpu", str(gpu))
    assert isinstance(there, PolicyAgent)
    assert there.shape is not None
    assert {weight.device for weight in there.player(there.shape, gpu).parameters()} == {gpu}
    assert _refine(there, gpu) == _refine(agent, "cpu")
    there.save(tmp_path / "gpu")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "gpu" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes()


def _begun(device: torch.device | str, seed: int = 0) -> NetworkAgent:
    config = NetworkConfig(
        patients=4,
        rollouts=2,
        baseline="critic",
        epochs=2,
        hidden=8,
        dropout=0.2,
        lexicon=True,
        patient_vector="learned",
    )
    agent = NetworkAgent(config, seed)
    agent.begin(make_problem(10_000, n=8, device=device, form=FORM))
    return agent


def test_a_run_goes_on_from_the_cpu_to_the_gpu_and_back(gpu: torch.device, caplog: pytest.LogCaptureFixture) -> None:
    """The actions cannot be those of the other kind of generator; all else is what it was."""
    before, first = torch.device("cpu"), _begun("cpu")
    first.update()
    values, tensors = first.progress()
    for device in (gpu, gpu, torch.device("cpu")):
        one, other = _begun(device, seed=1), _begun(device, seed=2)  # all must come from the checkpoint
        caplog.clear()
        one.go_on(values, tensors)
        other.go_on(values, tensors)
        warned = [record.name for record in caplog.records if record.levelno == logging.WARNING]
        assert warned == ([] if device == before else 2 * ["agents.policy_gradient.progress"])
        assert _same(one.progress()[1], tensors) == (device == before)  # else but for the generator
        assert one.progress()[0] == values
        assert one.update() == other.update()
        assert _same(one.progress()[1], other.progress()[1], rounding=device.type == "cuda")  # it adds in any order
        assert one.patient_encoder(make_problem(form=FORM).episodes) is not None
        (values, tensors), before = one.progress(), device


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, rounding: bool = False) -> bool:
    equal = partial(torch.allclose, rtol=1e-3, atol=1e-7) if rounding else torch.equal
    return one.keys() == other.keys() and all(equal(value, other[name]) for name, value in one.items())


def test_encoder_and_bertscore_say_there_what_they_say_on_the_cpu(gpu: torch.device) -> None:
    words, kept = [("She", "has", "anemia", "now."), ("He", "is", "well.")], np.ones((2, 4), dtype=bool)
    kept[0, 1] = kept[1, 3] = False
    # On a GPU BERT computes in bfloat16.
    tolerance = 0.05 if gpu.type == "cuda" else 1e-5
    for encoder in (WordEncoder, OnceEncoder):
        there, here = (encoder("minilm", str(d)).encode(words, kept) for d in (gpu, choose_device("cpu")))
        assert there.device == gpu
        assert torch.allclose(there.cpu(), here, atol=tolerance)
    texts = ["She is anemic.", "All is well."], ["She has anemia.", "He is fine."]
    scores = [BertScorer(device=str(d)).score(*texts).f1 for d in (gpu, "cpu")]
    assert torch.allclose(*scores, atol=tolerance)


def test_the_local_llm_says_there_what_it_says_on_the_cpu(gpu: torch.device, tmp_path: Path) -> None:
    if gpu.type != "cuda" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("the pretended GPU cannot do what this transformers does with tensors of the inference mode")
    tiny_model(tmp_path, seed=0)  # of the bundled LLM's architecture
    llms = [LocalLLM(str(tmp_path), max_new_tokens=5, device=str(d), dtype=torch.float32) for d in (gpu, "cpu")]
    prompts = ["Say hello to the patient.", "What is anemia?"]
    said = [[reply.text for reply in llm.generate(prompts)] for llm in llms]
    assert said[0] == said[1]
    assert all(said[0])
