"""The envs of ``PMLMLite-v0``."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pmlm_env.core.episodes import EpisodeSet, Split
from pmlm_env.encoders.hashed import HashedEncoder
from pmlm_env.envs.lite.episodes import lite_episodes
from pmlm_env.envs.lite.reward import LiteReward
from pmlm_env.envs.prompt_edit import PMLMEnv
from pmlm_env.envs.prompt_edit_vector import PMLMVectorEnv


class PMLMLiteEnv(PMLMEnv):
    """PMLM-v0 without weights, network or waiting: for testing algorithms, not for learning about language models.

    ## Description
    The rules, roles, spaces and infos of ``PMLM-v0``, with every costly part replaced by one that takes microseconds:
    words are embedded by a hash of their letters, the reply is put together by fixed rules from the words that are
    left, and it is scored by shared words. What an agent gains here says nothing about any language model.

    The prompt is that of the template ``short`` for made-up patients with one of twelve conditions. Stage 1 names the
    right condition three times out of four, and so do a good half of the ten peers. The responder says its piece on
    *every* condition that the prompt still names, so the words to delete are the wrong conditions, wherever they
    stand. Which those are the patient vector tells. Besides, "similar" brings chatter, and deleting "diagnosis",
    "advice", "medical" or "sentence," harms. All other words are idle. The rules are in ``LiteReward``, and
    ``LiteReward.best`` finds an episode's best deletions exactly.

    Peers' conditions stand in order of their number, so that one set of deletions for everybody (the agent
    ``single-rule``) goes a long way: compare with it before you call a gain personal.

    ## Action Space
    ``Discrete(max_words)``, as in ``PMLM-v0``.

    ## Observation Space
    As in ``PMLM-v0``: embeddings of 32 numbers, the same for a word wherever it stands; a patient vector of 128. With
    ``observation="index"``: ``episode``, ``kept`` and ``action_mask``.

    ## Starting State
    One of 256 made-up patients (``split="train"``; 64 each in ``validation`` and ``test``), or
    ``reset(options={"episode": index})``.

    ## Rewards
    0 until the last step; then the F1 of words shared by reply and reference (ROUGE-1), minus that of the initial
    reply. Training patients start at .54; the best deletions bring .46 more, random ones take .04 away.

    ## Episode End
    As in ``PMLM-v0``; never truncated.

    ## Information
    As in ``PMLM-v0``, but for the texts: ``prompt``, ``reply``, ``initial_reply`` and ``reference`` come with
    ``texts=True`` only. ``llm_calls`` is 0.

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | ``split`` | ``"train"`` | ``train``, ``validation`` or ``test`` |
    | ``episodes`` | None | an ``EpisodeSet`` of one's own instead, such as ``lite_episodes(seed=1)`` |
    | ``texts`` | False | whether infos hold what was said; that takes more time than all the rest |
    | ``n_edits``, ``max_words``, ``observation``, ``protect`` | | as in ``PMLM-v0`` |

    ## References
    C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004.

    ## Version History
    * v0: the first.
    """

    def __init__(
        self,
        render_mode: str | None = None,
        episodes: EpisodeSet | None = None,
        split: Split = "train",
        texts: bool = False,
        **task: Any,
    ) -> None:
        """Make the env; see the class for the arguments."""
        super().__init__(render_mode, **_parts(episodes, split, texts, task))


class PMLMLiteVectorEnv(PMLMVectorEnv):
    """``num_envs`` copies of ``PMLMLiteEnv``; see ``PMLMVectorEnv`` for ``autoreset_mode`` and ``array_type``."""

    def __init__(
        self,
        num_envs: int = 1,
        episodes: EpisodeSet | None = None,
        split: Split = "train",
        texts: bool = False,
        **options: Any,
    ) -> None:
        """Make the env; see ``PMLMLiteEnv`` for the arguments."""
        super().__init__(num_envs, **_parts(episodes, split, texts, options))


#: What is passed on to ``PMLMEnv`` and ``PMLMVectorEnv``.
_TAKEN = {"n_edits", "max_words", "observation", "protect", "render_mode", "autoreset_mode", "array_type"}


def _parts(episodes: EpisodeSet | None, split: Split, texts: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Add Lite's parts to other options; those of the default patients are made once a process and shared.

    Raises:
        ValueError: An argument has no effect here.
    """
    if idle := sorted(options.keys() - _TAKEN):
        raise ValueError(
            f"PMLMLite-v0 takes no {', '.join(idle)}: its encoder, replies and reward are fixed. Leave it out, or make "
            "PMLM-v0"
        )
    if episodes is not None and split != "train":
        raise ValueError("split has no effect beside episodes: leave it out, and pass episodes.of(split)")
    if episodes is not None:
        return {"episodes": episodes, "encoder": HashedEncoder(), "reward": LiteReward(episodes, texts), **options}
    episodes, reward = _default(split, texts)
    max_words = options.pop("max_words", None) or _everybody().max_words
    return {"episodes": episodes, "encoder": _encoder(), "reward": reward, "max_words": max_words, **options}


@lru_cache(maxsize=1)
def _everybody() -> EpisodeSet:
    return lite_episodes()


@lru_cache(maxsize=1)
def _encoder() -> HashedEncoder:
    return HashedEncoder()


@lru_cache(maxsize=8)
def _default(split: Split, texts: bool) -> tuple[EpisodeSet, LiteReward]:
    episodes = _everybody().of(split)
    return episodes, LiteReward(episodes, texts)
