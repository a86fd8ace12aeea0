"""VLLMEngine against a small stand-in for the package vllm (as of 0.33), and the real one where it is installed."""

from __future__ import annotations

import importlib.util
import json
import pickle
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pmlm_env.llm.base import LLM, Completion, LLMError, Request
from pmlm_env.llm.vllm import VLLMEngine
from pmlm_env.weights import DEFAULT_LLM

NO_VLLM = importlib.util.find_spec("vllm") is None
CONTEXT = 64

Turn = list[dict[str, str]]


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None


class Tokenizer:
    """One token a word, and two for the chat template."""

    chat_template: str | None = "{{ messages }}"

    def apply_chat_template(
        self, turn: Turn, *, add_generation_prompt: bool, tokenize: bool, return_dict: bool
    ) -> list[int]:
        assert add_generation_prompt
        assert tokenize
        assert not return_dict
        return list(range(len(turn[0]["content"].split()) + 2))


class Engine:
    """``vllm.LLM``, as far as it is used: refuses a whole batch for one long prompt, as vLLM does."""

    made: list[Engine] = []  # noqa: RUF012

    def __init__(self, model: str) -> None:
        self.model, self.tokenizer, self.batches = model, Tokenizer(), list[tuple[list[Turn], list[SamplingParams]]]()
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=CONTEXT))
        Engine.made.append(self)

    def get_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def chat(self, messages: list[Turn], sampling_params: list[SamplingParams], *, use_tqdm: bool) -> list[Any]:
        assert len(messages) == len(sampling_params)
        assert not use_tqdm
        self.batches.append((messages, sampling_params))
        return [self._output(turn, params) for turn, params in zip(messages, sampling_params, strict=True)]

    def _output(self, turn: Turn, params: SamplingParams) -> Any:
        assert [message["role"] for message in turn] == ["user"]
        prompt = turn[0]["content"]
        ids = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=True, return_dict=False)
        if len(ids) > CONTEXT:
            raise Exception("maximum context length")  # vllm.exceptions.VLLMValidationError, which is no ValueError
        text = {"silence": " \n", "crash": "half"}.get(prompt, f" reply to {prompt}, seed {params.seed}\n")
        finish = {"crash": "abort", "long story": "length"}.get(prompt, "stop")
        best = SimpleNamespace(text=text, token_ids=(7,) * 5, finish_reason=finish)
        return SimpleNamespace(prompt_token_ids=ids, outputs=[best])


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """Put the stand-in where ``import vllm`` finds it."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(Engine, "made", [])
    return Engine


@pytest.fixture
def engine(vllm: type[Engine]) -> VLLMEngine:
    return VLLMEngine("some/model", max_new_tokens=10, temperature=0.7, seed=5)


def texts(replies: list[Any]) -> list[str]:
    return [reply.text if isinstance(reply, Completion) else str(reply) for reply in replies]


def test_replies_come_in_order_and_are_what_vllm_says(engine: VLLMEngine) -> None:
    assert isinstance(engine, LLM)
    assert engine.generate(["one", "one two"]) == [
        Completion("reply to one, seed 5", 3, 5, "stop"),
        Completion("reply to one two, seed 5", 4, 5, "stop"),
    ]


def test_each_sample_has_a_seed_of_its_own(engine: VLLMEngine, vllm: type[Engine]) -> None:
    assert texts(engine.ask([Request("a", 2), Request("a"), Request("b", 1)])) == [
        "reply to a, seed 7",
        "reply to a, seed 5",
        "reply to b, seed 6",
    ]
    ((_, sampling),) = vllm.made[0].batches
    assert sampling == [SamplingParams(0.7, 10, 7), SamplingParams(0.7, 10, 5), SamplingParams(0.7, 10, 6)]


def test_one_bad_reply_spoils_no_other(engine: VLLMEngine) -> None:
    prompts = ["silence", "a", "word " * 53, "crash", "b"]
    replies = engine.ask([Request(prompt) for prompt in prompts])
    assert [isinstance(reply, Completion) for reply in replies] == [False, True, False, False, True]
    assert texts(replies) == [
        "some/model gave an empty reply to a prompt of 3 tokens",
        "reply to a, seed 5",
        "a prompt has 55 tokens, but some/model takes 54: shorten it",
        "some/model broke off a reply (abort): ask again",
        "reply to b, seed 5",
    ]


def test_the_longest_prompt_that_fits_is_sent_and_a_lot_of_longer_ones_sends_nothing(
    engine: VLLMEngine, vllm: type[Engine]
) -> None:
    assert isinstance(engine.ask([Request("word " * 52)])[0], Completion)
    assert isinstance(engine.ask([Request("word " * 53)])[0], LLMError)
    assert len(vllm.made[0].batches) == 1


@pytest.mark.parametrize(("on_truncated", "kept"), [("keep", True), ("error", False)])
def test_a_cut_reply_is_kept_or_not(vllm: type[Engine], on_truncated: Any, kept: bool) -> None:
    (reply,) = VLLMEngine("some/model", max_new_tokens=48, on_truncated=on_truncated).ask([Request("long story")])
    if kept:
        assert isinstance(reply, Completion)
        assert reply.finish_reason == "length"
    else:
        assert isinstance(reply, LLMError)
        assert "raise max_new_tokens" in str(reply)


def test_lots_cover_every_place_once_and_closing_calls_the_rest_off(
    engine: VLLMEngine, vllm: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.llm.vllm._LOT", 2)
    requests = [Request(f"p{place}") for place in range(5)]
    lots = list(engine.replies(requests))
    assert [sorted(lot) for lot in lots] == [[0, 1], [2, 3], [4]]
    assert lots[2][4] == Completion("reply to p4, seed 5", 3, 5, "stop")
    broken_off = engine.replies(requests)
    next(broken_off)
    broken_off.close()
    assert len(vllm.made[0].batches) == 3 + 1


def test_the_engine_starts_once_at_the_first_request_and_stays_out_of_pickles(
    engine: VLLMEngine, vllm: type[Engine]
) -> None:
    assert engine.ask([]) == []
    assert vllm.made == []
    engine.generate(["a"])
    engine.generate(["b"])
    assert [made.model for made in vllm.made] == ["some/model"]
    twin = pickle.loads(pickle.dumps(engine))
    assert twin.identity == engine.identity
    assert twin.generate(["a"]) == engine.generate(["a"])
    assert len(vllm.made) == 2


def test_all_that_decides_the_reply_is_in_the_identity() -> None:
    variants = [
        {},
        {"model": "another/model"},
        {"max_new_tokens": 9},
        {"temperature": 0.5},
        {"seed": 1},
        {"on_truncated": "error"},
    ]
    identities = {VLLMEngine(**{"model": "some/model", **variant}).identity for variant in variants}  # type: ignore[arg-type]
    assert len(identities) == len(variants)
    assert json.loads(VLLMEngine("some/model").identity)["vllm"] == "some/model"


def test_a_model_without_a_chat_template_is_refused(
    engine: VLLMEngine, vllm: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    with pytest.raises(LLMError, match="some/model has no chat template"):
        engine.generate(["a"])


@pytest.mark.parametrize(
    "settings",
    [{"max_new_tokens": 0}, {"temperature": -0.1}, {"temperature": 2.1}, {"seed": -1}, {"on_truncated": "x"}],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        VLLMEngine("some/model", **settings)


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LLMError, match=r"^vLLM cannot be used \(.*\): pip install 'pmlm-env\[vllm\]'$") as caught:
        VLLMEngine("some/model").generate(["a"])
    assert "\n" not in str(caught.value)


@pytest.mark.real
@pytest.mark.skipif(NO_VLLM, reason="needs vLLM: pip install 'pmlm-env[vllm]'")
def test_the_real_thing_replies_like_itself() -> None:
    engine = VLLMEngine(DEFAULT_LLM, max_new_tokens=24)
    prompts = ["Name one fruit.", "What is anaemia? Answer in one sentence."]
    first = engine.generate(prompts)
    assert [reply.text for reply in first] == [reply.text for reply in engine.generate(prompts)]
    assert all(0 < reply.completion_tokens <= 24 and reply.prompt_tokens > 5 for reply in first)
    too_long, fits = engine.ask([Request("pain " * 9000), Request(prompts[0])])
    assert isinstance(too_long, LLMError)
    assert isinstance(fits, Completion)
