"""The folder of adapters in the cache: finished ones, and the state of those in training."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pmlm_env.io.files import make_folder
from pmlm_env.weights import cache_dir

logger = logging.getLogger(__name__)


def adapters_dir() -> Path:
    """Return the folder of the cache that has a folder for each adapter."""
    return cache_dir() / "lora"


@contextmanager
def adapter_folder(name: str) -> Iterator[Path]:
    """Create the folder of one adapter, which only its owner can access, and lock it.

    If another process has locked it, this one waits.
    """
    folder = adapters_dir() / name
    make_folder(folder)
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Waiting for another process that is fine-tuning the same")
        lock.acquire()
    try:
        yield folder
    finally:
        lock.release()


def kept_adapters() -> list[Path]:
    """Return the folders of all adapters, finished or not."""
    return sorted(path for path in adapters_dir().glob("*") if path.is_dir())


def remove_adapters() -> int:
    """Remove all adapters, finished or not, and return their number.

    Raises:
        ValueError: One of them is being trained; the others may be gone.
    """
    folders = kept_adapters()
    for folder in folders:
        try:
            with _lock(folder).acquire(timeout=0):
                shutil.rmtree(folder)
        except Timeout:
            raise ValueError(f"the adapter in {folder} is being trained: wait until that ends, or stop it") from None
    return len(folders)


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / ".lock", mode=0o600)
