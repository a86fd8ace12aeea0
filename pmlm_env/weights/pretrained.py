"""Loading untrusted models with transformers: no custom code is run and nothing is unpickled."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # not at run time, because importing transformers takes seconds
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Otherwise transformers reports repositories without safetensors, with the token, to an online conversion service.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

AutoClass = Literal["AutoModel", "AutoModelForCausalLM"]

_CUSTOM_CODE = "needs custom code, which is never run: choose a model whose architecture is built into transformers"

#: Limit on the number of layers and of experts: more than the largest models have.
_MAX_PARTS = 1_000
#: A folder with safetensors weights contains one of these files.
_WEIGHTS = {"model.safetensors", "model.safetensors.index.json"}

#: Weights that may be missing from a checkpoint: layers after the hidden states, which are not used here.
_UNUSED = "pooler"


def load_config(path: str, **where: Any) -> PreTrainedConfig:
    """Load a model's configuration.

    Args:
        path: From ``pmlm_env.weights.resolve``: a folder or a hub name.
        where: ``revision`` on the hub, or ``gguf_file`` in the folder.

    Raises:
        ValueError: The configuration is damaged, or the model needs custom code.
        OSError: There is no configuration, or the hub does not answer.
    """
    from transformers import AutoConfig

    with _one_line(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
    if "/" in str(getattr(config, "_attn_implementation", "")):  # a kernel that would be downloaded and run
        raise ValueError(f"{path} {_CUSTOM_CODE}")
    return config


def load_tokenizer(path: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; see ``load_config``. ``options`` are passed to ``from_pretrained``."""
    from transformers import AutoTokenizer

    with _one_line(path):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)


def load_model(path: str, auto: AutoClass = "AutoModel", **options: Any) -> PreTrainedModel:
    """Load a model's weights, on the CPU and in evaluation mode.

    Args:
        path: As in ``load_config``.
        auto: The transformers class that selects the architecture.
        options: Passed to its ``from_pretrained``; may include ``revision`` and ``gguf_file``.

    Raises:
        ValueError: As in ``load_config``; or the weights are pickled, quantized, incomplete or not finite, or do not
            match the configuration; or this version of transformers does not load the architecture correctly.
        OSError: There are no weights, or the hub does not answer.
    """
    import transformers

    where = {name: options[name] for name in ("revision", "gguf_file") if name in options}
    if "gguf_file" in where:
        config = load_config(path, **where)
    else:
        check_folder(path, auto)
        config = load_config(path, **where)
        if getattr(config, "quantization_config", None):  # quantization may need custom code
            raise ValueError(f"{path} is quantized: choose the original model or, for an LLM, use a server")
        if Path(path).is_dir():
            _check_size(Path(path), config, auto)
    with _one_line(path), _without_report():
        model, found = getattr(transformers, auto).from_pretrained(
            path, config=config, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
        )
    if missing := sorted(name for name in found["missing_keys"] if _UNUSED not in name):
        raise ValueError(f"{path}: its weights lack {missing[0]} (missing: {len(missing)}): download the model again")
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ValueError(
                f"{path}: {name} has numbers that are not finite: download the model again, or choose another"
            )
    _check_rotary(path, model)
    return model.eval()


def check_folder(path: str, auto: AutoClass) -> None:
    """Check that ``path``, if it is a folder, contains weights that may be loaded.

    Raises:
        ValueError: It does not; the message says what to do.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    names = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in names:
        raise ValueError(f"{path} is an adapter for another model: merge it into that model first")
    if names & _WEIGHTS:
        return
    if pickled := sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))):
        where = json.dumps(path)
        code = f"from transformers import {auto} as M; M.from_pretrained({where}).save_pretrained({where})"
        raise ValueError(
            f"{path} has only pickled weights ({pickled[0]}), which are never loaded; convert them if you trust them: "
            f"python -c {shlex.quote(code)}"
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    found = f", only {others[0]}" if others else ""
    raise ValueError(f"{path} has no weights (model.safetensors){found}: download the model again, or choose another")


def _check_size(folder: Path, config: PreTrainedConfig, auto: AutoClass) -> None:
    """Check that the files can contain all weights that the configuration describes, before allocating memory.

    Raises:
        ValueError: There are more weights than bytes, or more layers than any model has.
    """
    import torch
    import transformers

    for name, number in _counts(config.to_dict()):
        if number > _MAX_PARTS:
            raise ValueError(f"{folder}: config.json says {name} = {number:,}: the limit is {_MAX_PARTS:,}")
    with _one_line(str(folder)), torch.device("meta"):
        model = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    described = sum(weight.numel() for weight in model.parameters())
    stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if described > stored:
        raise ValueError(
            f"{folder}: config.json describes {described:,} weights, but the files have only {stored:,} bytes: "
            "download the model again"
        )


def _check_rotary(path: str, model: PreTrainedModel) -> None:
    """Check the frequencies of rotary embeddings, which are computed at load and not stored with the weights.

    transformers before 5.4 leaves those of some architectures (recurrent_gemma) in uninitialized memory, so that the
    model's output differs from one load to the next.
    """
    import torch
    import transformers

    for module in model.modules():
        frequencies = {name: value for name, value in module.named_buffers(recurse=False) if name.endswith("inv_freq")}
        if not frequencies or not hasattr(module, "config"):
            continue
        expected = dict(type(module)(config=module.config).named_buffers(recurse=False))
        if not all(torch.allclose(value.float(), expected[name].float(), 1e-2) for name, value in frequencies.items()):
            raise ValueError(
                f"{path}: transformers {transformers.__version__} loads {model.config.model_type} models with wrong "
                "rotary embeddings: install a later transformers, or choose another model"
            )


def _counts(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers, blocks and experts in a configuration, including nested ones."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif type(value) is int and re.search("layer|block|expert", name):
            yield name, value


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from printing a table of missing and unexpected weights."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Convert errors of transformers, tokenizers and safetensors into one line that names the model."""
    try:
        yield
    except Exception as error:  # damaged files cause errors of any type; tokenizers raises a bare Exception
        text = " ".join(str(error).split())
        if "trust_remote_code" in text:
            raise ValueError(f"{path} {_CUSTOM_CODE}") from None
        if "ignore_mismatched_sizes" in text:
            raise ValueError(f"{path}: the shapes of its weights do not match its config.json") from None
        if "use_safetensors" in text:
            raise ValueError(
                f"{path} has no safetensors, and pickled weights are never loaded: choose another model"
            ) from None
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{path} cannot be loaded: {text or type(error).__name__}") from None
