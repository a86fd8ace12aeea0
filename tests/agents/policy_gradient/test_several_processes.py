"""Several processes that train a policy together learn what one learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from agents.policies.distributions import MaskedCategorical, MaskedSparsemax
from agents.policies.dropout import RowDropout
from agents.policy_gradient.config import ReinforceConfig
from agents.policy_gradient.reinforce import Reinforce
from pmlm_env.device import seeded
from pmlm_env.processes import Processes
from tests import fresh
from tests.agents.policy_gradient.trained_together import AGENTS, trained
from tests.problems import make_problem


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what each of two processes has learned."""
    folder = tmp_path_factory.mktemp("together")
    for ended in fresh.run_together(2, "-m", "tests.agents.policy_gradient.trained_together", folder):
        assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("name", AGENTS)
def test_weights_optimizers_generators_and_figures_are_those_of_one_process(together: Path, name: str) -> None:
    expected, figures = trained(name)
    expected["figures"] = torch.tensor(figures)
    for rank in (0, 1):
        found = load_file(together / f"{name} {rank}")
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-6, msg=lambda text, key=key: key + text)


def test_more_processes_than_episodes_are_refused() -> None:
    problem = make_problem(limit=100)
    config = ReinforceConfig(patients=1, rollouts=2)
    with pytest.raises(ValueError, match=r"an update has 2 episodes, too few for 3 processes: start at most 2"):
        Reinforce(torch.nn.Linear(1, 1), problem.env(2), config, 0, processes=Processes(0, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [MaskedCategorical, MaskedSparsemax])
def test_draws_are_those_of_multinomial_in_parts_as_in_the_whole(kind: type[MaskedCategorical]) -> None:
    scores = torch.randn(500, 9, generator=torch.Generator().manual_seed(0))
    legal = torch.rand(500, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    legal[:, 0] = True
    whole = kind(scores, legal)
    expected = torch.multinomial(whole.probs, 1, generator=torch.Generator().manual_seed(2))[:, 0]
    assert torch.equal(whole.sample(torch.Generator().manual_seed(2)), expected)
    for own in (slice(0, 200), slice(200, 500)):
        part = kind(scores[own], legal[own])
        assert torch.equal(part.sample(torch.Generator().manual_seed(2), 500, own), expected[own])


def test_dropout_is_that_of_pytorch_in_parts_as_in_the_whole() -> None:
    x = torch.randn(6, 5, 4)
    with seeded(7):
        expected = torch.nn.functional.dropout(x, 0.4)
    layer = RowDropout(0.4)
    with seeded(7):
        assert torch.equal(layer(x), expected)
    layer.n_rows, layer.own = 6, slice(2, 5)
    with seeded(7):
        assert torch.equal(layer(x[2:5]), expected[2:5])
    assert torch.equal(layer.eval()(x[2:5]), x[2:5])
