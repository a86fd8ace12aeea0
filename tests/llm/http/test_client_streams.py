"""OpenAIChat against a real HTTP server on this machine: answers that are streams though nobody asked for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import PROMPT, Answer, Endpoint, chat
from tests.llm.http.test_client_dialects import delta, fails_once, stream

Connect = Callable[..., OpenAIChat]


@pytest.mark.parametrize(
    "text",
    [
        "data: " + json.dumps(delta("Eat well.", "stop")) + "\n\nevent: done\ndata: done\n\n",
        ": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + json.dumps(chat().body),
        "data: " + json.dumps(delta("Eat well.", "stop"), indent=1).replace("\n", "\ndata: ") + "\n\n",
        *(
            "".join(start + json.dumps(part) + end for part in parts)
            for start, end in (("data: ", "\n\n"), ("data: ", "\r\n"), ("", "\n"))
            for parts in (
                [delta("Eat "), delta("well."), delta("", "stop")],
                [{"choices": [{"delta": {"content": "Eat "}}]}, delta("well.", "stop")],
                [{"choices": [{"text": "Eat "}]}, {"choices": [{"text": "well.", "finish_reason": "stop"}]}],
                [delta("Eat "), delta("we"), {"choices": [{"index": 0, "delta": {}, **chat().body["choices"][0]}]}],
                [
                    {"message": {"role": "assistant", "content": "Eat "}, "done": False},
                    {"message": {"role": "assistant", "content": "well."}, "done": True, "done_reason": "stop"},
                ],
            )
        ),
    ],
)
def test_a_stream_may_be_written_in_many_ways(endpoint: Endpoint, llm: OpenAIChat, text: str) -> None:
    endpoint.script(Answer(200, text.encode()))
    assert llm.generate([PROMPT])[0].text == "Eat well."
    assert endpoint.n_requests == 1


def test_a_stream_that_was_not_asked_for_is_put_together(endpoint: Endpoint, llm: OpenAIChat) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 5}
    endpoint.script(
        stream(
            delta("", role="assistant"),
            delta("Eat "),
            delta("well."),
            delta(None, "stop"),
            {"choices": [], "usage": usage},
        )
    )
    (reply,) = llm.generate([PROMPT])
    assert (reply.text, reply.completion_tokens, reply.model) == ("Eat well.", 5, "m-1")


@pytest.mark.parametrize(
    "parts",
    [
        [
            delta(None, reasoning_content="May"),
            delta(None, reasoning_content="be"),
            delta("Eat "),
            delta("well.", "stop"),
        ],
        [delta("<think>"), delta("Maybe"), delta("</th"), delta("ink>Eat "), delta("well.", "stop")],
        [delta([{"type": "thinking", "thinking": "Maybe"}]), delta("Eat "), delta("well.", "stop")],
        [delta("Eat "), delta("well.")],
    ],
)
def test_thoughts_in_a_stream_are_left_out(endpoint: Endpoint, llm: OpenAIChat, parts: list[Any]) -> None:
    endpoint.script(stream(*parts, headers={}))
    assert llm.generate([PROMPT])[0].text == "Eat well."


def test_a_stream_cut_by_the_limit_is_a_reply_that_was_cut(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(stream(delta("Eat "), delta("we", "length")))
    fails_once(endpoint, llm, "cut at the token limit")


def test_a_stream_of_somebody_elses_messages_is_no_reply(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(stream({"choices": [{"message": {"role": "user", "content": "Eat"}, "finish_reason": "stop"}]}))
    with pytest.raises(LLMError, match="not from the assistant"):
        llm.generate([PROMPT])


@pytest.mark.parametrize("end", ["", 'data: {"choices": [{"de', ": comment\n\n"])
def test_a_stream_that_breaks_off_is_no_reply(endpoint: Endpoint, connect: Connect, end: str) -> None:
    endpoint.script(stream(delta("Eat "), end=end))
    with pytest.raises(LLMError, match=r"an incomplete stream|not JSON"):
        connect(tries=9).generate([PROMPT])
    assert endpoint.n_requests == 3


def test_comments_and_names_of_events_in_a_stream_are_skipped(endpoint: Endpoint, llm: OpenAIChat) -> None:
    events = ": waiting\n\nevent: chunk\ndata: " + json.dumps(delta("Eat well.", "stop")) + "\n\ndata:[DONE]\n\n"
    endpoint.script(Answer(200, events.encode()))
    assert llm.generate([PROMPT])[0].text == "Eat well."
