"""The batch API: what is sent, paid for, stored and asked again, whatever goes wrong."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.llm.http import batch_api, batches
from pmlm_env.llm.http.batches import BatchChat
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.storage.budget import Budget, BudgetExceededError, Limits, Price, Usage
from pmlm_env.llm.storage.cache import ReplyCache
from pmlm_env.llm.storage.cached_llm import CachedLLM
from tests.llm.endpoint import KEY
from tests.llm.http.batch_server import BatchServer, reply, serve_batches

FORK = multiprocessing.get_context("fork")
REQUESTS = [Request(f"State the diagnosis: anemia {number}.") for number in range(12)]
#: What the server bills for a reply; see ``tests.llm.endpoint.chat``.
BILLED = (12, 3)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(batches, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(batches, "_LONGEST_PAUSE", 0.02)
    with serve_batches() as state:
        yield state


def llm_of(
    server: BatchServer, folder: Path, size: int = 5, limits: Limits | None = None, price: Price | None = None
) -> tuple[CachedLLM, Budget]:
    budget = Budget(limits, folder / "spent.sqlite", price)
    chat = OpenAIChat("m", base_url=server.url, tries=3, backoff=0.01, budget=budget)
    cache = ReplyCache(folder / "replies.sqlite")
    return CachedLLM(BatchChat(chat, folder / "batches.json", cache, size), cache), budget


def texts(replies: list[Reply]) -> list[str | None]:
    return [each.text if isinstance(each, Completion) else None for each in replies]


WHOLE = [reply(request.prompt) for request in REQUESTS]


def test_every_request_gets_its_own_reply_whatever_the_order_of_lines(server: BatchServer, tmp_path: Path) -> None:
    llm, budget = llm_of(server, tmp_path, price=Price(1.0, 2.0))
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert [len(server.prompts(batch)) for batch in server.batches] == [5, 5, 2]
    n = len(REQUESTS)
    assert budget.usage == pytest.approx(Usage(n, BILLED[0] * n, BILLED[1] * n, n * (12 * 1.0 + 3 * 2.0) / 1e6))
    assert not (tmp_path / "batches.json").exists()
    assert sorted(server.deleted) == sorted(server.files)


def test_replies_are_stored_as_those_to_single_requests(server: BatchServer, tmp_path: Path) -> None:
    llm, _ = llm_of(server, tmp_path)
    through_batches = llm.ask(REQUESTS)
    chat = OpenAIChat("m", base_url=server.url)
    assert CachedLLM(chat, ReplyCache(tmp_path / "replies.sqlite"), replay=True).identity == llm.identity
    stored = ReplyCache(tmp_path / "replies.sqlite").get(chat.identity, REQUESTS)
    single = CachedLLM(chat).ask(REQUESTS)
    assert texts(list(stored.values())) == texts(single) == texts(through_batches)


def test_cookies_are_not_sent_back(server: BatchServer, tmp_path: Path) -> None:
    llm_of(server, tmp_path)[0].ask(REQUESTS)
    assert server.cookies == []


def test_samples_have_their_own_seeds(server: BatchServer, tmp_path: Path) -> None:
    llm_of(server, tmp_path)[0].ask([Request("a", 0), Request("a", 1)])
    lines = [json.loads(line) for line in server.files["file-0"].splitlines()]
    assert [line["body"]["seed"] for line in lines] == [0, 1]
    assert len({line["custom_id"] for line in lines}) == 2
    assert all(len(line["custom_id"]) <= 64 for line in lines)


@pytest.mark.parametrize(
    ("fate", "said", "calls", "end"),
    [
        (400, "HTTP 400: this one is refused", 1, "completed"),
        (500, "HTTP 500: this one is refused", 1, "completed"),
        ("batch_expired", "was not run .batch_expired.: run the command again", 0, "expired"),
        ("batch_cancelled", "was not run .batch_cancelled.: run the command again", 0, "cancelled"),
        ("lost", "is completed: it has no answer to this request", 0, "completed"),
    ],
)
def test_what_fails_is_an_error_of_its_own_and_is_asked_again_alone(
    server: BatchServer, tmp_path: Path, fate: str | int, said: str, calls: int, end: str
) -> None:
    bad = {REQUESTS[1].prompt, REQUESTS[6].prompt}
    server.fate, server.end = (lambda prompt: fate if prompt in bad else "reply"), end
    llm, budget = llm_of(server, tmp_path)
    replies = llm.ask(REQUESTS)
    assert [index for index, each in enumerate(replies) if isinstance(each, LLMError)] == [1, 6]
    with pytest.raises(LLMError, match=said) as caught:
        raise replies[1]  # type: ignore[misc]
    assert REQUESTS[1].prompt not in str(caught.value)
    n = len(REQUESTS) - 2
    assert budget.usage == Usage(n + 2 * calls, BILLED[0] * n, BILLED[1] * n)
    server.fate, server.end = (lambda prompt: "reply"), "completed"
    assert texts(llm_of(server, tmp_path)[0].ask(REQUESTS)) == WHOLE
    assert server.prompts("batch_3") == [REQUESTS[1].prompt, REQUESTS[6].prompt]


def test_a_batch_that_is_rejected_costs_nothing_and_says_why(server: BatchServer, tmp_path: Path) -> None:
    server.validation_error = "token_limit_exceeded"
    llm, budget = llm_of(server, tmp_path)
    replies = llm.ask(REQUESTS)
    assert all(isinstance(each, LLMError) for each in replies)
    assert "is failed: token_limit_exceeded (look up details there)" in str(replies[0])
    assert budget.usage == Usage()
    assert not (tmp_path / "batches.json").exists()


def test_transient_errors_and_a_lost_answer_buy_nothing_twice(server: BatchServer, tmp_path: Path) -> None:
    server.fail_with_503 = ["POST files", "POST batches", "GET batches/batch_0", "GET files/file-0/content"]
    server.lose_answers_to = ["POST batches", "GET batches/batch_1"]
    llm, budget = llm_of(server, tmp_path)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert sorted(server.all_prompts) == sorted(request.prompt for request in REQUESTS)
    assert budget.usage.calls == len(REQUESTS)


def test_a_download_that_breaks_off_is_repeated(server: BatchServer, tmp_path: Path) -> None:
    server.lose_answers_to = ["GET files/file-output_file_id-batch_0/content"]
    llm, budget = llm_of(server, tmp_path)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert budget.usage.calls == len(REQUESTS)


def ask_in_child(server: BatchServer, folder: Path) -> None:
    llm_of(server, folder)[0].ask(REQUESTS)


def killed(server: BatchServer, folder: Path, sign: str) -> None:
    """Kill a process that asks everything, once the server has seen a call."""
    child = FORK.Process(target=ask_in_child, args=(server, folder))
    child.start()
    while not any(call.startswith(sign) for call in server.calls) and child.is_alive():
        time.sleep(0.001)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()


@pytest.mark.once
@pytest.mark.parametrize("sign", ["POST files", "POST batches", "GET batches/batch_0", "GET batches/batch_2"])
def test_after_a_kill_batches_under_way_are_gone_on_with(server: BatchServer, tmp_path: Path, sign: str) -> None:
    server.n_looks = 10**9
    killed(server, tmp_path, sign)
    server.n_looks = 0
    llm, budget = llm_of(server, tmp_path)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert sorted(server.all_prompts) == sorted(request.prompt for request in REQUESTS)
    # A kill between the booking of a batch and its entry in the list leaves that batch booked at its upper bound.
    assert len(REQUESTS) <= budget.usage.calls <= len(REQUESTS) + 5
    if sign.startswith("GET"):
        assert budget.usage == Usage(len(REQUESTS), BILLED[0] * len(REQUESTS), BILLED[1] * len(REQUESTS))


def stopped(server: BatchServer, folder: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a command that asks ``requests`` while its batches are under way."""

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    server.n_looks = 10**9
    with monkeypatch.context() as patch:
        patch.setattr(batches.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            llm_of(server, folder)[0].ask(requests)
    server.n_looks = 0


def test_batches_of_another_command_are_left_alone_and_said_to_be_there(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped(server, tmp_path, REQUESTS[:7], monkeypatch)
    llm, budget = llm_of(server, tmp_path)
    assert texts(llm.ask(REQUESTS[7:])) == WHOLE[7:]
    assert "batches.json lists batches with 7 requests of another command, which are left alone: run th" in caplog.text
    assert len(server.deleted) == 2  # the files of this command's batch
    assert texts(llm_of(server, tmp_path)[0].ask(REQUESTS[:7])) == WHOLE[:7]
    assert sorted(server.all_prompts) == sorted(request.prompt for request in REQUESTS)
    assert budget.usage == Usage(len(REQUESTS), BILLED[0] * len(REQUESTS), BILLED[1] * len(REQUESTS))
    assert not (tmp_path / "batches.json").exists()
    assert sorted(server.deleted) == sorted(server.files)


def test_a_batch_that_two_commands_need_is_gone_on_with_by_both(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fate = lambda prompt: 400 if prompt in (REQUESTS[1].prompt, REQUESTS[3].prompt) else "reply"
    stopped(server, tmp_path, REQUESTS[:5], monkeypatch)
    first, budget = llm_of(server, tmp_path)
    assert texts(first.ask(REQUESTS[:2])) == [WHOLE[0], None]
    assert server.deleted == []
    again, _ = llm_of(server, tmp_path)
    assert texts(again.ask([*REQUESTS[:1], *REQUESTS[2:5]])) == [WHOLE[0], WHOLE[2], None, WHOLE[4]]
    assert len(server.batches) == 1
    assert budget.usage == Usage(5, BILLED[0] * 3, BILLED[1] * 3)
    assert not (tmp_path / "batches.json").exists()
    assert sorted(server.deleted) == sorted(server.files)


@pytest.mark.once
def test_a_kill_amid_the_replies_books_nothing_below_what_was_billed(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_AT_ONCE", 2)
    server.fate = lambda prompt: 400 if prompt == REQUESTS[0].prompt else "reply"
    llm, budget = llm_of(server, tmp_path, size=50)
    lots = llm.replies(REQUESTS)
    for _ in range(3):
        next(lots)
    lots.close()  # as a kill before anything that follows the third lot
    again, budget = llm_of(server, tmp_path, size=50)
    assert texts(again.ask(REQUESTS))[1:] == WHOLE[1:]
    assert len(server.batches) == 1
    assert not (tmp_path / "batches.json").exists()
    assert budget.usage.calls == len(REQUESTS)
    assert BILLED[0] * 11 <= budget.usage.prompt_tokens <= BILLED[0] * 11 + 2 * 200


def test_a_batch_that_was_listed_but_never_created_is_sent_again(server: BatchServer, tmp_path: Path) -> None:
    llm, budget = llm_of(server, tmp_path, size=50)
    server.fail_with_503 = ["POST batches"] * 3  # as often as it is tried
    with pytest.raises(LLMError, match=r"the batch API of .*HTTP 503: overloaded.*tried 3 times"):
        llm.ask(REQUESTS)
    assert budget.usage.calls == len(REQUESTS)
    llm, budget = llm_of(server, tmp_path, size=50)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert budget.usage.calls == len(REQUESTS)


def test_the_uploaded_prompts_of_a_batch_that_was_refused_are_deleted(server: BatchServer, tmp_path: Path) -> None:
    server.refuse = ["POST batches"]
    with pytest.raises(LLMError, match="billing_hard_limit_reached"):
        llm_of(server, tmp_path, size=50)[0].ask(REQUESTS)
    llm, budget = llm_of(server, tmp_path, size=50)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert sorted(server.deleted) == sorted(server.files)
    assert budget.usage.calls == len(REQUESTS)


def test_a_batch_that_has_ended_but_does_not_name_its_replies_yet_is_waited_for(
    server: BatchServer, tmp_path: Path
) -> None:
    server.n_late = 3
    llm, budget = llm_of(server, tmp_path)
    assert texts(llm.ask(REQUESTS)) == WHOLE
    assert len(server.batches) == 3
    assert budget.usage.calls == len(REQUESTS)
    assert sorted(server.deleted) == sorted(server.files)


def test_replies_that_are_never_named_are_not_paid_for_again_by_themselves(server: BatchServer, tmp_path: Path) -> None:
    server.n_late = 10**9
    for _ in range(2):
        with pytest.raises(LLMError, match=r"batch_0 cannot be read \(it does not name their file\): run .* later"):
            llm_of(server, tmp_path)[0].ask(REQUESTS)
    server.n_late = 0
    assert texts(llm_of(server, tmp_path)[0].ask(REQUESTS)) == WHOLE
    assert len(server.batches) == 3


def test_replies_that_the_endpoint_has_no_more_are_named_with_a_way_out(server: BatchServer, tmp_path: Path) -> None:
    finish = server.finish

    def finished(batch: dict[str, Any]) -> None:
        finish(batch)
        server.files.pop(batch["output_file_id"])

    server.finish = finished  # type: ignore[method-assign]
    with pytest.raises(LLMError, match=r"batch_0 cannot be read .*HTTP 404.*take the batch out of .*batches.json"):
        llm_of(server, tmp_path)[0].ask(REQUESTS)
    assert server.deleted == []
    server.finish = finish  # type: ignore[method-assign]
    listed = json.loads((tmp_path / "batches.json").read_text())
    left = {token: each for token, each in listed.items() if each["id"] != "batch_0"}
    server.finish(server.batches["batch_1"])
    server.finish(server.batches["batch_2"])
    (tmp_path / "batches.json").write_text(json.dumps(left))
    assert texts(llm_of(server, tmp_path)[0].ask(REQUESTS)) == WHOLE
    assert len(server.batches) == 4


def test_a_limit_is_kept(server: BatchServer, tmp_path: Path) -> None:
    llm, budget = llm_of(server, tmp_path, limits=Limits(max_llm_calls=7))
    with pytest.raises(BudgetExceededError, match="LLM call limit of 7"):
        llm.ask(REQUESTS)
    assert server.all_prompts == [request.prompt for request in REQUESTS[:7]]
    assert budget.usage.calls == 7
    assert len(ReplyCache(tmp_path / "replies.sqlite")) == 7


def test_a_server_without_a_batch_api_is_said_to_have_none(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api.BatchAPI, "_json", lambda *_, **__: {"detail": "Not Found"})
    llm, budget = llm_of(server, tmp_path)
    with pytest.raises(LLMError, match="no usable id: check whether it has a batch API"):
        llm.ask(REQUESTS)
    assert budget.usage == Usage()


def test_neither_key_nor_prompt_is_said_or_listed(
    server: BatchServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.n_looks = 10**9
    killed(server, tmp_path, "GET batches/batch_2")
    listed = (tmp_path / "batches.json").read_text()
    server.n_looks, server.quotes = 0, True
    server.fate = lambda prompt: 400
    said = " ".join(map(str, llm_of(server, tmp_path)[0].ask(REQUESTS)))
    for secret in (KEY, REQUESTS[0].prompt):
        assert secret not in listed + said + caplog.text


@pytest.mark.parametrize("call", ["POST files", "POST batches", "GET batches/batch_0", "the whole batch"])
def test_messages_about_batches_that_quote_key_or_prompts_are_left_out(
    server: BatchServer, tmp_path: Path, call: str
) -> None:
    if call == "the whole batch":
        server.validation_error = KEY
        said = str(llm_of(server, tmp_path)[0].ask(REQUESTS)[0])
        assert "the batch batch_0 is failed: ***" in said
    else:
        server.fail_with_503 = [call] * 3  # as often as it is tried
        with pytest.raises(LLMError, match=r"HTTP 503: overloaded") as caught:
            llm_of(server, tmp_path)[0].ask(REQUESTS)
        said = str(caught.value)
    for secret in (KEY, REQUESTS[0].prompt):
        assert secret not in said


def test_a_damaged_list_is_named(server: BatchServer, tmp_path: Path) -> None:
    (tmp_path / "batches.json").write_text('{"token": {"llm": 1}}')
    with pytest.raises(ValueError, match=r"batches.json is damaged: restore it from a copy, or, if no batch is under"):
        llm_of(server, tmp_path)[0].ask(REQUESTS)
    assert server.batches == {}


@pytest.mark.parametrize("size", [0, 50_001])
def test_a_batch_has_from_1_to_50000_requests(server: BatchServer, tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"--batch is {size}"):
        llm_of(server, tmp_path, size)
