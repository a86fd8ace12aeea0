"""Programs in processes of their own that have imported nothing of this project's, and all that takes long.

A server imports the libraries once, which takes ten seconds, and is forked for each program. So a program has to import
``pmlm_env`` itself, and sees its own environment variables when it does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: What is imported before the server is forked.
_LIBRARIES = (
    "gymnasium", "sb3_contrib", "scipy.stats", "skops.io", "sklearn.ensemble", "sklearn.linear_model",
    "stable_baselines3", "torch", "transformers.modeling_utils", "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
)  # fmt: skip


@cache
def _server() -> subprocess.Popen[str]:
    """Start the server; it ends with this process."""
    command = [sys.executable, "-m", "tests.fresh"]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server


def run(
    kind: str, program: object, *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as ``python`` would, and return how it ended and what it said.

    Args:
        kind: ``-c``, ``-m`` or ``path``.
        program: The code, the module's name or the path.
        arguments: What it finds in ``sys.argv``.
        cwd: The folder that it runs in.
        env: Its environment variables; by default those of this process.
    """
    (ended,) = run_together(1, kind, program, *arguments, cwd=cwd, env=env)
    return ended


def run_together(
    n: int, kind: str, program: object, *arguments: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> list[subprocess.CompletedProcess[str]]:
    """Run a program in several processes at the same time, as ``torchrun`` would on one machine.

    Args:
        n: The number of processes; one of them alone is not told about it.
        kind: See ``run``, likewise for the others.
        program: The program.
        arguments: Its arguments.
        cwd: The folder.
        env: The environment variables.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        said = [[Path(folder, f"{name}-{rank}") for name in ("stdout", "stderr")] for rank in range(n)]
        argv, common = [str(program), *map(str, arguments)], dict(os.environ if env is None else env)
        jobs = [
            {
                "kind": kind,
                "argv": argv,
                "cwd": str(cwd),
                "env": common | each,
                "said": list(map(str, paths)),
            }
            for each, paths in zip(_torchrun(n), said, strict=True)
        ]
        server.stdin.write(json.dumps(jobs) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        return [
            subprocess.CompletedProcess(argv, code, *(path.read_text(encoding="utf-8") for path in paths))
            for code, paths in zip(codes, said, strict=True)
        ]


def _torchrun(n: int) -> list[dict[str, str]]:
    """Return the environment variables by which ``torchrun`` tells each of ``n`` processes about the others."""
    if n == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(n)]


def _next_job() -> dict[str, Any] | None:
    """In the server, wait for jobs, and return None at the end; in each process forked from it, return its job."""
    for line in iter(sys.stdin.readline, ""):
        children = []
        for job in json.loads(line):
            if (child := os.fork()) == 0:
                return job
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)
    return None


def _become(job: dict[str, Any]) -> None:
    """Run a job's program in this process, and end it as Python does, but for freeing memory, which takes seconds."""
    code = 1
    try:
        _run(job)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:  # absl closes the one that it logs to
                stream.flush()
        os._exit(code)


def _run(job: dict[str, Any]) -> None:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    for number, path in zip((1, 2), job["said"], strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    kind, sys.argv = job["kind"], job["argv"]
    if kind == "path":
        runpy.run_path(sys.argv[0], run_name="__main__")
    elif kind == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    for library in _LIBRARIES:
        importlib.import_module(library)
    ours = [name for name in sys.modules if name.split(".")[0] in ("pmlm_env", "agents")]
    assert not ours, ours
    gc.freeze()
    if (todo := _next_job()) is not None:
        _become(todo)
