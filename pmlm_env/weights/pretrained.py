"""What transformers loads from a folder or the hub, whoever made it: no code of theirs runs, nothing is unpickled."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # importing transformers takes seconds, which those who need no weights are spared
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Otherwise transformers makes a repository without safetensors known to a converter on the internet, token and all.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

AutoClass = Literal["AutoModel", "AutoModelForCausalLM"]

_OWN_CODE = "needs code of its own, which is never run: choose a model whose architecture transformers has built in"

#: More layers, and more experts, than the largest models have.
_MOST_PARTS = 1_000
#: One of these is in a folder with weights as safetensors.
_WEIGHTS = {"model.safetensors", "model.safetensors.index.json"}

#: Weights that a checkpoint may lack: layers behind the hidden states, which nothing here looks at.
_UNUSED = "pooler"


def load_config(path: str, **where: Any) -> PreTrainedConfig:
    """Load a model's configuration.

    Args:
        path: As ``pmlm_env.weights.resolve`` returns it: a folder, or a hub name.
        where: ``revision`` on the hub, or ``gguf_file`` in the folder.

    Raises:
        ValueError: It is damaged, or of a model that needs code of its own.
        OSError: There is none, or the hub does not answer.
    """
    from transformers import AutoConfig

    with _one_line(path):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **where)
    if "/" in str(getattr(config, "_attn_implementation", "")):  # a kernel that transformers would download and run
        raise ValueError(f"{path} {_OWN_CODE}")
    return config


def load_tokenizer(path: str, **options: Any) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; see ``load_config``. ``options`` are what ``from_pretrained`` takes besides."""
    from transformers import AutoTokenizer

    with _one_line(path):
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)


def load_model(path: str, auto: AutoClass = "AutoModel", **options: Any) -> PreTrainedModel:
    """Load a model's weights, on the CPU and in evaluation mode.

    Args:
        path: As in ``load_config``.
        auto: Which class of transformers chooses the architecture.
        options: What its ``from_pretrained`` takes besides, ``revision`` and ``gguf_file`` too.

    Raises:
        ValueError: As in ``load_config``; or the weights are pickled, quantized, incomplete, not those of the
            configuration, or not finite.
        OSError: There are none, or the hub does not answer.
    """
    import transformers

    where = {name: options[name] for name in ("revision", "gguf_file") if name in options}
    if "gguf_file" in where:
        config = load_config(path, **where)
    else:
        check_folder(path, auto)
        config = load_config(path, **where)
        if getattr(config, "quantization_config", None):  # which may need code from elsewhere
            raise ValueError(f"{path} is quantized: choose the model that it was made from, or for an LLM a server")
        if Path(path).is_dir():
            _check_size(Path(path), config, auto)
    with _one_line(path), _without_report():
        model, found = getattr(transformers, auto).from_pretrained(
            path, config=config, trust_remote_code=False, use_safetensors=True, output_loading_info=True, **options
        )
    if missing := sorted(name for name in found["missing_keys"] if _UNUSED not in name):
        raise ValueError(f"{path}: its weights lack {missing[0]} ({len(missing)} in all): get the model again")
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"{path}: {name} has numbers that are not finite: get the model again, or choose another")
    return model.eval()


def check_folder(path: str, auto: AutoClass) -> None:
    """See that a folder, if it is one, has weights that may be loaded.

    Raises:
        ValueError: It has not; the message says what to do.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    names = {file.name for file in folder.iterdir()}
    if "adapter_config.json" in names:
        raise ValueError(f"{path} is an adapter, which names another model to load: merge it with that model first")
    if names & _WEIGHTS:
        return
    if pickled := sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))):
        where = json.dumps(path)
        code = f"from transformers import {auto} as M; M.from_pretrained({where}).save_pretrained({where})"
        raise ValueError(
            f"{path} has pickled weights alone ({pickled[0]}), which are never loaded; convert them, if trusted: "
            f"python -c {shlex.quote(code)}"
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    found = f", only {others[0]}" if others else ""
    raise ValueError(f"{path} has no weights (model.safetensors){found}: get the model again, or choose another")


def _check_size(folder: Path, config: PreTrainedConfig, auto: AutoClass) -> None:
    """See that weights are there for all that a configuration describes, before memory is taken for it.

    Raises:
        ValueError: There are more numbers to come than the files have bytes, or more layers than any model has.
    """
    import torch
    import transformers

    for name, number in _counts(config.to_dict()):
        if number > _MOST_PARTS:
            raise ValueError(f"{folder}: config.json says {name} = {number:,}: at most {_MOST_PARTS:,} are loaded")
    with _one_line(str(folder)), torch.device("meta"):
        model = getattr(transformers, auto).from_config(config, trust_remote_code=False)
    described = sum(weight.numel() for weight in model.parameters())
    stored = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if described > stored:
        raise ValueError(
            f"{folder}: config.json describes {described:,} weights, for which {stored:,} bytes are too few: get the "
            "model again"
        )


def _counts(settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the numbers of layers and the like in a configuration, nested ones too."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _counts(value)
        elif type(value) is int and re.search("layer|block|expert", name):
            yield name, value


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from printing a table of the weights that are missing or left over."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Turn what transformers, tokenizers and safetensors raise into one line that names the model."""
    try:
        yield
    except Exception as error:  # of a damaged file they raise anything, tokenizers a bare Exception
        text = " ".join(str(error).split())
        if "trust_remote_code" in text:
            raise ValueError(f"{path} {_OWN_CODE}") from None
        if "ignore_mismatched_sizes" in text:
            raise ValueError(f"{path}: its weights are not of the shapes that its config.json says") from None
        if "use_safetensors" in text:
            raise ValueError(
                f"{path} has no safetensors, and pickled weights are never loaded: choose another model"
            ) from None
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{path} cannot be loaded: {text or type(error).__name__}") from None
