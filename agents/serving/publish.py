"""Hand a trained policy on, to a folder or to the Hugging Face hub: ``pmlm publish``."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData

from agents.evaluation.variants import table
from agents.policies.word_policy import CONFIG, WEIGHTS, WordPolicy
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.train import trained
from pmlm_env.io.checked_files import read_object
from pmlm_env.io.files import write
from pmlm_env.io.text import as_code, printable

CARD, LIBRARY = "README.md", "pmlm-env"


@dataclass(frozen=True)
class PublishConfig:
    """Write a run's policy with a model card, to a folder or to the Hugging Face hub.

    Three files: the weights, their description, the card. No prompt, reply, reference or patient is among them; but a
    policy with a lexicon names the words that three or more training prompts have: before an upload they are printed.

    Attributes:
        run: The run folder that ``pmlm train`` wrote.
        out: The folder to write: a new or an empty one, or one that ``pmlm publish`` wrote.
        repo: Or the repository on the hub, OWNER/NAME; it is made if it is not there. Needs a token: see ``hf auth``.
        public: Whether a new repository is open to everybody.
        license: The licence that the card names, as the hub abbreviates it.
    """

    run: Path = Path("runs/train")
    out: Path | None = None
    repo: str | None = None
    public: bool = False
    license: str | None = None


def publish(config: PublishConfig) -> str:
    """Write the files, and return where they are.

    Raises:
        ValueError: The folder holds no trained run, or it is not said where to, or other files are there.
        OSError: The hub does not answer, or refuses.
    """
    if (config.out is None) == (config.repo is None):
        raise ValueError("say where to: either --out FOLDER or --repo OWNER/NAME")
    if config.public and config.repo is None:
        raise ValueError("--public has no effect on a folder: leave it out, or name a repository with --repo")
    run = RunFolder(config.run)
    if config.out is not None:
        _check_replaceable(config.out)
    policy = WordPolicy.from_pretrained(run.whole_checkpoint())
    policy.config = replace(policy.config, encoder=_model_name(policy.config.encoder))  # no path leaves this machine
    text = printable(card(run, policy, config.repo or "FOLDER", config.license))
    with tempfile.TemporaryDirectory() as scratch:
        folder = config.out or Path(scratch)
        policy.save_pretrained(folder)
        write(folder / CARD, text)
        if config.repo is None:
            print(f"{folder} holds the policy. Next: pmlm refine --model {folder}")
            return str(folder)
        print(_leaving(policy))
        api = HfApi()
        api.create_repo(config.repo, private=not config.public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=config.repo,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
            commit_message="A policy trained with pmlm-env",
        )
    print(f"{commit.repo_url} holds the policy. Next: pmlm refine --model {config.repo}")
    return str(commit.repo_url)


def card(run: RunFolder, policy: WordPolicy, name: str, license: str | None = None) -> str:
    """Return a model card made of what the run noted: aggregates alone, nothing of any patient, path or endpoint."""
    settings, updates = plain(trained(run)), run.updates()
    metrics = [line for line in run.metrics() if line["update"] <= updates]
    head = ModelCardData(
        license=license,
        library_name=LIBRARY,
        tags=["reinforcement-learning", "prompt-editing", "gymnasium"],
    )
    shape, learner = policy.config, settings["learner"]
    llm = settings["models"]["llm"].split(":", 1)[-1]  # its identity would tell the URL and the system prompt too
    models = (shape.encoder, settings["models"]["scorer"], llm)
    encoder, scorer, llm = (as_code(_model_name(name)) for name in models)
    layer, long_texts = (settings["models"].get(name) for name in ("scorer_layer", "long_texts"))
    scorer += f", layer {layer}" if layer is not None else ""
    scorer += ", long texts in chunks" if long_texts == "chunks" else ""
    decides = [f"a network of width {shape.hidden} on embeddings of {encoder}"] if shape.hidden else []
    decides += [f"weights of {len(policy.lexicon.forms)} forms of words"] if policy.lexicon is not None else []
    facts = {
        "decides by": " and ".join(decides),
        "deletes": f"{shape.n_edits} words a prompt",
        "trained for the replies of": llm,
        "reward": f"BERTScore F1 by {scorer}, change from the initial prompt's reply",
        "updates": f"{updates}, {learner['rollouts']} rollouts of each of {learner['patients'] or 'all'} patients",
        "LLM calls": f"{metrics[-1]['llm_calls']}" if metrics else "none",
        "seed": settings["seed"],
    }
    judged = "It was not evaluated: `pmlm evaluate` does so."
    again = f"make it again with `pmlm evaluate --run {run.path}`"
    evaluation = read_object(run.evaluation, again) if run.evaluation.is_file() else {"updates": None}
    try:
        if evaluation["updates"] == updates:  # otherwise another checkpoint was evaluated, before --resume
            judged = f"On {evaluation['split']} patients:\n\n```\n{table(evaluation)}\n```"
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{run.evaluation} is damaged: {again}") from None
    return "\n".join(
        [
            "---",
            head.to_yaml(),
            "---",
            "",
            "# A policy that deletes words from patients' prompts",
            "",
            "It edits the initial prompts of pmlm-env's template, so that an LLM's reply comes closer to the doctor's.",
            "What it learnt holds for that template and that LLM. Research software: nothing of it is medical advice.",
            "",
            "```python",
            "from agents.serving.refine import Refiner",
            "",
            f'refiner = Refiner.from_pretrained("{name}")',
            "refiner.refine((words, roles), patient).prompt",
            "```",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in facts.items()),
            "",
            "## What it does to held-out patients' replies",
            "",
            judged,
            "",
        ]
    )


def _model_name(name: str) -> str:
    """Return a model's name as others may see it: of a path, the last part."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).is_dir()
    return os.path.basename(os.path.abspath(name)) if is_path else name


def _leaving(policy: WordPolicy) -> str:
    """Say which words of training prompts a policy takes along: as they stand there, and without case and marks."""
    forms = () if policy.lexicon is None else policy.lexicon.forms
    words = sorted({text.strip() for _, text in forms} - {""})
    return f"The policy names {len(words)} words of the training prompts: {' '.join(words) or 'none'}"


def _check_replaceable(folder: Path) -> None:
    """See that nothing is in the way of what will be written but an earlier publication.

    Raises:
        ValueError: Something else is there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        names = {path.name for path in folder.iterdir()}
        described = read_object(folder / CONFIG)
        ours = f"library_name: {LIBRARY}" in (folder / CARD).read_text(encoding="utf-8")
        if ours and names == {CONFIG, WEIGHTS, CARD} and {"embedding_size", "lexicon"} <= described.keys():
            return
    except (OSError, ValueError, AttributeError):
        pass
    raise ValueError(f"{folder} is not a folder that pmlm publish wrote: choose another --out, new or empty")
