"""Who may import whom: lower floors only, nobody in a circle; and what is not loaded before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pmlm_env", "agents")

#: From the lowest to the highest: a file imports from its own package (or file) and from lower floors. What stands on
#: one floor does not import one another. A package stands for its modules, unless they are listed by themselves.
FLOORS: list[set[str]] = [
    {"pmlm_env"},  # registers the envs, and hands names on when they are asked for
    {"pmlm_env.io", "pmlm_env.registry"},
    {"pmlm_env.device", "pmlm_env.kwargs", "pmlm_env.processes", "pmlm_env.weights"},
    {"pmlm_env.core"},
    {"pmlm_env.cohort"},
    {"pmlm_env.encoders", "pmlm_env.llm", "pmlm_env.prompting"},
    {"pmlm_env.predictors"},
    {"pmlm_env.retrieval", "pmlm_env.rewards"},
    {"pmlm_env.pipeline"},
    {"pmlm_env.envs"},
    {"agents", "agents.settings"},
    {"agents.cluster"},
    {"agents.run_folder"},
    {"agents.model_options"},
    {"agents.problem"},
    {"agents.base", "agents.models"},
    {"agents.policies", "agents.search"},
    {"agents.baselines", "agents.policy_gradient", "agents.q_learning", "agents.sb3"},
    {"agents.registry"},
    {"agents.training"},
    {"agents.evaluation"},
    {"agents.benchmark", "agents.serving"},
    {"agents.report"},
    {"agents.experiments"},
    {"agents.cli"},
    {"agents.evaluate", "agents.train"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(name: str) -> set[str]:
    """Which of our modules one imports, inside functions too, but for what only type checkers import."""
    path = MODULES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{each.name}" if f"{base}.{each.name}" in MODULES else base for each in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and path.name != "__init__.py":
            found.add(node.value.partition(":")[0])  # as the registry names classes
    return {each for each in found if each in MODULES and each != name}


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _nodes(node)


IMPORTS = {name: _imports(name) for name in MODULES}


def _room(name: str) -> str:
    """The entry of ``FLOORS`` that a module belongs to."""
    while name not in FLOOR_OF:
        assert "." in name, f"{name} stands on no floor: add its package to FLOORS"
        name = name.rpartition(".")[0]
    return name


def test_the_graph_has_what_is_known_of_it() -> None:
    assert "agents.policies.word_policy" in IMPORTS["agents.policy_gradient.reinforce"]
    assert "agents.training.train" in IMPORTS["agents.cli.train"]  # inside a function
    assert "agents.sb3.agents" in IMPORTS["agents.registry"]  # by its name
    assert len(MODULES) > 100


@pytest.mark.parametrize("name", MODULES)
def test_a_file_imports_from_its_own_package_and_from_lower_floors_alone(name: str) -> None:
    room = _room(name)
    others = {other for other in IMPORTS[name] if _room(other) != room}
    assert {other for other in others if FLOOR_OF[_room(other)] >= FLOOR_OF[room]} == set()


def test_no_package_of_the_environment_imports_the_agents() -> None:
    assert max(FLOOR_OF[n] for n in FLOOR_OF if n.startswith("pmlm_env")) < FLOOR_OF["agents"]
    assert not [n for n in MODULES if n.startswith("pmlm_env") and any(o.startswith("agents") for o in IMPORTS[n])]


def test_no_two_files_import_each_other_however_far_round() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package", PACKAGES)
def test_at_most_ten_files_lie_flat_in_a_package(package: str) -> None:
    assert len(list((ROOT / package).glob("*.py"))) <= 10


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in MODULES.values()
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long == set()


#: What takes seconds to load.
SLOW = ("torch", "transformers", "sklearn", "stable_baselines3", "sb3_contrib", "matplotlib")

LOADED = f"""
import json, sys
from contextlib import redirect_stdout
from io import StringIO

def loaded():
    return [name for name in {SLOW!r} if name in sys.modules]

found = {{}}
"""


def _loaded(code: str) -> dict[str, list[str]]:
    """What a new process has loaded of the slow packages, at each point that the code notes."""
    done = subprocess.run(
        [sys.executable, "-c", f"{LOADED}\n{code}\nprint(json.dumps(found))"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_the_environment_loads_neither_torch_nor_transformers() -> None:
    modules = ["pmlm_env", "pmlm_env.io.checked_files", "pmlm_env.core.episodes", "pmlm_env.cohort", "pmlm_env.llm"]
    modules += ["pmlm_env.weights", "pmlm_env.prompting", "pmlm_env.pipeline.config", "agents.training.config"]
    modules += ["agents.model_options", "agents.run_folder", "agents.registry"]
    modules += ["agents.report.page.run_page", "agents.report.page.results_page"]
    code = "\n".join(f"import {name}\nfound[{name!r}] = loaded()" for name in modules)
    assert _loaded(code) == {name: [] for name in modules}


def test_no_commands_help_loads_torch_or_transformers() -> None:
    code = """
from agents.cli.main import COMMANDS, main
from agents.registry import AGENTS

lines = [[], *([name] for name in COMMANDS), *(["train", "--agent", name] for name in AGENTS)]
seen = set()
parts = ("stats", "prune", "export", "import", "adapters")
lines += [["demo", "--agent", "lexicon"], *(["cache", part] for part in parts)]
lines += [["prefill", "train"], ["prefill", "evaluate"]]
lines += [["experiment", name] for name in ("table-a1", "table-2", "deletion-curve")]
for line in lines:
    shown = StringIO()
    try:
        with redirect_stdout(shown):
            main(None, [*line, "--help"])
    except SystemExit as end:
        assert end.code == 0, line
    assert "usage: pmlm" in shown.getvalue(), line
    found[" ".join(line)] = [name for name in loaded() if name not in seen]
    seen.update(loaded())
"""
    found = _loaded(code)
    assert len(found) > 30
    assert {line: names for line, names in found.items() if names} == {}
