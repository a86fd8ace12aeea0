"""Create episodes from your own prompts, save them, and use them in PMLM-v0."""

from __future__ import annotations

import tempfile

import gymnasium as gym
import numpy as np

from pmlm_env import Episode, EpisodeSet

PROMPT = [
    ("background", "A man of 54 leaves hospital after a heart attack."),
    ("self", "His laboratory tests suggest high cholesterol."),
    ("instruction", "Write his discharge advice, in plain words, in two sentences."),
]
REFERENCE = "Take the statin every evening, stop smoking, and walk half an hour a day. See your doctor in two weeks."


def main() -> None:
    words = [(word, role) for role, text in PROMPT for word in text.split()]
    episode = Episode(
        patient_id="1",
        split="train",
        words=tuple(word for word, _ in words),
        roles=tuple(role for _, role in words),
        vector=np.zeros(128, dtype=np.float32),  # the patient vector; all zeros in this example
        reference=REFERENCE,
        label="myocardial infarction",
        predicted="high cholesterol",
        peers=(),
    )
    with tempfile.TemporaryDirectory() as folder:
        EpisodeSet([episode]).save(folder)
        env = gym.make("pmlm_env:PMLM-v0", episodes=folder, n_edits=3, protect=("self", "digits"), render_mode="ansi")
        _, info = env.reset(seed=0)
        rng = np.random.default_rng(0)
        terminated = truncated = False
        while not (terminated or truncated):
            action = rng.choice(np.flatnonzero(info["action_mask"]))
            _, reward, terminated, truncated, info = env.step(action)
    print(env.render())
    print(f"deleted {[edit.word for edit in info['edits']]}, reward {reward:+.4f}")


if __name__ == "__main__":
    main()
