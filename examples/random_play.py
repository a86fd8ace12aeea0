"""Play one episode of PMLM-v0 with random deletions, and show the result."""

from __future__ import annotations

import gymnasium as gym

import pmlm_env  # noqa: F401  (registers PMLM-v0)


def main() -> None:
    env = gym.make("PMLM-v0", render_mode="ansi")
    _, info = env.reset(seed=0)
    terminated = truncated = False
    reward = 0.0
    while not (terminated or truncated):
        action = env.action_space.sample(info["action_mask"])
        _, reward, terminated, truncated, info = env.step(action)
    print(env.render())
    print(f"reward {reward:+.4f}")


if __name__ == "__main__":
    main()
