"""Publish a trained agent to a folder or to the Hugging Face hub: ``pmlm publish``."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData

from agents.base import CONFIG, WEIGHTS, Agent
from agents.evaluation.variants import table
from agents.registry import AGENTS, REGISTRY, load
from agents.run_folder import RunFolder
from agents.serving.config import PublishConfig
from agents.settings import plain, without_folders
from agents.training.config import TrainConfig, named_classes
from agents.training.train import trained
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write
from pmlm_env.io.text import as_code, printable
from pmlm_env.rewards.base import BERTSCORE

CARD, LIBRARY = "README.md", "pmlm-env"


def publish(config: PublishConfig) -> str:
    """Write the files, and return their folder or URL.

    Raises:
        ValueError: The run folder contains no trained run, or names a class that must not be imported; or the
            destination is not specified, or has other files.
        OSError: The hub does not respond, or rejects the request.
    """
    if (config.out is None) == (config.repo is None):
        raise ValueError("the destination is missing: give either --out FOLDER or --repo OWNER/NAME")
    if config.public and config.repo is None:
        raise ValueError("--public has no effect on a folder: leave it out, or give --repo OWNER/NAME instead of --out")
    run = RunFolder(config.run)
    if config.out is not None:
        _check_replaceable(config.out)
    settings = trained(run, config.allow_import)
    agent = _without_paths(load(run.whole_checkpoint(), allow_import=config.allow_import))
    if agent.holds_prompts:
        raise ValueError(
            f"the agent {agent.name} in {run.checkpoint} contains prompts of training patients, and is not published: "
            "publish one that contains none, such as llm-editor"
        )
    text = printable(card(run, settings, agent, config.repo or "FOLDER", config.license))

    def next_command(model: Path | str) -> str:
        more = " --allow-import" if REGISTRY.is_path(agent.name) else ""
        names = f"--model {shlex.quote(str(model))} --pipeline {shlex.quote(str(settings.episodes))}"
        return f"Next, for new patients in the folder NEW: pmlm refine {names} --cohort NEW{more}"

    with tempfile.TemporaryDirectory() as scratch:
        folder = config.out or Path(scratch)
        agent.save(folder)
        write(folder / CARD, text)
        if config.repo is None:
            print(f"{folder} holds the agent. {next_command(folder)}")
            return str(folder)
        words = agent.words()
        print(f"The agent contains {len(words)} words of the training prompts: {' '.join(words) or 'none'}")
        api = HfApi()
        api.create_repo(config.repo, private=not config.public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=config.repo,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
            commit_message="An agent trained with pmlm-env",
        )
    print(f"{commit.repo_url} holds the agent. {next_command(config.repo)}")
    return str(commit.repo_url)


def card(run: RunFolder, settings: TrainConfig, agent: Agent, name: str, license: str | None = None) -> str:
    """Return a model card based on the run's records, with aggregates only: no patient data, paths, or endpoints.

    Args:
        run: The run.
        settings: Its settings.
        agent: Its agent, whose settings and encoder name must contain no paths.
        name: Where the agent will be published: a folder or a repository.
        license: The license stated in the card.
    """
    head = ModelCardData(
        license=license,
        library_name=LIBRARY,
        tags=["reinforcement-learning", "prompt-editing", "gymnasium"],
    )
    allowed = ", allow_import=True" if REGISTRY.is_path(agent.name) else ""
    return "\n".join(
        [
            "---",
            head.to_yaml(),
            "---",
            "",
            "# An agent that edits patients' prompts",
            "",
            "It edits the initial prompts of a pmlm-env template, so that an LLM's reply comes closer to the doctor's.",
            "What it learned applies to that template and that LLM only. Research software, not for medical advice.",
            "",
            "```python",
            "from agents.serving.refine import Refiner",
            "from pmlm_env.cohort import read_cohort",
            "from pmlm_env.pipeline import Pipeline",
            "",
            'pipeline = Pipeline.load("PREPARED")  # the folder of `pmlm prepare` that the agent was trained on',
            'patients, _ = read_cohort("NEW", pipeline.schema, new_patients=True)',
            f'refined = Refiner.from_pretrained("{name}"{allowed}).refine_all(pipeline.episodes(patients))',
            "```",
            "",
            *_on_package(agent),
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in _facts(run, settings, agent).items()),
            "",
            "## Replies for held-out patients",
            "",
            _judged(run),
            "",
        ]
    )


def _on_package(agent: Agent) -> list[str]:
    """Return lines on the package to install, if the agent's class is not one of ours."""
    package = type(agent).__module__.partition(".")[0]
    if agent.name in AGENTS:
        return []
    text = f"The agent's class is not part of {LIBRARY}: install the package that has the module {as_code(package)}."
    if REGISTRY.is_path(agent.name):
        text += " The class is imported and run only with `--allow-import`: give it if you trust that package."
    return [text, ""]


def _facts(run: RunFolder, trained_with: TrainConfig, agent: Agent) -> dict[str, str]:
    """Return the rows of the card's first table."""
    shape, models, updates = agent.shape, trained_with.models, run.updates()
    assert shape is not None
    is_class = "llm" in named_classes(plain(trained_with))
    llm = models.llm if is_class else models.llm.split(":", 1)[-1]  # the identity may have the URL and system prompt
    scorer = as_code(without_folders(models.scorer))
    scorer += f", layer {models.scorer_layer}" if models.scorer_layer is not None else ""
    scorer += ", with idf weights" if models.scorer_idf else ""
    scorer += ", long texts in chunks" if models.long_texts == "chunks" else ""
    score = f"BERTScore F1 ({scorer})" if models.reward == BERTSCORE else f"the score of {as_code(models.reward)}"
    spent = [line["llm_calls"] for line in run.metrics() if line["update"] <= updates]
    settings = ", ".join(as_code(f"{key} {value}") for key, value in plain(agent.config).items())
    vector = "computed by the agent from check-ups" if agent.needs_checkups else f"{shape.patient_size} numbers"
    embeddings = f"{as_code(shape.encoder)}, {shape.embedding_size} numbers per word"
    return {
        "agent": as_code(agent.name),
        "settings": settings or "none",
        "embeddings": embeddings if agent.needs_embeddings else "not used",
        "patient vector": vector,
        "edits": f"at most {_edit_budget(shape.n_edits)}",
        "protected": ", ".join(map(as_code, shape.protect)) or "none",
        "words of training prompts in it": str(len(agent.words())),
        "trained on the replies of": as_code(without_folders(llm)),
        "reward": f"change of {score} from the reply to the initial prompt",
        "budget": f"{trained_with.budget} completions, {run.budget_spent()} of them spent",
        "updates": str(updates),
        "LLM calls": str(spent[-1] if spent else "none"),
        "seed": str(agent.seed),
    }


def _edit_budget(n_edits: int | float) -> str:
    """Return the edit budget in words."""
    return f"{n_edits} per prompt" if isinstance(n_edits, int) else f"a share of {n_edits} of each prompt's words"


def _judged(run: RunFolder) -> str:
    """Return the evaluation table of the checkpoint, or a note that it was not evaluated."""
    again = f"make it again with `pmlm evaluate --run {run.path}`"
    evaluation = read_object(run.evaluation, again) if run.evaluation.is_file() else None
    try:
        if evaluation is None or (evaluation["updates"], evaluation["budget_spent"]) != (
            run.updates(),
            run.budget_spent(),
        ):  # the evaluation is of an earlier checkpoint, before --resume
            return "It was not evaluated: `pmlm evaluate` does so."
        return f"On {evaluation['split']} patients:\n\n```\n{table(evaluation)}\n```"
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{run.evaluation} is damaged: {again}") from None


def _without_paths(agent: Agent) -> Agent:
    """Strip folders from the model names that an agent stores, so that no local path is published."""
    assert agent.shape is not None
    named = {name: without_folders(value) for name, value in vars(agent.config).items() if isinstance(value, str)}
    agent.config = replace(agent.config, **named)
    agent.shape = replace(agent.shape, encoder=without_folders(agent.shape.encoder))
    return agent


def _check_replaceable(folder: Path) -> None:
    """Check that a folder is missing, empty, or written by ``pmlm publish``.

    Raises:
        ValueError: The folder contains anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        names = {path.name for path in folder.iterdir()}
        described = read_object(folder / CONFIG)
        ours = f"library_name: {LIBRARY}" in (folder / CARD).read_text(encoding="utf-8")
        if ours and names == {CONFIG, WEIGHTS, CARD} and {"agent", "shape"} <= described.keys():
            return
    except (OSError, ValueError, AttributeError):
        pass
    raise ValueError(f"{folder} is not a folder that pmlm publish wrote: choose another --out, new or empty")
