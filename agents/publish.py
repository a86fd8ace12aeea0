"""Hand a trained policy on, to a folder or to the Hugging Face hub: ``pmlm publish``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData

from agents.evaluation.arms import table
from agents.policy import CONFIG, WEIGHTS, WordPolicy
from agents.run_folder import RunFolder, write_text


@dataclass(frozen=True)
class PublishConfig:
    """Write a run's policy with a model card, to a folder or to the Hugging Face hub.

    Three files: the weights, their description, the card. No prompt, reply, reference or patient is among them; but a
    policy with a lexicon names the words that three or more training prompts have. Look at them before you publish.

    Attributes:
        run: The run folder that ``pmlm train`` wrote.
        out: The folder to write.
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
        ValueError: The folder holds no trained run, or it is not said where to.
        OSError: The hub does not answer, or refuses.
    """
    if (config.out is None) == (config.repo is None):
        raise ValueError("say where to: either --out FOLDER or --repo OWNER/NAME")
    if not config.run.is_dir():
        raise ValueError(f"{config.run} holds no run: train first with `pmlm train --run {config.run}`")
    run = RunFolder(config.run)
    policy = WordPolicy.from_pretrained(run.checkpoint)
    text = card(run, policy, config.repo or "FOLDER", config.license)
    with tempfile.TemporaryDirectory() as scratch:
        folder = config.out or Path(scratch)
        policy.save_pretrained(folder)
        write_text(folder / "README.md", text)
        if config.repo is None:
            print(f"{folder} holds the policy. Next: pmlm refine --model {folder}")
            return str(folder)
        api = HfApi()
        api.create_repo(config.repo, private=not config.public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=config.repo,
            folder_path=folder,
            allow_patterns=[CONFIG, WEIGHTS, "README.md"],
            commit_message="A policy trained with pmlm-env",
        )
    print(f"{commit.repo_url} holds the policy. Next: pmlm refine --model {config.repo}")
    return str(commit.repo_url)


def card(run: RunFolder, policy: WordPolicy, name: str, license: str | None = None) -> str:
    """Return a model card made of what the run noted: aggregates alone, nothing of any patient."""
    settings, metrics = run.settings(), run.metrics()
    head = ModelCardData(
        license=license,
        library_name="pmlm-env",
        tags=["reinforcement-learning", "prompt-editing", "gymnasium"],
    )
    shape, learner = policy.config, settings["learner"]
    decides = [f"a network of width {shape.hidden} on embeddings of `{shape.encoder}`"] if shape.hidden else []
    decides += [f"weights of {len(policy.lexicon.forms)} forms of words"] if policy.lexicon is not None else []
    facts = {
        "decides by": " and ".join(decides),
        "deletes": f"{shape.n_edits} words a prompt",
        "trained for the replies of": f"`{settings['llm_identity']}`",
        "reward": f"BERTScore F1 by `{settings['models']['scorer']}`, change from the initial prompt's reply",
        "updates": f"{len(metrics)}, {learner['rollouts']} rollouts of each of {learner['patients'] or 'all'} patients",
        "LLM calls": f"{metrics[-1]['llm_calls']}" if metrics else "none",
        "seed": settings["seed"],
    }
    judged = "It was not evaluated: `pmlm evaluate` does so."
    if run.evaluation.is_file():
        evaluation = json.loads(run.evaluation.read_text(encoding="utf-8"))
        judged = f"On {evaluation['split']} patients:\n\n```\n{table(evaluation)}\n```"
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
            "from agents.refine import Refiner",
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


if __name__ == "__main__":
    from agents.cli import main

    main("publish")
