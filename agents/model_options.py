"""Options shared by several commands: the models, calls to the LLM, and a cohort's files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agents.settings import refuse_idle
from pmlm_env.cohort import Cohort, ReadReport, Schema
from pmlm_env.cohort.sources import SOURCES
from pmlm_env.cohort.sources.assembly import Reading
from pmlm_env.cohort.sources.tables import schema_in
from pmlm_env.cohort.wording import bare
from pmlm_env.core.edits import EditRules
from pmlm_env.kwargs import NO_KWARGS, Kwargs, read_kwargs
from pmlm_env.llm import Limits, LLMOptions
from pmlm_env.llm.specs import IN_PROCESS
from pmlm_env.llm.storage.location import check_location
from pmlm_env.rewards.base import BERTSCORE, GUARDED

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelOptions(LLMOptions):
    """The models and the edits: everything that determines a run's results.

    Attributes:
        n_samples: Replies per prompt, whose scores are averaged; use more than 1 for LLMs whose replies vary.
        encoder: The word encoder: ``minilm``, a directory, or a hub name; ``once``, which encodes each initial prompt
            once and not again after each deletion; or an encoder of your own: ``package.module:Class``, or the name of
            an installed plugin.
        encoder_kwargs: ``{"model": MODEL}`` for ``once``, or arguments of your own encoder's class, as JSON.
        reward: What agents learn to increase: ``bertscore`` (its F1), ``margin`` or ``guarded`` (docs/rewards.md), or a
            reward of your own: ``package.module:Class``, or the name of an installed plugin. Tables show BERTScore in
            any case.
        reward_kwargs: ``{"settings": "FILE.toml"}`` for ``guarded``, or arguments of your own reward's class, as JSON.
        scorer: BERTScore's model: ``minilm``, a directory, or a hub name.
        scorer_layer: The layer whose hidden states BERTScore compares; by default the layer that bert-score uses for
            the model, or else the one at three quarters of its depth.
        scorer_idf: Weigh word pieces in BERTScore by their inverse document frequency in the training patients'
            letters, so that what stands in every letter counts little.
        long_texts: How BERTScore handles texts longer than the scorer's input limit, usually 512 tokens: ``cut``
            truncates them, ``chunks`` embeds them in chunks and compares the whole texts.
        n_edits: The edit budget, the maximum number of edits per prompt (the paper's n): a whole number, or a share of
            the prompt's words (0.2 = a fifth of them, 1.0 = all).
        protect: Words that are not edited: roles (``background``, ``self``, ``peer``, ``instruction``), ``digits``
            (words with a digit), and ``negations`` (no, not, without, denies, ...); none by default, as published.
        device: ``auto``, ``cpu``, ``cuda``, or ``cuda:N``.
    """

    n_samples: int = 1
    encoder: str = "minilm"
    encoder_kwargs: Kwargs = NO_KWARGS
    reward: str = BERTSCORE
    reward_kwargs: Kwargs = NO_KWARGS
    scorer: str = "minilm"
    scorer_layer: int | None = None
    scorer_idf: bool = False
    long_texts: Literal["cut", "chunks"] = "cut"
    n_edits: int | float = 10
    protect: tuple[str, ...] = ()
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the edit options, and read the arguments given as mappings or JSON.

        Raises:
            ValueError: ``n_edits`` is neither a number of words nor a share, ``protect`` has a name that is neither a
                role nor a kind of word, arguments are not JSON values or contain what looks like a key, or a
                reward's settings are not allowed.
        """
        super().__post_init__()
        EditRules(self.n_edits, protect=self.protect)
        if self.reward == GUARDED and not isinstance(self.reward_kwargs.get("settings"), Mapping):
            # A run keeps the settings themselves, which hold wherever it goes on, and whatever becomes of the file.
            from pmlm_env.rewards.guarded import BUILT_IN, GuardedSettings, settings_table  # this loads torch

            file = self.reward_kwargs.get("settings", str(BUILT_IN))
            GuardedSettings.read(file)
            kept = Kwargs({**self.reward_kwargs, "settings": settings_table(file)}, "--reward-kwargs")
            object.__setattr__(self, "reward_kwargs", kept)


def replying(options: LLMOptions, editors: bool) -> LLMOptions:
    """Return the options of the LLM that replies.

    Args:
        options: As the user gave them.
        editors: Whether an agent asks an LLM itself, for which the file of providers holds, too: so it may be given
            even if the LLM that replies runs in this process.
    """
    in_process = options.llm.partition(":")[0] in IN_PROCESS
    return replace(options, providers=None) if editors and in_process else options


@dataclass(frozen=True)
class CallOptions(Limits):
    """Options for calls to the LLM; they may change when a run is resumed.

    Attributes:
        budget_file: A TOML file with limits that several runs share; see docs/llm.
        cache: Where replies are stored: a file, by default ``replies.sqlite`` in the run folder, or a PostgreSQL server
            that many machines share, ``postgresql://USER@HOST/DATABASE`` (extra ``postgres``).
        replay: Use cached replies only, and never call the LLM; a reply missing from the cache is an error.
        concurrency: Maximum number of concurrent requests; by default the provider's limit.
        max_failures: Stop the run after this many consecutive episodes without a reply.
        send_values: Send prompts that contain laboratory values, or other columns of the patients' table, to an LLM on
            another machine. Only some templates have them, such as ``raw``.
    """

    budget_file: Path | None = None
    cache: str | None = None
    replay: bool = False
    concurrency: int | None = None
    max_failures: int | None = 64
    send_values: bool = False

    def __post_init__(self) -> None:
        """Check the limits and ``cache``.

        Raises:
            ValueError: A limit is negative or too large, or ``cache`` contains a password or is an unusable URL.
        """
        super().__post_init__()
        if self.cache is not None:
            check_location(self.cache)


#: The source of ``CohortFiles`` whose files have options of their own.
_TABLES = "tables"


@dataclass(frozen=True)
class CohortFiles:
    """A cohort on disk.

    Attributes:
        cohort: A folder with ``patients`` and ``labs`` (long) or ``checkups`` (wide): CSV, TSV, Parquet, or Excel; or
            what another source reads.
        schema: ``obstetric``, or a TOML or JSON file that lists indicators and labels (see docs/schema.md); by
            default ``schema.toml`` or ``schema.json`` in the cohort's folder; without it, inferred from the tables.
        source: What reads the cohort: ``tables``, an installed plugin's name, or ``package.module:function``.
        source_kwargs: Arguments of your own source, as JSON.
        patients_file: Name of the patient file, if it differs from the default.
        labs_file: Name of the long table of check-ups, if it differs from the default.
        checkups_file: Name of the wide table of check-ups, if it differs from the default.
        encoding: The encoding of CSV and TSV files, such as ``gb18030`` or ``cp1252``; by default UTF-8.
        drop_bad_rows: Drop and count invalid rows instead of stopping. It still stops if they are more than half of the
            patients or values, or more than nine tenths of an indicator's values.
        keep_later: Use check-ups after a patient's index date, too. By default they are left out and counted, because
            they were not known yet.
    """

    cohort: Path
    schema: str | None = None
    source: str = _TABLES
    source_kwargs: Kwargs = NO_KWARGS
    patients_file: str | None = None
    labs_file: str | None = None
    checkups_file: str | None = None
    encoding: str | None = None
    drop_bad_rows: bool = False
    keep_later: bool = False

    def __post_init__(self) -> None:
        """Read the arguments given as a mapping or JSON, and refuse options without effect.

        Raises:
            ValueError: Arguments are not JSON values or contain what looks like a key, or an option has no effect.
        """
        read_kwargs(self)
        if self.source != _TABLES:
            of_tables, of_built_in = (
                ("patients_file", "labs_file", "checkups_file", "encoding"),
                ("drop_bad_rows", "keep_later"),
            )
            idle = of_tables if self.source in SOURCES.builtin else (*of_tables, *of_built_in)
            why = f"it is not an option of the source {self.source}: give --source-kwargs what that takes"
            refuse_idle(self, dict.fromkeys(idle, why))
        elif self.source_kwargs:
            raise ValueError(f"--source-kwargs has no effect: the source {_TABLES} has options of its own, see --help")

    def read(self, schema: Schema | None = None, *, new_patients: bool = False) -> tuple[Cohort, ReadReport]:
        """Read and check the cohort, and log a report.

        Args:
            schema: What the cohort measures; by default that of the options.
            new_patients: Whether the patients need no label, reference, or date; see ``read_cohort``.

        Raises:
            ValueError: The cohort cannot be read, or the source did not return one.
        """
        schema = schema or (Schema.load(self.schema) if self.schema else schema_in(self.cohort))
        built_in, given = self.source in SOURCES.builtin, dict[str, Any]()
        if built_in:
            given["reading"] = Reading(
                new_patients=new_patients, drop_bad_rows=self.drop_bad_rows, keep_later=self.keep_later
            )
        if self.source == _TABLES:
            given |= {"patients": self.patients_file, "labs": self.labs_file, "checkups": self.checkups_file}
            given["encoding"] = self.encoding
        found = SOURCES.make(self.source, self.cohort, schema, kwargs=self.source_kwargs, **given)
        cohort, report = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
        if not (isinstance(cohort, Cohort) and isinstance(report, ReadReport)):
            raise ValueError(f"the source {self.source} returned {type(found).__name__}, not a Cohort and a ReadReport")
        if schema is not None and cohort.schema != schema:
            raise ValueError(f"the source {self.source} returned a cohort with another schema than it was given")
        patient, times = Counter(patient.patient_id for patient in cohort).most_common(1)[0] if cohort else ("", 0)
        if times != 1:
            what = f"patient {bare(patient)} {times} times" if times else "no patient"
            raise ValueError(f"the source {self.source} returned {what}")
        # The built-in sources have named the patients without a value in a warning.
        left_out = () if built_in else report.patients_without_checkups
        logger.info("%s", replace(report, new_patients=new_patients, patients_without_checkups=left_out))
        return cohort, report
