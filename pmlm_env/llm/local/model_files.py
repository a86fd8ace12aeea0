"""Which files a model in this process is loaded from, and what tells them from all others."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pmlm_env.weights import BUNDLED, ModelError, resolve
from pmlm_env.weights.pretrained import check_folder

#: Files of a model's folder that decide its replies: weights, configuration, tokenizer, chat template.
_DECIDING = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class ModelFiles:
    """A causal LM's files.

    Attributes:
        name: A bundled model's name, or a name on the Hugging Face hub; None where the model is a folder or a file.
        path: A directory, or the name on the hub.
        gguf: The GGUF file in ``path`` that holds the model, if one does.
    """

    name: str | None
    path: str
    gguf: str | None = None

    @cached_property
    def identity(self) -> str:
        """What replies are kept under, as text.

        The name of a bundled model, whose checksum is fixed; a name on the hub with its commit; a folder's or a file's
        name with a digest of what is in it.

        Raises:
            ModelError: The hub and its cache do not have the model.
        """
        if self.revision is not None:
            return f"{self.name}@{self.revision}"
        if self.name is not None:
            return self.name
        path = Path(self.path) / (self.gguf or "")
        return f"{path.name}@{_digest(path)}"

    @cached_property
    def revision(self) -> str | None:
        """The newest commit of a model on the hub, for which ``config.json`` is downloaded; None for other models.

        Raises:
            ModelError: The hub and its cache do not have the model.
        """
        return _commit(self.name) if self.name is not None and self.name == self.path else None

    def check_unchanged(self) -> None:
        """See that the files are still those that ``identity`` tells of.

        Raises:
            ModelError: They have changed since.
        """
        if replace(self).identity != self.identity:
            raise ModelError(f"the files in {self.path} have changed since they were first looked at: start again")

    @property
    def where(self) -> dict[str, str]:
        """What the functions of ``pmlm_env.weights.pretrained`` take besides ``path``."""
        where = {"gguf_file": self.gguf, "revision": self.revision}
        return {name: value for name, value in where.items() if value is not None}


def find_model(name: str) -> ModelFiles:
    """Find a causal LM. Nothing is downloaded.

    Args:
        name: A bundled model's name, a directory in Hugging Face's format, a GGUF file or a directory with one, or a
            name on the Hugging Face hub.

    Raises:
        ModelError: There is no such model here, or its files are of a kind that cannot be loaded. The message says
            what to do.
    """
    if name in BUNDLED:
        return ModelFiles(name, resolve(name))
    file = Path(name).expanduser()
    if file.is_file():
        if file.suffix.lower() != ".gguf":
            raise ModelError(f"{name} is a file: name a folder in Hugging Face's format, or a .gguf file")
        return _gguf(file)
    path = Path(resolve(name))
    if not path.is_dir():
        return ModelFiles(name, name)
    ggufs = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if ggufs and not (path / "config.json").is_file():
        if len(ggufs) > 1:
            raise ModelError(f"{name} holds {len(ggufs)} GGUF files: name one, such as {ggufs[0]}")
        return _gguf(ggufs[0])
    try:
        check_folder(str(path), "AutoModelForCausalLM")
    except ValueError as error:
        raise ModelError(str(error)) from None
    return ModelFiles(None, str(path))


def _gguf(file: Path) -> ModelFiles:
    return ModelFiles(None, str(file.parent.resolve()), file.name)


def _commit(name: str) -> str:
    """Return the newest commit of a model on the hub; where that is out of reach, of the copy in the hub's cache."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except (OSError, ValueError) as error:  # the hub's errors are these
        why = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{name} is no bundled model ({', '.join(BUNDLED)}), no folder, and cannot be had from the Hugging Face "
            f"hub: {why}"
        ) from None


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the deciding files of a folder: their names and their contents."""
    if path.is_file():
        return _sha256(path)
    files = sorted(file for file in path.rglob("*") if file.suffix in _DECIDING and file.is_file())
    with ThreadPoolExecutor() as pool:  # hashing runs outside the interpreter's lock
        lines = [
            f"{digest} {file.relative_to(path)}\n" for file, digest in zip(files, pool.map(_sha256, files), strict=True)
        ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
