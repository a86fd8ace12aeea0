"""A hand-written policy: trust stage 1's prediction, and delete all other conditions from the prompt.

It runs on PMLMLite-v0, for which the best possible reward is known.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import pmlm_env  # noqa: F401  (registers PMLMLite-v0)
from pmlm_env.core.words import letters
from pmlm_env.envs.lite import CONDITIONS, LiteReward


def order_of_deletion(words: tuple[str, ...], roles: tuple[str, ...]) -> list[int]:
    """Return the slots in order of deletion: other conditions, other words about peers, background, the rest."""
    predicted = {letters(word) for word, role in zip(words, roles, strict=True) if role == "self"} & CONDITIONS.keys()

    def priority(slot: int) -> int:
        word = letters(words[slot])
        if word in CONDITIONS and word not in predicted:
            return 0
        return {"peer": 1, "background": 2}.get(roles[slot], 4) if word != "similar" else 0

    return sorted((slot for slot in range(len(words)) if letters(words[slot]) not in predicted), key=priority)


def main() -> None:
    env = gym.make("PMLMLite-v0", split="test")
    episodes = env.unwrapped.task.episodes
    rewards = []
    for index, episode in enumerate(episodes):
        env.reset(seed=0, options={"episode": index})
        for slot in order_of_deletion(episode.words, episode.roles):
            _, reward, terminated, _, _ = env.step(np.int64(slot))
            if terminated:
                rewards.append(reward)
                break
    best = [LiteReward(episodes).best(index, 10).delta for index in range(len(episodes))]
    print(f"mean reward over {len(rewards)} test patients {np.mean(rewards):+.3f}, best possible {np.mean(best):+.3f}")


if __name__ == "__main__":
    main()
