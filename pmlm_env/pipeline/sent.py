"""Which prompts may be sent to an LLM on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pmlm_env.cohort.schema import Schema
from pmlm_env.core.episode_files import LABELS_FILE, OF_RECORDS
from pmlm_env.io.checked_files import read_object
from pmlm_env.llm.base import LLM
from pmlm_env.pipeline.files import CURE, SCHEMA_FILE, TEMPLATE_FILE, pipeline_in
from pmlm_env.prompting import InitialPrompt


def check_sent(folder: Path, llm: LLM, send_values: bool) -> None:
    """Check that an LLM on another machine gets no values of patients' records, unless the user allows it.

    Args:
        folder: What ``pmlm prepare`` wrote, or the pipeline in it, whose template is checked. Without a pipeline, what
            was noted beside the prompts is; of prompts of your own, nothing.
        llm: The LLM.
        send_values: Whether the user allows it.

    Raises:
        ValueError: It is not allowed, or it is not known whether the prompts contain such values.
    """
    pipeline = pipeline_in(folder)
    if send_values or not llm.is_remote:
        return
    fields = _in_template(pipeline) if pipeline.is_dir() else _noted(folder / LABELS_FILE)
    if fields:
        raise ValueError(
            f"the prompts in {folder} contain values of the patients' records ({', '.join(fields)}), and the LLM is on "
            "another machine: allow it with --send-values, or make prompts without them with `pmlm prepare --template`"
        )


def _in_template(pipeline: Path) -> Sequence[str]:
    """Return the fields of a pipeline's template that put values of records into prompts.

    Raises:
        ValueError: The template or the schema is missing.
    """
    files = (pipeline / SCHEMA_FILE, pipeline / TEMPLATE_FILE)
    if missing := [path for path in files if not path.is_file()]:
        raise ValueError(
            f"{missing[0]} is missing, which says whether the prompts contain values of the patients' records: {CURE}"
        )
    return InitialPrompt(files[1], "counted", Schema.load(files[0])).of_records


def _noted(path: Path) -> Sequence[str]:
    """Return the fields that ``pmlm prepare`` noted beside the prompts, for when they are copied without the pipeline.

    Raises:
        ValueError: The file is damaged.
    """
    noted = read_object(path, CURE).get(OF_RECORDS, []) if path.is_file() else []
    if not isinstance(noted, list):
        raise ValueError(f"{path}: {OF_RECORDS} is not a list: {CURE}")
    return [str(field) for field in noted]
