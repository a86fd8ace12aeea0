"""Settings of ``pmlm refine`` and ``pmlm publish``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from agents.model_options import CallOptions, CohortFiles
from agents.settings import refuse_idle
from pmlm_env.core.episodes import Split
from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs
from pmlm_env.llm import LLMOptions
from pmlm_env.llm.specs import LLMDtype

#: The file that ``pmlm refine`` writes unless another is named.
OUT = Path("refined.jsonl")

#: The name that stands for the LLM of the run.
AS_TRAINED = "as-trained"


@dataclass(frozen=True)
class NewPatients(CohortFiles):
    """Patients to predict, or none; see ``CohortFiles``."""

    cohort: Path | None = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ReplyOptions(LLMOptions):
    """The LLM that replies.

    Attributes:
        llm: As in training (``as-trained``, the LLM of the run with its options, which options given here replace), or
            one of those that ``pmlm train`` accepts, such as ``local:NAME_OR_PATH`` or ``PROVIDER:MODEL``.
        max_new_tokens: Maximum number of tokens of a reply; None = as in training, or 128 with another ``llm``.
        temperature: Sampling temperature; 0 = greedy. None = as in training, or 0 with another ``llm``.
        llm_seed: Sampling seed; None = as in training, or 0 with another ``llm``.
        llm_dtype: Number format of ``local:``, as for ``pmlm train``; None = as in training, or ``auto`` with another
            ``llm``.
        on_truncated: What to do with a reply cut by ``max_new_tokens``: ``keep`` it or treat it as an ``error``. None =
            as in training; with another ``llm``, ``keep`` in this process and ``error`` for endpoints.
    """

    llm: str = AS_TRAINED
    max_new_tokens: int | None = None  # type: ignore[assignment]
    temperature: float | None = None  # type: ignore[assignment]
    llm_seed: int | None = None  # type: ignore[assignment]
    llm_dtype: LLMDtype | None = None  # type: ignore[assignment]

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default}


@dataclass(frozen=True)
class RefineConfig:
    """Refine patients' prompts with a trained agent, and ask the LLM for their replies.

    With --cohort, the patients are new: they need no label and no reply. The models that the agent was trained with
    predict their conditions, find similar training patients, and make their prompts; then the agent edits the prompts,
    and with --reply the LLM replies. A table is printed, and a record of each patient is written to --out.

    With --episodes, the prompts are those that `pmlm prepare` made. Without --out and --reply they are only printed for
    reading, one per line: line breaks within a prompt become spaces, and invisible and control characters are printed
    as escapes.

    If a person will read the replies, protect the words that must not be lost: the label predicted for the patient
    (--protect self), and negations, because deleting one reverses a finding (--protect negations). To protect both,
    use --protect self negations.

    Attributes:
        model: A run folder or its ``checkpoint``, a folder that ``pmlm publish`` wrote, or a name on the Hugging Face
            hub.
        files: The new patients.
        pipeline: The folder that ``pmlm prepare`` wrote and that has the models for predictions and peers; by default
            the one that the run was trained on.
        episodes: Instead of new patients, a folder that ``pmlm prepare`` wrote, whose prompts to refine; by default
            ``prepared``.
        split: The split of ``episodes`` to refine; includes patients without a label or a doctor's reply. By default
            ``test``.
        patient: The id of a patient, to refine only their prompt.
        editor: The LLM of an agent that itself asks one which words to delete, as in its training; it has to be named
            again here unless it is bundled, because a saved agent must not decide where prompts are sent.
        reply: Ask the LLM for a reply to each refined prompt.
        out: The file to write, in JSON Lines; see docs/traces.md. By default ``refined.jsonl``, or none if prompts are
            only printed.
        protect: Words that are not edited, in addition to those protected in training: roles (``background``,
            ``self``, ``peer``, ``instruction``), ``digits`` (words with a digit), and ``negations`` (no, not, without,
            denies, ...); none by default.
        encoder: The encoder, for an agent that was not trained with the bundled one: a folder, a hub name, ``once``,
            the name of an installed plugin, or ``package.module:Class``.
        encoder_kwargs: Arguments of ``once`` or of your own encoder's class, as JSON.
        device: Where all models run: ``auto``, ``cpu``, ``cuda``, or ``cuda:N``.
        models: The LLM that replies.
        calls: How the LLM is called, and limits on what this command spends. Replies are kept in the run's cache or,
            if there is no run, beside ``out``.
        allow_import: Import and run the classes that the saved agent, its run, or the pipeline name as
            ``package.module:Class``. Do so only if you trust who made them.
    """

    model: str = "runs/train/checkpoint"
    files: NewPatients = field(default_factory=NewPatients)
    pipeline: Path | None = None
    episodes: Path | None = None
    split: Split | None = None
    patient: str | None = None
    editor: str | None = None
    reply: bool = False
    out: Path | None = None
    protect: tuple[str, ...] = ()
    encoder: str | None = None
    encoder_kwargs: Kwargs = NO_KWARGS
    device: str = "auto"
    models: ReplyOptions = field(default_factory=ReplyOptions)
    calls: CallOptions = field(default_factory=CallOptions)
    allow_import: bool = False

    def __post_init__(self) -> None:
        """Check that every option has an effect.

        Raises:
            ValueError: One has none, or ``encoder_kwargs`` are not JSON values.
        """
        read_kwargs(self)
        idle: dict[str, str] = {}
        if self.files.cohort is None:
            names = ["pipeline", *(f"files.{each.name}" for each in fields(NewPatients))]
            idle |= dict.fromkeys(names, "it is for new patients: name their folder with --cohort, or leave it out")
        else:
            reason = "it is for prompts that exist already, and --cohort is for new patients: leave one of them out"
            idle |= dict.fromkeys(["episodes", "split"], reason)
            idle["files.schema"] = "new patients are read with the schema of the training patients: leave it out"
        if not self.reply:
            tables = ("models",) if self.editor is not None else ("models", "calls")
            names = [f"{table}.{each.name}" for table in tables for each in fields(getattr(self, table))]
            if self.editor is not None:
                names.remove("models.providers")
            idle |= dict.fromkeys(names, "no LLM is asked: add --reply, or leave it out")
        refuse_idle(self, idle)


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
