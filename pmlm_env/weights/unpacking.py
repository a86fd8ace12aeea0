"""Converting a GGUF file to bfloat16 safetensors.

transformers loads a GGUF file slowly, in float32, and cannot save the result. Here, tensors are dequantized one at a
time and written once; after that, loading takes a second. transformers reads the configuration and the tokenizer from
the file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

#: Architecture -> whether query and key rows are stored in another order; see ``_in_halves``.
_ARCHITECTURES = {"llama": True, "qwen2": False}
#: Maximum bytes per weights file, unless a single tensor is larger.
_SHARD = 500_000_000
#: Weights dequantized at once; gguf needs several times their float32 size in memory.
_AT_ONCE = 1 << 22


def unpack(source: Path, target: Path, shard: int = _SHARD) -> None:
    """Convert a GGUF file to a folder that ``from_pretrained`` loads: weights, configuration, tokenizer.

    Args:
        source: A GGUF file of a llama or qwen2 model.
        target: The folder to create.
        shard: Maximum bytes per weights file.

    Raises:
        ValueError: The architecture is not supported, or the tensors do not match the configuration.
    """
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    reader = GGUFReader(str(source))
    field = reader.fields.get("general.architecture")
    architecture = bytes(field.parts[field.data[0]]).decode() if field is not None else "unknown"
    if architecture not in _ARCHITECTURES:
        raise ValueError(f"{source} is a {architecture} model: only {' and '.join(_ARCHITECTURES)} can be unpacked")
    roles = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "pad_token": "padding_token_id"}
    found = {role: reader.fields.get(f"tokenizer.ggml.{key}") for role, key in roles.items()}
    special = {role: int(its.parts[its.data[0]][0]) for role, its in found.items() if its is not None}
    if "eos_token" not in special:
        raise ValueError(f"{source} does not say which token ends a reply (tokenizer.ggml.eos_token_id)")
    tensors = {tensor.name: tensor for tensor in reader.tensors}  # memory-mapped
    del reader, field, found  # frees half a gigabyte used by the vocabulary
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    packed = AutoConfig.from_pretrained(**where, trust_remote_code=False).to_dict()
    settings = {k: v for k, v in packed.items() if k not in ("quantization_config", "model_type") and k[0] != "_"}
    settings.update({f"{role}_id": number for role, number in special.items()})
    settings.update(tie_word_embeddings="output.weight" not in tensors, dtype="bfloat16")
    config = AutoConfig.for_model(packed["model_type"], **settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    for role, number in special.items():  # older versions of transformers use those of the architecture's first model
        setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(number))

    target.mkdir(parents=True)
    _save(_tensors(model, architecture, tensors, source), target, shard)
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)
    end, pad = special["eos_token"], special.get("pad_token", special["eos_token"])
    GenerationConfig(
        bos_token_id=special.get("bos_token"),
        eos_token_id=end if pad == end else [end, pad],  # Qwen's padding token ends a text and may also end a reply
        pad_token_id=pad,
    ).save_pretrained(target)
    for file in target.glob("*.safetensors"):
        shutil.copymode(target / "config.json", file)  # safetensors writes files that only their owner can read


def _tensors(
    model: torch.nn.Module, architecture: str, tensors: dict[str, Any], source: Path
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names (Hugging Face) and bfloat16 values of a model's parameters."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    config: Any = model.config
    (arch,) = (number for number, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name == "output.weight" and config.tie_word_embeddings:
            continue
        if gguf_name not in tensors:
            raise ValueError(f"{source} lacks {gguf_name or name}, which its configuration requires")
        packed = tensors[gguf_name]
        shape = tuple(int(n) for n in packed.shape[::-1])
        if shape != tuple(parameter.shape):
            raise ValueError(f"{source}: {gguf_name} has the shape {shape}, expected {tuple(parameter.shape)}")
        weights = _bfloat16(packed, shape)
        if _ARCHITECTURES[architecture] and ".attn_q." in gguf_name:
            weights = _in_halves(weights, config.num_attention_heads)
        elif _ARCHITECTURES[architecture] and ".attn_k." in gguf_name:
            weights = _in_halves(weights, config.num_key_value_heads)
        yield name, weights


def _bfloat16(packed: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Dequantize a tensor a few rows at a time."""
    from gguf.quants import dequantize

    weights = torch.empty(shape, dtype=torch.bfloat16)
    rows = max(1, _AT_ONCE // int(np.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        some = np.array(dequantize(packed.data[start : start + rows], packed.tensor_type), dtype=np.float32)
        weights[start : start + rows] = torch.from_numpy(some).reshape(-1, *shape[1:])
    return weights


def _in_halves(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder the rows of each head for the rotary embeddings of transformers.

    A rotation acts on pairs of a head's dimensions. llama.cpp stores the two rows of a pair next to each other;
    transformers stores all first rows before all second rows.
    """
    pairs = weights.reshape(heads, -1, 2, *weights.shape[1:])
    return pairs.transpose(1, 2).reshape(weights.shape).contiguous()


def _save(tensors: Iterator[tuple[str, torch.Tensor]], target: Path, limit: int) -> None:
    """Write tensors to files of at most ``limit`` bytes, and an index if there is more than one file."""
    shards: list[list[str]] = []
    total = pending_bytes = 0
    pending: dict[str, torch.Tensor] = {}

    def write() -> None:
        save_file(pending, target / f"{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    for name, tensor in tensors:
        if pending and pending_bytes + tensor.nbytes > limit:
            write()
            pending_bytes = 0
        pending[name] = tensor
        pending_bytes += tensor.nbytes
        total += tensor.nbytes
        del tensor
    write()
    if len(shards) == 1:
        (target / "0.safetensors").rename(target / "model.safetensors")
        return
    weight_map = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (target / f"{i}.safetensors").rename(target / file)
        weight_map.update(dict.fromkeys(names, file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
