"""Refine prompts with a trained policy, without asking any LLM: ``pmlm refine``, or ``Refiner`` in Python."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from agents.policies.greedy import greedy_deletions
from agents.policies.word_policy import WordPolicy
from agents.problem import Problem, blind
from agents.run_folder import RunFolder
from pmlm_env.core.episodes import Episode, EpisodeSet, Role, Split
from pmlm_env.encoders.bert import WordEncoder
from pmlm_env.io.files import make_folder, write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refinement:
    """A refined prompt.

    Attributes:
        prompt: What is left.
        deleted: The slots of the initial prompt that went, in order.
    """

    prompt: str
    deleted: tuple[int, ...]


class Refiner:
    """A trained policy that deletes its most probable words: the same prompt is always refined alike.

    Args:
        policy: Who decides; it says how many words go.
        encoder: Embeds words, on the policy's device. By default the one that the policy was trained with, if it is
            bundled: a policy from elsewhere does not decide which other model is loaded or downloaded.

    Raises:
        ValueError: The policy was trained with an encoder that is not bundled, and none is given.
    """

    def __init__(self, policy: WordPolicy, encoder: WordEncoder | None = None) -> None:
        """Gather the parts; the encoder's weights load at their first use, if the policy needs them at all."""
        self.policy = policy
        self.encoder = encoder or WordEncoder(_bundled_encoder(policy), str(next(policy.parameters()).device))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: torch.device | str = "cpu",
        revision: str | None = None,
        encoder: str | None = None,
    ) -> Refiner:
        """Load a policy; see ``WordPolicy.from_pretrained``. ``encoder``: as ``WordEncoder`` takes it."""
        policy = WordPolicy.from_pretrained(source, device, revision)
        return cls(policy, None if encoder is None else WordEncoder(encoder, str(device)))

    def refine(self, prompt: tuple[Sequence[str], Sequence[Role]], patient: npt.ArrayLike) -> Refinement:
        """Refine one prompt.

        Args:
            prompt: Its words and their roles, as ``pmlm_env.prompting.InitialPrompt.fill`` returns them.
            patient: The patient vector of Eq. 2, (128,).

        Raises:
            ValueError: Words and roles do not fit, or the vector has another length than in training.
        """
        words, roles = prompt
        vector = np.asarray(patient, dtype=np.float32)
        return self.refine_all(EpisodeSet([Episode("", "test", tuple(words), tuple(roles), vector, "", "", "", ())]))[0]

    def refine_all(self, episodes: EpisodeSet) -> list[Refinement]:
        """Refine every prompt; references and labels are not looked at.

        Raises:
            ValueError: The patient vectors or the encoder's embeddings have another length than in training.
        """
        size = episodes.vectors.shape[1]
        if size != self.policy.config.patient_size:
            raise ValueError(f"the patient vector has {size} numbers, {self.policy.config.patient_size} in training")
        problem = Problem(blind(episodes), self.encoder, None, self.policy.config.n_edits)
        return [
            Refinement(" ".join(w for slot, w in enumerate(episode.words) if slot not in slots), slots)
            for episode, slots in zip(episodes, greedy_deletions(problem, self.policy), strict=True)
        ]


#: The encoder that is loaded without anybody's naming it.
_BUNDLED = "minilm"


def _bundled_encoder(policy: WordPolicy) -> str:
    """Return the name of the encoder that a policy was trained with; one without a network takes any."""
    name = policy.config.encoder
    if policy.config.hidden and name != _BUNDLED:
        raise ValueError(
            f"the policy was trained with the encoder {name!r}, which is not bundled and is not loaded on the policy's "
            "word alone: name it with --encoder FOLDER_OR_HUB_NAME (in Python: encoder=...)"
        )
    return _BUNDLED


@dataclass(frozen=True)
class RefineConfig:
    """Refine prompts with a trained policy; no LLM is asked.

    Without --out the prompts are printed for people to read, one a line, and a character that would not be seen or
    that a terminal would act upon is printed as its escape. With --out they are written as JSON Lines, exactly.

    Attributes:
        model: A run's ``checkpoint`` folder, a folder that ``pmlm publish`` wrote, or a name on the Hugging Face hub.
        episodes: A folder that ``pmlm prepare`` wrote.
        split: Whose prompts: everybody's, with or without a label and a doctor's reply.
        patient: One patient's alone, by her id.
        out: The file to write, in JSON Lines; by default refined prompts are printed.
        encoder: The encoder, for a policy that was trained with another than the bundled one: a folder or a hub name.
        device: Where the policy and its encoder run.
    """

    model: str = "runs/train/checkpoint"
    episodes: Path = Path("prepared")
    split: Split = "test"
    patient: str | None = None
    out: Path | None = None
    encoder: str | None = None
    device: str = "cpu"


def refine(config: RefineConfig) -> list[Refinement]:
    """Refine, and print or write.

    Raises:
        ValueError: There is no such policy or patient, or ``out`` is a folder.
    """
    if config.out is not None and config.out.is_dir():
        raise ValueError(f"{config.out} is a folder: name the file to write")
    everybody = EpisodeSet.load(config.episodes)
    episodes = everybody.of(config.split, everybody=True)
    _compare(config, everybody)
    if config.patient is not None:
        hers = [episode for episode in episodes if episode.patient_id == config.patient]
        if not hers:
            raise ValueError(
                f"{config.episodes} has no {config.split} patient {config.patient}: see its episodes.jsonl"
            )
        episodes = EpisodeSet(hers)
    refiner = Refiner.from_pretrained(config.model, config.device, encoder=config.encoder)
    if config.out is not None:
        make_folder(config.out.parent)
    refined = refiner.refine_all(episodes)
    if config.out is None:
        print("\n".join(each.prompt for each in refined))
        return refined
    lines = [
        {"patient_id": episode.patient_id, "prompt": each.prompt, "deleted": each.deleted}
        for episode, each in zip(episodes, refined, strict=True)
    ]
    write(config.out, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(f"{len(lines)} refined prompts are in {config.out}")
    return refined


def _compare(config: RefineConfig, everybody: EpisodeSet) -> None:
    """Say so where a run's policy is given other episodes than it was trained on."""
    run = RunFolder(Path(config.model).parent)
    if run.begun:
        try:
            run.check_episodes(everybody.digest)
        except ValueError:
            logger.warning(
                "%s holds other episodes than %s was trained on: its patient vectors may mean other things, for "
                "`pmlm prepare` fits stages 1 and 2 anew",
                config.episodes,
                config.model,
            )
