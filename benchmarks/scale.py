"""Memory and time of each stage for up to a million patients: python -m benchmarks.scale --json FILE --scratch FOLDER.

Each measurement runs in a process of its own, in one thread, that may not allocate more than ``--limit-gib``. What is
measured already is not measured again, so that the command can be stopped and resumed; ``--scratch`` keeps the tables
and episodes that later stages read.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tyro
from safetensors import safe_open

from pmlm_env.cohort import Cohort, read_cohort, read_parts, write_cohort, write_parts
from pmlm_env.cohort.simulator import PART, simulate_parts
from pmlm_env.core.arrays import GrowingArray
from pmlm_env.core.episode_files import CHECKUPS_FILE, LABELS_FILE, VECTORS_FILE, WORDS_FILE, writing_episodes
from pmlm_env.core.episodes import EpisodeSet
from pmlm_env.io.files import replacing, write_json

#: Patients to whom the pipeline of ``prompts`` is fitted, and patients or episodes that are looked up.
_FITTED, _ASKED = 1_000, 1_000


@dataclass(frozen=True)
class Options:
    """Options of the measurement.

    Attributes:
        json: File of the results, to which new ones are added.
        scratch: Folder of tables and episodes, about 15 GB for a million patients; it can be removed afterwards.
        patients: Numbers of patients; above ``drawn``, multiples of it.
        stages: The stages, in this order.
        drawn: Most patients that are simulated. The tables and episodes of more patients repeat those of these under
            other ids; the episodes need the stage ``prompts`` of these.
        limit_gib: Memory that a process may allocate, in GiB. Files that are mapped into memory do not count.
    """

    json: Path
    scratch: Path
    patients: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    stages: tuple[str, ...] = ("simulate", "read", "fit", "prompts", "episodes", "peers")
    drawn: int = 100_000
    limit_gib: int = 12

    def __post_init__(self) -> None:
        """Check the numbers of patients.

        Raises:
            ValueError: A number above ``drawn`` is no multiple of it.
        """
        for n in self.patients:
            if n > self.drawn and n % self.drawn:
                raise ValueError(
                    f"--patients {n:,} is no multiple of --drawn {self.drawn:,}: use one, or fewer patients"
                )


@dataclass(frozen=True)
class Result:
    """What a stage takes.

    Attributes:
        stage: The stage.
        patients: The number of patients.
        done: How many of them it was done for.
        seconds: CPU seconds, without the imports.
        peak_mib: Peak memory of the process in MiB, libraries and mapped files included.
    """

    stage: str
    patients: int
    done: int
    seconds: float
    peak_mib: float


def main(options: Options) -> None:
    """Measure what is not in the file yet, and print the table."""
    results = [Result(**each) for each in json.loads(options.json.read_text())] if options.json.exists() else []
    for n in options.patients:
        for stage in options.stages:
            if not any((each.stage, each.patients) == (stage, n) for each in results):
                found = _in_a_process(measure, stage, n, options)
                results = sorted([*results, found], key=lambda each: (_STAGES.index(each.stage), each.patients))
                write_json(options.json, [asdict(each) for each in results])
                print(found, flush=True)
    print("\n".join(table(results)))


def _in_a_process(function: Callable[..., Result], *arguments: object) -> Result:
    # Not a Pool, which waits forever for a process that was killed because the machine has no memory left.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(stage: str, n: int, options: Options) -> Result:
    """Measure a stage in this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (options.limit_gib * 2**30,) * 2)
    run, folder = _RUNS[stage](n, options), options.scratch / f"{n}"
    folder.mkdir(parents=True, exist_ok=True)
    done = next(run, n)  # what comes before is not measured
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now (proc(5))
    started = time.process_time()
    for done in run:  # noqa: B007  (a stage may say that it was done for fewer patients)
        pass
    return Result(stage, n, done, time.process_time() - started, _peak_mib())


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) / 2**10  # type: ignore[index]


def _simulate(n: int, options: Options) -> Iterator[int]:
    """Simulate a cohort part by part, and write it."""
    cohort = options.scratch / f"{n}" / "cohort"
    shutil.rmtree(cohort, ignore_errors=True)
    yield n
    parts = simulate_parts(n)
    if n <= PART:
        write_cohort(next(parts), cohort)
    else:
        done, _ = write_parts(islice(parts, -(-options.drawn // PART)), cohort)
        yield done


def _complete(n: int, options: Options) -> Path:
    """Repeat the tables of the patients who were simulated, under other ids, until there are ``n`` patients."""
    cohort = options.scratch / f"{n}" / "cohort"
    if not cohort.exists():  # the scratch folder was removed
        cohort.parent.mkdir(parents=True, exist_ok=True)
        _exhaust(_simulate(n, options))
    parts = sorted(cohort.glob("part-*"))
    for number in range(len(parts), -(-n // PART) if parts else 0):
        copied = parts[number % len(parts)]
        unfinished = cohort / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(copied, unfinished)
        for name in ("patients.csv", "checkups.csv"):
            text = (copied / name).read_bytes().replace(b"\nP", b"\nP%d-" % number)
            (unfinished / name).write_bytes(text)
        unfinished.rename(cohort / f"part-{number:05}")
    return cohort


def _exhaust(run: Iterator[int]) -> None:
    for _ in run:
        pass


def _read(n: int, options: Options) -> Iterator[int]:
    """Read all patients into memory."""
    cohort = _complete(n, options)
    yield n
    yield len(read_cohort(cohort)[0])


def _first(n: int, options: Options) -> Cohort:
    """Return the first ``n`` patients of a cohort."""
    found: list[Cohort] = []
    for part, _ in read_parts(_complete(n, options)):
        found.append(part)
        if sum(map(len, found)) >= n:
            break
    return Cohort(tuple(patient for part in found for patient in part)[:n], found[0].schema)


def _fit(n: int, options: Options) -> Iterator[int]:
    """Fit predictor and patient encoder to all patients, without the folds of ``pmlm prepare``."""
    from pmlm_env.pipeline import Pipeline, PipelineConfig

    train = _first(n, options)
    yield n
    Pipeline.fit(train, PipelineConfig(retriever="faiss"), device="cpu")


def _prompts(n: int, options: Options) -> Iterator[int]:
    """Read, predict, encode, find peers among 1,000 patients, and write prompts, part by part."""
    from pmlm_env.pipeline import Pipeline, PipelineConfig

    cohort = _complete(n, options)
    first = next(read_parts(cohort))[0]
    pipeline = Pipeline.fit(first[:_FITTED], PipelineConfig(retriever="faiss"), device="cpu")
    yield n
    done = 0
    with writing_episodes(options.scratch / f"{n}" / "prepared", pipeline.schema.labels) as writer:
        for part, _ in read_parts(cohort):
            for start in range(0, len(part), _BATCH):
                writer.add(pipeline.episodes(part[start : start + _BATCH]))
            done += len(part)
            del part
    yield done


_BATCH = 4_096


def _repeated(n: int, options: Options) -> Path:
    """Repeat the episodes of ``drawn`` patients, under other ids, until there are ``n``."""
    source, target = options.scratch / f"{options.drawn}" / "prepared", options.scratch / f"{n}" / "prepared"
    if _all_there(target):
        return target
    if n <= options.drawn or not _all_there(source):  # the scratch folder was removed, or the writing was stopped
        _exhaust(_prompts(min(n, options.drawn), options))
    if n <= options.drawn:
        return target
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / LABELS_FILE, target)
    times, text = n // options.drawn, (source / WORDS_FILE).read_bytes()
    with replacing(target / WORDS_FILE) as words:
        for number in range(times):
            words.write(text.replace(b'{"patient_id": "P', b'{"patient_id": "P%d-' % number))
    for name, first in ((VECTORS_FILE, "vectors"), (CHECKUPS_FILE, "values")):
        with safe_open(str(source / name), "np") as arrays:
            metadata, others = arrays.metadata(), {key: arrays.get_tensor(key) for key in arrays.keys()}
        rows = others.pop(first)
        with replacing(target / name) as file:
            growing = GrowingArray(file, first, rows.shape[1], metadata)
            for _ in range(times):
                growing.add(rows)
            growing.close(others | {key: np.tile(others[key], times) for key in ("counts",) if key in others})
    return target


def _all_there(folder: Path) -> bool:
    return all((folder / name).exists() for name in (LABELS_FILE, WORDS_FILE, VECTORS_FILE, CHECKUPS_FILE))


def _episodes(n: int, options: Options) -> Iterator[int]:
    """Open the episodes, choose those of a split, and read 1,000 of them, drawn at random."""
    folder = _repeated(n, options)
    yield n
    episodes = EpisodeSet.load(folder).of("test")
    for i in np.random.default_rng(0).integers(len(episodes), size=_ASKED).tolist():
        assert len(episodes[i].words) == episodes.lengths[i]
    yield len(episodes)


def _peers(n: int, options: Options) -> Iterator[int]:
    """Find ten peers of each of 1,000 patients among all with faiss."""
    from benchmarks.retrieval import make_vectors
    from pmlm_env.retrieval.faiss import FaissRetriever

    vectors, ids = make_vectors(n), [f"p{i}" for i in range(n)]
    yield n
    retriever = FaissRetriever(vectors, ids, ["x"] * n)
    retriever.peers(vectors[:_ASKED], ids[:_ASKED], 10)


_RUNS = {
    "simulate": _simulate,
    "read": _read,
    "fit": _fit,
    "prompts": _prompts,
    "episodes": _episodes,
    "peers": _peers,
}
_STAGES = tuple(_RUNS)


def table(results: Sequence[Result]) -> list[str]:
    """Return the rows of the table in README.md: CPU seconds and peak memory by number of patients, and the exponent.

    The exponent is b of seconds = a n^b, fitted by least squares to the logarithms for n of at least 100,000, or of at
    least 10,000 if fewer than two such n were measured in full. Below 100,000 episodes are read into memory.
    """
    sizes = sorted({each.patients for each in results})
    lines = [f"| stage | {' | '.join(f'{n:,}' for n in sizes)} | exponent |", "|---" * (len(sizes) + 2) + "|"]
    for stage in _STAGES:
        found = {each.patients: each for each in results if each.stage == stage}
        if found:
            cells = (_cell(found[n]) if n in found else "not measured" for n in sizes)
            lines.append(f"| `{stage}` | {' | '.join(cells)} | {_exponent([*found.values()])} |")
    return lines


def _cell(result: Result) -> str:
    seconds = f"{result.seconds:.2f}" if result.seconds < 10 else f"{result.seconds:,.0f}"
    of = "" if result.done == result.patients else f", the first {result.done:,}"
    return f"{seconds} s, {result.peak_mib:,.0f} MiB{of}"


def _exponent(results: Sequence[Result]) -> str:
    complete = [each for each in results if each.done == each.patients]
    for least in (100_000, 10_000):
        used = [each for each in complete if each.patients >= least]
        if len(used) >= 2:
            break
    else:
        return "-"
    slope, _ = np.polyfit(np.log([each.patients for each in used]), np.log([each.seconds for each in used]), 1)
    return f"{slope:.2f}"


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
