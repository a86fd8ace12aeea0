"""Agents that are not built in: those of installed packages, and package.module:Class."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.evaluation.controls import CONTROLS
from agents.registry import AGENTS, COMPARED, REGISTRY, class_of, load, make, settings_of
from agents.run_folder import RunFolder
from agents.settings import plain
from agents.training.config import TrainConfig, named_classes
from agents.training.train import trained
from tests.agents.own_agent import MODULE, install, write_module
from tests.agents.test_options import ended, in_one_line
from tests.problems import make_problem

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("no_figures")]

PATH = "stranger:FirstWords"
#: An agent that lacks something, or has something that cannot be, with what is said of it.
INCOMPLETE = {
    "not_a_class": ("def FirstWords(config, seed): ...", "it is not a subclass of agents.base.Agent"),
    "of_something_else": ("class FirstWords: ...", "it is not a subclass of agents.base.Agent"),
    "no_refine": (MODULE.replace("def refine", "def refined"), "no_refine:FirstWords lacks refine: see docs/write"),
    "no_config": (MODULE.replace("    Config = FirstWordsConfig\n", ""), "it has no Config, the frozen dataclass"),
    "not_a_dataclass": (MODULE.replace("Config = FirstWordsConfig", "Config = dict"), "is not a frozen dataclass"),
    "not_frozen": (MODULE.replace("(frozen=True)", ""), "its Config is not a frozen dataclass"),
    "no_default": (MODULE.replace("skip: int = 2", "skip: int"), "its Config: the setting skip has no default"),
    "strange_type": (MODULE.replace("skip: int", "skip: dict"), "its Config: the setting skip is of the type"),
    "two_types": (MODULE.replace("skip: int", "skip: int | str"), "skip is of the type int | str"),
    "unknown_type": (MODULE.replace("skip: int", "skip: 'Int'"), "its Config: its types are not known: NameError"),
    "taken": (MODULE.replace("skip", "budget"), "has a setting budget, and --budget is an option already"),
    "no_class": ("", "no_class has no class FirstWords"),
    "raises": ("1 / 0", "importing raises failed: ZeroDivisionError"),
    "needs_more": ("import nothing_like_it", "there is no module nothing_like_it: install it"),
}  # fmt: skip


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that exists once the module ``stranger`` was imported from the current folder."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    file = write_module(folder)
    install(folder, "first-words", PATH)
    yield file
    for name in ("stranger", *INCOMPLETE):
        sys.modules.pop(name, None)


def _pmlm(command: str, options: str) -> None:
    assert ended(command, options) == 0


@pytest.mark.parametrize("name", [PATH, "first-words"])
def test_benchmark_tune_and_report_take_it(
    name: str, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'pmlm-env[tune]'")
    _pmlm("benchmark", f"--agents {name} keep-all --budget 50 --seeds 2 --out out")
    runs = [json.loads(line) for line in Path("out/lite/runs.jsonl").read_text().splitlines()][len(CONTROLS) :]
    assert [(run["agent"], run["seed"], run["seeded"]) for run in runs] == [(name, 0, False), ("keep-all", 0, False)]
    assert runs[0]["config"] == {"skip": 1}
    _pmlm("tune", f"--agents {name} --budget 50 --trials 2 --seeds 1 --out out")
    assert json.loads(Path("out/lite/tuned.json").read_text())["agents"].keys() == {name}
    _pmlm("benchmark", f"--agents {name} --budget 50 --seeds 1 --out tuned --tuned out/lite/tuned.json")
    capsys.readouterr()
    _pmlm("report", f"out --default {name}")
    shown = f"`{name}`" if ":" in name else name
    text = capsys.readouterr().out
    assert f"| **{shown}** |" in text
    assert f"over {shown} |" in text


def test_default_lists_have_built_in_agents_only(imported: Path) -> None:
    from agents.benchmark.config import BenchmarkConfig

    assert BenchmarkConfig().agents == COMPARED == tuple(name for name in AGENTS if not name.startswith("llm-editor"))
    assert "first-words" in REGISTRY.names()
    assert not imported.exists()


@pytest.mark.parametrize("command", ["train", "demo"])
@pytest.mark.parametrize("name", [PATH, "first-words"])
def test_its_help_shows_its_settings_alone(
    name: str, command: str, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pmlm(command, f"--agent {name} --help")
    said = capsys.readouterr().out
    assert re.search(r"--skip INT\s.*Number of words at the beginning.*\(default: 2\)", said, re.DOTALL)
    assert "--hidden" not in said


@pytest.mark.parametrize("name", INCOMPLETE)
def test_a_class_that_cannot_be_an_agent_is_one_line(
    name: str, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = INCOMPLETE[name]
    write_module(Path.cwd(), name, text)
    said = in_one_line("train", f"--agent {name}:FirstWords", capsys)
    assert message in said
    assert f"{name}:FirstWords" in said


def test_settings_that_the_agent_refuses_are_one_line(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = "\n    def __post_init__(self):\n        if self.skip > 3: raise ValueError('skip is above 3')\n"
    write_module(Path.cwd(), "picky", MODULE.replace("skip: int = 2\n", f"skip: int = 2\n{check}"))
    assert "skip is above 3" in in_one_line("train", "--agent picky:FirstWords --skip 4", capsys)
    write_module(Path.cwd(), "picky_too", MODULE.replace("skip: int = 2\n", f"skip: int = 5\n{check}"))
    said = in_one_line("train", "--agent picky_too:FirstWords", capsys)
    assert "the agent picky_too:FirstWords: the defaults of its Config are not valid: skip is above 3" in said


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ('{"skip": Integers(3, 4)}', "the default of skip, 1, is not within its `space`, Integers(low=3, high=4)"),
        ('{"jump": Integers(0, 4)}', "the default of jump, None, is not within its `space`"),
    ],
)
def test_a_search_space_without_the_defaults_is_one_line(
    space: str, message: str, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="needs Optuna: pip install 'pmlm-env[tune]'")
    write_module(Path.cwd(), "spaced", MODULE.replace('{"skip": Integers(0, 4)}', space))
    assert message in in_one_line("tune", "--agents spaced:FirstWords", capsys)
    sys.modules.pop("spaced")


def test_an_agent_with_the_name_of_a_control_is_refused(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(Path.cwd(), "echo", PATH)
    said = in_one_line("benchmark", "--agents echo", capsys)
    assert "the agent echo has the name of a control: name it by package.module:Class" in said


# Saved agents and runs of strangers


@pytest.fixture
def saved(imported: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Saves an agent of that name, and forgets its module."""

    def save(name: str) -> Path:
        agent = make(name)
        agent.fit(make_problem())
        agent.save(tmp_path / "agent")
        sys.modules.pop("stranger")
        imported.unlink()
        return tmp_path / "agent"

    return save


def test_a_saved_agent_does_not_decide_what_is_imported(saved: Callable[[str], Path], imported: Path) -> None:
    folder = saved(PATH)
    assert json.loads((folder / "config.json").read_text())["agent"] == PATH
    with pytest.raises(ValueError, match=rf"\A{folder}/config.json: the agent is {PATH}, .* give --allow-import .*\Z"):
        load(folder)
    assert not imported.exists()
    assert "stranger" not in sys.modules
    loaded = load(folder, allow_import=True)
    assert (loaded.name, plain(loaded.config)) == (PATH, {"skip": 2})
    assert [edit.slot for edit in loaded.refine(make_problem(judged=False))[0]] == [2, 3, 4]


def test_refine_does_not_import_what_a_saved_agent_names(
    saved: Callable[[str], Path], imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(PATH)
    make_problem().episodes.save(Path("prepared"))
    options = f"--model {folder} --episodes prepared --split train"
    assert "give --allow-import" in in_one_line("refine", options, capsys)
    assert not imported.exists()


def test_a_saved_agent_may_name_the_agent_of_an_installed_package(saved: Callable[[str], Path]) -> None:
    folder = saved("first-words")
    assert json.loads((folder / "config.json").read_text())["agent"] == "first-words"
    assert load(folder).name == "first-words"


def test_without_the_package_a_saved_agent_says_what_to_install(saved: Callable[[str], Path]) -> None:
    folder = saved("first-words")
    (info,) = Path.cwd().glob("*.dist-info")
    (info / "entry_points.txt").unlink()
    with pytest.raises(ValueError, match="there is no agent 'first-words' here: install the package that adds it"):
        load(folder)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that was begun, with a checkpoint."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.start(TrainConfig(tmp_path / "prepared", run.path, "keep-all"), "the LLM", "the digest")
    agent = make("keep-all")
    agent.fit(make_problem())
    agent.save(run.checkpoint)
    return run


def _change(run: RunFolder, part: str, name: str) -> None:
    file = run.path / "config.json"
    content: dict[str, Any] = json.loads(file.read_text())
    settings = content["settings"]
    (settings if part == "agent" else settings["models"])[part] = name
    settings |= {"allow_import": True} | ({"settings": {}} if part == "agent" else {})
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("command", ["train --resume", "evaluate", "publish --out out"])
@pytest.mark.parametrize("part", ["agent", "reward", "encoder", "llm"])
def test_a_run_does_not_decide_what_is_imported(
    part: str, command: str, run: RunFolder, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _change(run, part, PATH)
    name, _, more = command.partition(" ")
    said = in_one_line(name, f"{more} --run {run.path}", capsys)
    assert f"{run.path / 'config.json'} names the {part} {PATH}, which is code from outside pmlm-env" in said
    assert "give --allow-import to run it, if you trust it" in said
    assert not imported.exists()
    assert not Path("out").exists()


def test_with_allow_import_a_run_may_name_an_agent(run: RunFolder, imported: Path) -> None:
    _change(run, "agent", PATH)
    config = trained(run, allow_import=True)
    assert (config.agent, type(config.settings).__name__) == (PATH, "FirstWordsConfig")
    assert not config.allow_import  # whatever the run says
    assert imported.exists()


@pytest.mark.parametrize("llm", ["openai:gpt", "local:model", "vllm:model", "mine:gpt", "responder"])
def test_a_providers_model_is_not_taken_for_a_class(llm: str, run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "providers.toml").write_text('[mine]\nbase_url = "http://localhost:1/v1"\n')
    _change(run, "llm", llm)
    _change(run, "providers", str(tmp_path / "providers.toml"))
    assert named_classes(run.settings()) == {}


def test_allow_import_is_not_written_into_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.start(TrainConfig(run=run.path, allow_import=True), "the LLM", "the digest")
    assert "allow_import" not in (run.path / "config.json").read_text()


def test_allow_import_has_no_effect_on_a_new_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--allow-import has no effect without --resume" in in_one_line("train", "--allow-import", capsys)


def test_a_settings_file_that_the_user_names_may_name_a_class(
    run: RunFolder, imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text(f'agent = "{PATH}"\nskip = 3\nepisodes = "none"\n')
    assert "none/episodes.jsonl is missing" in in_one_line("train", "--config mine.toml", capsys)
    assert imported.exists()


def test_tuned_settings_and_earlier_runs_do_not_import_what_they_name(imported: Path) -> None:
    Path("tuned.json").write_text(json.dumps({"agents": {PATH: {"settings": {"skip": 3}}}}))
    _pmlm("benchmark", "--agents keep-all --seeds 1 --out out --tuned tuned.json")
    file = Path("out/lite/runs.jsonl")
    *_, last = file.read_text().splitlines()
    file.write_text(f"{file.read_text()}{json.dumps({**json.loads(last), 'agent': PATH})}\n")
    _pmlm("benchmark", "--agents keep-all random-n --seeds 1 --out out")
    _pmlm("report", "out")
    assert not imported.exists()
    assert "stranger" not in sys.modules


def test_a_settings_class_of_an_agent_is_read_as_any_other(imported: Path) -> None:
    assert class_of(PATH).__name__ == "FirstWords"
    assert plain(settings_of(PATH, "real")) == {"skip": 2}
    assert plain(settings_of(PATH, "lite")) == {"skip": 1}
    assert plain(settings_of(PATH, "lite", {"skip": 4})) == {"skip": 4}
    with pytest.raises(ValueError, match=f"settings of {PATH}: skip is 'a': use a whole number"):
        settings_of(PATH, "lite", {"skip": "a"})


def test_a_name_that_no_table_could_hold_is_refused(imported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(Path.cwd(), "a|b", PATH)
    said = in_one_line("benchmark", "--agents 'a|b'", capsys)
    assert "the agent a|b cannot be used: its name may contain letters, digits, spaces and any of _.,=+():-" in said


LEARNED = """
import torch

class Learned(FirstWords):
    def learned(self):
        shared = torch.arange(2.0, dtype=torch.float64)
        values = {"n": np.int64(3), "on": np.bool_(True), "slots": np.arange(2)}
        return values, {"a": shared, "b": shared, "c": np.ones((2, 1), dtype=np.float16), "d": torch.arange(3)}

    def restore(self, values, tensors, device):
        self.values = values
        self.tensors = tensors({"a": (2,), "b": (2,), "c": (2, 1), "d": (3,)})

class Unsaved(FirstWords):
    def learned(self):
        return {"a": {1}}, {}

class NoTensor(FirstWords):
    def learned(self):
        return {}, {"a": ["x"]}

class TooLarge(FirstWords):
    def learned(self):
        return {}, {"a": torch.tensor([2**24 + 1])}
"""


def test_what_an_agent_has_learned_may_be_numpys_and_of_any_precision(imported: Path, tmp_path: Path) -> None:
    write_module(imported.parent, text=MODULE + LEARNED)
    agent = make("stranger:Learned")
    agent.fit(make_problem(n=2))
    agent.save(tmp_path / "agent")
    restored: Any = load(tmp_path / "agent", allow_import=True)
    assert restored.values == {"n": 3, "on": True, "slots": [0, 1]}
    assert {name: each.tolist() for name, each in restored.tensors.items()} == {
        "a": [0.0, 1.0],
        "b": [0.0, 1.0],
        "c": [[1.0], [1.0]],
        "d": [0.0, 1.0, 2.0],
    }


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Unsaved", "there is a value of type set: its method learned should return JSON values, and tensors by name"),
        ("NoTensor", "'a' is of type list: its method learned should return tensors by name"),
        ("TooLarge", "'a' has whole numbers that float32 cannot hold: return them among the JSON values"),
    ],
)
def test_what_an_agent_cannot_have_learned_is_told_with_its_name(
    kind: str, message: str, imported: Path, tmp_path: Path
) -> None:
    write_module(imported.parent, text=MODULE + LEARNED)
    agent = make(f"stranger:{kind}")
    agent.fit(make_problem(n=2))
    with pytest.raises(ValueError, match=f"^what the agent stranger:{kind} has learned cannot be saved: {message}$"):
        agent.save(tmp_path / "agent")
