"""Doing the runs of a command: in this process, or on the workers of a cluster."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from agents.cluster.connection import connected, room
from agents.cluster.options import ClusterOptions
from agents.cluster.worker import Answer, Place, Runs, Worker, stop
from pmlm_env.io.files import write
from pmlm_env.registry import OUTSIDE

logger = logging.getLogger(__name__)

#: After so many workers that ended in the middle of a run, or before their first one, the run is given up.
_MOST_DEATHS = 3

#: What counts the workers in a row that ended before their first run.
_BEGINNING = ""

#: Seconds without any news after which a line says so, and for replies under way when the command ends.
_SILENT, _GRACE = 60.0, 30.0


def finished(
    jobs: deque[Any],
    runs: Runs,
    make: Callable[..., Runs],
    arguments: tuple[Any, ...],
    options: ClusterOptions,
    begun: Callable[[Any], None],
    shared: Sequence[Path] = (),
) -> Generator[tuple[Any, Any], None, None]:
    """Do runs, and yield each job with its result once it is complete.

    On a cluster, results come in the order of completion. A run whose worker ended, even by kill -9, is begun anew by
    another one, and the worker is replaced. Close the iterator, so that no worker goes on after an error.

    Args:
        jobs: The runs, first ones first, as JSON values. The caller may add others before it asks for the next result.
        runs: What does them in this process, or knows what their results depend on.
        make: A function of a module, or a class, that makes the same in another process.
        arguments: Its arguments, which can be pickled.
        options: Where they are done.
        begun: Called with each job when it begins.
        shared: Folders that all machines must share.

    Raises:
        RuntimeError: There is no cluster, it cannot be used, or workers end again and again in the same run.
        ValueError: A worker has other patients or models, or lacks a folder.
    """
    if options.ray is None:
        while jobs:
            job = jobs.popleft()
            begun(job)
            yield job, runs(job)
        return
    if not jobs:
        return
    with connected(options.ray) as ray, _seen_by_all(shared) as files:
        pool = _Pool(ray, options.ray_workers, (make, arguments), runs.identity, files)
        try:
            yield from pool.finished(jobs, begun)
        finally:
            pool.end()


@dataclass(eq=False)
class _Seat:
    """A worker, as the command sees it.

    Attributes:
        actor: The actor.
        step: What it does: starting, preparing, idle, or running.
        job: Its job, while running.
        place: Where it is, once it has started.
    """

    actor: Any
    step: str = "starting"
    job: Any = None
    place: Place | None = None

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return "a worker" if self.place is None else f"the worker {self.place.pid} on {self.place.host}"


class _Pool:
    """Workers on a cluster.

    Args:
        ray: The module, connected.
        workers: How many; None = as many as fit.
        recipe: What makes ``Runs``, with its arguments.
        identity: The identity that all workers must have.
        shared: Files that all workers must see.
    """

    def __init__(
        self, ray: ModuleType, workers: int | None, recipe: tuple[Any, Any], identity: Any, shared: Sequence[str]
    ) -> None:
        self._ray, self._identity, self._shared = ray, identity, shared
        self._n, gpus = room(ray, workers)
        self._actor = ray.remote(Worker).options(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")
        make, arguments = recipe
        self._recipe = ray.put(make), ray.put(arguments)
        self._outside = [(name, found) for name, found in OUTSIDE if any(type(each) is found for each in arguments)]
        self._calls: dict[Any, _Seat] = {}  # calls that are under way
        self._idle: list[_Seat] = []
        self._deaths: Counter[str] = Counter()
        self._said: set[str] = set()

    def finished(self, jobs: deque[Any], begun: Callable[[Any], None]) -> Iterator[tuple[Any, Any]]:
        """Do the jobs; see ``finished``."""
        for _ in range(min(self._n, len(jobs))):
            self._hire()
        while jobs or self._running:
            while jobs and self._idle:
                seat = self._idle.pop()
                seat.step, seat.job = "running", jobs.popleft()
                begun(seat.job)
                self._call(seat, "do", seat.job)
            done, _ = self._ray.wait(list(self._calls), timeout=_SILENT)
            if not done:
                if not self._running:
                    self._say(logging.WARNING, "waiting for a free CPU in the cluster, for a worker")
                continue
            seat = self._calls.pop(done[0])
            answer = self._answer(done[0], seat, jobs)
            if answer is None:
                self._hire()
            elif seat.step == "running":
                job, seat.job, seat.step = seat.job, None, "idle"
                self._idle.append(seat)
                yield job, answer.value
            else:
                self._go_on(seat, answer)

    @property
    def _running(self) -> bool:
        return any(seat.step == "running" for seat in self._calls.values())

    def _hire(self) -> None:
        node = self._ray.get_runtime_context().get_node_id()
        self._call(_Seat(self._actor.remote()), "start", os.getcwd(), node, self._shared)

    def _call(self, seat: _Seat, method: str, *values: Any) -> None:
        self._calls[getattr(seat.actor, method).remote(*values)] = seat

    def _go_on(self, seat: _Seat, answer: Answer) -> None:
        """Give a worker that is not ready yet its next step.

        Raises:
            ValueError: It has another identity, or its machine lacks a folder.
        """
        if seat.step == "starting":
            seat.place, seat.step = answer.value, "preparing"
            if missing := [file for file in seat.place.lacks if file in self._shared]:
                raise ValueError(
                    f"{seat.place.host} does not have the files of {os.path.dirname(missing[0])} here: choose a folder "
                    "on a drive that all machines of the cluster share, at the same path"
                )
            self._call(seat, "prepare", *self._recipe, self._outside)
            return
        if answer.value != self._identity:
            names = sorted(
                name for name in {*answer.value, *self._identity} if answer.value.get(name) != self._identity.get(name)
            )
            raise ValueError(
                f"{seat.name} has other patients or models than this machine ({', '.join(names)}): give all machines "
                "the same files"
            )
        seat.step = "idle"
        self._idle.append(seat)
        self._deaths.pop(_BEGINNING, None)

    def _answer(self, call: Any, seat: _Seat, jobs: deque[Any]) -> Answer | None:
        """Return a worker's answer; None if it has ended, and its job is in the queue again.

        Raises:
            RuntimeError: Workers end again and again.
            Exception: What the worker raised.
        """
        exceptions = self._ray.exceptions
        try:
            value = self._ray.get(call)
        except exceptions.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            hint = "; `ray start` there needs its folder in PYTHONPATH" if "ModuleNotFoundError" in last else ""
            raise RuntimeError(f"{seat.name} failed: {last}{hint}") from error
        except exceptions.RayError as error:
            self._bury(seat, error, jobs)
            return None
        if not isinstance(value, Answer):
            return Answer(value)
        for name, level, text in value.warnings:
            self._say(level, text, name)
        if isinstance(value.error, exceptions.RayActorError):  # its companion has ended
            self._bury(seat, value.error, jobs)
            return None
        if value.error is not None:
            raise _located(value.error, seat.place) from _RemoteTraceback(value.trace)
        return value

    def _bury(self, seat: _Seat, error: Exception, jobs: deque[Any]) -> None:
        logger.debug("%s has ended: %s", seat.name, error)
        self._ray.kill(seat.actor)  # it may live on, and keep its CPU, if only its answer was lost
        running = seat.step == "running"
        what = json.dumps(seat.job) if running else _BEGINNING
        self._deaths[what] += 1
        if self._deaths[what] >= _MOST_DEATHS:
            when = f"in the run {what}" if running else "before a run began"
            raise RuntimeError(
                f"{_MOST_DEATHS} workers ended {when}, the last on {seat.place.host if seat.place else 'its way'}: see "
                "whether memory ran out (fewer --ray-workers need less), and Ray's logs (ray logs) say more"
            )
        logger.warning("%s has ended; another one takes its place%s", seat.name, ", and its run" if running else "")
        if running:
            jobs.appendleft(seat.job)

    def _say(self, level: int, text: str, name: str = __name__) -> None:
        """Show a message once, although many workers may say the same."""
        if text not in self._said:
            self._said.add(text)
            logging.getLogger(name).log(level, "%s", text)

    def end(self) -> None:
        """End the workers; those with a run get time for storing the replies that are under way."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        running = {call: seat for call, seat in self._calls.items() if seat.step in ("preparing", "running")}
        for seat in running.values():
            assert seat.place is not None
            there = NodeAffinitySchedulingStrategy(seat.place.node, soft=False)
            self._ray.remote(stop).options(num_cpus=0, scheduling_strategy=there).remote(seat.place.pid)
        if running:
            self._ray.wait(list(running), num_returns=len(running), timeout=_GRACE)
        for seat in [*self._calls.values(), *self._idle]:
            self._ray.kill(seat.actor)


class _RemoteTraceback(Exception):
    """The traceback of an error in a worker, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _located(error: BaseException, place: Place | None) -> BaseException:
    """Return an error with the name of the machine in its message, if that is another one than this."""
    if place is None or place.host == socket.gethostname():
        return error
    hint = f"; {place.host} has no folder {place.lacks[0]}, in which the command runs" if place.lacks else ""
    if isinstance(error, OSError) and error.filename is not None:
        error.filename = f"{error.filename} on {place.host}{hint}"
    elif len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} (on {place.host}{hint})",)
    return error


@contextmanager
def _seen_by_all(folders: Sequence[Path]) -> Iterator[list[str]]:
    """Put an empty file into each folder, by which workers see that they share it; yield the files."""
    files = [folder.absolute() / f".shared-{os.getpid()}" for folder in folders]
    try:
        for file in files:
            write(file, "")
        yield [str(file) for file in files]
    finally:
        for file in files:
            file.unlink(missing_ok=True)
