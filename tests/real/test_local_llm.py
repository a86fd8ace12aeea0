from __future__ import annotations

import pickle
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pmlm_env.llm import LLMError
from pmlm_env.llm.local import LocalLLM
from pmlm_env.models import BUNDLED, resolve

pytestmark = pytest.mark.real

PROMPTS = [
    "What is thalassemia? Answer in one sentence.",
    "Hi.",
    "Name three foods that a pregnant woman with gestational diabetes should avoid, and say why.",
]


@pytest.fixture(scope="module")
def llm() -> LocalLLM:
    return LocalLLM(max_new_tokens=16, device="cpu", dtype=torch.float32)


def test_the_unpacked_weights_are_those_of_the_gguf_file() -> None:
    tensors = {t.name: t for t in gguf.GGUFReader(str(BUNDLED["smollm2-135m"].path)).tensors}
    ours = load_file(Path(resolve("smollm2-135m")) / "model.safetensors")
    names = {
        "blk.3.ffn_down.weight": "model.layers.3.mlp.down_proj.weight",
        "blk.29.attn_v.weight": "model.layers.29.self_attn.v_proj.weight",
        "token_embd.weight": "model.embed_tokens.weight",
    }
    for theirs, mine in names.items():
        exact = gguf.quants.dequantize(tensors[theirs].data, tensors[theirs].tensor_type)
        np.testing.assert_allclose(ours[mine].float().numpy(), exact, rtol=2**-8, atol=1e-6)  # bfloat16's rounding


def test_a_batch_says_what_plain_greedy_decoding_says_one_at_a_time(llm: LocalLLM) -> None:
    path = resolve("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    for prompt, reply in zip(PROMPTS, llm.generate(PROMPTS), strict=True):
        turn = [{"role": "user", "content": prompt}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert reply.text == tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert reply.prompt_tokens == inputs["input_ids"].shape[1]
        assert reply.completion_tokens == len(tokens)
        assert reply.finish_reason == ("stop" if len(tokens) < 16 or tokens[-1] == 2 else "length")


def test_replies_come_in_the_order_of_the_prompts_whatever_the_batch_size(llm: LocalLLM) -> None:
    small = LocalLLM(max_new_tokens=16, device="cpu", dtype=torch.float32, batch_size=1)
    assert [r.text for r in small.generate(PROMPTS)] == [r.text for r in llm.generate(PROMPTS)]
    assert [r.text for r in llm.generate(PROMPTS[::-1])] == [r.text for r in llm.generate(PROMPTS)][::-1]


def test_a_prompt_beyond_the_context_is_refused_not_cut(llm: LocalLLM) -> None:
    with pytest.raises(LLMError, match=r"a prompt has \d+ tokens, but smollm2-135m takes 8176"):
        llm.generate(["word " * 9000])


def test_weights_do_not_travel_in_a_pickle(llm: LocalLLM) -> None:
    llm.generate(PROMPTS[:1])
    assert len(pickle.dumps(llm)) < 10_000


def test_the_identity_tells_what_decides_the_reply() -> None:
    settings = [{"max_new_tokens": 16}, {"max_new_tokens": 17}, {"dtype": torch.float32}, {"dtype": torch.bfloat16}]
    assert len({LocalLLM(device="cpu", **more).identity for more in settings}) == 4  # type: ignore[arg-type]
