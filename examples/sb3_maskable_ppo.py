"""Train sb3-contrib's MaskablePPO on PMLMLite-v0."""

from __future__ import annotations

import gymnasium as gym
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

import pmlm_env  # noqa: F401  (registers PMLMLite-v0)
from agents.sb3 import MaskableWordActorCriticPolicy, PMLMVecEnv


def main() -> None:
    torch.set_num_threads(1)  # more threads do not help with a small network
    env = VecMonitor(PMLMVecEnv(gym.make_vec("PMLMLite-v0", num_envs=32)))
    test = VecMonitor(PMLMVecEnv(gym.make_vec("PMLMLite-v0", num_envs=32, split="test")))
    model = MaskablePPO(
        MaskableWordActorCriticPolicy,
        env,
        # Lite's embeddings contain no positions; those of PMLM-v0 do.
        policy_kwargs={"features_extractor_kwargs": {"width": 32, "hidden": 64, "positions": True}},
        n_steps=20,  # per env: two episodes
        batch_size=160,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=1.0,  # only the last step is rewarded, so no discount
        gae_lambda=0.9,
        seed=0,
        device="cpu",
    )
    test.seed(0)
    before, _ = evaluate_policy(model, test, n_eval_episodes=128)
    model.learn(16_000)
    test.seed(0)
    after, _ = evaluate_policy(model, test, n_eval_episodes=128)
    print(f"mean reward on the test patients: {before:+.3f} before training, {after:+.3f} after")


if __name__ == "__main__":
    main()
