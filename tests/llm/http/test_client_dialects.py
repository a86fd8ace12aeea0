"""OpenAIChat against a real HTTP server on this machine: what other servers and gateways say otherwise than OpenAI."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pmlm_env.llm.base import LLMError
from pmlm_env.llm.http.endpoint import OpenAIChat
from tests.llm.endpoint import PROMPT, Answer, Endpoint, chat

Connect = Callable[..., OpenAIChat]
THOUGHTS = "Maybe gestational diabetes."
REPLY = "Thalassemia. Rest."
ON_THOUGHTS = r"used all tokens for reasoning.*turn reasoning off.*--max-new-tokens"


def with_message(reason: str | None = "stop", **message: Any) -> Answer:
    answer = chat()
    answer.body["choices"] = [{"index": 0, "message": message, "finish_reason": reason}]
    return answer


def with_choice(content: Any, **more: Any) -> Answer:
    return Answer(body={"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, **more}]})


def stream(*parts: Any, end: str = "data: [DONE]\n\n", headers: dict[str, str] | None = None) -> Answer:
    events = "".join(f"data: {json.dumps(part)}\n\n" for part in parts)
    return Answer(200, (events + end).encode(), {"Content-Type": "text/event-stream"} if headers is None else headers)


def delta(content: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": reason}
    return {"id": "c-1", "model": "m-1", "choices": [choice], "usage": None}


def fails_once(endpoint: Endpoint, llm: OpenAIChat, message: str) -> None:
    """See that the answer is an error that is not asked for again, and says so in one line without the reply."""
    with pytest.raises(LLMError, match=message) as caught:
        llm.generate([PROMPT])
    assert endpoint.n_requests == 1
    assert not [text for text in ("\n", THOUGHTS, REPLY, "Eat") if text in str(caught.value)]


# Thoughts


@pytest.mark.parametrize(
    "content",
    [
        f"<think>\n{THOUGHTS}\n</think>\n\n{REPLY}",
        f"{THOUGHTS}</think>{REPLY}",
        f"[THINK]{THOUGHTS}[/THINK]{REPLY}",
        f"<|channel|>analysis<|message|>{THOUGHTS}<|end|><|start|>assistant<|channel|>final<|message|>{REPLY}",
        [{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHTS}]}, {"type": "text", "text": REPLY}],
        [{"type": "reasoning", "text": THOUGHTS}, {"type": "output_text", "text": REPLY}],
        [{"text": THOUGHTS, "thought": True}, {"text": REPLY}],
        [f"<think>{THOUGHTS}</think>", "Thalassemia. ", {"type": "text", "text": "Rest."}],
        {"type": "text", "text": REPLY},
        [{"type": "text", "text": {"value": REPLY, "annotations": []}}],
        [{"type": "text", "content": REPLY}],
        {"parts": [{"text": "Thalassemia. "}, {"text": "Rest."}]},
        [{"type": "TEXT", "text": REPLY}],
        [{"type": None, "text": REPLY}, None],
        [{"type": "markdown", "text": REPLY}],
        [{"type": "analysis", "text": THOUGHTS}, {"type": "final", "text": REPLY}],
        [{"type": "Reasoning", "content": [{"type": "text", "text": THOUGHTS}]}, {"type": "final", "content": REPLY}],
        [["Thalassemia. ", ["Rest."]]],
        [{"channel": "analysis", "content": THOUGHTS}, {"channel": "final", "content": REPLY}],
        [{"type": "thinking", "thinking": THOUGHTS}, {"type": "answer", "answer": REPLY}],
    ],
    ids=str,
)
def test_only_the_reply_is_taken_not_the_thoughts(endpoint: Endpoint, llm: OpenAIChat, content: Any) -> None:
    endpoint.script(chat(content))
    assert llm.generate([PROMPT])[0].text == REPLY
    assert endpoint.n_requests == 1


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_of_their_own_are_not_the_reply(endpoint: Endpoint, llm: OpenAIChat, field: str) -> None:
    endpoint.script(with_message(role="assistant", content=REPLY, **{field: THOUGHTS}))
    assert llm.generate([PROMPT])[0].text == REPLY


@pytest.mark.parametrize(
    "answer",
    [
        chat(f"<think>{THOUGHTS}</think>"),
        chat(f"<think>{THOUGHTS}", "length"),
        chat(f"<think>{THOUGHTS}", "stop"),
        chat(f"<think>{THOUGHTS}", None),
        chat("", "length"),
        chat(None, "length"),
        chat([{"type": "thinking", "thinking": THOUGHTS}]),
        chat([{"type": "thinking", "thinking": THOUGHTS}], "length"),
        with_message(content=None, reasoning_content=THOUGHTS),
        with_message(content="", reasoning=THOUGHTS),
        with_message("length", reasoning=THOUGHTS),
        chat(
            "", usage={"prompt_tokens": 2, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}}
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_truncated", ["error", "keep"])
def test_thoughts_without_a_reply_are_an_error_that_says_what_to_do(
    endpoint: Endpoint, connect: Connect, answer: Answer, on_truncated: str
) -> None:
    endpoint.script(answer)
    fails_once(endpoint, connect(on_truncated=on_truncated), ON_THOUGHTS)


def test_tokens_of_thoughts_are_booked(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(f"<think>{THOUGHTS}", "length", usage={"prompt_tokens": 12, "completion_tokens": 99}))
    fails_once(endpoint, llm, ON_THOUGHTS)
    assert llm.budget.usage.completion_tokens == 99


# Why a reply ended


@pytest.mark.parametrize(
    "reason",
    [
        *("stop", "STOP", "eos_token", "eos", "stop_sequence", "end_turn", "COMPLETE", "FINISH", "finished", "done"),
        *("FINISH_REASON_STOP", "normal", "completed", "", None, "<|im_end|>", "something new"),
        *(0, 1, False, ["stop"], {"type": "stop"}, {}),
    ],
    ids=str,
)
def test_a_reply_that_ended_by_itself_is_one(endpoint: Endpoint, llm: OpenAIChat, reason: Any) -> None:
    endpoint.script(chat("Eat well.", reason))
    (reply,) = llm.generate([PROMPT])
    assert (reply.text, reply.finish_reason, endpoint.n_requests) == ("Eat well.", "stop", 1)


def test_a_reason_may_be_missing(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(body={"choices": [{"message": {"content": "Eat well."}}]}))
    assert llm.generate([PROMPT])[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", "token_limit", "max_output_tokens", "limit"),
        *("FINISH_REASON_MAX_TOKENS", "incomplete", "model_context_window_exceeded"),
    ],
)
def test_a_reply_that_was_cut_is_an_error_or_kept_on_demand(endpoint: Endpoint, connect: Connect, reason: str) -> None:
    endpoint.script(chat("Eat we", reason))
    fails_once(endpoint, connect(), "cut at the (token limit.*--max-new|end of the model's context.*shorten the)")
    (reply,) = connect(on_truncated="keep").generate([PROMPT])
    assert (reply.text, reply.finish_reason) == ("Eat we", "length")


@pytest.mark.parametrize("reason", ["", None, "something new"])
def test_a_reply_with_as_many_tokens_as_allowed_was_cut_where_no_known_reason_says_otherwise(
    endpoint: Endpoint, connect: Connect, reason: str | None
) -> None:
    endpoint.script(chat("Eat we", reason, usage={"prompt_tokens": 12, "completion_tokens": 7}))
    fails_once(endpoint, connect(max_tokens=7), "cut at the token limit")


@pytest.mark.parametrize(
    "reason",
    [
        *("content_filter", "content_filter: RECITATION", "sensitive", "SAFETY", "RECITATION", "PROHIBITED_CONTENT"),
        *("BLOCKLIST", "SPII", "LANGUAGE", "guardrail_intervened", "ERROR_TOXIC", "CONTENT_FILTERED", "refusal"),
    ],
)
@pytest.mark.parametrize(("text", "message"), [("Eat", "the reply was filtered"), (None, "the model refused")])
def test_a_filtered_reply_is_an_error_and_not_asked_for_again(
    endpoint: Endpoint, llm: OpenAIChat, reason: str, text: str | None, message: str
) -> None:
    endpoint.script(chat(text, reason))
    fails_once(endpoint, llm, f"{message}.*leave this patient out, or use another model")


@pytest.mark.parametrize(
    "reason",
    [
        *("error", "ERROR", "abort", "cancelled", "USER_CANCEL", "network_error", "insufficient_system_resource"),
        *("tool_calls", "tool_use", "function_call", "MALFORMED_FUNCTION_CALL", "OTHER", "TIMEOUT", "time_limit"),
    ],
)
def test_a_reply_that_something_interrupted_is_asked_for_thrice(
    endpoint: Endpoint, connect: Connect, reason: str
) -> None:
    endpoint.script(chat("Eat", reason))
    with pytest.raises(LLMError, match=f"ended with finish reason '{reason.lower()}'"):
        connect(tries=9).generate([PROMPT])
    assert endpoint.n_requests == 3


# Who wrote it, and who did not want to


@pytest.mark.parametrize("role", ["assistant", "Assistant", "model", "ai", "", None])
def test_the_model_goes_by_several_names(endpoint: Endpoint, llm: OpenAIChat, role: str | None) -> None:
    endpoint.script(with_message(role=role, content="Eat well."))
    assert llm.generate([PROMPT])[0].text == "Eat well."


@pytest.mark.parametrize(
    "answer",
    [
        with_message(role="assistant", content=None, refusal="I cannot help with that."),
        with_message(role="assistant", content="", refusal="I cannot help with that."),
        with_message(role="assistant", content=[{"type": "refusal", "refusal": "I cannot."}]),
        Answer(body={"promptFeedback": {"blockReason": "SAFETY"}}),
        Answer(body={"choices": [], "prompt_feedback": {"block_reason": "OTHER"}}),
        Answer(
            body={"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}
        ),
        with_choice("", finish_reason=None, native_finish_reason="SAFETY"),
        chat("", native_finish_reason="SAFETY"),
        with_choice("", finish_reason="error", native_finish_reason="PROHIBITED_CONTENT"),
        with_choice("", finish_reason="stop", stop_reason="refusal"),
        with_choice("", content_filter_results={"hate": {"filtered": True, "severity": "high"}}),
        *(
            Answer(status, {"error": error})
            for status in (200, 400, 403)
            for error in (
                {"code": "1301", "message": "unsafe"},
                {"code": 1301, "message": "unsafe"},
                {"code": "content_filter", "message": "unsafe", "status": 400},
                {"code": "content_policy_violation", "message": "unsafe"},
                {"code": "data_inspection_failed", "message": "unsafe"},
                {"type": "moderation_blocked", "message": "unsafe"},
            )
        ),
    ],
    ids=str,
)
def test_a_refusal_is_not_asked_for_again(endpoint: Endpoint, llm: OpenAIChat, answer: Answer) -> None:
    endpoint.script(answer)
    fails_once(endpoint, llm, "the model refused to reply")


# Errors in answers of HTTP 200


def in_choice(error: Any, **more: Any) -> Answer:
    return Answer(body={"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": error, **more}]})


@pytest.mark.parametrize(
    "answer",
    [
        *(
            Answer(body={"error": {"code": code, "message": "too busy"}, **choices})
            for code in (429, "429", 502, "503", 408, "rate_limit_exceeded", "overloaded_error")
            for choices in ({}, {"choices": None}, {"choices": []})
        ),
        in_choice({"code": 502, "message": "too busy"}),
        in_choice({"code": 502, "message": "Error", "metadata": {"raw": "too busy"}}),
        in_choice({"code": 429, "message": "too busy"}),
        Answer(body=[{"error": {"code": 503, "message": "too busy", "status": "UNAVAILABLE"}}]),
        Answer(body={"code": 500, "msg": "too busy", "success": False}),
        Answer(body={"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}),
        Answer(body={"object": "error", "message": "too busy", "code": 503}),
        Answer(body={"errors": [{"code": 503, "message": "too busy"}]}),
        Answer(body={"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit: too busy"}}),
        stream({"error": {"code": 502, "message": "too busy"}}),
        stream(delta("Eat"), {"error": {"code": 502, "message": "too busy"}}, end=""),
        Answer(200, b'event: error\ndata: {"code": 503, "message": "too busy"}\n\n'),
        Answer(200, b"event: error\ndata: overloaded: too busy\n\n"),
        Answer(body={"fault": {"faultstring": "Rate limit quota: too busy", "detail": {"errorcode": "x"}}}),
        Answer(body={"Message": "too busy", "__type": "com.amazon#ThrottlingException"}),
        Answer(body={"header": {"code": 10007, "message": "rate limit: too busy", "sid": "s"}}),
        Answer(body={"error": {"error": {"code": 503, "message": "too busy"}}}),
        Answer(body={"error": {"code": 503, "error": "too busy"}}),
        Answer(body={"error": json.dumps({"error": {"code": 503, "message": "too busy"}})}),
    ],
    ids=str,
)
def test_an_error_that_passes_is_tried_again_and_told_in_the_servers_words(
    endpoint: Endpoint, connect: Connect, answer: Answer
) -> None:
    endpoint.script(*[answer] * 4, chat())
    assert connect(tries=5).generate([PROMPT])[0].text == "Eat well."
    endpoint.script(answer)
    with pytest.raises(LLMError, match=r"with an error of status (429|50\d|408): .*too busy"):
        connect(tries=2).generate([PROMPT])


@pytest.mark.parametrize("code", [400, 401, "402", 403, 404, "invalid_request_error", "insufficient_quota", "1113"])
@pytest.mark.parametrize("choices", [{}, {"choices": None}])
def test_an_error_that_lasts_is_not_tried_again(
    endpoint: Endpoint, llm: OpenAIChat, code: Any, choices: dict[str, Any]
) -> None:
    endpoint.script(Answer(body={"error": {"code": code, "message": "Buy more."}, **choices}))
    said = "" if code in (401, 403) else "Buy more"
    fails_once(endpoint, llm, rf"HTTP 200 with an error of status 40\d: {said}")


def test_an_error_of_no_known_status_is_told_and_tried_thrice(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.script(Answer(body={"error": {"message": "The cat is on the keyboard"}}))
    with pytest.raises(LLMError, match="HTTP 200 with an error: The cat is on the keyboard"):
        connect(tries=9).generate([PROMPT])
    assert endpoint.n_requests == 3


def test_an_error_costs_no_tokens_unless_it_says_so(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(body={"error": {"code": 400, "message": "no"}}))
    fails_once(endpoint, llm, "error of status 400")
    assert llm.budget.usage[:3] == (1, 0, 0)


@pytest.mark.parametrize(
    "more",
    [
        *({"error": none} for none in (None, "", {}, False, {"code": 0, "message": "success"}, {"code": "success"})),
        {"header": {"code": 0, "message": "Success", "sid": "s"}},
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"message": "ok", "code": 200},
    ],
    ids=str,
)
def test_what_says_that_there_is_no_error_is_none(endpoint: Endpoint, llm: OpenAIChat, more: dict[str, Any]) -> None:
    endpoint.script(chat(**more))
    assert llm.generate([PROMPT])[0].text == "Eat well."


def test_a_servers_words_cannot_drive_a_terminal(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(Answer(400, {"error": {"message": "no\x1b[2J \u202esuch"}}))
    with pytest.raises(LLMError, match=r"HTTP 400: no\\x1b\[2J \\u202esuch") as caught:
        llm.generate([PROMPT])
    assert str(caught.value).isprintable()


def test_a_models_name_cannot_drive_a_terminal(endpoint: Endpoint, llm: OpenAIChat) -> None:
    endpoint.script(chat(model="m\x1b[2J"))
    assert llm.generate([PROMPT])[0].model == r"m\x1b[2J"


@pytest.mark.parametrize(
    "body",
    [
        {"code": 200, "data": chat().body},
        {"output": chat().body, "request_id": "r"},
        {"choices": chat().body["choices"][0]},
        {"choices": {"0": chat().body["choices"][0]}},
        {"choices": [{"text": "Eat well.", "finish_reason": "stop"}]},
        {"model": "m", "message": {"role": "assistant", "content": "Eat well."}, "done": True, "done_reason": "stop"},
    ],
    ids=str,
)
def test_a_reply_in_another_wrapping_is_one(endpoint: Endpoint, llm: OpenAIChat, body: dict[str, Any]) -> None:
    endpoint.script(Answer(body=body))
    assert llm.generate([PROMPT])[0].text == "Eat well."
    assert endpoint.n_requests == 1


def test_the_tokens_that_ollama_counts_are_booked(endpoint: Endpoint, llm: OpenAIChat) -> None:
    counts = {"prompt_eval_count": 20, "eval_count": 7}
    endpoint.script(Answer(body={"message": {"content": "Eat well."}, "done": True, **counts}))
    assert llm.generate([PROMPT])[0].prompt_tokens == 20
    assert llm.budget.usage.completion_tokens == 7
