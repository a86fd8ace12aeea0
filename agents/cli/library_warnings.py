"""How warnings and progress bars of libraries are shown to the user of a command."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pmlm_env.io.text import printable

_logger = logging.getLogger(__name__)


@contextmanager
def library_warnings_in_one_line() -> Iterator[None]:
    """Log each Python warning in one line, without path and source; ignore ``FutureWarning``, meant for developers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _log
        yield


def quiet_transformers() -> None:
    """Turn off the progress bars and warnings that transformers shows while loading models."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _log(message: Warning | str, *where: Any, **source: Any) -> None:
    _logger.warning("warning: %s", textwrap.shorten(printable(str(message)), 300))
