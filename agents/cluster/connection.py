"""Connecting to a Ray cluster, and what it has."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from types import ModuleType
from typing import Any

import pmlm_env

#: Seconds until an address does not answer, and until a machine does not.
_REACHED, _ANSWERED = 10.0, 120.0


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """Connect to a cluster, and disconnect at the end; yield the module ``ray``.

    Args:
        address: ``local``, ``auto`` or ``HOST:PORT``; see ``ClusterOptions``.

    Raises:
        RuntimeError: Ray is not installed, there is no cluster at the address, or it cannot be used.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported and when a cluster is started
    try:
        import ray
    except ImportError as error:
        raise RuntimeError(f"--ray needs Ray ({error}): pip install 'pmlm-env[ray]'") from None
    if address not in ("local", "auto"):
        _check_reached(address)
    before = signal.getsignal(signal.SIGTERM)
    only_here: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **only_here)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RuntimeError(f"--ray {address}: {_why(error)}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray's own would end this process without storing anything
    try:
        _check_machines(ray)
        yield ray
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


def room(ray: ModuleType, workers: int | None) -> tuple[int, float]:
    """Return how many workers to start, and the share of a GPU that each gets.

    Args:
        ray: The module, connected to a cluster.
        workers: The number asked for; None = one for each GPU, or for each CPU without GPUs.

    Raises:
        ValueError: The cluster has not so many CPUs.
    """
    has = ray.cluster_resources()
    cpus, gpus = int(has.get("CPU", 0)), int(has.get("GPU", 0))
    if cpus < (workers or 1):
        raise ValueError(f"--ray-workers: the cluster has {cpus} CPUs, one for each worker: ask for at most so many")
    workers = workers or min(cpus, gpus or cpus)
    return workers, 1 / ceil(workers / gpus) if gpus else 0.0


def _check_reached(address: str) -> None:
    """Check that something listens at an address, because Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED).close()
    except OSError as error:
        raise RuntimeError(
            f"--ray {address}: nothing answers there ({error.strerror or error}): start the cluster first (ray start "
            "--head), and give the address that it prints"
        ) from None


def _why(error: Exception) -> str:
    said = " ".join(str(error).split())
    if "Could not find any running Ray instance" in said:
        return "this machine belongs to no cluster: start one (ray start --head), or give --ray local"
    if "ersion mismatch" in said:
        return f"the machines have different versions of Ray or Python: install the same everywhere ({said})"
    return f"no cluster can be used there: {said}"


def _check_machines(ray: ModuleType) -> None:
    """Check that all machines have this version of pmlm-env.

    Raises:
        RuntimeError: One has not.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def version() -> tuple[str, str]:  # pickled as it is, because the package that this file is of may be missing
        import socket

        try:
            import agents  # noqa: F401
            import pmlm_env

            return socket.gethostname(), pmlm_env.__version__
        except ImportError as error:
            return socket.gethostname(), f"none ({error})"

    asked = [
        ray.remote(version)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        found = ray.get(asked, timeout=_ANSWERED)
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"a machine of the cluster does not answer: {' '.join(str(error).split())}") from None
    for host, has in found:
        if has != pmlm_env.__version__:
            raise RuntimeError(
                f"{host} has other pmlm-env than this machine ({has}, not {pmlm_env.__version__}): install the same "
                "version, with the same extras, in the environment from which `ray start` was called there"
            )
