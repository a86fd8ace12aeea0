"""Generate docs/environments/<ID>.md from the docstring of each environment that pmlm_env registers.

Run ``python docs/make_env_pages.py``. With ``--check``, nothing is written, and outdated pages are an error.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

import pmlm_env  # noqa: F401  # registers the environments

FOLDER = Path(__file__).resolve().parent / "environments"
COMMAND = "python docs/make_env_pages.py"


def specs() -> list[EnvSpec]:
    """Return the specs of pmlm_env's environments, sorted by id."""
    return [spec for _, spec in sorted(gym.registry.items()) if str(spec.entry_point).startswith("pmlm_env.")]


def page(spec: EnvSpec) -> str:
    """Return a page: a table of the registration, followed by the class's docstring."""
    assert isinstance(spec.entry_point, str)
    env = load_env_creator(spec.entry_point)
    rows = {"Import": f'`gym.make("{spec.id}")`', "Entry point": f"`{spec.entry_point}`"}
    if spec.vector_entry_point:
        rows["Vector import"] = f'`gym.make_vec("{spec.id}", num_envs=...)`'
        rows["Vector entry point"] = f"`{spec.vector_entry_point}`"
    if spec.kwargs:
        rows["Registered arguments"] = ", ".join(f"`{name}={value!r}`" for name, value in spec.kwargs.items())
    if spec.max_episode_steps:
        rows["Longest episode"] = f"{spec.max_episode_steps} steps"
    rows["Render modes"] = ", ".join(f'`"{mode}"`' for mode in env.metadata["render_modes"])
    rows["Deterministic"] = "no" if spec.nondeterministic else "yes"
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    note = f"Made from the docstring of `{spec.entry_point}` by `{COMMAND}`; edit there."
    return f"# {spec.id}\n\n{note}\n\n{table}\n\n{inspect.getdoc(env)}\n"


def pages() -> dict[str, str]:
    """Return the pages by environment id."""
    return {spec.id: page(spec) for spec in specs()}


def differing(folder: Path = FOLDER) -> list[str]:
    """Return the ids whose page in the folder is missing, outdated, or belongs to no registered environment."""
    existing = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    expected = pages()
    ids = expected.keys() | existing.keys()
    return sorted(env_id for env_id in ids if expected.get(env_id) != existing.get(env_id))


def main() -> None:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is outdated")
    if parser.parse_args().check:
        sys.exit(f"{', '.join(wrong)}: run `{COMMAND}`" if (wrong := differing()) else None)
    FOLDER.mkdir(exist_ok=True)
    for env_id, text in pages().items():
        (FOLDER / f"{env_id}.md").write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
