"""Replies of a batch, of each prompt alone and of transformers' own ``generate``, for many architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from pmlm_env.llm.base import Completion, LLMError, Reply, Request
from pmlm_env.llm.local.local_llm import LocalLLM
from tests.llm.tiny_llms import BARE, plain_replies, tiny_model

N_NEW = 16
WINDOW = {"sliding_window": 32}
MIXED = {"layer_types": ["linear_attention", "full_attention"] * 2}
DELTA_NET = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}

#: Windows and chunks are shorter than most of the prompts.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen2 with windows": ("qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", WINDOW),
    "gemma3": ("gemma3_text", WINDOW),
    "mistral": ("mistral", WINDOW),
    "mistral without windows": ("mistral", {"sliding_window": None}),
    "mixtral": ("mixtral", {"sliding_window": None, "num_local_experts": 4}),
    "phi3": ("phi3", WINDOW),
    "cohere2": ("cohere2", WINDOW),
    "gpt_oss": ("gpt_oss", {**WINDOW, "num_local_experts": 4}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", WINDOW),
    "granite": ("granite", {}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 2}),
    "exaone4": ("exaone4", {**WINDOW, "sliding_window_pattern": 2}),
    "llama4, in chunks": (
        "llama4_text",
        {
            "attention_chunk_size": 32,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 64,
        },
    ),
    "gpt2": ("gpt2", {}),
    "gpt_neo": ("gpt_neo", {"attention_types": [[["global", "local"], 2]], "window_size": 32, "num_layers": 4}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {}),
    "opt": ("opt", {"word_embed_proj_dim": 32}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"] * 2, "block_multiple_of": 8}),
    "falcon_h1": ("falcon_h1", {**MAMBA, "mamba_n_heads": 4, "mamba_d_ssm": 32}),
    "qwen3_next": ("qwen3_next", {**MIXED, **DELTA_NET, **EXPERTS}),
    "qwen3_5": ("qwen3_5_text", {**MIXED, **DELTA_NET}),
    "granite 4": (
        "granitemoehybrid",
        {
            **MAMBA,
            "layer_types": ["mamba", "attention"] * 2,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "shared_intermediate_size": 32,
        },
    ),
    "mamba": ("mamba", {"state_size": 8}),
    # Padding reaches the states of these.
    "minimax": ("minimax", {"layer_types": ["linear_attention", "full_attention"] * 2, "num_local_experts": 2}),
    "recurrent_gemma": (
        "recurrent_gemma",
        {"attention_window_size": 32, "lru_width": 32, "num_hidden_layers": 3},
    ),
    "rwkv": ("rwkv", {"attention_hidden_size": 32}),
}

PROMPTS = [
    "Iron?",
    "anemia in week 12",
    "A patient: hemoglobin 98, what now?",
    "A patient of 31 years, hemoglobin 98, ferritin 7, asks what to eat",
    "A patient of 31 years, hemoglobin 98, ferritin 7, asks how to sleep",
]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_batch_replies_as_each_prompt_alone_and_as_transformers_does(name: str, tmp_path: Path) -> None:
    kind, settings = ARCHITECTURES[name]
    if kind not in CONFIG_MAPPING_NAMES:
        pytest.skip(f"this transformers has no {kind}")
    if kind == "recurrent_gemma" and Version(transformers.__version__) < Version("5.4"):
        pytest.skip("this transformers leaves its rotary embeddings uninitialized")
    tiny_model(tmp_path, kind, template=BARE, **settings)
    llm = LocalLLM(str(tmp_path), max_new_tokens=N_NEW, device="cpu", dtype=torch.float32)
    requests = [Request(prompt) for prompt in PROMPTS]
    together = [_text(reply) for reply in llm.ask(requests)]
    assert together == [_text(llm.ask([request])[0]) for request in requests]
    assert together == plain_replies(tmp_path, PROMPTS, N_NEW)
    assert len(set(together)) >= 2  # a model that replies the same to all would prove nothing


def test_a_model_that_transformers_loads_with_wrong_rotary_embeddings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uninitialized(self: torch.nn.Module, module: torch.nn.Module) -> None:
        if hasattr(module, "inv_freq"):
            module.inv_freq.fill_(7.0)

    tiny_model(tmp_path, "llama", template=BARE)
    monkeypatch.setattr(transformers.LlamaPreTrainedModel, "_init_weights", uninitialized)
    llm = LocalLLM(str(tmp_path), max_new_tokens=N_NEW, device="cpu", dtype=torch.float32)
    with pytest.raises(LLMError, match="loads llama models with wrong rotary embeddings: install a later transformers"):
        llm.ask([Request("Iron?")])


def _text(reply: Reply) -> str:
    """The reply; nothing where the model says nothing but white space, which is an error."""
    return reply.text if isinstance(reply, Completion) else ""
