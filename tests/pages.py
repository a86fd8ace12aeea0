"""The pages of the documents, and what stands in their code blocks."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Programs of others, and of the shell's, whose options are theirs.
OTHERS = (
    "docker", "id", "llama-server", "mkdocs", "ollama", "pip", "pre-commit", "read", "source", "tensorboard",
    "transformers", "vllm",
)  # fmt: skip
OURS = ("make", "pmlm", "pytest", "python", "python3", "torchrun")

_OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")]

#: All pages by their names, such as "docs/llm/README.md".
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*_OUTSIDE, *sorted((ROOT / "docs").rglob("*.md")))
}


def blocks(page: str, language: str) -> list[str]:
    """Return a page's code blocks of a language, without the indentation of those in lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", PAGES[page], re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def block(page: str, language: str, after: str) -> str:
    """Return the first code block of a language that stands after a text of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page].partition(after)[2], re.DOTALL | re.MULTILINE)[0]


def commands(script: str, folder: Path) -> list[list[str]]:
    """Let the shell run a script in a folder, with functions in place of programs that note how they are called.

    So variables, loops, patterns and quotes mean what they mean to a person who pastes the script.
    """
    notes = folder / "notes"
    notes.write_text("")
    note = 'note() { printf "%s\\037" "$@" >> "$NOTES"; printf "\\036" >> "$NOTES"; }'
    stubs = "\n".join(f'{name}() {{ note {name} "$@"; }}' for name in (*OTHERS, *OURS))
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "basename").unlink(missing_ok=True)
    (folder / "bin" / "basename").symlink_to(str(shutil.which("basename")))
    script = re.sub(r"(?<![\w/])\.venv[\w-]*/bin/(?!activate)", "", script)
    done = subprocess.run(
        [str(shutil.which("bash")), "-euc", f"{note}\n{stubs}\n{script}"],
        cwd=folder,
        env={"PATH": str(folder / "bin"), "NOTES": str(notes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return [line.split("\x1f")[:-1] for line in notes.read_text().split("\x1e")[:-1]]
