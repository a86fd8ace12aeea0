"""Speed and memory of the retrievers: python -m benchmarks.retrieval --json FILE.

Vectors are of 128 numbers, around twelve centers as of patients with twelve labels. Each retriever finds ten peers for
every training patient, in one thread and in a process of its own, because a process's peak memory never falls.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pmlm_env.io.files import write_json
from pmlm_env.retrieval import RETRIEVERS

K, _SIZE, _LABELS = 10, 128, 12


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: Output file.
        patients: Numbers of training patients.
        retrievers: Retrievers, by name.
    """

    json: Path | None = None
    patients: tuple[int, ...] = (1_000, 10_000, 100_000)
    retrievers: tuple[str, ...] = ("cosine", "faiss")


@dataclass(frozen=True)
class Result:
    """What one retriever needs among so many training patients.

    Attributes:
        retriever: Its name.
        patients: The number of training patients.
        seconds: CPU seconds to find the peers of all of them at once.
        alone_milliseconds: Median CPU milliseconds to find the peers of one patient, of 20.
        peak_mib: Increase of the peak memory in MiB while it is made and finds the peers of all, without the result.
        peers: SHA-256 of the peers' ids in order.
    """

    retriever: str
    patients: int
    seconds: float
    alone_milliseconds: float
    peak_mib: float
    peers: str


def make_vectors(n: int) -> npt.NDArray[np.float32]:
    """Return n vectors around twelve centers, shape (n, 128)."""
    rng = np.random.default_rng(0)
    centers = 1.5 * rng.standard_normal((_LABELS, _SIZE), dtype=np.float32)
    vectors = rng.standard_normal((n, _SIZE), dtype=np.float32)
    vectors += centers[rng.integers(_LABELS, size=n)]
    return vectors


def measure(retriever: str, n: int) -> Result:
    """Measure one retriever among n training patients."""
    vectors, ids = make_vectors(n), [f"p{i}" for i in range(n)]
    made = RETRIEVERS.find(retriever)  # faiss is loaded here
    with threadpool_limits(limits=1):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        search = made(vectors, ids, ["x"] * n)
        digest, seconds = hashlib.sha256(), 0.0
        step = 10_000  # the lists of all peers would take more memory than the search
        for start in range(0, n, step):
            started = time.process_time()
            found = search.peers(vectors[start : start + step], ids[start : start + step], K)
            seconds += time.process_time() - started
            digest.update(json.dumps([[peer.patient_id for peer in peers] for peers in found]).encode())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        alone = []
        for i in range(20):
            started = time.process_time()
            search.peers(vectors[i : i + 1], ids[i : i + 1], K)
            alone.append(time.process_time() - started)
    milliseconds = 1000 * statistics.median(alone)
    return Result(retriever, n, seconds, milliseconds, (peak - before) / 1024, digest.hexdigest())


def main(options: Options) -> None:
    """Measure all retrievers, compare their peers, and print and save the results."""
    cells = [(retriever, n) for n in options.patients for retriever in options.retrievers]
    found = []
    for cell in tqdm(cells, unit="search"):
        with multiprocessing.get_context("spawn").Pool(1) as process:
            found.append(process.apply(measure, cell))
    for n in options.patients:
        of_n = [result for result in found if result.patients == n]
        same = "the same peers" if len({result.peers for result in of_n}) == 1 else "OTHER PEERS"
        for each in of_n:
            print(
                f"{n:>9,} {each.retriever:<8} {each.seconds:8.2f} s for all, {each.alone_milliseconds:6.2f} ms for "
                f"one, {each.peak_mib:6.0f} MiB; {same}"
            )
    if options.json:
        write_json(options.json, [asdict(result) for result in found])


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
