"""Processes that train together, started by ``torchrun``: who has which rows, and how they add up what they compute.

Every process runs the same program with the same random generators, and computes its share of the rows of each batch.
Values are exchanged as JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # every command imports this module, and its help should not wait for torch
    import torch

#: Environment variables by which ``torchrun`` tells a process about the others.
_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

#: How long a process waits for the others, which may be waiting for an LLM. One that has died is noticed at once.
_PATIENCE = timedelta(days=7)

#: Errors that commands report in one line.
_EXPECTED = (ValueError, OSError, RuntimeError)


class LostProcessError(RuntimeError):
    """Another process of the run has ended before its time."""


class EndedError(Exception):
    """Another process of the run reports why it ends, so this one says nothing."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: The number of this process, from 0.
        size: The number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the first, which alone writes files and messages."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """Return this process's part of ``n`` rows. The parts are in the order of the ranks; they differ by one row."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors, which are of one dtype and on one device, by their sums over all processes, in place.

        Raises:
            LostProcessError: Another process has ended.
        """
        own = [tensor.detach() for tensor in tensors]
        if self.size == 1 or not own:
            return
        import torch

        flat = torch.cat([tensor.flatten() for tensor in own])
        with _talking():
            torch.distributed.all_reduce(flat)
        for tensor, total in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace parameters' gradients by their sums over all processes; see ``add``."""
        self.add(parameter.grad for parameter in parameters if parameter.grad is not None)

    def rows(self, own: torch.Tensor, n: int) -> torch.Tensor:
        """Return the rows of all processes, (n, ...).

        Args:
            own: This process's rows, (rows of ``share(n)``, ...).
            n: The number of rows of all processes.

        Raises:
            LostProcessError: Another process has ended.
        """
        if self.size == 1:
            return own
        import torch

        sizes = [_length(Processes(rank, self.size).share(n)) for rank in range(self.size)]
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with _talking():
            torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def exchange(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of the ranks.

        Args:
            value: A JSON value; a number may be NaN.

        Raises:
            LostProcessError: Another process has ended.
        """
        if self.size == 1:
            return [value]
        import torch

        own = _bytes(value)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _talking():
            torch.distributed.all_gather(lengths, torch.tensor([len(own)]))
        padded = own.new_zeros(max(map(int, lengths)))
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in lengths]
        with _talking():
            torch.distributed.all_gather(parts, padded)
        return [_value(part[: int(length)]) for part, length in zip(parts, lengths, strict=True)]

    def of_first(self, value: Any = None) -> Any:
        """Return the value of the first process.

        Args:
            value: A JSON value; that of the other processes does not matter.

        Raises:
            LostProcessError: Another process has ended.
        """
        if self.size == 1:
            return value
        import torch

        content = _bytes(value) if self.leads else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([len(content)])
        with _talking():
            torch.distributed.broadcast(length, 0)
        content = content if self.leads else torch.empty(int(length), dtype=torch.uint8)
        with _talking():
            torch.distributed.broadcast(content, 0)
        return value if self.leads else _value(content)

    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give tensors the values that they have in the first process, in place.

        Raises:
            LostProcessError: Another process has ended.
        """
        if self.size == 1:
            return
        import torch

        for tensor in tensors:
            with _talking():
                torch.distributed.broadcast(tensor.detach(), 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """End every process if one of them raises an error in this context, in which they exchange nothing.

        Raises:
            EndedError: Another process reports the error.
            RuntimeError: In the first process: another one raised an error.
            LostProcessError: Another process has ended.
        """
        if self.size == 1:
            yield
            return
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        try:
            said = self.exchange(None if failure is None else _line(failure))
        except LostProcessError as lost:
            raise (failure or lost) from None
        first = next((rank for rank, line in enumerate(said) if line is not None), None)
        if first is None:
            return
        if failure is not None and (self.leads or not isinstance(failure, _EXPECTED)):
            raise failure
        if not self.leads:
            raise EndedError from failure
        raise RuntimeError(f"process {first}: {said[first]}")


ALONE = Processes()

_joined, _helping = ALONE, False


def current() -> Processes:
    """Return the processes that run the same command; a process by itself if there are no others, or they only help."""
    return ALONE if _helping else _joined


def helping() -> Processes:
    """Return this process and those that only help it to fine-tune; a process by itself if there are none."""
    return _joined if _helping else ALONE


def launched() -> bool:
    """Return whether ``torchrun`` has started this process and at least one more."""
    return all(name in os.environ for name in _STARTED_BY_TORCHRUN) and os.environ["WORLD_SIZE"] != "1"


def start(*, help_first: bool = False) -> Processes:
    """Join the processes that ``torchrun`` has started, by NCCL if each has a GPU of its own, and else by Gloo.

    Tensors of the CPU are exchanged by Gloo in both cases.

    Args:
        help_first: The first process runs a command by itself, and the others only help it to fine-tune.
    """
    global _joined, _helping
    if launched() and _joined is ALONE:
        import torch

        local, n_local = (int(os.environ.get(name, 0)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        own_gpus = torch.cuda.is_available() and 0 < n_local <= torch.cuda.device_count()
        if own_gpus:
            torch.cuda.set_device(local)
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if own_gpus else "gloo", timeout=_PATIENCE)
        _joined = Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
        _helping = help_first
    return _joined


def finish() -> None:
    """Leave the other processes, at the end of a run that all of them have finished."""
    global _joined, _helping
    if _joined is not ALONE:
        import torch

        torch.distributed.destroy_process_group()
        _joined, _helping = ALONE, False


@contextmanager
def _talking() -> Iterator[None]:
    """Turn an error of the exchange into one that says what happened."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError("another process of the run has ended, see its message") from error


def _bytes(value: Any) -> torch.Tensor:
    import torch

    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(content: torch.Tensor) -> Any:
    return json.loads(bytes(content.tolist()))


def _length(rows: slice) -> int:
    return rows.stop - rows.start


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, _EXPECTED) and text else f"{type(error).__name__}: {text}"
