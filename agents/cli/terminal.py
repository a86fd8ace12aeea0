"""What a command prints: nothing of it drives the terminal but progress bars."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import TracebackType
from typing import Any, Literal, TextIO, cast

from pmlm_env.io.text import printable

#: How tqdm goes back from one of several bars to the first.
_UP = re.compile(r"(\x1b\[A)+")


class PrintableStream:
    """A text stream that writes out what a terminal would act upon: names, words and errors may come from anybody.

    A progress bar goes back to the beginning of its line, and from one bar up to another; it may do so as long as
    nothing else stands in that line. All else is as in the stream behind.

    Args:
        stream: What is written to.
        bars: Whether there are progress bars. Without them this is no terminal to whoever asks, for nothing that
            colors text would get through.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        """Begin at the beginning of a line."""
        self._stream, self._bars = stream, bars
        self._line: Literal["empty", "bar", "text"] = "empty"

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        if self._line == "bar" and _UP.fullmatch(text):
            return self._stream.write(text)
        if self._bars and self._line != "text" and text.startswith("\r"):
            end = "\r" if len(text) > 1 and text.endswith("\r") else ""
            self._stream.write("\r" + _safe(text[1 : len(text) - len(end)]) + end)
            self._line = "bar"
        elif text:
            self._stream.write(_safe(text))
            self._line = "empty" if text.endswith("\n") else "text"
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return whether it is a terminal with bars."""
        return self._bars and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        """Return what the stream behind has: encoding, flush, fileno."""
        return getattr(self._stream, name)


def _safe(text: str) -> str:
    return text if text.replace("\n", "").isprintable() else printable(text)


@contextmanager
def printable_output(*, bars: bool = True) -> Iterator[None]:
    """Print through ``PrintableStream`` meanwhile; bars are on standard error."""
    out, error = PrintableStream(sys.stdout, bars=False), PrintableStream(sys.stderr, bars=bars)
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, error)):
        yield


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what the interpreter does of an error that nobody foresaw; it may quote what comes from elsewhere."""
    with printable_output():
        sys.__excepthook__(kind, error, trace)
