"""PMLM-v0 in words, for language models that edit prompts: numbered words, and tools that delete them.

A language model cannot act on embeddings. It reads the words with their numbers, and calls ``delete`` and ``finish``.
The classes are what GRPOTrainer of TRL expects of an environment, and nothing in them depends on TRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import numpy as np

from pmlm_env.core.numbered import numbered_words
from pmlm_env.core.task import EditTask
from pmlm_env.envs.contract import chosen_episodes, final_columns, final_row, plain
from pmlm_env.envs.options import PMLMOptions, task_from

#: What a language model is asked to do; the words follow, from ``TextEnv.reset``.
INSTRUCTIONS = (
    "Below is a prompt that asks another language model for the letter that a patient's own doctor would write. "
    "Improve it by deleting words, so that the letter comes closer to the doctor's own. A number stands before each "
    "word that may be deleted. Call delete with the numbers of the words that should go, in one call or in several, "
    "then finish."
)

_ROW = np.zeros(1, dtype=np.int64)


class TextEnvs:
    """Makes text envs that share an ``EditTask``; the ``environment_factory`` of TRL's GRPOTrainer.

    Args:
        task: The task; None = the one that ``options`` describe.
        seed: Seed of the patients that are drawn if ``reset`` gets no episode.
        options: Arguments of ``PMLM-v0`` (docs/environments/PMLM-v0.md). ``encoder``, ``encoder_kwargs``,
            ``observation`` and ``patient`` have no effect on text, and are refused.

    Attributes:
        task: The task.

    Raises:
        ValueError: An argument is unknown, has the wrong type, or has no effect.
    """

    def __init__(self, task: EditTask | None = None, seed: int = 0, **options: Any) -> None:
        """Load the models and the episodes once, for all envs."""
        if idle := sorted({"encoder", "encoder_kwargs", "observation", "patient"} & set(options)):
            raise ValueError(f"{idle[0]} has no effect on a text env, which shows no embeddings: leave it out")
        self.task = task_from(PMLMOptions, task, options)
        self._rng = np.random.default_rng(seed)
        self._envs: WeakSet[TextEnv] = WeakSet()

    def __call__(self) -> TextEnv:
        """Make an env."""
        env = TextEnv(self)
        self._envs.add(env)
        return env

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each episode, for a data set to train on: the instructions, and the episode's index.

        In TRL: ``train_dataset=Dataset.from_list(envs.rows())``.
        """
        prompt = [{"role": "user", "content": INSTRUCTIONS}]
        return [{"prompt": prompt, "episode": index} for index in range(len(self.task.episodes))]

    def _draw(self) -> int:
        return int(self._rng.integers(len(self.task.episodes)))

    def _judge(self) -> None:
        """Judge all prompts that are under way and have not been judged as they are, in one call of the reward.

        A trainer asks one env after another for its reward, when all rollouts have ended. One call for all of them lets
        the LLM reply to many prompts at once. If a prompt is edited further after all, it is judged again.
        """
        self.judge([env for env in self._envs if env._begun and env._result is None])

    def judge(self, envs: Sequence[TextEnv]) -> None:
        """Judge the prompts of some envs as they are now, in one call of the reward.

        Args:
            envs: Envs that were reset.
        """
        outcomes = self.task.reward(
            [int(env._batch.episodes[0]) for env in envs], [env._batch.prompts(_ROW)[0] for env in envs]
        )
        for row, env in enumerate(envs):
            own = outcomes.take([row])
            env._result = plain(final_row(final_columns(env._batch, _ROW, own), 0))
            env._result["reward"] = None if own.failed[0] else float(own.delta[0])


class TextEnv:
    """One patient's prompt, which a language model edits; made by ``TextEnvs``.

    The public methods beside ``reset`` and ``get_reward`` are the tools that a language model may call. They answer in
    words, also where a call makes no sense, because a language model can read an answer and cannot catch an exception.
    """

    def __init__(self, envs: TextEnvs) -> None:
        """Make an env without a prompt; ``reset`` brings the first."""
        self._envs = envs
        self._batch = envs.task.batch(1)
        self._begun, self._over = False, True
        self._result: dict[str, Any] | None = None

    def reset(self, episode: int | None = None, **row: Any) -> str:
        """Start with a patient's initial prompt.

        Args:
            episode: The episode's index; None = one drawn at random.
            row: Further columns of a data set, which are ignored.

        Returns:
            The numbered words, a line for each part of the prompt, and how many may be deleted.

        Raises:
            ValueError: There is no such episode.
        """
        index = self._envs._draw() if episode is None else episode
        chosen_episodes({"episode": index}, len(self._envs.task.episodes))
        self._batch.load([0], index)
        self._begun, self._over, self._result = True, False, None
        return self._shown()

    def delete(self, numbers: list[int]) -> str:
        """Delete words from the prompt.

        Args:
            numbers: The numbers that stand before the words.

        Returns:
            The words that are left with their numbers, and how many more may be deleted.
        """
        if self._over:
            return "Nothing was deleted: the prompt is finished."
        refused = []
        self._result = None
        for number in numbers if isinstance(numbers, list) else [numbers]:
            slot = _whole(number)
            if self._batch.done[0]:
                refused.append(f"{number} (no more words may be deleted)")
            elif slot is None:
                refused.append(f"{number} (not a number)")
            elif problem := self._problem(slot):
                refused.append(f"{number} ({problem})")
            else:
                self._batch.apply([slot])
        self._over = bool(self._batch.done[0])
        said = f"Not deleted: {', '.join(refused)}.\n" if refused else ""
        return said + ("The prompt is finished." if self._over else self._shown())

    def finish(self) -> str:
        """End the editing. The prompt is sent as it is now.

        Returns:
            That the prompt is finished.
        """
        self._over = True
        return "The prompt is finished."

    def get_reward(self) -> float | None:
        """Return what the edits earn, as the reward of ``PMLM-v0``; asks the LLM unless it is known.

        Returns:
            The reward; None if the LLM gave no reply, or there is no prompt.
        """
        return self._result_now().get("reward") if self._begun else None

    @property
    def finished(self) -> bool:
        """Whether there is no prompt that may be edited: none yet, or it is finished."""
        return self._over

    @property
    def result(self) -> dict[str, Any]:
        """The infos of the last step of ``PMLM-v0``, such as ``reply``, and the ``reward``; {} before ``reset``."""
        return self._result_now() if self._begun else {}

    def _result_now(self) -> dict[str, Any]:
        if self._result is None:
            self._envs._judge()
        assert self._result is not None
        return self._result

    def _problem(self, slot: int) -> str:
        """Return why a word cannot be deleted; "" if it can."""
        n_words = int(self._envs.task.episodes.lengths[self._batch.episodes[0]])
        if not 0 <= slot < n_words:
            return f"the words are 0 to {n_words - 1}"
        if self._batch.legal[0, slot]:
            return ""
        return "must stay" if self._batch.kept[0, slot] else "is deleted already"

    def _shown(self) -> str:
        """Return the words left, and how many may still be deleted."""
        episode = self._envs.task.episodes[int(self._batch.episodes[0])]
        kept, legal = self._batch.kept[0], self._batch.legal[0]
        left = int(min(self._batch.budgets[0] - self._batch.steps[0], legal.sum()))
        return f"Words that may be deleted: up to {left}.\n{numbered_words(episode, kept, legal)}"


def _whole(number: Any) -> int | None:
    """Return the whole number that a language model wrote as 3, 3.0 or "3"; None for anything else."""
    is_whole = isinstance(number, int | np.integer | str) or (isinstance(number, float) and number.is_integer())
    if isinstance(number, bool) or not is_whole:
        return None
    try:
        return int(number)
    except ValueError:
        return None
