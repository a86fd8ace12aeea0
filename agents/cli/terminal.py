"""Output of commands, with control characters escaped except for those of progress bars."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import TracebackType
from typing import Any, Literal, TextIO, cast

from pmlm_env.io.text import printable

#: Sequence that tqdm writes to move the cursor up to another progress bar.
_UP = re.compile(r"(\x1b\[A)+")


class PrintableStream:
    """A text stream that escapes control characters, because names, words and errors may come from untrusted sources.

    A progress bar may return to the beginning of its line and move up to another bar, as long as its line contains
    nothing else.

    Args:
        stream: The stream to write to.
        bars: Whether to allow progress bars. If not, ``isatty`` returns False, because colors would be escaped.
    """

    def __init__(self, stream: TextIO, *, bars: bool) -> None:
        """Start with an empty line."""
        self._stream, self._bars = stream, bars
        self._line: Literal["empty", "bar", "text"] = "empty"

    def write(self, text: str) -> int:
        """Write a text, and return its length."""
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
        """Write several texts."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal and progress bars are allowed."""
        return self._bars and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the underlying stream: encoding, flush, fileno."""
        return getattr(self._stream, name)


def _safe(text: str) -> str:
    return text if text.replace("\n", "").isprintable() else printable(text)


@contextmanager
def printable_output(*, bars: bool = True) -> Iterator[None]:
    """Redirect output through ``PrintableStream`` in this context; progress bars use standard error."""
    out, error = PrintableStream(sys.stdout, bars=False), PrintableStream(sys.stderr, bars=bars)
    with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, error)):
        yield


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error as the interpreter does, with control characters escaped."""
    with printable_output():
        sys.__excepthook__(kind, error, trace)
