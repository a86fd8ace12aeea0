"""Refine prompts with a saved agent, without calling an LLM."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.base import WEIGHTS, Agent
from agents.problem import Editor, MakeEditor, Problem, Shape, blind
from agents.registry import load
from agents.run_folder import RunFolder
from pmlm_env.core.edits import Edit, apply_edits
from pmlm_env.core.episodes import Episode, EpisodeSet
from pmlm_env.core.task import Encoder
from pmlm_env.core.words import Prompt, Role, Word, single_spaces
from pmlm_env.device import choose_device
from pmlm_env.encoders.base import load_encoder
from pmlm_env.llm import LLM, Budget, Limits, load_llm
from pmlm_env.weights import BUNDLED


@dataclass(frozen=True)
class Refinement:
    """A refined prompt.

    Attributes:
        prompt: The prompt after all edits.
        edits: The edits in order, each with its probability under the agent's policy, if it has one.
    """

    prompt: str
    edits: tuple[Edit, ...]


class Refiner:
    """Refines prompts with a saved agent and its encoder. A policy's refinement of a prompt is deterministic.

    Args:
        agent: The agent; its ``shape`` sets the number of edits and the protected words.
        encoder: Embeds words, on the agent's device; an agent that uses no embeddings accepts any encoder.
        protect: Additional words to protect; see ``PMLMEnv``.
        editor: Makes the LLM of an agent that itself asks one for edits; by default only a bundled one, because a saved
            agent must not decide where prompts are sent, or what is downloaded.

    Raises:
        ValueError: The agent was not trained, or was trained with embeddings of another length.
    """

    def __init__(
        self, agent: Agent, encoder: Encoder, protect: Collection[str] = (), editor: MakeEditor | None = None
    ) -> None:
        """Check and store the arguments; the encoder's weights load on first use, if the agent needs them."""
        self.shape = _shape(agent)
        if agent.needs_embeddings and encoder.hidden_size != self.shape.embedding_size:
            raise ValueError(
                f"the encoder's embeddings have {encoder.hidden_size} numbers, {self.shape.embedding_size} in "
                f"training: use the encoder that the agent was trained with, {self.shape.encoder!r}"
            )
        self.agent, self.encoder, self.editor = agent, encoder, editor or bundled_editor
        self.protect = tuple(dict.fromkeys((*self.shape.protect, *protect)))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: str = "cpu",
        revision: str | None = None,
        encoder: str | None = None,
        protect: Collection[str] = (),
        allow_import: bool = False,
        encoder_kwargs: Mapping[str, Any] | None = None,
    ) -> Refiner:
        """Load an agent and its encoder.

        Args:
            source: A run folder, the folder of a saved agent, or a repository on the Hugging Face hub; see
                ``agents.registry.load``.
            device: ``auto``, ``cpu``, ``cuda``, or ``cuda:N``.
            revision: The repository's branch, tag, or commit.
            encoder: The encoder, as ``load_encoder`` accepts it. By default the one that the agent was trained with, if
                it is bundled; an untrusted agent must not decide which other model is loaded or downloaded.
            protect: Words to protect in addition to those protected in training.
            allow_import: See ``agents.registry.load``.
            encoder_kwargs: Arguments for an encoder of your own; see ``load_encoder``.

        Raises:
            ValueError: There is no such agent, its class must not be imported, or it was trained with an encoder that
                is not bundled, and ``encoder`` is None.
            ModelError: The encoder was not found.
            OSError: The hub does not respond.
        """
        place = str(choose_device(device))
        run = run_of(source)
        agent = load(source if run is None else run.whole_checkpoint(), place, revision, allow_import=allow_import)
        return cls(agent, load_encoder(encoder or _bundled_encoder(agent), encoder_kwargs, place), protect)

    def refine(self, prompt: Prompt | tuple[Sequence[str], Sequence[Role]], patient: npt.ArrayLike) -> Refinement:
        """Refine one prompt.

        Args:
            prompt: A prompt, as ``pmlm_env.prompting.InitialPrompt.fill`` returns it; or its words, separated by single
                spaces, and their roles.
            patient: The patient vector of Eq. 2, float32, as long as in training.

        Raises:
            ValueError: Words and roles do not match, the vector's length differs from that in training, or the agent
                learned from check-ups, for which there is ``refine_all``.
        """
        if not isinstance(prompt, Prompt):
            words, roles = prompt
            prompt = Prompt(tuple(map(Word, words, single_spaces(len(words)))), tuple(roles))
        vector = np.asarray(patient, dtype=np.float32)
        episode = Episode(
            "", "test", prompt.texts, prompt.roles, vector, "", "", "", (), prompt.spaces, prompt.language
        )
        return self.refine_all(EpisodeSet([episode]))[0]

    def refine_all(self, episodes: EpisodeSet) -> list[Refinement]:
        """Refine all prompts, without using references or labels.

        Raises:
            ValueError: The patient vectors' length differs from that in training, or a prompt is too long for the
                agent, or has no word that may be edited.
        """
        size = episodes.vectors.shape[1]
        if size != self.shape.patient_size:
            raise ValueError(
                f"the patient vector has {size} numbers, {self.shape.patient_size} in training: prepare the patients "
                "with the patient encoder of the training (`pmlm prepare --patient-encoder`)"
            )
        problem = Problem(
            blind(episodes), self.encoder, None, self.shape.n_edits, protect=self.protect, editor=self.editor
        )
        problem.warn_of_short_prompts()
        edits = self.agent.refine(problem)
        prompts = apply_edits(episodes, range(len(episodes)), edits)
        return [Refinement(prompt, each) for prompt, each in zip(prompts, edits, strict=True)]


def bundled_editor(editor: Editor) -> LLM:
    """Make the LLM that a saved agent asks for edits, with its replies in memory only.

    Raises:
        ValueError: It is not bundled.
    """
    check_editor(editor)
    return load_llm(editor.options(), budget=Budget(Limits(editor.max_calls)))


def check_editor(editor: Editor, given: str | None = None) -> None:
    """Check that an LLM that a saved agent asks for edits is bundled, or was named by the user.

    Args:
        editor: The LLM.
        given: What the user named.

    Raises:
        ValueError: It is neither.
    """
    kind, _, name = editor.llm.partition(":")
    if editor.llm not in (given, "responder") and not (kind == "local" and name in BUNDLED):
        raise ValueError(
            f"the agent asks {shortened(editor.llm)} which words to delete, which is not bundled and gets no prompts "
            "on the agent's word alone: name it with --editor, if you trust it (in Python: Refiner(editor=...))"
        )


#: Names of a run's checkpoint; the second while it is being replaced.
_CHECKPOINTS = ("checkpoint", "checkpoint.old")

#: The only encoders that are loaded unless the caller names one: both are of the bundled model.
_BUNDLED = ("minilm", "once")


def _bundled_encoder(agent: Agent) -> str:
    """Return the name of the agent's encoder, and raise ValueError if it is not bundled."""
    name = _shape(agent).encoder if agent.needs_embeddings else _BUNDLED[0]
    if name not in _BUNDLED:
        raise ValueError(
            f"the agent was trained with the encoder {name!r}, which is not bundled and is not loaded on the agent's "
            "word alone: name it with --encoder FOLDER_OR_HUB_NAME (in Python: encoder=...)"
        )
    return name


def run_of(source: str | Path) -> RunFolder | None:
    """Return the run that a path names by its folder or its checkpoint; None for any other saved agent."""
    folder = Path(source)
    run = RunFolder(folder.parent if folder.name in _CHECKPOINTS else folder)
    return run if run.begun and not (run.path / WEIGHTS).exists() else None


def _shape(agent: Agent) -> Shape:
    if agent.shape is None:
        raise ValueError(f"the agent {agent.name} has learned nothing yet: call fit first, or load a saved one")
    return agent.shape
