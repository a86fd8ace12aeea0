"""Warnings and progress bars of libraries, as whoever runs a command should see them."""

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
    """Log Python's warnings in one line each, without path and source; leave out those for programmers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _log
        yield


def quiet_transformers() -> None:
    """Turn off what transformers reports while it loads models."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _log(message: Warning | str, *where: Any, **source: Any) -> None:
    _logger.warning("warning: %s", textwrap.shorten(printable(str(message)), 300))
