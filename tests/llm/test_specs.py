from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from pmlm_env.envs.options import PMLMOptions
from pmlm_env.llm import LLMError, LLMOptions, ReplayMissError, load_llm, price_of
from pmlm_env.llm.http.endpoint import OpenAIChat
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.llm.local.model_files import find_model
from pmlm_env.llm.local.vllm import VLLMEngine
from pmlm_env.llm.lora.adapters import Adapter
from tests.llm.tiny_llms import tiny_model


@pytest.mark.parametrize("spec", ["gpt-4", "local:", "openai:", "nobody:model", ""])
def test_an_unknown_spec_says_what_there_is(spec: str) -> None:
    with pytest.raises(ValueError, match=r"use local:NAME_OR_PATH, .*PROVIDER:MODEL with one of .*openai"):
        load_llm(spec)


def test_the_responder_takes_the_labels_of_a_schema(tmp_path: Path) -> None:
    (tmp_path / "men.toml").write_text('indicators = [{ name = "urate" }]\nlabels = [{ name = "gout" }]\n')
    llm = load_llm(f"responder:{tmp_path / 'men.toml'}")
    assert llm.generate(["diagnosis: gout"])[0].text.startswith("Discharge diagnosis: gout.")
    assert llm.identity.startswith("responder:v1:")
    assert load_llm("responder:obstetric").identity == load_llm("responder").identity == "responder:v1"
    (tmp_path / "men.toml").rename(tmp_path / "moved.toml")
    assert load_llm(f"responder:{tmp_path / 'moved.toml'}").identity == llm.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [("2", "there is no schema '2'"), ("", "there is no schema ''"), ("gone.toml", "schema gone.toml does not exist")],
)
def test_a_schema_that_the_responder_cannot_read_is_named(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_llm(f"responder:{name}")


def test_a_schema_without_labels_has_nothing_that_the_responder_could_name(tmp_path: Path) -> None:
    (tmp_path / "men.toml").write_text('indicators = [{ name = "urate" }]\n')
    with pytest.raises(ValueError, match=r"men\.toml has none: add labels to it"):
        load_llm(f"responder:{tmp_path / 'men.toml'}")


def test_a_setting_without_effect_on_the_responder_is_refused_whatever_its_schema() -> None:
    for llm in ("responder", "responder:obstetric"):
        with pytest.raises(ValueError, match=f"--temperature has no effect with '{llm}'"):
            load_llm(LLMOptions(llm, temperature=1.0))


def test_a_base_url_for_a_model_that_runs_here_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no base URL"):
        load_llm(LLMOptions("responder", base_url="https://example.org/v1"))


def test_a_missing_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(LLMError, match="environment variable OPENAI_API_KEY"):
        load_llm("openai:gpt-4o-mini")


def test_a_replay_needs_no_key_but_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match="set cache"):
        load_llm("openai:gpt-4o-mini", replay=True)
    with pytest.raises(ReplayMissError):
        load_llm("openai:gpt-4o-mini", replay=True, cache=tmp_path / "replies").generate(["hello"])


def test_options_reach_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LLMOptions(
        "openai:some-model", "http://localhost:1/v1", max_new_tokens=7, temperature=0.5, llm_seed=3, on_truncated="keep"
    )
    chat = load_llm(options, concurrency=2).llm
    assert chat == OpenAIChat(
        "some-model",
        "http://localhost:1/v1",
        max_tokens=7,
        max_tokens_name=chat.max_tokens_name,  # type: ignore[attr-defined]  # the provider's
        temperature=0.5,
        seed=3,
        on_truncated="keep",
        concurrency=2,
    )


def test_the_number_format_is_for_the_local_llm_alone(tmp_path: Path) -> None:
    for name in ("float32", "bfloat16"):
        assert f"torch.{name}" in load_llm(LLMOptions(llm_dtype=name)).identity  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"llm_dtype is 'float32': use one of .* only with local:"):
        load_llm(LLMOptions("responder", llm_dtype="float32"))
    with pytest.raises(ValueError, match="llm_dtype is 'int8'"):
        load_llm(LLMOptions(llm_dtype="int8"))  # type: ignore[arg-type]


def test_an_adapter_is_loaded_with_the_options_of_the_llm_and_is_for_local_llms_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny_model(folder)
    Adapter(find_model(str(folder)).identity, 8, 16, {}).save(tmp_path / "adapter")
    options = LLMOptions(f"local:{folder}", max_new_tokens=7, llm_dtype="bfloat16", on_truncated="error")
    usual, adapted = (json.loads(load_llm(options, adapter=each).llm.identity) for each in (None, tmp_path / "adapter"))
    assert (adapted["dtype"], adapted["max_new_tokens"], adapted["on_truncated"]) == ("torch.bfloat16", 7, "error")
    assert adapted.pop("adapter")
    assert adapted == usual
    with pytest.raises(ValueError, match="an adapter has no effect with 'responder': it is for local: LLMs"):
        load_llm("responder", adapter=tmp_path / "adapter")


def test_a_temperature_that_the_models_refuse_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match=r"openai-reasoning models take no temperature: leave 0.7 out"):
        load_llm(LLMOptions("openai-reasoning:o4-mini", "http://localhost:1/v1", temperature=0.7))


def test_a_provider_that_is_not_built_in_needs_an_address_and_has_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text("[ollma]\ntries = 2\n")
    with pytest.raises(ValueError, match=r"\[ollma\]: base_url is missing, and the name is none of gemini, "):
        load_llm(LLMOptions("ollma:m", providers=str(path)))
    path.write_text('[ward-7]\nbase_url = "http://localhost:1/v1"\n')
    assert load_llm(LLMOptions("ward-7:m", providers=str(path))).llm.api_key_env == "WARD_7_API_KEY"  # type: ignore[attr-defined]


def test_a_provider_of_ones_own_brings_its_settings_and_prices(tmp_path: Path) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(
        '[mine]\nbase_url = "http://localhost:1/v1"\nsend_seed = false\nsend_temperature = false\ntries = 2\n'
        '[mine.prices."m"]\nprompt = 1\ncompletion = 2.5\n'
    )
    options = LLMOptions("mine:m", providers=str(path))
    chat = load_llm(options).llm
    assert isinstance(chat, OpenAIChat)
    assert (chat.base_url, chat.seed, chat.temperature, chat.tries) == ("http://localhost:1/v1", None, None, 2)
    price = price_of(options)
    assert price is not None
    assert (price.prompt, price.completion) == (1.0, 2.5)
    assert price_of(LLMOptions("mine:another", providers=str(path))) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tries = 2", "'tries' is outside a table"),
        ('[mine]\napi_key = "sk"', "unknown 'api_key'; a provider has base_url, api_key_env"),
        ("[mine]\ntries = true", "tries is true: it should be a whole number"),
        ('[mine]\nread_timeout = "2"', "read_timeout is text: it should be a number"),
        ("[openai.prices.m]\nprompt = 1", "should have prompt and completion"),
        ("[openai.prices.m]\nprompt = 1\ncompletion = -1", "should have prompt and completion"),
    ],
)
def test_a_providers_file_that_will_not_do_is_named_with_the_setting(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "providers.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_llm(LLMOptions("mine:m", providers=str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reply_may_be_as_long_whichever_way_an_llm_is_made() -> None:
    """A letter has about 60 words: with 48 tokens it would be cut."""
    made = (LLMOptions, LocalLLM, VLLMEngine, PMLMOptions)
    assert [inspect.signature(each).parameters["max_new_tokens"].default for each in made] == [128] * 4


@pytest.mark.parametrize(
    ("options", "replay", "remote"),
    [
        (LLMOptions("responder"), False, False),
        (LLMOptions("openai:gpt"), False, True),
        (LLMOptions("openai:gpt"), True, False),
        (LLMOptions("openai:gpt", base_url="http://127.0.0.1:8000/v1"), False, False),
        (LLMOptions("ollama:llama3.2"), False, False),
        (LLMOptions("tests.standins:EchoLLM"), False, True),
        (LLMOptions("tests.editors:MarkedWordsEditor"), False, False),
    ],
)
def test_an_llm_says_whether_prompts_may_leave_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: LLMOptions, replay: bool, remote: bool
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any-word")
    assert load_llm(options, cache=tmp_path / "replies.sqlite", replay=replay).is_remote == remote
