"""Settings of ``pmlm refine`` and ``pmlm publish``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pmlm_env.core.episodes import Split


@dataclass(frozen=True)
class RefineConfig:
    """Refine prompts with a saved agent, without calling an LLM.

    Without --out, the prompts are printed for reading, one per line: line breaks within a prompt become spaces, and
    invisible and control characters are printed as escapes. With --out, the exact prompts are written as JSON Lines,
    each with its edits.

    If a person will read the replies, protect the words that must not be lost: the label predicted for the patient
    (--protect self), and negations, because deleting one reverses a finding (--protect negations). To protect both,
    use --protect self negations.

    Attributes:
        model: A run's ``checkpoint`` folder, a folder that ``pmlm publish`` wrote, or a name on the Hugging Face hub.
        episodes: A folder that ``pmlm prepare`` wrote.
        split: The split whose prompts to refine; includes patients without a label or a doctor's reply.
        patient: The id of a patient, to refine only their prompt.
        out: The file to write, in JSON Lines; by default refined prompts are printed.
        protect: Words that are not edited, in addition to those protected in training: roles (``background``,
            ``self``, ``peer``, ``instruction``), ``digits`` (words with a digit), and ``negations`` (no, not, without,
            denies, ...); none by default.
        encoder: The encoder, for an agent that was not trained with the bundled one: a folder or a hub name.
        device: Where the agent and its encoder run: ``auto``, ``cpu``, ``cuda``, or ``cuda:N``.
        allow_import: Import and run the agent's class if the saved agent names it as ``package.module:Class``. Do so
            only if you trust who made it.
    """

    model: str = "runs/train/checkpoint"
    episodes: Path = Path("prepared")
    split: Split = "test"
    patient: str | None = None
    out: Path | None = None
    protect: tuple[str, ...] = ()
    encoder: str | None = None
    device: str = "cpu"
    allow_import: bool = False


@dataclass(frozen=True)
class PublishConfig:
    """Write a run's agent with a model card, to a folder or to the Hugging Face hub.

    It writes three files: the weights, their description, and the model card. They contain no prompts, replies,
    references, or patients, but some agents, such as the lexicon, contain words of the training prompts. These words
    are printed before an upload.

    Attributes:
        run: The run folder that ``pmlm train`` wrote.
        out: The folder to write: new, empty, or written by ``pmlm publish``.
        repo: Instead of ``out``, a repository on the hub, OWNER/NAME; created if it does not exist. Needs a token: see
            ``hf auth``.
        public: Whether to make a new repository public.
        license: The license stated in the model card, as the hub abbreviates it.
        allow_import: Import and run the classes that the run names as ``package.module:Class``. Do so only if you trust
            the run.
    """

    run: Path = Path("runs/train")
    out: Path | None = None
    repo: str | None = None
    public: bool = False
    license: str | None = None
    allow_import: bool = False
