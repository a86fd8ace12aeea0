"""scikit-learn models in files of skops, which holds no pickled objects and asks which types may be made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shortened
from typing import Any
from zipfile import ZIP_STORED, ZipFile

from sklearn.exceptions import InconsistentVersionWarning

from pmlm_env.io.files import write

#: Limit on the bytes of a file; boosted trees for 12 labels take 5 MB.
MAX_BYTES = 2**28


def save_model(model: Any, path: Path) -> None:
    """Write a scikit-learn model.

    Raises:
        ValueError: The model is larger than ``load_model`` accepts.
    """
    from skops.io import dumps  # takes a second, because it imports all of scikit-learn

    content = dumps(model)
    if len(content) > MAX_BYTES:
        raise ValueError(f"the model takes {len(content):,} bytes, and at most {MAX_BYTES:,} can be saved")
    write(path, content)


def load_model(path: Path, trusted: Sequence[str], cure: str) -> Any:
    """Read a scikit-learn model from a file that may come from a stranger.

    Args:
        path: The file.
        trusted: The types that may occur besides those that skops trusts (scikit-learn's estimators, arrays, numbers).
        cure: What to do if the file cannot be read, for messages.

    Raises:
        ValueError: The file is damaged or too large, or contains another type.
    """
    from skops.io import get_untrusted_types, load

    try:
        _check_size(path)
        if others := sorted({*get_untrusted_types(file=path)} - {*trusted}):
            raise _ContentError(f"contains {shortened(others[0])}, which is not part of such a model")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # the caller compares the versions
            return load(path, trusted=list(trusted))
    except _ContentError as error:
        raise ValueError(f"{path} {error}: {cure}") from None
    except Exception as error:  # skops checks little of what it reads, so a damaged file can cause any error
        raise ValueError(f"{path} is damaged ({type(error).__name__}): {cure}") from None


def _check_size(path: Path) -> None:
    """Check the size of a file's contents before any is read.

    Raises:
        _ContentError: The file is too large, or holds more than its size, which only compression can do.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _ContentError(f"has {size:,} bytes, at most {MAX_BYTES:,} are read")
    with ZipFile(path) as file:
        members = file.infolist()
    if sum(each.file_size for each in members) > size or any(each.compress_type != ZIP_STORED for each in members):
        raise _ContentError("is compressed, which pmlm-env never does")


class _ContentError(ValueError):
    """A file has contents that are not allowed."""
