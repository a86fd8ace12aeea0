"""The mask and observation forms other libraries want.

Every env of this package says which actions are legal in ``info["action_mask"]`` (int8, Gymnasium), in the
observation's ``action_mask`` (int8) and by ``action_masks()`` (bool, sb3-contrib). Beyond that:

- RLlib wants ``RLlibObservation``, below.
- TorchRL wants no wrapper. ``GymWrapper(env, categorical_action_encoding=True)`` takes scalar and vector envs, and
  ``ActionMask()`` keeps random actions legal. A policy's ``MaskedCategorical`` takes a mask of dtype bool: append
  ``DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])`` first. Make vector envs with
  ``autoreset_mode="Disabled"``, and TorchRL resets each row itself. It refuses ``NEXT_STEP``, and with ``SAME_STEP``
  TorchRL 0.14 loses the last observation of each episode and fails where rows delete different numbers of words.
- Tianshou's DQN family reads ``obs.obs`` and ``obs.mask``: Gymnasium's ``TransformObservation`` makes both.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt


class RLlibObservation(
    gym.ObservationWrapper[dict[str, Any], np.int64, dict[str, Any]], gym.utils.RecordConstructorArgs
):
    """Observations as RLlib's ``ActionMaskingTorchRLModule`` takes them: a flat vector beside a mask.

    ``ray.tune.register_env("pmlm", lambda config: RLlibObservation(gym.make("PMLM-v0", **config)))`` gives RLlib a name
    for it.

    | key | shape, dtype | meaning |
    |---|---|---|
    | ``observations`` | (max_words * hidden + 128,), float32 | ``embeddings``, slot after slot, then ``patient`` |
    | ``action_mask`` | (max_words,), float32 | 1 where a deletion is legal; RLlib takes its logarithm |

    Args:
        env: ``PMLM-v0`` or ``PMLMLite-v0`` with ``observation="embeddings"``.

    Raises:
        ValueError: The observations hold no embeddings.
    """

    def __init__(self, env: gym.Env[dict[str, Any], np.int64]) -> None:
        """Wrap ``env``."""
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        inner = env.observation_space
        if not isinstance(inner, gym.spaces.Dict) or set(inner) != {"embeddings", "patient", "action_mask"}:
            found = sorted(inner) if isinstance(inner, gym.spaces.Dict) else inner
            raise ValueError(
                f"RLlibObservation flattens embeddings, but {env} observes {found}: "
                "make the env with observation='embeddings', and wrap it in nothing else that changes observations"
            )
        flat = gym.spaces.flatten_space(gym.spaces.Tuple([inner["embeddings"], inner["patient"]]))
        mask = gym.spaces.Box(0, 1, inner["action_mask"].shape, np.float32)
        self.observation_space = gym.spaces.Dict(observations=flat, action_mask=mask)

    def observation(self, observation: dict[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Flatten one observation; arrays of their own memory."""
        return {
            "observations": np.concatenate([observation["embeddings"].ravel(), observation["patient"]]),
            "action_mask": observation["action_mask"].astype(np.float32),
        }
