"""OpenAIChat against a real HTTP server on this machine: how long it waits where the server is at its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any

import pytest

from pmlm_env.llm.base import Completion, LLMError, Request
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import PROMPT, Answer, Endpoint, chat

pytestmark = pytest.mark.once

Connect = Callable[..., OpenAIChat]


def rfc3339(then: float) -> str:
    return datetime.fromtimestamp(then, timezone.utc).isoformat().replace("+00:00", "Z")


def said(message: str, **more: Any) -> Answer:
    return Answer(429, {"error": {"message": message, **more}})


def with_headers(status: int = 429, **headers: str) -> Answer:
    return Answer(status, {}, {name.replace("_", "-"): value for name, value in headers.items()})


def gemini(*details: dict[str, Any]) -> Answer:
    message = "You exceeded your current quota, please check your plan and billing details."
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": list(details)}
    return Answer(429, [{"error": error}])


def openrouter(message: str, **headers: str) -> Answer:
    return said(message, code=429, metadata={"headers": headers, "provider_name": None})


# How long


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (with_headers(Retry_After="7"), 7),
        (with_headers(Retry_After="7s"), 7),
        (with_headers(503, Retry_After="7"), 7),
        (with_headers(529, retry_after="7"), 7),
        (with_headers(500, retry_after="7"), 7),
        (with_headers(retry_after_ms="6000"), 6),
        (with_headers(retry_after_ms="5400", retry_after="6"), 5.4),
        (with_headers(x_ms_retry_after_ms="6000"), 6),
        (with_headers(x_ratelimit_reset_requests="6s"), 6),
        (with_headers(x_ratelimit_reset_tokens="1m30s"), 90),
        (with_headers(x_ratelimit_reset_tokens="120ms"), 0.12),
        (with_headers(x_ratelimit_reset="6"), 6),
        (with_headers(x_ratelimit_reset="6.5"), 6.5),
        (with_headers(x_ratelimit_reset_after="6.5"), 6.5),
        (with_headers(ratelimit_reset="6", ratelimit_remaining="0"), 6),
        (with_headers(ratelimit='"default";r=0;t=6'), 6),
        (with_headers(ratelimit="limit=100, remaining=0, reset=6"), 6),
        (with_headers(503, ratelimit_reset="6"), 6),
        (said("Rate limit reached on tokens per min (TPM): Limit 3, Used 2. Please try again in 6s. Visit x"), 6),
        (said("Please try again in 20 ms."), 0.02),
        (said("Please retry in 6.5s."), 6.5),
        (said("Please retry in 1m2.3s."), 62.3),
        (said("Please try again in 2 minutes."), 120),
        (said("Please try again in 1 minute and 30 seconds"), 90),
        (said("Please retry after 6 seconds."), 6),
        (said("Too many requests, retry after 6"), 6),
        (said("Please wait for 6 seconds before the next request."), 6),
        (said("Slow down: try again in a minute."), 60),
        (Answer(503, {"error": "Model is loading", "estimated_time": 20.5}), 20.5),
        (Answer(429, {"message": "slow down", "retry_after": 6.5}), 6.5),
        (Answer(429, {"detail": "Please try again in 6s"}), 6),
        (gemini({"@type": "RetryInfo", "retryDelay": "34.5s"}), 34.5),
        (said("Provider returned error", metadata={"raw": "Upstream is busy, retry in 6s"}), 6),
        (with_headers(x_retry_in="6"), 6),
        (said("slow down", resets_in_seconds=6), 6),
        (said("slow down", wait_seconds=6), 6),
        (said("slow down", reset_after=6), 6),
        (said("slow down", parameters={"retry_after": 6}), 6),
        (said("slow down", details={"retry_after": 6}), 6),
        (said("Rate limit exceeded: 2 seconds until reset"), 2),
        (said("Rate limit exceeded. 1m 30s before the next request"), 90),
        (said("请求过于频繁 请在2秒后重试"), 2),
        (said("请求过于频繁 1分30秒后再试"), 90),
        (said("Limit of 5 per 10 seconds of the day-ahead service. Try again in 2s."), 2),
        (said("Limit of 5 per 10 seconds of the day-ahead service. Try again in 2 minutes."), 120),
        (with_headers(425, retry_after="6"), 6),
        (with_headers(420, retry_after="6"), 6),
        (Answer(403, {"error": {"message": "Rate limit exceeded"}}, {"Retry-After": "6"}), 6),
        (
            Answer(403, {"error": "API rate limit exceeded"}, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "6"}),
            6,
        ),
        (Answer(400, {"error": {"code": "rate_limit_exceeded", "message": "try again in 6s"}}), 6),
        (Answer(400, {"__type": "ThrottlingException", "message": "try again in 6s"}), 6),
        # A day's quota that grows back bit by bit
        (said("Rate limit reached on requests per day (RPD): Limit 9000. Please try again in 9.6s."), 9.6),
    ],
    ids=str,
)
def test_a_pause_is_kept_wherever_the_server_asks_for_it(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float], answer: Answer, seconds: float
) -> None:
    endpoint.script(answer, chat())
    llm.generate([PROMPT])
    assert naps[:1] == ([pytest.approx(seconds)] if seconds > 0.1 else [])  # shorter ones are not among the naps
    assert endpoint.n_requests == 2


@pytest.mark.parametrize(
    "answer_at",
    [
        lambda then: with_headers(Retry_After=formatdate(then, usegmt=True)),
        lambda then: with_headers(x_ratelimit_reset=f"{then:.0f}"),
        lambda then: with_headers(x_ratelimit_reset=f"{then * 1000:.0f}"),
        lambda then: with_headers(x_ratelimit_reset_tokens=rfc3339(then)),
        lambda then: said(f"The limit resets at {rfc3339(then)}."),
        lambda then: said("slow down", resets_at=int(then)),
        lambda then: with_headers(
            anthropic_ratelimit_requests_remaining="0", anthropic_ratelimit_requests_reset=rfc3339(then)
        ),
        lambda then: openrouter(
            "free-models-per-min", **{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{then * 1000:.0f}"}
        ),
    ],
)
def test_a_pause_may_be_told_as_a_time(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float], answer_at: Callable[[float], Answer]
) -> None:
    endpoint.script(answer_at(time.time() + 300), chat())
    llm.generate([PROMPT])
    assert naps[0] == pytest.approx(300, abs=60)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"requests": ("0", "6s"), "tokens": ("900", "2h")}, 6),
        ({"requests": ("9", "8.64s"), "tokens": ("0", "7s")}, 7),
        ({"requests": ("0", "6s"), "tokens": ("0", "7s")}, 7),
        ({"requests-day": ("55", "33011.4"), "tokens-minute": ("0", "6.4")}, 6.4),
    ],
)
def test_of_several_limits_the_one_with_nothing_left_is_waited_for(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float], headers: dict[str, tuple[str, str]], seconds: float
) -> None:
    told = {f"x-ratelimit-remaining-{limit}": remaining for limit, (remaining, _) in headers.items()}
    told |= {f"x-ratelimit-reset-{limit}": reset for limit, (_, reset) in headers.items()}
    endpoint.script(Answer(429, {}, told), chat())
    llm.generate([PROMPT])
    assert naps[0] == seconds


@pytest.mark.parametrize(
    "answer",
    [
        *(with_headers(Retry_After=value) for value in ("soon", "nan", "inf", "", "0", "-5", "1e300", "99999999")),
        with_headers(Retry_After="Sun, 09 Sep 2001 01:46:40 GMT"),
        with_headers(x_ratelimit_reset_requests="6s", x_ratelimit_remaining_requests="12"),
        with_headers(x_ratelimit_reset="86400"),
        with_headers(x_ratelimit_reset="1000000000"),
        with_headers(500, x_ratelimit_reset_requests="6s", x_ratelimit_reset="60"),
        said("Try again later. The limit is 20 requests per minute."),
        said("Retry after 2001-09-09T01:46:40Z or not"),
    ],
    ids=str,
)
def test_a_pause_that_cannot_be_meant_is_the_usual_one(
    endpoint: Endpoint, connect: Connect, naps: list[float], answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_from: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn_from.append((low, high))
        return high / 4

    monkeypatch.setattr("random.uniform", uniform)
    endpoint.script(*[answer] * 3, chat())
    connect(backoff=1.0, tries=4).generate([PROMPT])
    assert drawn_from == [(0, 1), (0, 2), (0, 4)]
    assert naps == [0.25, 0.5, 1.0]


def test_a_pause_shorter_than_the_usual_one_does_not_shorten_it(
    endpoint: Endpoint, connect: Connect, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    endpoint.script(Answer(503, {}, {"Retry-After": "1"}), chat())
    connect(backoff=4.0).generate([PROMPT])
    assert naps[0] == 4.0


def test_limits_that_a_reply_tells_stop_nobody(endpoint: Endpoint, llm: OpenAIChat, naps: list[float]) -> None:
    told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s", "retry-after": "60"}
    endpoint.script(Answer(200, chat().body, told))
    llm.generate([PROMPT] * 20)
    assert naps == []


# Who waits


def test_a_pause_holds_other_prompts_too(endpoint: Endpoint, connect: Connect, naps: list[float]) -> None:
    endpoint.script(Answer(429, {}, {"Retry-After": "70"}), chat())
    replies = connect(tries=1, concurrency=1).ask([Request("a"), Request("b")])
    assert isinstance(replies[0], LLMError)
    assert naps == [pytest.approx(70, abs=3)]


@pytest.mark.parametrize(
    "refusal",
    [
        with_headers(retry_after="1"),
        with_headers(retry_after_ms="1000"),
        with_headers(x_ratelimit_reset_requests="1s"),
        said("Please try again in 1s."),
        Answer(200, {"error": {"code": 429, "message": "Please try again in 1s."}}),
    ],
    ids=str,
)
def test_of_eight_prompts_at_once_each_is_sent_twice_at_most(
    endpoint: Endpoint, connect: Connect, refusal: Answer
) -> None:
    opens = 0.0

    def answer(count: int, prompt: str) -> Answer:
        nonlocal opens
        opens = opens or time.monotonic() + 0.9
        return refusal if time.monotonic() < opens else chat()

    endpoint.answer = answer
    replies = connect(tries=20, backoff=0.1, concurrency=8).ask([Request(f"p{i}") for i in range(8)])
    assert all(isinstance(reply, Completion) for reply in replies)
    assert endpoint.n_requests <= 16


# Quotas that no waiting helps

USED_UP = [
    said("no money", code="insufficient_quota"),
    said("no money", type="insufficient_quota"),
    said("no money", code="1113"),
    said("no money", code=1113),
    said("Insufficient balance"),
    said("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"),
    said("Rate limit reached on requests per day (RPD): Limit 200, Used 200, Requested 1."),
    said("Rate limit reached on requests per day (RPD): Limit 200, Used 200. Please try again in 7m12s."),
    said("Rate limit reached on tokens per day (TPD): Limit 500000. Please try again in 7h12m."),
    said("You have exceeded today's quota for this model"),
    said("You are using a Trial key, which is limited to 1000 API calls / month."),
    said("litellm.RateLimitError: Quota exceeded: GenerateRequestsPerDayPerProject. Please retry in 34s"),
    said("Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 33000 seconds before retrying."),
    said("Provider returned error", metadata={"raw": "Daily limit reached"}),
    said("You exceeded your current quota, please check your plan and billing details."),
    said("You are out of credits"),
    said("There are no credits left"),
    said("You have used all your credits"),
    said("Quota exhausted. It resets next month"),
    Answer(403, {"error": {"message": "Key limit exceeded (daily limit)"}}),
    Answer(400, {"error": {"message": "Budget has been exceeded! Current cost: 10", "type": "budget_exceeded"}}),
    said("Your prepaid balance is used up"),
    said("Your account has been suspended"),
    said("You have reached your limit for today"),
    said("Limit reached: 50 requests per 1 day"),
    said("Rate limit exceeded: 50/d"),
    said("Rate limited", code="limit_rpd"),
    said("You've hit your 5-hour usage limit"),
    said("no", type="usage_limit_reached"),
    said("您的每日调用次数已达上限"),
    said("今日额度已用完"),
    said("您的账户余额不足"),
    Answer(403, {"error": {"message": "Daily quota exceeded"}}),
    Answer(403, {"error": {"message": "Your account is suspended"}}),
    Answer(420, {"error": {"message": "Daily limit reached"}}),
    gemini({"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}, {"retryDelay": "34s"}),
    with_headers(retry_after="86400"),
    with_headers(503, retry_after="86400"),
    with_headers(x_ratelimit_remaining_requests_day="0", x_ratelimit_reset_requests_day="33011"),
    openrouter("Rate limit exceeded", **{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "33011"}),
    Answer(402, {"error": {"message": "Insufficient credits"}}),
    Answer(200, {"error": {"code": 402, "message": "Insufficient credits"}}),
    Answer(200, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-day"}, "choices": None}),
]


@pytest.mark.parametrize("answer", USED_UP, ids=str)
def test_a_quota_that_is_used_up_costs_one_request_and_no_pause(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float], answer: Answer
) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError, match=r"420|429|402|503"):
        llm.generate([PROMPT])
    assert (endpoint.n_requests, naps) == (1, [])


@pytest.mark.parametrize("answer", USED_UP, ids=str)
def test_where_a_quota_is_used_up_the_rest_of_the_batch_gets_the_same_error_unsent(
    endpoint: Endpoint, connect: Connect, naps: list[float], answer: Answer
) -> None:
    endpoint.script(chat(), answer)
    llm = connect(concurrency=1)
    replies = llm.ask([Request(f"p{i}") for i in range(50)])
    assert isinstance(replies[0], Completion)
    assert len({str(reply) for reply in replies[1:]}) == 1
    assert endpoint.n_requests == llm.budget.usage.calls == 2
    assert naps == []


def test_prompts_that_wait_for_their_turn_are_not_sent_once_the_quota_is_used_up(
    endpoint: Endpoint, connect: Connect
) -> None:
    endpoint.script(USED_UP[0])
    connect(concurrency=3, requests_per_minute=60).ask([Request(f"p{i}") for i in range(3)])
    assert endpoint.n_requests < 3


def test_the_next_batch_asks_again(endpoint: Endpoint, llm: OpenAIChat, naps: list[float]) -> None:
    endpoint.script(with_headers(retry_after="86400"), chat())
    assert isinstance(llm.ask([Request(PROMPT)])[0], LLMError)
    assert llm.generate([PROMPT])[0].text == "Eat well."
    assert naps == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (said("on tokens per day: try again in 7h12m"), r"used up; .* asks to wait 25920 s, until 20\d\d-\d\d-.* UTC"),
        (with_headers(retry_after="86400"), r"asks to wait 86400 s, until 20\d\d-\d\d-\d\d \d\d:\d\d UTC"),
        (
            said("free-models-per-day"),
            "the account's quota or credit is used up; continue when credit is added or the quota is renewed",
        ),
    ],
    ids=str,
)
def test_the_error_says_when_it_may_go_on(endpoint: Endpoint, llm: OpenAIChat, answer: Answer, message: str) -> None:
    endpoint.script(answer)
    with pytest.raises(LLMError, match=message) as caught:
        llm.generate([PROMPT])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "message",
    [
        "free-models-per-min. Add 10 credits to unlock 1000 requests per day",
        "You exceeded your current quota: 15 requests per minute",
        "You have reached your usage limit of 20 requests per minute",
        "Limit of 5 per 10 seconds of the day-ahead service",
        "Limit reached: 50/m",
        "每分钟请求数已达上限",
    ],
)
def test_a_limit_for_a_minute_is_not_taken_for_one_for_a_day(
    endpoint: Endpoint, llm: OpenAIChat, naps: list[float], message: str
) -> None:
    endpoint.script(said(message), chat())
    assert llm.generate([PROMPT])[0].text == "Eat well."


@pytest.mark.parametrize("filling", ["1", "again in 1", "again ", "1s ", "again in 1.", " "])
def test_a_message_of_megabytes_is_searched_once(endpoint: Endpoint, llm: OpenAIChat, filling: str) -> None:
    endpoint.script(said("again in " + filling * (1_000_000 // len(filling)) + "x"), chat())
    assert llm.generate([PROMPT])[0].text == "Eat well."  # within the time limit of a test
