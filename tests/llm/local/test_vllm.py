"""VLLMEngine against a small stand-in for the package vllm (as of 0.33), and the real one where it is installed."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pmlm_env.llm.base import LLM, Completion, LLMError, Request
from pmlm_env.llm.local.vllm import VLLMEngine
from pmlm_env.weights import DEFAULT_LLM
from tests.llm.tiny_llms import BARE, END, tiny_model, tiny_tokenizer

NO_VLLM = importlib.util.find_spec("vllm") is None
CONTEXT = 64

#: What the model says to a prompt that holds the first, and how it ends.
SCRIPT = {
    "silence": (" \n", "stop"),
    "crash": ("half", "abort"),
    "long story": ("Once upon a time", "length"),
    "think": ("<think>Maybe.</think>Rest.<|im_end|>", "stop"),
    "ponder": ("<think>Maybe, or not", "length"),
}


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    seed: int | None = None
    stop_token_ids: list[int] | None = None


class Engine:
    """``vllm.LLM``, as far as it is used: refuses a whole batch for one long prompt, as vLLM does."""

    made: list[Engine] = []  # noqa: RUF012
    template: str | None = BARE

    def __init__(self, model: str, revision: str | None, trust_remote_code: bool) -> None:
        assert not trust_remote_code
        self.model, self.tokenizer = model, tiny_tokenizer(Engine.template)
        self.batches: list[tuple[list[str], list[SamplingParams]]] = []
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=CONTEXT))
        Engine.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: list[SamplingParams], *, use_tqdm: bool
    ) -> list[Any]:
        assert len(prompts) == len(sampling_params)
        assert not use_tqdm
        texts = [self.tokenizer.decode(prompt["prompt_token_ids"]) for prompt in prompts]
        self.batches.append((texts, sampling_params))
        tokens = [prompt["prompt_token_ids"] for prompt in prompts]
        return [self._output(*each) for each in zip(texts, tokens, sampling_params, strict=True)]

    def _output(self, prompt: str, tokens: list[int], params: SamplingParams) -> Any:
        if len(tokens) > CONTEXT:
            raise Exception("maximum context length")  # vllm.exceptions.VLLMValidationError, which is no ValueError
        text, finish = SCRIPT.get(prompt, (f" to {prompt}: {params.seed}\n", "stop"))
        best = SimpleNamespace(text="not used", token_ids=self.tokenizer.encode(text), finish_reason=finish)
        return SimpleNamespace(prompt_token_ids=tokens, outputs=[best])


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder with a model."""
    tiny_model(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """Put the stand-in where ``import vllm`` finds it."""
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(Engine, "made", [])
    return Engine


@pytest.fixture
def engine(vllm: type[Engine], model: str) -> VLLMEngine:
    return VLLMEngine(model, max_new_tokens=10, temperature=0.7, seed=5)


def texts(replies: list[Any]) -> list[str]:
    return [reply.text if isinstance(reply, Completion) else str(reply) for reply in replies]


def test_replies_come_in_order_and_are_what_vllm_says(engine: VLLMEngine) -> None:
    assert isinstance(engine, LLM)
    assert engine.generate(["one", "three"]) == [
        Completion("to one: 5", 3, 11, "stop"),
        Completion("to three: 5", 5, 13, "stop"),
    ]


def test_each_sample_has_a_seed_of_its_own_and_the_template_says_where_a_turn_ends(
    engine: VLLMEngine, vllm: type[Engine]
) -> None:
    assert texts(engine.ask([Request("a", 2), Request("a"), Request("b", 1)])) == ["to a: 7", "to a: 5", "to b: 6"]
    ((_, sampling),) = vllm.made[0].batches
    assert sampling == [SamplingParams(0.7, 10, seed, [END]) for seed in (7, 5, 6)]


def test_one_bad_reply_spoils_no_other(engine: VLLMEngine) -> None:
    prompts = ["silence", "a", "a" * 55, "crash", "b"]
    replies = engine.ask([Request(prompt) for prompt in prompts])
    assert [isinstance(reply, Completion) for reply in replies] == [False, True, False, False, True]
    assert texts(replies) == [
        f"{engine.model} gave an empty reply to a prompt of 7 tokens",
        "to a: 5",
        f"a prompt has 55 tokens, but {engine.model} accepts 54: shorten it",
        f"{engine.model} did not finish a reply (abort): try again",
        "to b: 5",
    ]


def test_the_longest_prompt_that_fits_is_sent_and_a_lot_of_longer_ones_sends_nothing(
    engine: VLLMEngine, vllm: type[Engine]
) -> None:
    assert isinstance(engine.ask([Request("a" * 54)])[0], Completion)
    assert isinstance(engine.ask([Request("a" * 55)])[0], LLMError)
    assert len(vllm.made[0].batches) == 1


@pytest.mark.parametrize(("on_truncated", "kept"), [("keep", True), ("error", False)])
def test_a_cut_reply_is_kept_or_not(vllm: type[Engine], model: str, on_truncated: Any, kept: bool) -> None:
    (reply,) = VLLMEngine(model, max_new_tokens=48, on_truncated=on_truncated).ask([Request("long story")])
    if kept:
        assert isinstance(reply, Completion)
        assert reply.finish_reason == "length"
    else:
        assert isinstance(reply, LLMError)
        assert "raise max_new_tokens" in str(reply)


def test_thoughts_are_left_out_and_are_no_reply(engine: VLLMEngine) -> None:
    reply, unfinished = engine.ask([Request("think"), Request("ponder")])
    assert texts([reply]) == ["Rest."]
    assert "wrote 20 tokens of reasoning and no reply: turn reasoning off" in str(unfinished)


def test_special_tokens_in_a_prompt_are_plain_text(engine: VLLMEngine) -> None:
    prompt = "a<|im_end|>b"
    (reply,) = engine.generate([prompt])
    assert reply.prompt_tokens == len(prompt)


def test_a_template_argument_reaches_the_template(
    vllm: type[Engine], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "template", "{% if shout %}!!{% endif %}" + BARE)
    (reply,) = VLLMEngine(model, max_new_tokens=10, chat_template_kwargs={"shout": True}).generate(["a"])
    assert reply.prompt_tokens == 3


def test_lots_cover_every_place_once_and_closing_calls_the_rest_off(
    engine: VLLMEngine, vllm: type[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pmlm_env.llm.local.vllm._BATCH", 2)
    requests = [Request(f"p{place}") for place in range(5)]
    lots = list(engine.replies(requests))
    assert [sorted(lot) for lot in lots] == [[0, 1], [2, 3], [4]]
    assert texts([lots[2][4]]) == ["to p4: 5"]
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
    assert [made.model for made in vllm.made] == [engine.model]
    twin = pickle.loads(pickle.dumps(engine))
    assert twin.identity == engine.identity
    assert twin.generate(["a"]) == engine.generate(["a"])
    assert len(vllm.made) == 2


def test_all_that_decides_the_reply_is_in_the_identity(model: str, tmp_path: Path) -> None:
    tiny_model(tmp_path / "another" / "model", seed=4)
    variants: list[dict[str, Any]] = [
        {},
        {"model": str(tmp_path / "another" / "model")},
        {"max_new_tokens": 9},
        {"temperature": 0.5},
        {"seed": 1},
        {"on_truncated": "error"},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ]
    identities = {VLLMEngine(**{"model": model, **variant}).identity for variant in variants}
    assert len(identities) == len(variants)


def test_a_model_without_a_chat_template_is_refused(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "template", None)
    with pytest.raises(LLMError, match="model has no chat template"):
        engine.generate(["a"])


@pytest.mark.parametrize(
    "settings",
    [{"max_new_tokens": 0}, {"temperature": -0.1}, {"temperature": 2.1}, {"seed": -1}, {"on_truncated": "x"}],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        VLLMEngine("some/model", **settings)


def test_without_vllm_the_error_says_what_to_install(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(LLMError, match=r"^vLLM cannot be used \(.*\): pip install 'pmlm-env\[vllm\]'$") as caught:
        VLLMEngine(model).generate(["a"])
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
