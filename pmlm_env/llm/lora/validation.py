"""Validation scores of an adapter in training; several processes compute a share of the examples each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from pmlm_env.llm.lora.tunable import TunableLM
from pmlm_env.processes import Processes

#: A prompt and its completion.
Example = tuple[str, str]


def validation_score(
    lm: TunableLM, validation: Sequence[Example], choices: Sequence[str], processes: Processes
) -> Callable[[], float]:
    """Return a function that returns the score of the adapter that ``lm`` has when it is called.

    Args:
        lm: The model.
        validation: Prompts and completions, at least one.
        choices: Completions; the score is then the share of prompts whose own completion is the likeliest of them. If
            there are none, it is the completions' mean log-likelihood per token.
        processes: Processes that call the function at the same time, and get the same score.

    Raises:
        LLMError: An example has more tokens than the model reads.
    """
    tokenized = [lm.tokenize(*example) for example in validation]
    own = processes.share(len(validation))
    answers = [lm.chat.encode_reply(choice) for choice in choices]
    truth = [completion for _, completion in validation[own]]

    def total() -> float:
        if not answers:
            examples = tokenized[own]
            return -lm.mean_loss(examples) * sum(len(each.completion) for each in examples) if examples else 0.0
        found = [choices[int(lm.log_likelihoods(each.prompt, answers).argmax())] for each in tokenized[own]]
        return float(sum(name == right for name, right in zip(found, truth, strict=True)))

    n = len(validation) if answers else sum(len(each.completion) for each in tokenized)

    def score() -> float:
        sums = torch.tensor([total()], dtype=torch.float64)
        processes.add([sums])
        return sums.item() / n

    return score
