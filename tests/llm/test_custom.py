"""An LLM of one's own, by name: what is checked when it is loaded and when it replies."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.llm import Budget, BudgetExceededError, Limits, LLMError, LLMOptions, load_llm
from pmlm_env.llm.specs import is_custom
from tests.own_parts import Shout

KEY = "sk-abcdefghijklmnop1234"
SHOUT = "tests.own_parts:Shout"


def _options(llm: str, **more: Any) -> LLMOptions:
    return LLMOptions(llm, **more)


def _refused(message: str, options: LLMOptions) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        load_llm(options)
    assert KEY not in str(caught.value)


def test_its_replies_are_cached_under_its_identity(tmp_path: Path) -> None:
    one, other = (load_llm(_options(SHOUT, llm_kwargs={"end": end}), cache=tmp_path / "r.sqlite") for end in "?!")
    again = load_llm(_options(SHOUT, llm_kwargs={"end": "?"}), cache=tmp_path / "r.sqlite", replay=True)
    assert one.identity == Shout("?").identity
    assert [one.generate(["rest"])[0].text, other.generate(["rest"])[0].text] == ["REST?", "REST!"]
    assert again.generate(["rest"])[0].text == "REST?"
    assert [one.hits, other.hits, again.hits] == [0, 0, 1]


def test_a_provider_goes_before_a_module_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hospital.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    providers = tmp_path / "providers.toml"
    providers.write_text('[hospital]\nbase_url = "http://127.0.0.1:1/v1"\n')
    monkeypatch.setenv("HOSPITAL_API_KEY", "a-key")
    llm = load_llm(LLMOptions("hospital:Model", providers=str(providers)))
    assert "hospital" not in sys.modules
    assert '"model": "Model"' in llm.identity
    assert not is_custom(LLMOptions("openai:gpt"))
    assert is_custom(LLMOptions("hospital:Model"))


def test_a_misspelled_provider_is_told_those_there_are() -> None:
    _refused("unknown LLM 'smollm2-135m' (did you mean 'local:smollm2-135m'?): use", _options("smollm2-135m"))
    _refused("unknown LLM 'openia:gpt': use local:NAME_OR_PATH", _options("openia:gpt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (_options("tests.own_parts:NotAnLLM"), "the LLM tests.own_parts:NotAnLLM is a NotAnLLM: it should be a subcla"),
        (_options("tests.own_parts:NoIdentity"), "the LLM tests.own_parts:NoIdentity lacks identity"),
        (_options(SHOUT, llm_kwargs={"identity": " "}), f"the LLM {SHOUT} has no identity: give it a text"),
        (_options(SHOUT, llm_kwargs={"identity": 3}), f"the LLM {SHOUT} has no identity: give it a text"),
        (
            _options(SHOUT, llm_kwargs={"identity": "<my.Shout object at 0x7f12ab>"}),
            f"the identity of the LLM {SHOUT} contains an address in memory",
        ),
        (_options(SHOUT, temperature=1.0), f"--temperature has no effect with the LLM {SHOUT}: use --llm-kwargs"),
        (_options("responder", llm_kwargs={"a": 1}), "--llm-kwargs has no effect with 'responder'"),
        (_options("openai:gpt", llm_kwargs={"a": 1}), "--llm-kwargs has no effect with 'openai:gpt'"),
    ],
)
def test_what_cannot_be_used_is_refused_when_it_is_loaded(options: LLMOptions, message: str) -> None:
    _refused(message, options)


def test_an_identity_that_contains_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "keyed_llm.py"
    module.write_text(f"from tests.own_parts import Shout\nclass Keyed(Shout):\n    identity = '{KEY}'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "keyed_llm", raising=False)
    _refused("the identity of the LLM keyed_llm:Keyed contains what looks like a key", _options("keyed_llm:Keyed"))
    del sys.modules["keyed_llm"]


def test_a_providers_file_has_no_effect(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("")
    _refused(f"--providers has no effect with the LLM {SHOUT}", _options(SHOUT, providers=str(tmp_path / "p.toml")))


def test_a_limit_on_concurrency_has_no_effect() -> None:
    with pytest.raises(ValueError, match=f"^--concurrency has no effect with the LLM {SHOUT}"):
        load_llm(_options(SHOUT), concurrency=2)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("texts", "the LLM tests.own_parts:Silent returned a str, not a Completion or an LLMError: see pmlm_env.llm"),
        (
            "no text",
            "the LLM tests.own_parts:Silent returned a Completion whose text is a NoneType, not text: see pmlm_env.llm",
        ),
        (
            "no tokens",
            "the LLM tests.own_parts:Silent returned a Completion whose completion_tokens are None, not a whole "
            "number, 0 or more (0 = unknown): see",
        ),
        (
            "another end",
            "the LLM tests.own_parts:Silent returned a Completion whose finish_reason is 'eos', not 'stop' or 'length'",
        ),
        ("list", "the LLM tests.own_parts:Silent returned not a mapping from the index of each request, once, to its"),
        ("unasked", "the LLM tests.own_parts:Silent returned not a mapping from the index of each request, once"),
        ("none", "the LLM tests.own_parts:Silent returned no reply to 2 of 2 requests"),
    ],
)
def test_what_is_not_a_reply_is_one_error_that_names_the_class(returns: str, message: str) -> None:
    llm = load_llm(_options("tests.own_parts:Silent", llm_kwargs={"returns": returns}))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        llm.generate(["a", "b"])


@pytest.mark.parametrize(
    ("returns", "message"), [("empty", "the reply is empty"), ("half", "the reply contains half of a surrogate pair")]
)
def test_a_reply_that_cannot_be_scored_is_an_error_of_that_request(returns: str, message: str) -> None:
    llm = load_llm(_options("tests.own_parts:Silent", llm_kwargs={"returns": returns}))
    with pytest.raises(LLMError, match=f"^{message}"):
        llm.generate(["a"])


def test_replies_that_are_returned_and_not_yielded_are_refused() -> None:
    llm = load_llm(_options("tests.own_parts:Listed"))
    with pytest.raises(ValueError, match=r"^the LLM tests.own_parts:Listed returned a list, which is no generator"):
        llm.generate(["a"])


def test_its_calls_are_booked() -> None:
    budget = Budget(Limits(max_llm_calls=2))
    llm = load_llm(_options(SHOUT, llm_kwargs={"end": " now"}), budget=budget)
    llm.generate(["take a rest", "sleep"])
    assert budget.usage == (2, 4, 6, 0.0)
    with pytest.raises(BudgetExceededError):
        llm.generate(["another"])
