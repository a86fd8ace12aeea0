"""WordFeatures: a feature extractor with one feature vector per word."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from agents.policies.word_policy import check_sizes, of_slots
from pmlm_env.core.task import EditTask


class WordFeatures(BaseFeaturesExtractor):
    """Features of each word from a shared MLP, f(e || mean(E) || x_hat), as in Eq. 8 without its last layer.

    As in ``WordPolicy``, the contribution of the context to the first layer is computed once per prompt. The last
    feature of each remaining word is 1; all features of empty slots are 0, so a policy can tell the two apart.

    Observations in index form are embedded here, by the task's own encoder. This keeps rollout and replay buffers
    small, at the cost of an encoder pass for every minibatch.

    The task is not part of ``state_dict()``, and a deep copy shares it. But Stable-Baselines3 pickles ``policy_kwargs``
    into the file that ``model.save`` writes, and with them the task: not the models' weights, but the episodes, which
    are **patients' prompts and reference replies**. To save a file without them and resume from it::

        model.save(path, exclude=["policy_kwargs"])
        model = MaskablePPO(MaskableWordActorCriticPolicy, env, policy_kwargs={...})
        model.set_parameters(path)

    Args:
        observation_space: The env's observation space, in either form.
        task: The task that the observations come from (``env.unwrapped.task``); required for the index form, otherwise
            unused.
        width: d, the number of features per word.
        hidden: Width of the hidden layer.
        positions: Whether the hidden layer also gets a learned term for each slot, which makes the order of the words
            matter. Contextual embeddings encode where a word stands. PMLMLite's do not: without this term, a peer's
            condition cannot be told from the patient's own.
        normalize: Whether each of the three inputs is normalized to zero mean and unit variance; see
            ``PolicyConfig.normalize``.

    Attributes:
        n_words: W, the number of slots.
        width: d.

    Raises:
        ValueError: The space is not that of the env, or it is in index form and there is no task of the same size.
    """

    def __init__(
        self,
        observation_space: gym.spaces.Dict,
        task: EditTask | None = None,
        width: int = 64,
        hidden: int = 128,
        positions: bool = False,
        normalize: bool = True,
    ) -> None:
        """Make the layers."""
        if not isinstance(observation_space, gym.spaces.Dict) or "action_mask" not in observation_space.spaces:
            raise ValueError(f"observation_space is {observation_space}: WordFeatures takes that of PMLM-v0")
        if width < 2:
            raise ValueError(f"width is {width}: it must be 2 or more, as one feature only says that there is a word")
        n_words = int(observation_space["action_mask"].shape[0])  # type: ignore[index]
        super().__init__(observation_space, n_words * width)
        self.n_words, self.width, self.normalize = n_words, width, normalize
        self._task: _Shared | None = None
        self.patients: torch.Tensor
        if "episode" in observation_space.spaces:
            n_episodes = int(observation_space["episode"].n)  # type: ignore[attr-defined]
            if task is None:
                raise ValueError(
                    "with observation='index' WordFeatures must embed words itself: pass "
                    'policy_kwargs={"features_extractor_kwargs": {"task": env.unwrapped.task}}'
                )
            if (len(task.episodes), task.max_words) != (n_episodes, n_words):
                raise ValueError(
                    f"the task has {len(task.episodes)} episodes of {task.max_words} slots, the observation space "
                    f"{n_episodes} of {n_words}: pass the task of the env that makes the observations"
                )
            self._task = _Shared(task)
            self.register_buffer("patients", torch.tensor(task.episodes.vectors), persistent=False)
            embedding_size, patient_size = task.encoder.hidden_size, task.episodes.vectors.shape[1]
        else:
            embedding_size = observation_space["embeddings"].shape[1]  # type: ignore[index]
            patient_size = observation_space["patient"].shape[0]  # type: ignore[index]
        self.word = nn.Linear(embedding_size, hidden)
        self.context = nn.Linear(embedding_size + patient_size, hidden, bias=False)
        self.positions = nn.Parameter(torch.zeros(n_words, hidden)) if positions else None
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(hidden, width - 1), nn.ReLU())

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the features of all slots, concatenated, (B, W * d); zeros where no word is left.

        Args:
            observations: Output of Stable-Baselines3's ``preprocess_obs``: all float, ``episode`` one-hot.
        """
        embeddings, patient = self.embed(observations)
        check_sizes(embeddings, patient, self.word.in_features, self.context.in_features - self.word.in_features)
        left = embeddings.any(dim=-1, keepdim=True)
        mean = embeddings.sum(dim=1) / left.sum(dim=1).clamp(min=1)
        if self.normalize:
            embeddings, mean, patient = (nn.functional.layer_norm(x, x.shape[-1:]) for x in (embeddings, mean, patient))
        context = self.context(torch.cat([mean, patient], dim=-1))
        hidden = self.word(embeddings) + context[:, None, :]
        if self.positions is not None:
            hidden = hidden + of_slots(self.positions, hidden.shape[1])
        features = self.body(hidden)
        present = torch.ones_like(features[..., :1])
        return (torch.cat([features, present], dim=-1) * left).flatten(start_dim=1)

    def embed(self, observations: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return word embeddings (B, W, H) and patient vectors (B, P) of observations in either form.

        Embeddings are used as they are, whatever the observation space. So a policy that was trained on the index form,
        which refers to training episodes, can be used on other episodes, too.
        """
        if self._task is None or "embeddings" in observations:
            return observations["embeddings"], observations["patient"]
        # Buffers store a Discrete as (B, 1), so its one-hot form is (B, 1, n) there but (B, n) in a rollout.
        episodes = observations["episode"].argmax(dim=-1).reshape(-1)
        kept = observations["kept"] != 0
        embeddings = self._task.value.embed(episodes.cpu().numpy(), kept.cpu().numpy())
        return embeddings.to(kept.device), self.patients[episodes]


class _Shared:
    """Holds an object that deep copies share."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self
