"""Finding the files of a model that runs in this process, and identifying their content."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pmlm_env.cohort.wording import suggestion
from pmlm_env.io.files import sha256
from pmlm_env.weights import BUNDLED, ModelError, UnknownModelError, resolve
from pmlm_env.weights.pretrained import check_folder

#: Suffixes of files that affect replies: weights, configuration, tokenizer, chat template.
_RELEVANT = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a causal LM.

    Attributes:
        name: Name of a bundled model or of one on the Hugging Face hub; None if the model is a folder or file.
        path: A folder, or the hub name.
        gguf: Name of the model's GGUF file in ``path``, if it is one.
        commit: The commit of a hub model to use; None = the newest.
    """

    name: str | None
    path: str
    gguf: str | None = None
    commit: str | None = None

    @cached_property
    def identity(self) -> str:
        """Text that identifies the model in the cache of replies.

        The name of a bundled model, whose checksum is fixed; a hub name with its commit; the name of a folder or file
        with a digest of its content.

        Raises:
            ModelError: Neither the hub nor its cache has the model.
        """
        if self.revision is not None:
            return f"{self.name}@{self.revision}"
        if self.name is not None:
            return self.name
        path = Path(self.path) / (self.gguf or "")
        return f"{path.name}@{_digest(path)}"

    @cached_property
    def revision(self) -> str | None:
        """The commit of a hub model, by default the newest (downloads ``config.json``); None for other models.

        Raises:
            ModelError: Neither the hub nor its cache has the model.
        """
        return self.commit or (_commit(self.name) if self.name is not None and self.name == self.path else None)

    def check_unchanged(self) -> None:
        """Check that the files still match ``identity``.

        Raises:
            ModelError: The files have changed.
        """
        if replace(self).identity != self.identity:
            raise ModelError(f"the files in {self.path} have changed while the program was running: start it again")

    @property
    def where(self) -> dict[str, str]:
        """Arguments of the functions of ``pmlm_env.weights.pretrained`` besides ``path``."""
        where = {"gguf_file": self.gguf, "revision": self.revision}
        return {name: value for name, value in where.items() if value is not None}


def find_model(name: str) -> ModelFiles:
    """Find a causal LM. Nothing is downloaded.

    Args:
        name: A bundled model's name, a folder in Hugging Face's format, a GGUF file or a folder with one, or a name on
            the Hugging Face hub.

    Raises:
        UnknownModelError: The model does not exist, or the format of its files is not supported. The message says what
            to do.
        ModelError: A bundled model is not there yet, or is damaged.
    """
    if name in BUNDLED:
        return ModelFiles(name, resolve(name))
    file = Path(name).expanduser()
    if file.is_file():
        if file.suffix.lower() != ".gguf":
            raise UnknownModelError(f"{name} is a file: give a folder in Hugging Face's format, or a .gguf file")
        return _gguf(file)
    path = Path(resolve(name))
    if not path.is_dir():
        if close := suggestion(name, BUNDLED, 0.8):
            raise UnknownModelError(f"there is no model {name}{close}: name a bundled one, a folder, or one on the hub")
        return ModelFiles(name, name)
    ggufs = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if ggufs and not (path / "config.json").is_file():
        if len(ggufs) > 1:
            raise UnknownModelError(f"{name} contains {len(ggufs)} GGUF files: choose one, such as {ggufs[0]}")
        return _gguf(ggufs[0])
    try:
        check_folder(str(path), "AutoModelForCausalLM")
    except ValueError as error:
        raise UnknownModelError(str(error)) from None
    return ModelFiles(None, str(path))


def _gguf(file: Path) -> ModelFiles:
    return ModelFiles(None, str(file.parent.resolve()), file.name)


def _commit(name: str) -> str:
    """Return the newest commit of a hub model or, if the hub is unreachable, of the copy in the hub's cache."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json")).parent.name
    except (OSError, ValueError) as error:  # the errors of the hub's client
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{name} is not a bundled model ({', '.join(BUNDLED)}) or a folder, and cannot be loaded from the Hugging "
            f"Face hub: {reason}"
        ) from None


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's relevant files."""
    if path.is_file():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.suffix in _RELEVANT and file.is_file())
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        lines = [
            f"{digest} {file.relative_to(path)}\n" for file, digest in zip(files, pool.map(sha256, files), strict=True)
        ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
