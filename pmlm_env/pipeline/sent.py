"""Which prompts may be sent to an LLM on another machine."""

from __future__ import annotations

from pathlib import Path

from pmlm_env.cohort.schema import Schema
from pmlm_env.llm.base import LLM
from pmlm_env.pipeline.files import CURE, SCHEMA_FILE, TEMPLATE_FILE, pipeline_in
from pmlm_env.prompting import InitialPrompt


def check_sent(folder: Path, llm: LLM, send_values: bool) -> None:
    """Check that an LLM on another machine gets no values of patients' records, unless the user allows it.

    Args:
        folder: What ``pmlm prepare`` wrote, or the pipeline in it, whose template is checked. Without a pipeline, which
            prompts of your own lack, nothing is.
        llm: The LLM.
        send_values: Whether the user allows it.

    Raises:
        ValueError: It is not allowed, or it is not known whether the prompts contain such values.
    """
    pipeline = pipeline_in(folder)
    if send_values or not llm.is_remote or not pipeline.is_dir():
        return
    files = (pipeline / SCHEMA_FILE, pipeline / TEMPLATE_FILE)
    if missing := [path for path in files if not path.is_file()]:
        raise ValueError(
            f"{missing[0]} is missing, which says whether the prompts contain values of the patients' records: {CURE}"
        )
    template = InitialPrompt(files[1], "counted", Schema.load(files[0]))
    if fields := template.of_records:
        raise ValueError(
            f"the prompts in {folder} contain values of the patients' records ({', '.join(fields)}), and the LLM is on "
            "another machine: allow it with --send-values, or make prompts without them with `pmlm prepare --template`"
        )
