"""Manage cached replies and adapters: ``pmlm cache stats | prune | export | import | adapters``."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import tyro

from pmlm_env.io.files import replacing
from pmlm_env.llm.lora.kept import adapters_dir, kept_adapters, remove_adapters
from pmlm_env.llm.storage.cache import CachedReply, ReplyCache
from pmlm_env.llm.storage.location import check_location, is_url

_IN_RUN = "replies.sqlite"
_PARTS = {"request", "reply", "created"}


@dataclass(frozen=True)
class StatsConfig:
    """Show the number of cached replies and tokens for each LLM, and when replies were cached.

    Attributes:
        path: The cache file, a run folder, or ``postgresql://...``.
    """

    path: tyro.conf.Positional[str]


@dataclass(frozen=True)
class PruneConfig:
    """Remove replies and free their disk space; with both options, only replies that match both.

    Attributes:
        path: The cache file, a run folder, or ``postgresql://...``.
        older_than_days: Remove replies cached more than this many days ago.
        llm: Remove replies from LLMs whose identity (endpoint, model, sampling, as JSON) contains this text.
    """

    path: tyro.conf.Positional[str]
    older_than_days: float | None = None
    llm: str | None = None


@dataclass(frozen=True)
class ExportConfig:
    """Write all replies and their prompts to a JSON Lines file, to inspect them or to move them to another machine.

    Attributes:
        path: The cache file, a run folder, or ``postgresql://...``.
        out: The file to write; it must not exist.
    """

    path: tyro.conf.Positional[str]
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True)
class ImportConfig:
    """Add the replies from an exported file; replies already in the cache are not changed.

    Attributes:
        path: The cache file, a run folder, or ``postgresql://...``. The file is created if it does not exist.
        source: The exported file.
    """

    path: tyro.conf.Positional[str]
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FROM")]


@dataclass(frozen=True)
class AdaptersConfig:
    """Show how many adapters fine-tuning has left in the cache folder, or remove them; see docs/predictors.md.

    Attributes:
        remove: Remove them all, those that are not finished too.
    """

    remove: bool = False


#: Subcommands and their settings.
Config: Mapping[str, type] = MappingProxyType(
    {
        **{"stats": StatsConfig, "prune": PruneConfig, "export": ExportConfig, "import": ImportConfig},
        "adapters": AdaptersConfig,
    }
)


def run(config: StatsConfig | PruneConfig | ExportConfig | ImportConfig | AdaptersConfig) -> int:
    """Run a subcommand.

    Raises:
        ValueError: A file is missing or damaged, or exists and would be overwritten.
        DatabaseError: The cache cannot be read or written.
    """
    if isinstance(config, StatsConfig):
        print(stats(config))
    elif isinstance(config, PruneConfig):
        print(f"{prune(config)} replies removed")
    elif isinstance(config, ExportConfig):
        print(f"{export(config)} replies written to {config.out}")
    elif isinstance(config, AdaptersConfig):
        print(adapters(config))
    else:
        n, new = import_replies(config)
        print(f"{n} replies in {config.source}, {new} of them new")
    return 0


def stats(config: StatsConfig) -> str:
    """Describe a cache.

    Raises:
        ValueError: The cache does not exist.
    """
    file = _location(config.path)
    size = ""
    if isinstance(file, Path):
        parts = (file, file.with_name(file.name + "-wal"))
        size = f", {sum(part.stat().st_size for part in parts if part.exists()) / 1e6:.1f} MB"
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    first, last = math.inf, 0.0
    for kept in ReplyCache(file):
        count = counts[_name(kept)]
        for i, n in enumerate((1, kept.reply["prompt_tokens"], kept.reply["completion_tokens"])):
            count[i] += n
        first, last = min(first, kept.created), max(last, kept.created)
    n = sum(count[0] for count in counts.values())
    lines = [f"{file}: {n} replies{size}"]
    if n:
        lines += [
            f"cached from {_date(first)} to {_date(last)}",
            f"{'replies':>10} {'tokens in':>12} {'tokens out':>12}  LLM",
        ]
    for name, (replies, tokens_in, tokens_out) in sorted(counts.items(), key=lambda item: (-item[1][0], item[0])):
        lines.append(f"{replies:10} {tokens_in:12} {tokens_out:12}  {name}")
    return "\n".join(lines)


def prune(config: PruneConfig) -> int:
    """Remove replies, and return the number removed.

    Raises:
        ValueError: The cache does not exist, or no option says which replies to remove.
    """
    days, llm = config.older_than_days, config.llm
    if days is None and not llm:
        raise ValueError("choose the replies to remove with --older-than-days DAYS, --llm TEXT, or both")
    if days is not None and not (math.isfinite(days) and days >= 0):
        raise ValueError(f"--older-than-days is {days}: use a number of 0 or more")
    before = math.inf if days is None else time.time() - 86400 * days
    cache = ReplyCache(_location(config.path))
    return cache.remove([kept.key for kept in cache if kept.created < before and (llm or "") in kept.identity])


def export(config: ExportConfig) -> int:
    """Write a cache as JSON Lines, sorted by key, and return the number of replies.

    Raises:
        ValueError: The cache does not exist, or the output file exists already.
    """
    cache = ReplyCache(_location(config.path))
    if os.path.lexists(config.out):
        raise ValueError(f"{config.out} already exists: choose another file, or remove it")
    if not config.out.parent.is_dir():
        raise ValueError(f"the folder {config.out.parent} does not exist: create it first")
    n = 0
    with replacing(config.out) as file:
        for kept in cache:
            line = {"request": kept.request, "reply": kept.reply, "created": kept.created}
            file.write(json.dumps(line).encode() + b"\n")
            n += 1
    return n


def import_replies(config: ImportConfig) -> tuple[int, int]:
    """Add the replies from an exported file; return the number in the file and the number that were new.

    Raises:
        ValueError: The file does not exist, or one of its lines is damaged; in that case nothing is imported.
    """
    if not config.source.is_file():
        raise ValueError(f"{config.source} is not a file: name one that `pmlm cache export` wrote")
    file = _location(config.path, to_be_made=True)
    n = sum(1 for _ in _lines(config.source))  # a first pass checks all lines
    return n, ReplyCache(file).add(_lines(config.source))


def adapters(config: AdaptersConfig) -> str:
    """Describe the adapters in the cache folder, or remove them.

    Raises:
        ValueError: One of them is being trained.
    """
    sizes = [sum(file.stat().st_size for file in kept.iterdir()) for kept in kept_adapters()]
    if config.remove:
        return f"{remove_adapters()} adapters removed from {adapters_dir()}"
    return f"{adapters_dir()}: {len(sizes)} adapters, {sum(sizes) / 1e6:.1f} MB"


def _lines(path: Path) -> Iterator[CachedReply]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line.decode())
                if not isinstance(value, dict) or set(value) != _PARTS:
                    raise ValueError("it should be an object of request, reply, created")
                yield CachedReply(**value)
            except (ValueError, RecursionError) as error:
                known = type(error) is ValueError  # messages from json and the UTF-8 decoder may quote the content
                what = error if known else "it is not JSON"
                raise ValueError(
                    f"{path}, line {number}: {what}; nothing was imported: export the file again, or remove the line"
                ) from None


def _location(name: str, to_be_made: bool = False) -> Path | str:
    if is_url(name):
        return name
    check_location(name)
    path = Path(name)
    file = path / _IN_RUN if path.is_dir() else path
    if file.is_file() or (to_be_made and file.parent.is_dir() and not os.path.lexists(file)):
        return file
    if path.is_dir():
        raise ValueError(f"{path} has no {_IN_RUN}: name the folder of a run with cached replies, or a cache file")
    raise ValueError(f"{path} does not exist: name a run folder, or a cache file")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _name(kept: CachedReply) -> str:
    """Return the model and its endpoint, or its pool's name, without the sampling settings.

    Without a model's name, it is the whole identity.
    """
    llm: Any = kept.request["llm"]
    if isinstance(llm, dict):
        model = llm.get("model") or llm.get("local") or llm.get("vllm")
        endpoint = llm.get("base_url") or llm.get("endpoints")
        if model:
            return f"{model} at {endpoint}" if endpoint else str(model)
    return kept.identity
