"""Everything that computes does so on a GPU; where there is none, on one that is pretended. See ``test_gpu.py``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version

from agents.policies.lexicon import Lexicon
from agents.policies.word_policy import PolicyConfig, WordPolicy
from agents.policy_gradient.reinforce import Reinforce, ReinforceConfig
from agents.registry import AGENTS
from agents.serving.refine import Refinement, Refiner
from agents.training.checkpoint import load_checkpoint, save_checkpoint
from pmlm_env import PMLMVectorEnv
from pmlm_env.device import choose_device, seeded
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.llm import BudgetExceededError
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.rewards.bertscore import BertScorer
from tests.arenas import N_EDITS, make_arena
from tests.pretend_gpu import pretend_gpu
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes

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


def _refined(kind: str, device: torch.device | str) -> list[tuple[int, ...]]:
    arena = make_arena(60, decoys=True, n=16, device=device)
    agent = AGENTS[kind]("lite", 0)
    with suppress(BudgetExceededError):
        agent.fit(arena)
    return agent.refine(make_arena(judged=False, decoys=True, n=16, seed=5, device=device))


@pytest.mark.parametrize("kind", OURS)
def test_our_agents_learn_there_what_they_learn_on_the_cpu(gpu: torch.device, kind: str) -> None:
    there = _refined(kind, gpu)
    if gpu.type == "cuda":  # it draws other numbers
        assert all(len(set(slots)) == N_EDITS for slots in there)
    else:
        assert there == _refined(kind, "cpu")


@pytest.mark.parametrize("kind", SB3)
def test_stable_baselines3s_agents_learn_there(gpu: torch.device, kind: str) -> None:
    pytest.importorskip("sb3_contrib")
    assert all(len(set(slots)) == N_EDITS for slots in _refined(kind, gpu))


def _trainer(device: torch.device | str, seed: int = 0) -> Reinforce:
    episodes, encoder = make_episodes(8), HashEncoder(device)
    config = ReinforceConfig(patients=4, rollouts=2, baseline="critic", epochs=2)
    env = PMLMVectorEnv(
        8, autoreset_mode="Disabled", array_type="torch", episodes=episodes, encoder=encoder,
        reward=MarkedWordsReward(episodes), n_edits=N_EDITS,
    )  # fmt: skip
    shape = PolicyConfig(encoder.hidden_size, hidden=16, dropout=0.2, n_edits=N_EDITS)
    with seeded(seed):
        policy = WordPolicy(shape, Lexicon.of(episodes)).to(device)
    return Reinforce(policy, env, config, seed)


def _refine(checkpoint: Path, device: torch.device | str) -> list[Refinement]:
    policy = WordPolicy.from_pretrained(checkpoint, device)
    assert {parameter.device for parameter in policy.parameters()} == {torch.device(device)}
    return Refiner(policy, HashEncoder(device)).refine_all(make_episodes(12, seed=7))


def test_a_checkpoint_of_the_cpu_refines_alike_on_the_gpu_and_back(gpu: torch.device, tmp_path: Path) -> None:
    trainer = _trainer("cpu")
    trainer.update()
    save_checkpoint(tmp_path / "cpu", trainer, {})
    at_first = _refine(tmp_path / "cpu", "cpu")
    assert _refine(tmp_path / "cpu", gpu) == at_first
    WordPolicy.from_pretrained(tmp_path / "cpu", gpu).save_pretrained(tmp_path / "gpu")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "gpu" / name).read_bytes() == (tmp_path / "cpu" / name).read_bytes()
    assert _refine(tmp_path / "gpu", "cpu") == at_first


def test_a_run_goes_on_from_the_cpu_to_the_gpu_and_back(
    gpu: torch.device, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The actions cannot be those of the other kind of generator; all else is what it was."""
    checkpoint, first = tmp_path / "checkpoint", _trainer("cpu")
    first.update()
    save_checkpoint(checkpoint, first, {"initial": {}})
    weights, queue, before = _weights(first), first.queue, torch.device("cpu")
    for device in (gpu, gpu, torch.device("cpu")):
        one, other = _trainer(device, seed=1), _trainer(device, seed=2)  # all must come from the checkpoint
        caplog.clear()
        assert load_checkpoint(checkpoint, one) == load_checkpoint(checkpoint, other) == {}
        warned = [record.name for record in caplog.records if record.levelno == logging.WARNING]
        assert warned == ([] if device == before else 2 * ["agents.training.checkpoint"])
        assert (_weights(one), one.queue) == (weights, queue)
        assert np.array_equal(one.update().deltas, other.update().deltas)
        assert _weights(one) == _weights(other) != weights
        save_checkpoint(checkpoint, one, {"initial": {}})
        weights, queue, before = _weights(one), one.queue, device


def _weights(trainer: Reinforce) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in trainer.policy.state_dict().items()}


def test_encoder_and_bertscore_say_there_what_they_say_on_the_cpu(gpu: torch.device) -> None:
    words, kept = [("She", "has", "anemia", "now."), ("He", "is", "well.")], np.ones((2, 4), dtype=bool)
    kept[0, 1] = kept[1, 3] = False
    # On a GPU BERT computes in bfloat16.
    tolerance = 0.05 if gpu.type == "cuda" else 1e-5
    there, here = (WordEncoder("minilm", str(d)).encode(words, kept) for d in (gpu, choose_device("cpu")))
    assert there.device == gpu
    assert torch.allclose(there.cpu(), here, atol=tolerance)
    texts = ["She is anemic.", "All is well."], ["She has anemia.", "He is fine."]
    scores = [BertScorer(device=str(d)).score(*texts).f1 for d in (gpu, "cpu")]
    assert torch.allclose(*scores, atol=tolerance)


def test_the_local_llm_says_there_what_it_says_on_the_cpu(gpu: torch.device) -> None:
    if gpu.type != "cuda" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("the pretended GPU cannot do what this transformers does with tensors of the inference mode")
    llms = [LocalLLM(max_new_tokens=3, device=str(d), dtype=torch.float32) for d in (gpu, "cpu")]
    prompts = ["Say hello to the patient.", "What is anemia?"]
    said = [[reply.text for reply in llm.generate(prompts)] for llm in llms]
    assert said[0] == said[1]
    assert all(said[0])
