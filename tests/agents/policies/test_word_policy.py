from __future__ import annotations

import math

import pytest
import torch

from agents.policies.distributions import MaskedCategorical
from agents.policies.word_policy import PolicyConfig, WordPolicy
from pmlm_env.device import seeded


def _observation(b: int = 3, w: int = 7, h: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    mask = torch.ones(b, w, dtype=torch.int8)
    mask[0, 4:] = 0
    mask[1, 2] = 0
    embeddings = torch.randn(b, w, h, generator=rng) * mask[..., None]
    return {"embeddings": embeddings, "patient": torch.randn(b, 128, generator=rng), "action_mask": mask}


def _policy(seed: int = 0, dropout: float = 0.0, normalize: bool = True) -> WordPolicy:
    with seeded(seed):
        policy = WordPolicy(PolicyConfig(16, dropout=dropout, normalize=normalize))
        torch.nn.init.normal_(policy.body[-1].weight)  # not uniform, so that errors are visible
    return policy


@pytest.mark.parametrize("normalize", [False, True])
def test_it_is_the_mlp_of_eq_7_on_the_concatenation(normalize: bool) -> None:
    policy, observation = _policy(normalize=normalize), _observation()
    log_probs = policy(observation).log_probs
    first = torch.nn.Linear(16 + 16 + 128, 256)
    first.weight.data = torch.cat([policy.word.weight, policy.context.weight], dim=1)
    first.bias.data = policy.word.bias

    def input_of(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt() if normalize else x

    for row in range(3):
        words = observation["embeddings"][row]
        left = observation["action_mask"][row].bool()
        context = torch.cat([input_of(words[left].mean(dim=0)), input_of(observation["patient"][row])])
        scores = [policy.body(first(torch.cat([input_of(e), context]))) for e in words[left]]
        expected = torch.cat(scores).log_softmax(dim=0)
        torch.testing.assert_close(log_probs[row][left], expected, atol=1e-5, rtol=1e-5)


def test_permuting_the_words_permutes_the_probabilities() -> None:
    policy, observation = _policy(), _observation()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    shuffled = {
        "embeddings": observation["embeddings"][:, order],
        "patient": observation["patient"],
        "action_mask": observation["action_mask"][:, order],
    }
    torch.testing.assert_close(policy(observation).probs[:, order], policy(shuffled).probs)


def test_positions_are_a_one_hot_of_the_slot_beside_the_other_inputs() -> None:
    observation = _observation()
    with seeded(0):
        policy = WordPolicy(PolicyConfig(16, hidden=8, normalize=False, positions=7))
        for weight in (policy.body[-1].weight, policy.positions):
            torch.nn.init.normal_(weight)
    first = torch.nn.Linear(16 + 16 + 128 + 7, 8)
    first.weight.data = torch.cat([policy.word.weight, policy.context.weight, policy.positions.T], dim=1)
    first.bias.data = policy.word.bias
    row, words = 2, observation["embeddings"][2]
    context = torch.cat([words.mean(dim=0), observation["patient"][row]])
    expected = torch.cat(
        [policy.body(first(torch.cat([e, context, h]))) for e, h in zip(words, torch.eye(7), strict=True)]
    )
    torch.testing.assert_close(policy.scores(observation)[row], expected, atol=1e-5, rtol=1e-5)
    fewer = {key: value[:, :5] if key != "patient" else value for key, value in observation.items()}
    assert policy.scores(fewer).shape == (3, 5)
    with pytest.raises(ValueError, match="have 8 slots, 7 in training"):
        policy.scores({**observation, "embeddings": torch.zeros(3, 8, 16)})


def test_padding_does_not_matter() -> None:
    policy, observation = _policy(), _observation()
    padded = {
        "embeddings": torch.cat([observation["embeddings"], torch.zeros(3, 5, 16)], dim=1),
        "patient": observation["patient"],
        "action_mask": torch.cat([observation["action_mask"], torch.zeros(3, 5, dtype=torch.int8)], dim=1),
    }
    torch.testing.assert_close(policy(padded).probs[:, :7], policy(observation).probs)


def test_illegal_slots_have_no_probability_and_are_never_drawn() -> None:
    distribution = _policy()(_observation())
    assert not distribution.probs[0, 4:].any()
    rng = torch.Generator().manual_seed(0)
    for _ in range(200):
        slots = distribution.sample(rng)
        assert bool(distribution.legal.gather(1, slots[:, None]).all())


def test_entropy_is_torchs_on_the_legal_slots() -> None:
    distribution = _policy()(_observation())
    for row in range(3):
        legal = distribution.legal[row]
        expected = torch.distributions.Categorical(logits=distribution.log_probs[row][legal]).entropy()
        assert distribution.entropy()[row].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_legal_slot_of_probability_0_adds_nothing_to_the_entropy_and_no_nan_to_its_gradient() -> None:
    scores = torch.tensor([[0.0, 0.0, -torch.inf, 5.0]], requires_grad=True)
    entropy = MaskedCategorical(scores, torch.tensor([[True, True, True, False]])).entropy()
    assert entropy.item() == pytest.approx(math.log(2))
    entropy.sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masking_leaves_finite_gradients_in_every_number_format(dtype: torch.dtype) -> None:
    scores = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    legal = torch.tensor([[True] + [False] * 5] * 4)
    distribution = MaskedCategorical(scores, legal)
    (distribution.entropy().sum() + distribution.log_prob(torch.zeros(4, dtype=torch.long)).sum()).backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())


def test_a_prompt_without_a_legal_word_is_an_error_not_a_uniform_draw() -> None:
    legal = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match=r"prompts \[1\] have no word that may be deleted"):
        MaskedCategorical(torch.zeros(2, 2), legal)
