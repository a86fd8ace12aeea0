"""PMLMEnv: the Gymnasium contract for one prompt."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from pmlm_env.core.task import EditTask
from pmlm_env.envs.rendering import render_ansi, render_rgb


class PMLMEnv(gym.Env[dict[str, Any], np.int64]):
    """Delete words from a patient's prompt so that a language model's reply comes closer to her doctor's.

    ## Description
    An episode is one patient's prompt: what a predictor makes of her laboratory history, which conditions similar
    past patients had, and an instruction. The agent deletes ``n_edits`` words, one a step. Then a language model, a
    black box, replies to what is left, and the reply is compared with the one her own doctor wrote.

    ## Action Space
    ``Discrete(max_words)``: the slot of the *initial* prompt whose word is to go. Slots never shift. An illegal
    action (padding, a word already deleted or protected) deletes nothing, uses up the step and sets
    ``info["invalid_action"]``; ``info["action_mask"]`` (int8) says which are legal.

    ## Observation Space
    A ``Dict``:

    | key | shape, dtype | meaning |
    |---|---|---|
    | ``embeddings`` | (max_words, hidden), float32 | embeddings of the words still there (Eq. 6); else zeros |
    | ``patient`` | (128,), float32 | the patient vector of Eq. 2 |
    | ``action_mask`` | (max_words,), int8 | 1 where a deletion is legal |

    Embeddings are contextual, sub-word pieces averaged per word, and encoded anew after each deletion.
    With ``observation="index"``: ``episode`` (index), ``kept`` (max_words,) int8 and ``action_mask``, a few hundred
    bytes for replay buffers; ``env.unwrapped.task.embed`` turns batches of them into the same embeddings later.

    ## Starting State
    A patient drawn by the seeded generator, or ``reset(options={"episode": index})``, with her whole prompt. The
    language model is not called in ``reset``; the initial prompt is sent once, when her first episode ends.

    ## Rewards
    0 until the last step; then BERTScore F1 of the reply to the refined prompt, minus F1 of the reply to the initial
    prompt, both against the doctor's reply (Eq. 9). BERTScore pays for a letter's form as well as for what it says, so
    compare what an agent gains with the zero-call controls of ``pmlm evaluate``, such as an echo of the prompt.

    ## Episode End
    ``terminated`` after ``n_edits`` steps, or when no word is left that may go; with ``n_edits=0`` after one step
    that deletes nothing. ``truncated`` only where the language model's reply could not be had: the reward is 0,
    ``info["llm_error"]`` says why, and the episode teaches nothing.

    ## Information
    ``action_mask`` and ``episode_index`` always, ``invalid_action`` after a step. At the end also ``prompt``,
    ``reply``, ``initial_reply``, ``reference``, ``score``, ``initial_score``, ``deleted`` (slots in order) and
    ``llm_calls`` (made for this episode); with ``n_samples`` above 1 ``score_sd`` and ``initial_score_sd``, the
    standard deviations over the samples that the scores are means of. The legal actions also come as
    ``action_masks()``, bool, for sb3-contrib.

    ## Arguments
    Every argument is a name, a number or a path, so that specs serialize; ``episodes``, ``encoder`` and ``reward``
    may be live objects where the class is called directly. Weights of bundled models are fetched once, with
    ``pmlm models --fetch NAME``; the error message of a missing one says so.

    | argument | default | meaning |
    |---|---|---|
    | ``episodes`` | ``"demo"`` | a folder that ``pmlm prepare`` wrote, or the small simulated set |
    | ``split`` | ``"train"`` | ``train``, ``validation`` or ``test`` |
    | ``encoder`` | ``"minilm"`` | a bundled name, directory or hub name of a BERT-family model |
    | ``llm`` | ``"local:qwen2.5-coder-0.5b"`` | ``local:NAME_OR_PATH``, ``PROVIDER:MODEL`` (docs/llm), ``responder`` |
    | ``base_url`` | None | where the endpoint is; the provider's own by default |
    | ``providers`` | None | a TOML file with providers of one's own, their limits and prices |
    | ``max_new_tokens`` | 128 | where a reply is cut |
    | ``temperature`` | 0.0 | of the LLM's sampling; 0 = greedy |
    | ``llm_seed`` | 0 | of the LLM's sampling |
    | ``llm_dtype`` | ``"auto"`` | number format of ``local:``; in ``float32`` replies do not hang on their batch |
    | ``on_truncated`` | None | ``keep`` (default for LLMs in this process) or ``error`` (for endpoints) a cut reply |
    | ``chat_template_kwargs`` | None | JSON for a local model's template, such as ``'{"enable_thinking": false}'`` |
    | ``n_samples`` | 1 | replies to each prompt, whose mean F1 counts |
    | ``max_failures`` | 64 | so many episodes in a row without a reply stop the run with an exception |
    | ``cache`` | None | a file where replies are kept, for other processes and later runs too; None = in memory |
    | ``budget_file`` | None | a TOML file with limits on calls, tokens and money (docs/llm) |
    | ``scorer`` | ``"minilm"`` | BERTScore's model |
    | ``scorer_layer`` | None | the layer it compares; None = bert-score's own, or the one at 3/4 of the model's depth |
    | ``long_texts`` | ``"cut"`` | texts beyond the scorer's input: ``cut``, or compared whole, in ``chunks`` |
    | ``reward`` | None | an object to judge prompts with instead |
    | ``n_edits`` | 10 | deletions per episode |
    | ``max_words`` | the set's longest prompt | number of slots |
    | ``observation`` | ``"embeddings"`` | or ``"index"`` |
    | ``protect`` | ``()`` | kept: ``background``, ``self``, ``peer``, ``instruction``, ``digits``, ``negations`` |
    | ``device`` | ``"auto"`` | ``auto``, ``cpu``, ``cuda`` |
    | ``render_mode`` | None | ``ansi`` (text) or ``rgb_array`` (a picture): deleted words struck out, the reply, F1 |

    ``protect`` names roles and kinds of words: ``digits`` are words with a digit in them, ``negations`` the English
    no, not, without, denies and the like.

    ## References
    R. Shi et al., "From General to Specific: Tailoring Large Language Models for Personalized Healthcare",
    arXiv 2412.15957.

    ## Version History
    * v0: the first.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 2}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **task: Any) -> None:
        """Make the env; see the class for the arguments.

        Raises:
            ValueError: An argument is not one of those allowed.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode is {render_mode!r}: use one of {self.metadata['render_modes']}")
        self.render_mode = render_mode
        self.task = EditTask(**task)
        self.observation_space = self.task.observation_space
        self.action_space = self.task.action_space
        self._batch = self.task.batch(1)
        self._over = True
        self._final: dict[str, Any] | None = None

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Which actions are legal, bool (max_words,): the form of sb3-contrib."""
        return self._batch.legal[0].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; ``options={"episode": index}`` picks it."""
        super().reset(seed=seed)
        chosen = self.task.chosen(options)
        if chosen is not None and chosen.size != 1:
            raise ValueError(f"options['episode'] must be one index, not {chosen.size}")
        index = self.np_random.integers(len(self.task.episodes)) if chosen is None else chosen
        self._batch.load([0], index)
        self._over, self._final = False, None
        return self._observe(), self._info()

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Delete the word in slot ``action``.

        Raises:
            gymnasium.error.ResetNeeded: No episode is under way.
        """
        if self._over:
            raise gym.error.ResetNeeded("call reset() before step(): no episode is under way")
        invalid = self._batch.delete([action])
        reward, terminated, truncated, final = 0.0, False, False, {}
        if self._batch.done[0]:
            outcomes, columns = self.task.judge(self._batch, np.zeros(1, dtype=np.int64))
            reward, truncated = float(outcomes.delta[0]), bool(outcomes.failed[0])
            terminated, self._over = not truncated, True
            final = {key: _plain(values[0]) for key, (values, where) in columns.items() if where[0]}
            self._final = final
        return self._observe(), reward, terminated, truncated, self._info(invalid_action=bool(invalid[0]), **final)

    def render(self) -> Any:
        """Return the prompt with its deleted words struck out, and the reply and score at the end.

        ANSI text, or uint8 (height, width, 3), all of an episode's of one size; None without a render mode.
        """
        if self.render_mode is None:
            return None
        index = int(self._batch.episodes[0])
        if index < 0:
            raise gym.error.ResetNeeded("call reset() before render(): there is no prompt yet")
        draw = render_ansi if self.render_mode == "ansi" else render_rgb
        return draw(self.task.episodes[index].words, self._batch.kept[0], self._final)

    def _observe(self) -> dict[str, Any]:
        observations = self.task.observe(self._batch.episodes, self._batch.kept, self._batch.legal)
        return {key: value[0] if key != "embeddings" else value[0].cpu().numpy() for key, value in observations.items()}

    def _info(self, **more: Any) -> dict[str, Any]:
        return {
            "action_mask": self._batch.legal[0].astype(np.int8),
            "episode_index": int(self._batch.episodes[0]),  # "episode" is what monitors call their statistics
            **more,
        }


def _plain(value: Any) -> Any:
    """Numpy's numbers as Python's own."""
    return value.item() if isinstance(value, np.generic) else value
