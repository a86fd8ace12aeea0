from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.llm.local.local_llm import LocalLLM
from pmlm_env.pipeline import demo_episodes
from pmlm_env.weights import BUNDLED, DEFAULT_LLM, resolve

pytestmark = [pytest.mark.once, pytest.mark.real]

PROMPTS = [
    "What is thalassemia? Answer in one sentence.",
    "Hi.",
    "Name three foods that a pregnant woman with gestational diabetes should avoid, and say why.",
]
TOO_LONG = "word " * 9000
N_NEW = 12


def _llm(**settings: Any) -> LocalLLM:
    return LocalLLM(**{"max_new_tokens": N_NEW, "device": "cpu", "dtype": torch.float32, **settings})


def _texts(llm: LocalLLM, requests: list[Request]) -> list[str]:
    return [reply.text if isinstance(reply, Completion) else str(reply) for reply in llm.ask(requests)]


def _demo_prompts(n: int) -> list[str]:
    """Prompts of patients, ten words deleted from each."""
    rng = np.random.default_rng(0)
    words = [demo_episodes()[i].words for i in range(n)]
    return [" ".join(w[i] for i in np.sort(rng.permutation(len(w))[10:])) for w in words]


@pytest.fixture(scope="module")
def llm() -> LocalLLM:
    return _llm()


@pytest.fixture(scope="module")
def whole(llm: LocalLLM) -> list[Completion]:
    """Replies to PROMPTS."""
    return llm.generate(PROMPTS)


@pytest.fixture
def small_memory(llm: LocalLLM) -> Iterator[list[int]]:
    """A model that is out of memory with more rows than the one number in the list, to which attempts are added."""
    attempts = [0]

    def check(_: Any, __: Any, given: dict[str, Any]) -> None:
        rows = len(given["input_ids"])
        attempts.append(rows)
        if rows > attempts[0]:
            raise torch.OutOfMemoryError("no memory")

    watch = llm._model.register_forward_pre_hook(check, with_kwargs=True)
    yield attempts
    watch.remove()


@pytest.fixture(scope="module")
def gguf_file() -> Path:
    """What the bundled model was unpacked from."""
    resolve("smollm2-135m")
    path = BUNDLED["smollm2-135m"].path
    if not path.is_file():
        pytest.skip(f"{path} is gone, which it may be once it is unpacked")
    return path


@pytest.fixture(scope="module")
def from_gguf(gguf_file: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalLLM:
    """The same model as a folder that holds this file alone, which transformers reads: that takes long."""
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "model.gguf").symlink_to(gguf_file)
    return _llm(model=str(folder), max_new_tokens=4)


def test_the_unpacked_weights_are_those_of_the_gguf_file(gguf_file: Path) -> None:
    tensors = {t.name: t for t in gguf.GGUFReader(str(gguf_file)).tensors}
    ours = load_file(Path(resolve("smollm2-135m")) / "model.safetensors")
    names = {
        "blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
    }
    for theirs, mine in names.items():
        exact = gguf.quants.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        np.testing.assert_allclose(ours[mine].float().numpy(), exact, rtol=2**-8, atol=1e-6)  # bfloat16's rounding


def test_the_unpacked_weights_are_those_that_transformers_reads(from_gguf: LocalLLM) -> None:
    ours, info = AutoModelForCausalLM.from_pretrained(resolve("smollm2-135m"), output_loading_info=True)
    assert not any(info.values()), info
    expected = from_gguf._model.state_dict()
    assert set(ours.state_dict()) == set(expected)
    assert all(torch.equal(tensor, expected[name].bfloat16()) for name, tensor in ours.state_dict().items())


def test_a_batch_says_what_plain_greedy_decoding_says_one_at_a_time(llm: LocalLLM) -> None:
    path = resolve(DEFAULT_LLM)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    prompts = PROMPTS + _demo_prompts(1)
    ties = 0
    for prompt, reply in zip(prompts, llm.generate(prompts), strict=True):
        turn = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        plain = model.generate(
            **inputs, max_new_tokens=N_NEW, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        tokens = plain.sequences[0, inputs["input_ids"].shape[1] :]
        assert reply.prompt_tokens == inputs["input_ids"].shape[1]
        if reply.text != tokenizer.decode(tokens, skip_special_tokens=True).strip():
            begins = [reply.text.startswith(tokenizer.decode(tokens[:i]).strip()) for i in range(1, len(tokens))]
            first = begins.index(False) if False in begins else len(tokens) - 1
            top = plain.logits[first][0].topk(2).values
            assert float(top[0] - top[1]) < 1e-3, f"{reply.text!r} differs, and not by a tie"
            ties += 1
            continue
        assert reply.completion_tokens == len(tokens)
        assert reply.finish_reason == ("stop" if len(tokens) < N_NEW or tokens[-1] == 2 else "length")
    assert ties <= 1


def test_replies_come_in_the_order_of_the_prompts_whatever_the_batch_size(
    llm: LocalLLM, whole: list[Completion]
) -> None:
    assert _llm(batch_size=1).generate(PROMPTS) == whole
    assert llm.generate(PROMPTS[::-1]) == whole[::-1]


def test_each_batch_is_a_lot(llm: LocalLLM) -> None:
    lots = list(_llm(batch_size=2, max_new_tokens=1).replies([Request(p) for p in PROMPTS]))
    assert [set(lot) for lot in lots] == [{0, 2}, {1}]  # the longest first


def test_nothing_asked_is_nothing_done() -> None:
    fresh = _llm()
    assert list(fresh.replies([])) == []
    assert "_model" not in vars(fresh)


def test_a_prompt_that_begins_another_gets_its_own_reply(llm: LocalLLM) -> None:
    prompts = ["What is thalassemia?", "What is thalassemia? Say it in one sentence, please."]
    assert llm.generate(prompts) == [llm.generate([prompt])[0] for prompt in prompts]


def test_all_samples_of_a_prompt_are_one_reply_at_temperature_0(llm: LocalLLM, small_memory: list[int]) -> None:
    small_memory[0] = 64
    first, other, again = llm.ask([Request("Hi."), Request(PROMPTS[0]), Request("Hi.", 1)])
    assert first == again != other
    assert max(small_memory[1:]) == 2


def test_a_reply_ends_before_the_first_stop_string(whole: list[Completion]) -> None:
    words = whole[0].text.split()
    stop = (words[6], " " + words[5])  # the later one is listed first
    for reply, full in zip(_llm(stop=stop).generate(PROMPTS), whole, strict=True):
        cut = min([full.text.find(s) for s in stop if s in full.text], default=None)
        assert reply.text == full.text[:cut].strip()
        if cut is not None:
            assert reply.finish_reason == "stop"
            assert reply.completion_tokens < full.completion_tokens


def test_a_stop_string_of_several_tokens_is_found(whole: list[Completion]) -> None:
    text = whole[0].text
    reply = _llm(stop=[text[12:30]]).generate(PROMPTS[:1])[0]
    assert (reply.text, reply.finish_reason) == (text[:12].strip(), "stop")


def test_a_reply_that_a_stop_string_leaves_empty_is_an_error() -> None:
    llm = _llm(stop=[_llm(max_new_tokens=1).generate(PROMPTS[:1])[0].text])
    (reply,) = llm.ask([Request(PROMPTS[0])])
    assert isinstance(reply, LLMError)
    assert "empty reply to a prompt of" in str(reply)
    assert "change the prompt or the stop strings" in str(reply)


def test_a_reply_that_is_cut_is_kept_or_an_error() -> None:
    assert _llm(max_new_tokens=2).generate(PROMPTS[:1])[0].finish_reason == "length"
    with pytest.raises(LLMError, match="cut at 2 tokens: raise max_new_tokens, or keep such replies"):
        _llm(max_new_tokens=2, on_truncated="error").generate(PROMPTS[:1])


def test_a_bad_prompt_costs_only_its_own_place(llm: LocalLLM, whole: list[Completion]) -> None:
    good, bad, other = llm.ask([Request(PROMPTS[0]), Request(TOO_LONG), Request(PROMPTS[1])])
    assert [good, other] == whole[:2]
    assert isinstance(bad, LLMError)


def test_a_prompt_beyond_the_context_is_refused_not_cut(llm: LocalLLM) -> None:
    with pytest.raises(LLMError, match=r"a prompt has \d+ tokens, but smollm2-135m accepts 8180"):
        llm.generate([TOO_LONG])


def test_samples_differ_and_come_again() -> None:
    requests = [Request(PROMPTS[0], sample) for sample in range(3)]
    warm = _llm(temperature=2.0, max_new_tokens=6)
    texts = _texts(warm, requests)
    assert len(set(texts)) == 3
    assert _texts(warm, requests) == texts
    assert not set(_texts(_llm(temperature=2.0, seed=1, max_new_tokens=6), requests)) & set(texts)


def test_a_sample_does_not_depend_on_what_else_is_in_the_batch() -> None:
    warm = _llm(temperature=2.0, max_new_tokens=6)
    requests = [Request(prompt, sample) for prompt in PROMPTS for sample in range(2)]
    assert _texts(warm, requests) == [text for request in requests for text in _texts(warm, [request])]


def test_a_little_warmth_takes_the_likeliest_token(whole: list[Completion]) -> None:
    assert _llm(temperature=1e-6).generate(PROMPTS) == whole


def test_out_of_memory_halves_the_batch_and_goes_on(llm: LocalLLM, small_memory: list[int]) -> None:
    small_memory[0] = 64
    llm = _llm(max_new_tokens=5)
    prompts = [*PROMPTS, "Hello.", "Bye."]
    expected = [reply.text for reply in llm.generate(prompts)]
    small_memory[:] = [2]
    with pytest.warns(RuntimeWarning, match="out of memory with") as warned:
        assert [reply.text for reply in llm.generate(prompts)] == expected
    assert [str(w.message).split("continuing with ")[1][0] for w in warned] == ["3", "2"]
    assert list(dict.fromkeys(small_memory[1:])) == [5, 3, 2, 1]


def test_one_prompt_beyond_the_memory_is_an_error_in_its_place(llm: LocalLLM, small_memory: list[int]) -> None:
    replies: list[Reply] = llm.ask([Request("Hi.")])
    assert isinstance(replies[0], LLMError)
    assert str(replies[0]).startswith("cpu is out of memory with one prompt of")
    small_memory[0] = 64
    assert isinstance(llm.ask([Request("Hi.")])[0], Completion)


def test_weights_do_not_travel_in_a_pickle(llm: LocalLLM) -> None:
    llm.generate(PROMPTS[:1])
    assert len(pickle.dumps(llm)) < 10_000


def test_the_identity_tells_what_decides_the_reply() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"max_new_tokens": 17},
        {"dtype": torch.bfloat16},
        {"stop": ["\n"]},
        {"temperature": 0.5},
        {"temperature": 0.5, "seed": 1},
        {"temperature": 0.6},
        {"on_truncated": "error"},
    ]
    assert len({_llm(**more).identity for more in settings}) == len(settings)
    assert _llm(seed=1).identity == _llm().identity  # nothing is drawn at temperature 0
    assert _llm(batch_size=1).identity == _llm().identity
    assert json.loads(_llm(max_new_tokens=2).identity)["min_new_tokens"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_new_tokens": 0}, "must be 1 or more"),
        ({"batch_size": 0}, "must be 1 or more"),
        ({"temperature": -1.0}, "temperature is -1.0: use 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"stop": "end"}, "stop is 'end': give a list of non-empty strings"),
        ({"stop": [""]}, "list of non-empty strings"),
        ({"on_truncated": "drop"}, "on_truncated is 'drop': use error or keep"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _llm(**wrong)


def test_a_folder_with_a_gguf_file_replies_as_its_unpacked_weights(
    from_gguf: LocalLLM, whole: list[Completion]
) -> None:
    assert whole[0].text.startswith(from_gguf.generate(PROMPTS[:1])[0].text)
    file = str(Path(from_gguf.model_name) / "model.gguf")
    assert _llm(model=file, max_new_tokens=4).identity == from_gguf.identity
