"""TensorBoard events, written during training."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """A TensorBoard event file, readable only by its owner.

    ``torch.utils.tensorboard`` writes in a separate thread, which dies with a traceback if the disk is full. This
    class skips events that cannot be written, because the metrics are also in ``metrics.jsonl``, and a run should not
    fail because of them.

    Args:
        folder: The folder to write the file to.
        done: Number of steps already completed; TensorBoard discards later steps from earlier files.
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        """Create the file."""
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO | None = None
        with suppress(OSError):
            number = os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            self._file = os.fdopen(number, "wb", 0)
        self._write(Event(step=done, file_version="brain.Event:2"))
        self._write(Event(step=done, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> EventFile:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write metrics by name."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        if self._file is None:
            return
        event.wall_time = time.time()
        with suppress(OSError):
            RecordWriter(self._file).write(event.SerializeToString())
