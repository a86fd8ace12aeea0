"""Several endpoints behind one name, some of which die, limp or say no."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm import Budget, LLMError, LLMOptions, Request, load_llm
from pmlm_env.llm.http.pool import PooledChat
from pmlm_env.llm.http.providers import load_providers
from pmlm_env.llm.storage.budget import BudgetExceededError, Limits
from pmlm_env.llm.storage.cached_llm import CachedLLM
from tests.llm.endpoint import Answer, Endpoint, chat, serve

pytestmark = pytest.mark.once

Connect = Callable[..., PooledChat]
REQUESTS = [Request(f"prompt {number}") for number in range(60)]


@pytest.fixture
def servers() -> Iterator[list[Endpoint]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serve()) for _ in range(3)]


def providers_file(folder: Path, endpoints: list[dict[str, Any]], **common: Any) -> Path:
    file = folder / "providers.toml"
    lines = ["[ward]", *(f"{name} = {json.dumps(value)}" for name, value in common.items())]
    for endpoint in endpoints:
        lines += ["[[ward.endpoints]]", *(f"{name} = {json.dumps(value)}" for name, value in endpoint.items())]
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture
def connect(tmp_path: Path, servers: list[Endpoint]) -> Iterator[Connect]:
    """Load a pool of the servers; settings of each endpoint by its number, others by name."""
    made: list[PooledChat] = []

    def load(
        *own: dict[str, Any], budget: Budget | None = None, concurrency: int | None = None, **common: Any
    ) -> PooledChat:
        endpoints = [{"base_url": server.url, **each} for server, each in zip(servers, own, strict=False)]
        file = providers_file(tmp_path, endpoints, **{"backoff": 0.02, "read_timeout": 10, **common})
        options = LLMOptions("ward:m", providers=str(file))
        llm = load_llm(options, concurrency=concurrency, budget=budget).llm
        assert isinstance(llm, PooledChat)
        made.append(llm)
        return llm

    yield load
    for llm in made:
        llm.close()


def counts(servers: list[Endpoint]) -> list[int]:
    return [server.n_requests for server in servers]


def replied(replies: list[Any]) -> int:
    return sum(not isinstance(each, LLMError) for each in replies)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_shares_are_those_of_the_weights(connect: Connect, servers: list[Endpoint], concurrency: int) -> None:
    pool = connect({"weight": 3}, {"weight": 2}, {"weight": 1}, concurrency=concurrency)
    assert replied(pool.ask(REQUESTS)) == 60
    assert counts(servers) == pytest.approx([30, 20, 10], abs=2)


def test_an_endpoint_that_dies_in_the_middle_costs_no_reply(connect: Connect, servers: list[Endpoint]) -> None:
    budget = Budget()
    pool = connect({}, {}, {}, budget=budget, concurrency=6)
    servers[1].answer = lambda count, prompt: chat() if count <= 5 else Answer(delivery="reset")
    replies = pool.ask(REQUESTS)
    assert replied(replies) == 60
    assert all(count > 5 for count in counts(servers))
    # The dead one gets what was under way when it died, and a probe now and then.
    assert servers[1].n_requests < 20
    assert budget.usage.calls == sum(counts(servers))
    answered = Counter(prompt for server in (servers[0], servers[2]) for prompt in server.prompts)
    assert max(answered.values()) == 1


def test_an_endpoint_that_cannot_be_reached_is_left_to_rest_and_costs_nothing(
    connect: Connect, servers: list[Endpoint], tmp_path: Path
) -> None:
    budget = Budget()
    pool = connect({}, {"base_url": "http://127.0.0.1:1/v1"}, budget=budget)
    assert replied(pool.ask(REQUESTS)) == 60
    assert budget.usage.calls == servers[0].n_requests == 60


def test_an_endpoint_that_comes_back_gets_its_share_again_and_no_more(
    connect: Connect, servers: list[Endpoint]
) -> None:
    pool = connect({}, {}, concurrency=2)
    servers[1].answer = lambda count, prompt: chat() if count > 3 else Answer(503, {"error": "loading the model"})

    async def slow(count: int, prompt: str) -> Answer:
        await asyncio.sleep(0.01)
        return chat()

    servers[0].answer = slow
    assert replied(pool.ask([Request(f"p {i}") for i in range(150)])) == 150
    assert servers[1].n_requests > 30
    assert servers[0].n_requests > 30


def test_a_used_up_quota_takes_one_endpoint_out(connect: Connect, servers: list[Endpoint]) -> None:
    pool = connect({}, {}, concurrency=1)
    servers[0].script(Answer(429, {"error": {"message": "insufficient balance", "code": "insufficient_quota"}}))
    assert replied(pool.ask(REQUESTS)) == 60
    assert counts(servers)[:2] == [1, 60]


def test_where_all_quotas_are_used_up_nothing_more_is_sent(connect: Connect, servers: list[Endpoint]) -> None:
    pool = connect({}, {}, concurrency=1)
    for server in servers:
        server.script(Answer(402, {"error": {"message": "no credit"}}))
    replies = pool.ask(REQUESTS)
    assert replied(replies) == 0
    assert sum(counts(servers)) == 2
    assert "ward, none of whose endpoints can be asked: HTTP 402" in str(replies[-1])


def test_where_all_are_down_a_request_fails_after_its_tries(connect: Connect, servers: list[Endpoint]) -> None:
    pool = connect({}, {}, tries=4, concurrency=1)
    for server in servers:
        server.script(Answer(500))
    (reply,) = pool.ask(REQUESTS[:1])
    assert "in ward: HTTP 500" in str(reply)
    assert "(tried 4 times)" in str(reply)
    assert sum(counts(servers)) == 4


def test_an_error_of_the_request_itself_is_not_tried_elsewhere(connect: Connect, servers: list[Endpoint]) -> None:
    pool = connect({}, {})
    for server in servers:
        server.script(Answer(400, {"error": {"message": "too long"}}))
    assert replied(pool.ask(REQUESTS[:1])) == 0
    assert sum(counts(servers)) == 1


def test_each_endpoint_has_its_own_limit_of_requests_in_flight(connect: Connect, servers: list[Endpoint]) -> None:
    most, now = [0, 0], [0, 0]

    def counting(which: int) -> Any:
        async def answer(count: int, prompt: str) -> Answer:
            now[which] += 1
            most[which] = max(most[which], now[which])
            await asyncio.sleep(0.02)
            now[which] -= 1
            return chat()

        return answer

    for which in (0, 1):
        servers[which].answer = counting(which)
    pool = connect({"concurrency": 5}, {"concurrency": 2}, concurrency=7)
    assert replied(pool.ask(REQUESTS)) == 60
    assert most == [5, 2]


def test_what_one_endpoints_rate_limit_does_not_allow_goes_to_the_other(
    connect: Connect, servers: list[Endpoint]
) -> None:
    pool = connect({"requests_per_minute": 120}, {})
    started = time.monotonic()
    assert replied(pool.ask(REQUESTS)) == 60
    passed = time.monotonic() - started
    assert servers[0].n_requests <= 1 + passed / 0.5
    assert sum(counts(servers)) == 60


def test_waiting_for_the_rate_limits_does_not_count_as_patience(connect: Connect, servers: list[Endpoint]) -> None:
    failed: set[str] = set()

    async def answer(count: int, prompt: str) -> Answer:
        if prompt in failed:
            return chat()
        failed.add(prompt)
        return Answer(503)

    for server in servers[:2]:
        server.answer = answer
    pool = connect({}, {}, requests_per_minute=600, patience=0.4, backoff=0.001)
    assert replied(pool.ask(REQUESTS[:20])) == 20


def test_each_endpoint_gets_its_own_key_only(
    connect: Connect, servers: list[Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARD_API_KEY", "common-key")
    monkeypatch.setenv("GPU_2_KEY", "second-key")
    connect({}, {"api_key_env": "GPU_2_KEY"}).ask(REQUESTS)
    seen = [{each["authorization"] for each in map(_lower, server.headers)} for server in servers[:2]]
    assert seen == [{"Bearer common-key"}, {"Bearer second-key"}]


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_replies_are_cached_under_the_pools_name(connect: Connect, servers: list[Endpoint]) -> None:
    first = CachedLLM(connect({"weight": 5, "concurrency": 3}, {}))
    first.ask(REQUESTS)
    before = sum(counts(servers))
    other = CachedLLM(connect({}, {}, {}), first.cache)
    assert other.identity == first.identity
    assert json.loads(first.identity)["endpoints"] == "ward"
    assert servers[0].url not in first.identity
    assert replied(other.ask(REQUESTS)) == 60
    assert sum(counts(servers)) == before
    assert connect({}, system_prompt="Reply briefly.").identity != first.identity


def test_a_limit_on_calls_holds_over_all_endpoints(connect: Connect, servers: list[Endpoint]) -> None:
    budget = Budget(Limits(max_llm_calls=25))
    pool = connect({}, {}, {}, budget=budget)
    with pytest.raises(BudgetExceededError):
        pool.ask(REQUESTS)
    assert budget.usage.calls == sum(counts(servers)) == 25


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        ([], "endpoints should be a list of tables, each with a base_url"),
        ([{"weight": 1}], "endpoints should be a list of tables, each with a base_url"),
        ([{"base_url": "https://a/v1", "extra_body": {}}], "endpoint 1: unknown 'extra_body'; one of several"),
        ([{"base_url": "https://a/v1", "weight": 0}], "endpoint 1: weight is 0: it should be above 0"),
        ([{"base_url": "https://a/v1", "weight": "big"}], "endpoint 1: weight is text: it should be a number"),
        ([{"base_url": "https://a/v1"}, {"base_url": "http://b/v1"}], "endpoint 2: base_url 'http://b/v1' would send"),
        ([{"base_url": "https://a/v1"}] * 2, "two endpoints have the same base_url"),
        ([{"base_url": "https://a/v1", "concurrency": 0}], "endpoint 1: concurrency is 0"),
    ],
)
def test_an_invalid_list_is_named_with_what_is_wrong(
    tmp_path: Path, endpoints: list[dict[str, Any]], said: str
) -> None:
    file = providers_file(tmp_path, endpoints)
    if not endpoints:
        file.write_text("[ward]\nendpoints = []\n")
    with pytest.raises(ValueError, match=r"providers.toml, \[ward\]") as caught:
        load_providers(file)
    assert said in str(caught.value)


def test_an_address_is_refused_beside_several_endpoints(tmp_path: Path) -> None:
    file = providers_file(tmp_path, [{"base_url": "https://a/v1"}])
    options = LLMOptions("ward:m", providers=str(file), base_url="https://b/v1")
    with pytest.raises(ValueError, match="--base-url has no effect with ward, which has several"):
        load_llm(options)
