"""Fine-tuning by several processes: the first one runs a command, and the others help whenever it fine-tunes."""

from __future__ import annotations

from functools import partial

from pmlm_env.llm.lora.training import Job
from pmlm_env.llm.lora.tunable import TunableLM, tunable_lm
from pmlm_env.processes import Processes


def help_fine_tuning(processes: Processes) -> None:
    """Take part in all fine-tuning of the first process, until it calls ``end_help``.

    Raises:
        LostProcessError, EndedError: Another process has ended, or reports an error.
        LLMError: The model computes numbers that are not finite.
    """
    n_jobs = 0
    while (content := processes.of_first()) is not None:
        n_jobs += 1
        job = Job(**content)
        job.training(partial(_model, job), processes, None).run("helping to fine-tune")
    processes.exchange(n_jobs)


def _model(job: Job) -> TunableLM:
    model, device, commit = job.model
    return tunable_lm(model, device, rank=job.settings["rank"], alpha=job.settings["alpha"], revision=commit)


def end_help(processes: Processes) -> bool:
    """In the first process, let those end that help it, and return whether there was anything to help with.

    Raises:
        LostProcessError: Another process has ended.
    """
    processes.of_first(None)
    return any(processes.exchange(0))
