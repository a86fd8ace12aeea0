"""Write the schema that a cohort is read by: ``pmlm schema``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agents.model_options import CohortFiles


@dataclass(frozen=True)
class SchemaConfig:
    """Write the schema that a cohort is read by to a file, for you to check and change.

    Without a schema of its own, a cohort is read by one that is made from its tables. Once written as schema.toml into
    the cohort's folder, it is read by that file.

    Attributes:
        files: The cohort.
        out: The file, new, ending in .toml or .json; by default schema.toml in the cohort's folder.
    """

    files: CohortFiles
    out: Path | None = None


Config = SchemaConfig


def run(config: SchemaConfig) -> int:
    """Write the schema.

    Raises:
        ValueError: The file exists, has another suffix, or would be too large; or the cohort cannot be read.
    """
    from pmlm_env.cohort.schema_toml import schema_toml
    from pmlm_env.io.files import write
    from pmlm_env.io.toml import MAX_BYTES

    folder = config.files.cohort
    out = config.out or (folder if folder.is_dir() else folder.parent) / "schema.toml"
    taken = [out] if config.out else [folder / name for name in ("schema.toml", "schema.json")]
    if found := [path for path in taken if path.exists()]:
        raise ValueError(f"{found[0]} exists: change it with an editor, or name another file with --out")
    if out.suffix not in (".toml", ".json"):
        raise ValueError(f"--out {out}: the name must end in .toml or .json")
    cohort, report = config.files.read()
    if out.suffix == ".json":
        cohort.schema.save(out)
    else:
        text = schema_toml(cohort, [note for note in report.notes if note.startswith("indicators ")]).encode()
        if len(text) > MAX_BYTES:
            raise ValueError(
                f"the schema has {len(text):,} bytes, and a .toml file may have {MAX_BYTES:,}: write it as JSON, "
                f"--out {out.with_suffix('.json')}"
            )
        write(out, text)
    option = f" with --schema {out}" if config.out else ""
    print(f"{out} has {len(cohort.schema.indicators)} indicators; `pmlm prepare` reads the cohort by it{option}")
    return 0
