"""The envs of ``PMLMLite-v0``."""

from __future__ import annotations

from typing import Any

from gymnasium.vector import AutoresetMode

from pmlm_env.core.task import EditTask
from pmlm_env.envs.lite.task import LiteOptions
from pmlm_env.envs.options import task_from
from pmlm_env.envs.prompt_edit import PMLMEnv
from pmlm_env.envs.prompt_edit_vector import ArrayKind, PMLMVectorEnv


class PMLMLiteEnv(PMLMEnv):
    """PMLM-v0 without weights, network or waiting: for testing algorithms, not for learning about language models.

    ## Description
    The rules, roles, spaces and infos are those of ``PMLM-v0``; every slow part is replaced by one that takes
    microseconds: words are embedded by a hash of their letters, fixed rules compose the reply from the words that are
    left, and it is scored by shared words. An agent's gain here says nothing about any language model.

    The prompts come from the template ``short``, for made-up patients with one of twelve conditions. Stage 1 names
    the right condition three times out of four, and so do slightly more than half of the ten peers. The reply
    describes *every* condition that the prompt still names, so the words to delete are the wrong conditions, wherever
    they occur. The patient vector shows which these are. In addition, the word "similar" adds an unhelpful sentence to
    the reply, and deleting "diagnosis", "medical" or "sentence," lowers the score. Without "advice", the reply has no
    advice, neither the right one nor that for wrong conditions. All other words have no effect. The rules are in
    ``LiteReward``, and ``LiteReward.best`` finds an episode's best deletions exactly.

    The prompt lists peers' conditions with the most frequent first, so one set of deletions for all patients (the
    agent ``single-rule``) already gains much: compare with it before you call a gain personalized.

    ## Action Space
    ``Discrete(max_words)``, as in ``PMLM-v0``.

    ## Observation Space
    As in ``PMLM-v0``: embeddings of length 32, which do not depend on the word's context, and a patient vector of
    length 128. With ``observation="index"``: ``episode``, ``kept`` and ``action_mask``.

    ## Starting State
    One of 256 made-up patients (``split="train"``; 64 each in ``validation`` and ``test``), or
    ``reset(options={"episode": index})``.

    ## Rewards
    0 until the last step; then the F1 of the words that the reply shares with the reference (ROUGE-1), minus the F1
    of the initial reply. For training patients the mean initial score is .54; the best deletions add .46, random ones
    lose .04.

    ## Episode End
    As in ``PMLM-v0``; never truncated.

    ## Information
    As in ``PMLM-v0``, except that ``prompt``, ``reply``, ``initial_reply`` and ``reference`` are only there with
    ``texts=True``. ``llm_calls`` is 0.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | ``split`` | ``"train"`` | ``train``, ``validation`` or ``test`` |
    | ``texts`` | False | whether infos hold prompts and replies, which takes longer than everything else together |
    | ``n_edits``, ``max_words``, ``observation``, ``protect`` | | as in ``PMLM-v0`` |
    | ``render_mode`` | None | as in ``PMLM-v0`` |
    | ``task`` | None | a task instead of the other arguments, such as ``lite_task(lite_episodes(seed=1))`` |

    ## References
    C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.

    ## Version History
    * v0: the first.
    """

    def __init__(self, render_mode: str | None = None, *, task: EditTask | None = None, **options: Any) -> None:
        """Make the env; see the class for the arguments."""
        super().__init__(render_mode, task=task_from(LiteOptions, task, options))


class PMLMLiteVectorEnv(PMLMVectorEnv):
    """``num_envs`` copies of ``PMLMLiteEnv``; see ``PMLMVectorEnv`` for the named arguments."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        array_type: ArrayKind = "numpy",
        render_mode: str | None = None,
        *,
        task: EditTask | None = None,
        **options: Any,
    ) -> None:
        """Make the env; see ``PMLMLiteEnv`` for ``task`` and the options."""
        task = task_from(LiteOptions, task, options)
        super().__init__(num_envs, autoreset_mode, array_type, render_mode, task=task)
