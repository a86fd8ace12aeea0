"""PMLMEnv: the Gymnasium env that edits one prompt."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from pmlm_env.core.task import EditTask
from pmlm_env.envs.contract import (
    RENDER_MODES,
    action_space,
    checked_render_mode,
    chosen_episodes,
    final_columns,
    final_row,
    observation_space,
    plain,
)
from pmlm_env.envs.options import PMLMOptions, task_from
from pmlm_env.envs.rendering import render_ansi, render_rgb


class PMLMEnv(gym.Env[dict[str, Any], np.int64]):
    """Delete words from a patient's prompt so that a language model's reply comes closer to the doctor's reply.

    ## Description
    In each episode, one patient's prompt is edited. It names the condition that a predictor finds in the laboratory
    history and the conditions of similar past patients, and ends in an instruction. The agent deletes ``n_edits``
    words, one per step. Then a black-box language model replies to the refined prompt, and its reply is compared with
    the one that the patient's own doctor wrote.

    ## Action Space
    ``Discrete(max_words)``: the slot of the *initial* prompt whose word is deleted. Slots never shift. An illegal
    action (an empty slot, a word already deleted or protected) deletes nothing, uses up the step and sets
    ``info["invalid_action"]``; ``info["action_mask"]`` (int8) shows which actions are legal.

    ## Observation Space
    A ``Dict``:

    | key | shape, dtype | meaning |
    |---|---|---|
    | ``embeddings`` | (max_words, hidden), float32 | embeddings of the words left (Eq. 6); zeros in other slots |
    | ``patient`` | (128,) by default, float32 | the patient vector of Eq. 2; see below for check-ups in its place |
    | ``action_mask`` | (max_words,), int8 | 1 where a deletion is legal |

    Embeddings are contextual: they are computed again after each deletion, and sub-word pieces are averaged per word.
    With ``observation="index"`` an observation holds ``episode`` (index), ``kept`` (max_words,) int8 and
    ``action_mask``: a few hundred bytes, for replay buffers. ``env.unwrapped.task.embed`` turns batches of them into
    the same embeddings later. ``pmlm_env.envs.wrappers.WordNumbers`` adds a number for each form of each word to
    either kind of observation.

    With ``patient="checkups"``, ``patient`` holds the patient's check-ups instead, for policies that learn a patient
    encoder of their own: standardized values (``max_checkups``, indicators), the latest check-up first and zeros after
    the earliest; then a mask of the same shape, 1 = measured, -1 = not measured at this check-up, 0 = no such check-up;
    flat, float32. Of the paper's 45 check-ups of 35 indicators these are 3,150 numbers.

    ## Starting State
    The whole prompt of a patient drawn by the seeded generator, or chosen by ``reset(options={"episode": index})``.
    ``reset`` does not call the language model; the initial prompt is sent once, when the patient's first episode ends.

    ## Rewards
    0 until the last step; then BERTScore F1 of the reply to the refined prompt, minus F1 of the reply to the initial
    prompt, both against the doctor's reply (Eq. 9). BERTScore rewards a reply's form as well as its content, so
    compare an agent's gain with the controls of ``pmlm evaluate`` that need no LLM, such as an echo of the prompt.
    Another reward, such as ``reward="guarded"``, which is harder to win in that way, says itself what a change earns
    (docs/rewards.md). With a reward of your own, the score of a reply is what your class says: see below.

    ## Episode End
    ``terminated`` after ``n_edits`` steps, or when no word may be deleted any more; with ``n_edits=0``, after one step
    that deletes nothing. A share, such as ``n_edits=0.2``, is that of the prompt's words, protected ones included,
    rounded to the nearest whole number (halves up), and at least one step. ``truncated`` only if the language model
    gave no reply: the reward is 0, ``info["llm_error"]`` says why, and agents should not learn from the episode.

    ## Information
    ``action_mask`` and ``episode_index`` always, ``invalid_action`` after a step. At the end also ``prompt``,
    ``reply``, ``initial_reply``, ``reference``, ``score``, ``initial_score``, ``edits`` (a tuple of ``Edit``, in order,
    each with ``operation``, ``slot`` and ``word``) and ``llm_calls`` (made for this episode); with ``n_samples`` above
    1, also ``score_sd`` and ``initial_score_sd``, the scores' standard deviations over samples. ``components`` and
    ``initial_components`` are dictionaries of numbers that each say one thing of the two replies, such as
    ``bertscore_recall``; NaN = no value. ``action_masks()`` returns the legal actions as bool, for sb3-contrib.

    ## Arguments
    Every argument except ``task`` is a name, a number or a path, so that specs serialize. Models and episodes are
    loaded once per process and shared by all envs that name them (``pmlm_env.envs.shared_models``). Fetch the weights
    of bundled models once, with ``pmlm models --fetch NAME``.

    | argument | default | meaning |
    |---|---|---|
    | ``episodes`` | ``"demo"`` | a folder of ``pmlm prepare``, or the small simulated set (``"demo-zh"``: in Chinese) |
    | ``split`` | ``"train"`` | ``train``, ``validation`` or ``test`` |
    | ``encoder`` | ``"minilm"`` | a bundled name, directory or hub name of a BERT, ``"once"``, or a class of your own |
    | ``encoder_kwargs`` | ``{}`` | ``{"model": MODEL}`` of ``once``, or arguments of your own encoder's class |
    | ``reward`` | ``"bertscore"`` | ``"bertscore"`` (F1), ``"margin"``, ``"guarded"``, or a class of your own |
    | ``reward_kwargs`` | ``{}`` | ``{"settings": FILE}`` of ``guarded``, or arguments of your own reward's class |
    | ``components`` | ``"reward"`` | components in the infos: those that the reward uses, or ``"all"`` |
    | ``llm`` | ``"local:qwen2.5-coder-0.5b"`` | ``local:MODEL``, ``PROVIDER:MODEL``, a class of your own (docs/llm) |
    | ``llm_kwargs`` | ``{}`` | arguments of your own LLM's class |
    | ``base_url`` | None | the endpoint's URL; the provider's by default |
    | ``providers`` | None | a TOML file with further providers, their limits and prices |
    | ``max_new_tokens`` | 128 | limit on the tokens of a reply |
    | ``temperature`` | 0.0 | the LLM's sampling temperature; 0 = greedy |
    | ``llm_seed`` | 0 | seed of the LLM's sampling |
    | ``llm_dtype`` | ``"auto"`` | number format of ``local:``; in ``float32`` replies do not depend on their batch |
    | ``on_truncated`` | None | ``keep`` (default for LLMs in this process) or ``error`` (for endpoints) a cut reply |
    | ``chat_template_kwargs`` | ``{}`` | for a local model's template, such as ``{"enable_thinking": False}`` |
    | ``n_samples`` | 1 | replies to each prompt, whose scores are averaged |
    | ``max_failures`` | 64 | number of episodes in a row without a reply after which the env raises an exception |
    | ``cache`` | None | a file or ``postgresql://...`` for replies, which others share; None = in memory |
    | ``budget_file`` | None | a TOML file with limits on calls, tokens and cost (docs/llm) |
    | ``send_values`` | False | send prompts with values of patients' records to an LLM on another machine |
    | ``scorer`` | ``"minilm"`` | BERTScore's model |
    | ``scorer_layer`` | None | the layer it compares; None = bert-score's own, or the one at 3/4 of the model's depth |
    | ``scorer_idf`` | False | weigh word pieces by their inverse document frequency in the training patients' letters |
    | ``long_texts`` | ``"cut"`` | texts longer than the scorer's input: ``cut``, or compared in full, in ``chunks`` |
    | ``n_edits`` | 10 | deletions per episode: a whole number, or a share of the prompt's words (1 is one, 1.0 all) |
    | ``max_words`` | the set's longest prompt | number of slots |
    | ``observation`` | ``"embeddings"`` | or ``"index"`` |
    | ``patient`` | ``"vector"`` | the patient vector, or the ``"checkups"`` that ``pmlm prepare`` wrote |
    | ``protect`` | ``()`` | excluded: ``background``, ``self``, ``peer``, ``instruction``, ``digits``, ``negations`` |
    | ``device`` | ``"auto"`` | ``auto``, ``cpu``, ``cuda`` |
    | ``render_mode`` | None | ``ansi`` (text) or ``rgb_array`` (a picture): deletions struck out, the reply, scores |
    | ``task`` | None | an ``EditTask``, instead of all arguments except ``render_mode`` |

    ``protect`` takes roles and kinds of words: ``digits`` are words that contain a digit, ``negations`` are
    words such as no, not, without and denies, in English or Chinese.

    A reward, an encoder or an LLM of your own is a class, named ``"package.module:Class"``, or by the name under which
    an installed package registers it (entry-point groups ``pmlm.rewards``, ``pmlm.encoders`` and ``pmlm.llms``), as in
    ``gym.make("PMLM-v0", reward="my_rewards:WordCount", reward_kwargs={"word": "rest"})``. Modules are imported from
    the installed packages or the current folder. Arguments are JSON values, so that specs serialize, and no secrets:
    the command line stores them with its results. A class with a parameter ``device`` gets that argument too.

    | part | the class |
    |---|---|
    | reward | ``score(replies, episodes)``: a finite number for each reply, given its ``Episode``; or components |
    | encoder | ``hidden_size``, ``device``, ``encode(words, kept)``: ``pmlm_env.core.task.Encoder`` |
    | LLM | a subclass of ``pmlm_env.llm.LLM`` with ``identity`` and ``replies`` (docs/llm) |

    The arguments of BERTScore (``scorer``, ``scorer_layer``, ``scorer_idf``, ``long_texts``) have no effect with a
    reward of your own, unless ``components="all"``, and those from ``base_url`` to ``chat_template_kwargs`` none with
    an LLM of your own; they are refused.

    Objects that are already loaded can be put into a task, which any env of this package accepts:
    ``gym.make("PMLM-v0", task=EditTask(episodes, encoder, reward, EditRules(n_edits=5)))``, where ``reward`` is a
    ``pmlm_env.rewards.delta.DeltaReward`` or any other ``pmlm_env.core.outcomes.Reward``. ``EditTask`` and
    ``EditRules`` are in ``pmlm_env``.

    ## References
    R. Shi et al., "From General to Specific: Tailoring Large Language Models for Personalized Healthcare",
    arXiv 2412.15957.

    ## Version History
    * v0: the first.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": 2}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, *, task: EditTask | None = None, **options: Any) -> None:
        """Make the env; see the class for the arguments.

        Raises:
            ValueError: An argument is not allowed.
        """
        self.render_mode = checked_render_mode(render_mode)
        self.task = task_from(PMLMOptions, task, options)
        self.observation_space = observation_space(self.task)
        self.action_space = action_space(self.task)
        self._batch = self.task.batch(1)
        self._over = True
        self._final: dict[str, Any] | None = None

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return which actions are legal, bool (max_words,), as sb3-contrib expects."""
        return self._batch.legal[0].copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode; ``options={"episode": index}`` chooses it."""
        super().reset(seed=seed)
        chosen = chosen_episodes(options, len(self.task.episodes))
        if chosen is not None and chosen.size != 1:
            raise ValueError(f"options['episode'] must be one index, not {chosen.size}")
        index = self.np_random.integers(len(self.task.episodes)) if chosen is None else chosen
        self._batch.load([0], index)
        self._over, self._final = False, None
        return self._observe(), self._info()

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Take one step: delete the word in slot ``action``.

        Raises:
            gymnasium.error.ResetNeeded: No episode is under way.
        """
        if self._over:
            raise gym.error.ResetNeeded("call reset() before step(): no episode is under way")
        invalid = self._batch.apply([action])
        reward, terminated, truncated, final = 0.0, False, False, {}
        if self._batch.done[0]:
            row = np.zeros(1, dtype=np.int64)
            outcomes = self.task.judge(self._batch, row)
            reward, truncated = float(outcomes.delta[0]), bool(outcomes.failed[0])
            terminated, self._over = not truncated, True
            final = plain(final_row(final_columns(self._batch, row, outcomes), 0))
            self._final = final
        return self._observe(), reward, terminated, truncated, self._info(invalid_action=bool(invalid[0]), **final)

    def render(self) -> Any:
        """Return the prompt with its deleted words struck out, and the reply and score at the end.

        ANSI text, or uint8 (height, width, 3), the same size for a whole episode; None without a render mode.
        """
        if self.render_mode is None:
            return None
        index = int(self._batch.episodes[0])
        if index < 0:
            raise gym.error.ResetNeeded("call reset() before render(): there is no prompt yet")
        draw = render_ansi if self.render_mode == "ansi" else render_rgb
        return draw(self.task.episodes[index].initial.words, self._batch.kept[0], self._final)

    def _observe(self) -> dict[str, Any]:
        observations = self.task.observe(self._batch.episodes, self._batch.kept, self._batch.legal)
        return {key: value[0] if key != "embeddings" else value[0].cpu().numpy() for key, value in observations.items()}

    def _info(self, **more: Any) -> dict[str, Any]:
        return {
            "action_mask": self._batch.legal[0].astype(np.int8),
            "episode_index": int(self._batch.episodes[0]),  # Gymnasium's statistics wrapper uses "episode"
            **more,
        }
