"""What a library warns of, as whoever runs a command should read it."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_logger = logging.getLogger(__name__)


@contextmanager
def library_warnings_in_one_line() -> Iterator[None]:
    """Log Python's warnings in one line each meanwhile, without path and source; those for programmers not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _log
        yield


def _log(message: Warning | str, *where: Any, **source: Any) -> None:
    from pmlm_env.io.text import printable  # not before a command is known: the package takes seconds

    _logger.warning("warning: %s", textwrap.shorten(printable(str(message)), 300))
