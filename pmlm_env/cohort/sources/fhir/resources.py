"""The resources in the files of a folder, one after another. The files may come from strangers: sizes are bounded.

Numbers stay text, as they are written (6.20), because FHIR counts their digits as significant.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pmlm_env.cohort.errors import CohortError
from pmlm_env.cohort.sources.data_folder import DataFolder

#: Largest resource in a file of one resource per line, and largest other file, in bytes after unpacking.
MAX_LINE, MAX_FILE = 2**26, 2**29
_LINES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_WHOLE = (".json", ".json.gz")
#: In which order the files are read: deletions first, then whose the results are, then the results. Texts that other
#: resources refer to are last.
_ORDER = ("deleted", "Patient", "Encounter", "Condition", "", "Observation", "Binary")
_JSON = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)

Resource = dict[str, Any]


class Resources:
    """The resources of a folder.

    Args:
        folder: A folder with files .ndjson, .jsonl (a resource per line) or .json (a bundle or a resource), each also
            with .gz.

    Attributes:
        kinds: The files by what they hold: the type of their first resource, "deleted" for those in a folder of that
            name, and "" for bundles.
        left_out: Why lines and resources were left out -> how many.
        read: Number of resources that were read.

    Raises:
        CohortError: There is no such folder, or no such file in it.
    """

    def __init__(self, folder: DataFolder) -> None:
        """List the files."""
        self.left_out: Counter[str] = Counter()
        self.read = 0
        self._seen: set[int] = set()
        self._deleted: set[str] = set()
        files = [path for path in folder.files if path.name.lower().endswith((*_LINES, *_WHOLE))]
        if not files:
            raise CohortError(
                f"{folder.path} has no FHIR files: .ndjson (a resource per line, as in bulk exports) or .json (bundles)"
            )
        self.kinds: dict[str, list[Path]] = {kind: [] for kind in _ORDER}
        for path in files:
            kind = "deleted" if path.parent.name.lower() == "deleted" else _kind(path)
            self.kinds[kind if kind in self.kinds else ""].append(path)

    def of(self, kind: str) -> Iterator[Resource]:
        """Yield the resources of the files of one kind, out of their bundles; duplicates and deleted ones are left out.

        Of a resource in several files, the one in the last file counts, which is the newest of dated exports.

        Raises:
            CohortError: A file is not JSON, is too large, or is nested too deeply.
        """
        for path in reversed(self.kinds[kind]):
            for document in self._documents(path):
                for resource in self._unpacked(document):
                    name = f"{resource.get('resourceType')}/{resource.get('id')}"
                    if name in self._deleted:
                        self.left_out["deleted"] += 1
                    elif "id" in resource and (key := hash(name)) in self._seen:
                        self.left_out["duplicate"] += 1
                    else:
                        if "id" in resource:
                            self._seen.add(key)
                        self.read += 1
                        yield resource

    def _documents(self, path: Path) -> Iterator[Resource]:
        with _opened(path) as file:
            if not path.name.lower().endswith(_LINES):
                text = _bounded(path, file)
                document = _parsed(text)
                if document is None and b"\n" in text.strip():  # a resource per line, in spite of the name
                    found = [_parsed(line) for line in text.splitlines() if line.strip()]
                    if all(each is not None for each in found):
                        yield from (each for each in found if each is not None)
                        return
                if document is None:
                    raise CohortError(f"{path.name} is not JSON, or is nested too deeply; is it FHIR?")
                yield document
                return
            for number, line in enumerate(_lines(path, file), start=1):
                if not line.strip():
                    continue
                document = _parsed(line)
                if document is None:
                    self.left_out["line that is not JSON"] += 1
                    if number == 1:
                        raise CohortError(
                            f"{path.name}, line 1 is not a JSON object, or is nested too deeply; is it FHIR?"
                        )
                else:
                    yield document

    def _unpacked(self, document: Resource) -> Iterator[Resource]:
        if document.get("resourceType") != "Bundle":
            yield document
            return
        for entry in items(document.get("entry")):
            request, resource = part(entry, "request"), entry.get("resource")
            if text(request, "method").upper() == "DELETE":
                self._deleted.add("/".join(text(request, "url").split("/")[-2:]))
            elif isinstance(resource, dict):
                if resource.get("resourceType") == "Bundle":
                    yield from self._unpacked(resource)
                    continue
                if "id" not in resource and text(entry, "fullUrl"):
                    resource["id"] = reference_id(text(entry, "fullUrl"))
                yield resource


def part(element: Any, name: str) -> dict[str, Any]:
    """Return an element's child that is an object; an empty one if it has none."""
    found = element.get(name) if isinstance(element, dict) else None
    return found if isinstance(found, dict) else {}


def items(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; those of one object that stands where a list should be."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict)]


def text(element: Any, name: str) -> str:
    """Return an element's child that is text, without the surrounding spaces; "" if it has none."""
    found = element.get(name) if isinstance(element, dict) else None
    return found.strip() if isinstance(found, str) else ""


def reference_id(reference: str) -> str:
    """Return the id that a reference ends in: of Patient/7, a URL, Patient/7/_history/2, or urn:uuid:7."""
    reference = reference.split("/_history/")[0].rstrip("/")
    return reference.rpartition("/")[2].rpartition(":")[2].lstrip("#")


def _kind(path: Path) -> str:
    if not path.name.lower().endswith(_LINES):
        return ""
    with _opened(path) as file:
        first = next((line for line in _lines(path, file) if line.strip()), b"")
    return text(_parsed(first), "resourceType")


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    try:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise CohortError(
                    f"{path.name} has a line of more than {MAX_LINE:,} bytes; is it one resource per line?"
                )
            yield line
    except (OSError, EOFError) as error:
        raise CohortError(f"{path.name} cannot be read: {error}") from error


def _bounded(path: Path, file: IO[bytes]) -> bytes:
    try:
        content = file.read(MAX_FILE + 1)
    except (OSError, EOFError) as error:
        raise CohortError(f"{path.name} cannot be read: {error}") from error
    if len(content) > MAX_FILE:
        raise CohortError(f"{path.name} is larger than {MAX_FILE:,} bytes: split the bundle, or export it as NDJSON")
    return content


def _parsed(content: bytes) -> Resource | None:
    """Return a JSON object; None if it is not one."""
    try:
        found = _JSON.decode(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
