"""LLMEditor: a language model reads the numbered words of a prompt, and names those to delete."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from agents.base import Agent, Edits, ReadTensors
from agents.baselines.config import FewShotEditorConfig, LLMEditorConfig
from agents.baselines.deletions import edits_of, kept_after
from agents.baselines.editor_answers import Example, question, read_answer
from agents.problem import BudgetSpentError, Editor, Problem
from pmlm_env.core.numbered import numbered_words
from pmlm_env.llm import Completion, LLMError, Request

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

#: Largest number of characters of an example in a saved agent, which may come from somebody else.
_LONGEST_EXAMPLE = 200_000


class LLMEditor(Agent):
    """Asks a language model once for each prompt which words to delete; it learns nothing (zero-shot).

    What is asked, and how answers are read, is in ``agents.baselines.editor_answers``. A prompt whose request fails
    stays as it is.

    Attributes:
        examples: Prompts with good answers, which are shown before each question; empty here.
        counts: ``prompts``; ``deleted`` words; ``failed`` requests; and what ``Answer.counts`` has.
    """

    name = "llm-editor"
    Config: ClassVar[type] = LLMEditorConfig
    learns = False
    needs_embeddings = False
    seeded = False
    config: LLMEditorConfig

    def __init__(self, config: LLMEditorConfig | None = None, seed: int = 0) -> None:
        """Start without examples; the LLM is loaded when it is first needed."""
        super().__init__(config, seed)
        self.examples: tuple[Example, ...] = ()

    @property
    def editor(self) -> Editor:
        """The LLM that is asked."""
        return Editor(self.config.editor, self.config.editor_tokens, self.config.editor_calls, self.may_import)

    def fit(self, problem: Problem) -> None:
        """Check that the LLM can be used; it learns nothing."""
        self.shape = problem.shape
        problem.editor(self.editor)

    def refine(self, problem: Problem) -> Edits:
        """Ask the LLM about every prompt, and delete the words that it names, within the edit budget.

        Raises:
            LLMError: All requests failed; the error is that of the last.
            BudgetExceededError: A limit of the whole run is reached.
        """
        llm = problem.editor(self.editor)
        batch = problem.batch(range(len(problem.episodes)))
        requests = [
            Request(question(numbered_words(episode, kept, legal), budget, self.examples))
            for episode, kept, legal, budget in zip(
                problem.episodes, batch.kept, batch.legal, batch.budgets.tolist(), strict=True
            )
        ]
        replies = llm.ask(requests)
        counts = Counter({"prompts": len(requests), "deleted": 0})
        chosen = []
        for reply, legal, budget in zip(replies, batch.legal, batch.budgets.tolist(), strict=True):
            slots: tuple[int, ...] = ()
            if isinstance(reply, Completion):
                slots, ignored = read_answer(reply.text, legal, budget)
                counts.update(ignored)
            else:
                counts["failed"] += 1
            counts["deleted"] += len(slots)
            chosen.append(slots)
        self.counts = dict(counts)
        self._report(replies)
        return edits_of(problem, chosen)

    def _report(self, replies: list[Completion | LLMError]) -> None:
        """Log the counts.

        Raises:
            LLMError: No request had a reply.
        """
        errors = [reply for reply in replies if isinstance(reply, LLMError)]
        if len(errors) == len(replies):
            raise errors[-1]
        if errors:
            logger.warning(
                "%d of %d prompts stay as they are, because %s did not say what to delete; the last error: %s",
                *(len(errors), len(replies), self.config.editor, errors[-1]),
            )
        if unreadable := self.counts.get("unreadable", 0):
            logger.warning("%d of %d answers of %s name no word", unreadable, len(replies), self.config.editor)
        logger.info("%s: %s", self.name, ", ".join(f"{name} {n}" for name, n in sorted(self.counts.items())))


class FewShotLLMEditor(LLMEditor):
    """``LLMEditor`` that first finds examples to show: training patients' random deletions with the best rewards.

    Each training patient that the budget pays for, in random order, gets ``candidates`` random deletions of random
    numbers of words. A patient's best one, if its delta is above 0, may become an example; those with the highest
    deltas do.
    """

    name = "llm-editor-few-shot"
    Config = FewShotEditorConfig
    learns = True
    seeded = True
    config: FewShotEditorConfig

    def fit(self, problem: Problem) -> None:
        """Judge random deletions within the budget, and keep the best as examples."""
        super().fit(problem)
        self.examples = ()
        rng, n_tries = np.random.default_rng(self.seed), self.config.candidates
        patients = rng.permutation(len(problem.episodes))[: problem.reward.prompts_left // (1 + n_tries)]
        if not len(patients):
            needed = (1 + n_tries) * problem.reward.per_prompt
            raise BudgetSpentError(
                f"an example needs {needed} completions, but {problem.reward.left:.0f} are left: give a larger "
                "--budget, or fewer --candidates",
                needed,
            )
        found: list[tuple[float, Example]] = []
        for patient in patients.tolist():
            batch = problem.batch([patient])
            legal, most = np.flatnonzero(batch.legal[0]), int(batch.budgets[0])
            if not len(legal) or not most:
                continue
            tries = [
                tuple(sorted(rng.permutation(legal)[: rng.integers(1, most, endpoint=True)].tolist()))
                for _ in range(n_tries)
            ]
            index = np.full(n_tries, patient)
            outcomes = problem.judge(index.tolist(), kept_after(problem, index, tries))
            deltas = np.where(outcomes.failed, -np.inf, outcomes.delta)
            if deltas[best := int(deltas.argmax())] > 0:
                shown = numbered_words(problem.episodes[patient], batch.kept[0], batch.legal[0])
                found.append((float(deltas[best]), Example(shown, tries[best])))
                ranked = sorted(found, key=lambda each: -each[0])
                self.examples = tuple(example for _, example in ranked[: self.config.examples])
        if not self.examples:
            logger.warning("No deletion that was tried raised a reply's score: %s has no example to show", self.name)

    def learned(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return the examples; see ``Agent.learned``."""
        return {"examples": [{"prompt": each.prompt, "deleted": list(each.deleted)} for each in self.examples]}, {}

    def restore(self, values: Mapping[str, Any], tensors: ReadTensors, device: str) -> None:
        """Restore the examples; see ``Agent.restore``."""
        self._check_names(values, {"examples"})
        tensors({})
        rows = values["examples"]
        if not isinstance(rows, list) or len(rows) > self.config.examples:
            raise ValueError(f"examples is {shortened(rows)}: use a list of at most {self.config.examples}")
        for row in rows:
            if not isinstance(row, dict) or row.keys() != {"prompt", "deleted"}:
                raise ValueError(f"examples holds {shortened(row)}: use an object with prompt and deleted")
            prompt, deleted = row["prompt"], row["deleted"]
            if not isinstance(prompt, str) or not 0 < len(prompt) <= _LONGEST_EXAMPLE:
                raise ValueError(f"an example's prompt should be text of at most {_LONGEST_EXAMPLE:,} characters")
            if not isinstance(deleted, list) or not all(type(slot) is int and slot >= 0 for slot in deleted):
                raise ValueError(f"deleted is {shortened(deleted)}: use a list of whole numbers, 0 or more")
        self.examples = tuple(Example(row["prompt"], tuple(row["deleted"])) for row in rows)

    def words(self) -> tuple[str, ...]:
        """Return the examples' words, numbers included; see ``Agent.words``."""
        return tuple(sorted({word for each in self.examples for word in each.prompt.split()}))

    @property
    def holds_prompts(self) -> bool:
        """Whether there are examples, which are prompts of training patients."""
        return bool(self.examples)
