"""The folder of a published data set, in which tables are found by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.streams import StreamedTable
from pmlm_env.cohort.wording import named, no_folder

#: Suffixes of tables that can be read, the longest first.
_SUFFIXES = (".csv.gz", ".tsv.gz", ".txt.gz", ".parquet", ".csv", ".tsv", ".txt")
#: How deep a table may lie in the folder, and how many files and folders are looked at.
_DEPTH, _ENTRIES = 6, 1_000_000


class DataFolder:
    """The files of a data set, found by the names of its tables.

    Args:
        path: The folder.

    Attributes:
        tables: The tables that were asked for, by name.

    Raises:
        CohortError: There is no such folder, or it has too many files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """List the files."""
        self.path = Path(path)
        self.tables: dict[str, StreamedTable] = {}
        if not self.path.is_dir():
            raise CohortError(no_folder(self.path))
        self.files = sorted(_files(self.path))
        self._by_stem: dict[str, list[Path]] = {}
        self._by_parent: dict[str, list[Path]] = {}
        for file in self.files:
            suffix = next((each for each in _SUFFIXES if file.name.lower().endswith(each)), None)
            if suffix:
                self._by_stem.setdefault(file.name[: -len(suffix)].lower(), []).append(file)
                if file.parent != self.path:
                    self._by_parent.setdefault(file.parent.name.lower(), []).append(file)

    def table(self, *names: str) -> StreamedTable | None:
        """Return the table with the first of these names that there is.

        Raises:
            CohortError: There are two such tables.
        """
        for name in names:
            if paths := self._by_stem.get(name, []):
                if len(paths) > 1:
                    found = named([str(path.relative_to(self.path)) for path in paths])
                    raise CohortError(
                        f"{self.path} has the table {name} {len(paths)} times ({found}); remove all but one"
                    )
                return self.table_of(name, paths)
            if paths := self._by_parent.get(name, []):
                return self.table_of(name, paths)
        return None

    def table_of(self, name: str, paths: Sequence[Path]) -> StreamedTable:
        """Return the table of this name, which has these files."""
        return self.tables.setdefault(name, StreamedTable(name, paths))

    def need(self, *names: str, why: str) -> StreamedTable:
        """Return a table; see ``table``.

        Args:
            names: Its names.
            why: What it has, for the message.

        Raises:
            CohortError: There is none, or there are two.
        """
        found = self.table(*names)
        if found is None:
            tables = sorted(self._by_stem)
            there = f"It has {named(tables, shown=20)}" if tables else "It has no table"
            raise CohortError(
                f"{self.path} has no table {' or '.join(names)} ({why}): {names[0]}.csv, .csv.gz or .parquet, in the "
                f"folder or below it. {there}"
            )
        return found


def _files(root: Path) -> Iterator[Path]:
    seen = 0
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if len(here.relative_to(root).parts) >= _DEPTH:
            folders.clear()
        seen += len(folders) + len(files)
        if seen > _ENTRIES:
            raise CohortError(f"{root} has more than {_ENTRIES:,} files: name the folder of the data set itself")
        yield from (here / name for name in files if not name.startswith("."))
