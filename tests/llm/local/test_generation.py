"""Sampling of tokens."""

from __future__ import annotations

import torch

from pmlm_env.llm.local.generation import GumbelSampling


def test_tokens_are_sampled_with_their_probabilities_at_the_temperature() -> None:
    scores = torch.tensor([[1.0, 0.0, -torch.inf, 2.0]])
    n = 10_000
    sample = GumbelSampling(0.5, [torch.Generator().manual_seed(3)])
    counts = sum(sample(torch.empty(1, 0), scores).isfinite()[0].double() for _ in range(n))
    expected = torch.softmax(scores[0].double() / 0.5, dim=-1)
    assert (counts / n - expected).abs().max() < 4 * (0.25 / n) ** 0.5
    assert counts[2] == 0


def test_another_rows_sample_and_rounding_change_nothing() -> None:
    scores = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    for seed in range(20):
        alone = GumbelSampling(2.0, [torch.Generator().manual_seed(seed)])(torch.empty(1, 0), scores[:1] * (1 + 1e-6))
        generators = [torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)]
        assert torch.equal(GumbelSampling(2.0, generators)(torch.empty(2, 0), scores)[0], alone[0])
