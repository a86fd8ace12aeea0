"""Samples that no search has seen."""

from __future__ import annotations

from agents.benchmark.fresh_samples import FreshSamples
from pmlm_env.llm import LLM, Completion, Request


class Numbers(LLM):
    """Replies with the number of the sample."""

    identity = "numbers"

    def replies(self, requests):  # type: ignore[no-untyped-def]
        yield {i: Completion(str(request.sample), 1, 1, "stop") for i, request in enumerate(requests)}


def test_no_sample_is_given_twice_and_the_same_purpose_gets_the_same_again() -> None:
    requests = [Request(prompt, sample) for prompt in ("one", "another") for sample in (0, 1)]

    def samples(purpose: str) -> list[list[int]]:
        llm = FreshSamples(Numbers(), purpose)
        asked = [[int(reply.text) for reply in llm.generate([prompt] * 3)] for prompt in ("one", "another")]
        return [*asked, [int(reply.text) for reply in llm.ask(requests)]]  # type: ignore[union-attr]

    first, again, other = samples("a search"), samples("a search"), samples("another search")
    assert first == again
    for one, another, more in (first, other):
        assert one == another  # samples belong to a prompt
        assert len({*one, *more}) == len(one) + len({*more}) == 5
    of_first, of_other = ({number for numbers in each for number in numbers} for each in (first, other))
    assert not of_first & of_other
    assert min(of_first | of_other) >= 1_000_000
