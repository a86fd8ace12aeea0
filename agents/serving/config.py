"""Settings of ``pmlm refine`` and ``pmlm publish``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pmlm_env.core.episodes import Split


@dataclass(frozen=True)
class RefineConfig:
    """Refine prompts with a saved agent; no LLM is asked.

    Without --out the prompts are printed for people to read, one a line: a line break within a prompt becomes a space,
    and a character that would not be seen or that a terminal would act upon is printed as its escape. With --out they
    are written as JSON Lines, exactly, each with its edits.

    Where a person reads the reply, it is wise to protect the words that must not be lost: the label that is predicted
    for the patient (--protect self) and negations, without which a finding turns into its opposite (--protect
    negations); both with --protect self negations.

    Attributes:
        model: A run's ``checkpoint`` folder, a folder that ``pmlm publish`` wrote, or a name on the Hugging Face hub.
        episodes: A folder that ``pmlm prepare`` wrote.
        split: Whose prompts: those of all patients of the split, with or without a label and a doctor's reply.
        patient: One patient's prompt alone, by the patient's id.
        out: The file to write, in JSON Lines; by default refined prompts are printed.
        protect: Words that are not edited, besides those that the agent was trained to leave alone: roles
            (``background``, ``self``, ``peer``, ``instruction``), ``digits`` (words with a digit) and ``negations``
            (no, not, without, denies, ...); none by default.
        encoder: The encoder, for an agent that was trained with another than the bundled one: a folder or a hub name.
        device: Where the agent and its encoder run: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    model: str = "runs/train/checkpoint"
    episodes: Path = Path("prepared")
    split: Split = "test"
    patient: str | None = None
    out: Path | None = None
    protect: tuple[str, ...] = ()
    encoder: str | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class PublishConfig:
    """Write a run's agent with a model card, to a folder or to the Hugging Face hub.

    Three files: the weights, their description, the card. No prompt, reply, reference or patient is among them; but
    some agents name words of the training prompts, as a lexicon does. Before an upload those words are printed.

    Attributes:
        run: The run folder that ``pmlm train`` wrote.
        out: The folder to write: a new or an empty one, or one that ``pmlm publish`` wrote.
        repo: Or the repository on the hub, OWNER/NAME; it is made if it is not there. Needs a token: see ``hf auth``.
        public: Whether a new repository is open to everybody.
        license: The license that the card names, as the hub abbreviates it.
    """

    run: Path = Path("runs/train")
    out: Path | None = None
    repo: str | None = None
    public: bool = False
    license: str | None = None
