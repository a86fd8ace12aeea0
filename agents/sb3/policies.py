"""Policies with one logit or Q-value per word, computed from that word's features.

Stable-Baselines3's own heads are linear layers over all features at once: what they learn about a word in slot 7 does
not carry over to the same word in slot 8. These policies share one head among all words, so the order of the words
matters only as far as the embeddings encode it.
"""

from __future__ import annotations

from typing import Any

import torch
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from sb3_contrib.qrdqn.policies import MultiInputPolicy as QuantilePolicy
from sb3_contrib.qrdqn.policies import QuantileNetwork
from stable_baselines3.common.policies import BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor, create_mlp
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import MultiInputPolicy, QNetwork
from torch import nn

from agents.sb3.features import WordFeatures


class WordMlpExtractor(MlpExtractor):
    """Stable-Baselines3's layers between features and heads, applied to single words instead of whole prompts.

    The actor's MLP (``net_arch["pi"]``) is applied to each word's features, the critic's (``net_arch["vf"]``) to the
    mean over the remaining words. ``feature_dim`` and the latent sizes are those of one word.
    """

    def __init__(self, features: WordFeatures, policy: Any) -> None:
        """Make the layers for a policy and its features."""
        super().__init__(features.width, policy.net_arch, policy.activation_fn, policy.device)
        self.shape = (-1, features.width)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, W * d) to (B, W, latent_dim_pi)."""
        return self.policy_net(features.unflatten(1, self.shape))

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """Map (B, W * d) to (B, latent_dim_vf)."""
        words = features.unflatten(1, self.shape)
        n_left = words[..., -1:].sum(dim=1)  # the last feature is 1 for a word, 0 for an empty slot
        return self.value_net(words.sum(dim=1) / n_left.clamp(min=1))


class _WordHeads:
    """Mixin for the two actor-critic policies; list it before Stable-Baselines3's class among the bases."""

    mlp_extractor: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the layers."""
        super().__init__(*args, **_with_defaults(kwargs))

    def scores(self: Any, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return unmasked logits of all words, (B, W), from ``embeddings`` (B, W, H) and ``patient`` (B, P)."""
        return self.action_net(self.mlp_extractor.forward_actor(self.pi_features_extractor(observation)))

    def _build_mlp_extractor(self: Any) -> None:
        self.mlp_extractor = _extractor(self)

    def _build(self: Any, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        self.action_net = _action_net(self)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)


class WordActorCriticPolicy(_WordHeads, MultiInputActorCriticPolicy):
    """Policy for ``PPO`` and ``A2C``, which do not support masks: illegal edits may be drawn, and use up a step.

    Takes the arguments of ``MultiInputActorCriticPolicy``; only the defaults differ: ``WordFeatures``, ReLU, and
    ``net_arch={"pi": [], "vf": [64]}``, the hidden layers between a word's features and its logit, and between the mean
    of the words' features and the value.
    """


class MaskableWordActorCriticPolicy(_WordHeads, MaskableMultiInputActorCriticPolicy):
    """Policy for ``MaskablePPO``: illegal edits are never drawn, as long as ``predict`` is given ``action_masks``.

    Takes the arguments of ``MaskableMultiInputActorCriticPolicy``, with the defaults of ``WordActorCriticPolicy``.
    """


class WordQNetwork(QNetwork):
    """DQN's network with one Q-value per word, computed from that word's features."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make SB3's network, then replace its head over all words with a head that is shared by all words."""
        super().__init__(*args, **kwargs)
        features = _word_features(self.features_extractor)
        head = create_mlp(features.width, 1, self.net_arch, self.activation_fn)
        self.q_net = nn.Sequential(nn.Unflatten(1, (-1, features.width)), *head, nn.Flatten())


class WordDQNPolicy(MultiInputPolicy):
    """Policy for ``DQN``, which does not support masks.

    Takes the arguments of DQN's ``MultiInputPolicy``; only the defaults differ: ``WordFeatures``, and ``net_arch=[]``,
    the hidden layers between a word's features and its Q-value.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the network and its target network."""
        super().__init__(*args, **{"features_extractor_class": WordFeatures, "net_arch": [], **kwargs})

    def make_q_net(self) -> WordQNetwork:
        """Make the network or its target, each with its own features extractor (a hook of SB3)."""
        return WordQNetwork(**self._update_features_extractor(self.net_args, features_extractor=None)).to(self.device)

    def scores(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the Q-values of all words, (B, W), from ``embeddings`` (B, W, H) and ``patient`` (B, P)."""
        return self.q_net.q_net(self.q_net.features_extractor(observation))


class WordQuantileNetwork(QuantileNetwork):
    """QRDQN's network with ``n_quantiles`` quantiles per word, computed from that word's features."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make SB3's network, then replace its head over all words with a head that is shared by all words."""
        super().__init__(*args, **kwargs)
        features = _word_features(self.features_extractor)
        head = create_mlp(features.width, self.n_quantiles, self.net_arch, self.activation_fn)
        self.quantile_net = nn.Sequential(nn.Unflatten(1, (-1, features.width)), *head)

    def forward(self, obs: Any) -> torch.Tensor:
        """Return the quantiles of all words' values, (B, n_quantiles, W)."""
        return self.quantile_net(self.extract_features(obs, self.features_extractor)).transpose(1, 2)


class WordQRDQNPolicy(QuantilePolicy):
    """Policy for ``QRDQN``, which does not support masks.

    Takes the arguments of QRDQN's ``MultiInputPolicy``, with the defaults of ``WordDQNPolicy`` and 20 quantiles.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the network and its target network."""
        defaults = {"features_extractor_class": WordFeatures, "net_arch": [], "n_quantiles": 20}
        super().__init__(*args, **{**defaults, **kwargs})

    def make_quantile_net(self) -> WordQuantileNetwork:
        """Make the network or its target, each with its own features extractor (a hook of SB3)."""
        settings = self._update_features_extractor(self.net_args, features_extractor=None)
        return WordQuantileNetwork(**settings).to(self.device)

    def scores(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return Q-values (mean quantiles) of all words, (B, W), from ``embeddings`` (B, W, H), ``patient`` (B, P)."""
        features = self.quantile_net.features_extractor(observation)
        return self.quantile_net.quantile_net(features).mean(dim=-1)


def _with_defaults(kwargs: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "features_extractor_class": WordFeatures,
        "activation_fn": nn.ReLU,
        "net_arch": {"pi": [], "vf": [64]},
    }
    return {**defaults, **kwargs}


def _extractor(policy: Any) -> WordMlpExtractor:
    return WordMlpExtractor(_word_features(policy.features_extractor), policy)


def _action_net(policy: Any) -> nn.Module:
    """Make the layer that maps latent words (B, W, latent_dim_pi) to logits (B, W), by weights shared by all words."""
    layer = nn.Linear(policy.mlp_extractor.latent_dim_pi, 1).to(policy.device)
    if policy.ortho_init:
        BasePolicy.init_weights(layer, gain=0.01)  # as in SB3: initial policy close to uniform
    return nn.Sequential(layer, nn.Flatten())


def _word_features(extractor: nn.Module) -> WordFeatures:
    if not isinstance(extractor, WordFeatures):
        raise ValueError(f"features_extractor_class is {type(extractor).__name__}: it must be WordFeatures")
    return extractor
