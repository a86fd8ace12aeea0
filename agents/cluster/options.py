"""Options of commands whose runs can be done on a cluster."""

from __future__ import annotations

from dataclasses import dataclass

#: Largest number of workers.
_MOST_WORKERS = 10_000


@dataclass(frozen=True)
class ClusterOptions:
    """Where a command's runs are done: by default in this process, one after another.

    Attributes:
        ray: Do the runs on workers of a Ray cluster (extra ``ray``): ``local`` starts the workers on this machine
            alone, ``auto`` takes the cluster that this machine belongs to, ``HOST:PORT`` the one whose head has that
            address; see docs/many-machines.md.
        ray_workers: Number of workers; by default one for each GPU of the cluster, or for each CPU if it has no GPU.
    """

    ray: str | None = None
    ray_workers: int | None = None

    def __post_init__(self) -> None:
        """Check the address and the number.

        Raises:
            ValueError: The address has another form, or the number is out of range or has no effect.
        """
        if self.ray is not None and self.ray not in ("local", "auto"):
            if self.ray.startswith("ray://"):
                raise ValueError(
                    f"--ray {self.ray}: pmlm takes no address of Ray Client: run the command on a machine of the "
                    "cluster, with --ray auto"
                )
            host, _, port = self.ray.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
                raise ValueError(f"--ray is {self.ray!r}: it should be local, auto, or HOST:PORT of the cluster's head")
        if self.ray_workers is not None:
            if self.ray is None:
                raise ValueError("--ray-workers has no effect without --ray: leave it out, or give --ray")
            if not 1 <= self.ray_workers <= _MOST_WORKERS:
                raise ValueError(f"--ray-workers is {self.ray_workers}: use a whole number from 1 to {_MOST_WORKERS:,}")
