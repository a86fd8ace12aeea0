"""Registry: built-in names, plugins of installed packages, and paths; what is imported, and when."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pmlm_env.registry import Registry, failure, is_path

REGISTRY = Registry("reward", "pmlm.rewards", {"bertscore": "pmlm_env.rewards.bertscore:BertScoreReward"})

MODULE = """
class Reward:
    def __init__(self, weight=1.0, *, device="none"):
        self.weight, self.device = weight, device

    class Inner:
        pass

number = 3
"""


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget modules and folders that a test imports from."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("made_up"):
            del sys.modules[name]


def _install(folder: Path, package: str, entry_points: str, module: str = MODULE) -> None:
    """Write a package and its metadata, as pip installs them."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pmlm.rewards]\n{entry_points}\n")
    (folder / f"{package}.py").write_text(module)
    sys.path.append(str(folder))


def _refused(name: str, message: str, **options: bool) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        REGISTRY.find(name, **options)


def test_a_built_in_name_is_its_class() -> None:
    from pmlm_env.rewards.bertscore import BertScoreReward

    assert REGISTRY.find("bertscore", allow_import=False) is BertScoreReward


def test_an_entry_point_of_an_installed_package_is_found_without_allow_import(tmp_path: Path) -> None:
    _install(tmp_path, "made_up_parts", "counted = made_up_parts:Reward\ninner = made_up_parts:Reward.Inner")
    assert REGISTRY.names() == ("bertscore", "counted", "inner")
    assert "made_up_parts" not in sys.modules  # a list of names imports nothing
    assert REGISTRY.find("counted", allow_import=False).__qualname__ == "Reward"
    assert REGISTRY.find("inner").__qualname__ == "Reward.Inner"


def test_a_plugin_does_not_replace_what_is_built_in(tmp_path: Path) -> None:
    _install(tmp_path, "made_up_parts", "bertscore = made_up_parts:Reward")
    assert REGISTRY.find("bertscore").__name__ == "BertScoreReward"
    assert REGISTRY.names() == ("bertscore",)
    assert "made_up_parts" not in sys.modules


def test_a_name_that_two_packages_have_is_refused(tmp_path: Path) -> None:
    _install(tmp_path / "a", "made_up_a", "counted = made_up_a:Reward")
    _install(tmp_path / "b", "made_up_b", "counted = made_up_b:Reward")
    _refused("counted", "the packages made_up_a and made_up_b each have a reward counted: uninstall one, or name its")


@pytest.mark.parametrize("value", ["made_up_parts", "???", ":", "a b:C"])
def test_an_entry_point_that_names_no_class_is_refused_only_if_it_is_asked_for(tmp_path: Path, value: str) -> None:
    _install(tmp_path, "made_up_parts", f"counted = made_up_parts:Reward\nbroken = {value}")
    assert REGISTRY.names() == ("bertscore", "broken", "counted")
    assert REGISTRY.find("counted").__name__ == "Reward"
    _refused("broken", f"the reward broken: an installed package registers it as {value!r}, which is not module:Class")


def test_a_path_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    assert REGISTRY.find("made_up_here:Reward").__name__ == "Reward"
    assert sys.path[-1] == str(tmp_path)


def test_an_installed_module_goes_before_one_of_the_same_name_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, installed = tmp_path / "here", tmp_path / "installed"
    for folder in (here, installed):
        folder.mkdir()
        (folder / "made_up_both.py").write_text(MODULE)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*(each for each in sys.path if each), str(installed)])
    REGISTRY.find("made_up_both:Reward")
    assert Path(sys.modules["made_up_both"].__file__ or "").parent == installed


def test_without_allow_import_a_path_is_refused_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up_here.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    _refused(
        "made_up_here:Reward",
        "the reward is made_up_here:Reward, which is code from outside pmlm-env: give --allow-import to run it",
        allow_import=False,
    )
    assert REGISTRY.knows("made_up_here:Reward")
    assert "made_up_here" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "there is no reward 'nothing': use bertscore, or package.module:Class"),
        ("made_up_absent:Reward", "reward made_up_absent:Reward: there is no module made_up_absent: install it, or"),
        ("made_up_here:Nothing", "reward made_up_here:Nothing: made_up_here has no class Nothing"),
        ("made_up_here:number", "reward made_up_here:number: made_up_here has no class number"),
        ("made_up_broken:Reward", "reward made_up_broken:Reward: importing made_up_broken failed: ZeroDivisionError: "),
        ("made_up_needs:Reward", "reward made_up_needs:Reward: there is no module made_up_missing: install it, or"),
        ("made_up_script:Reward", "reward made_up_script:Reward: importing made_up_script failed: SystemExit"),
        ("made_up_here:", "there is no reward 'made_up_here:': use bertscore"),
        ("../here:Reward", "there is no reward '../here:Reward': use bertscore"),
    ],
)
def test_what_cannot_be_found_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "made_up_here.py").write_text(MODULE)
    (tmp_path / "made_up_broken.py").write_text("1 / 0")
    (tmp_path / "made_up_needs.py").write_text("import made_up_missing")
    (tmp_path / "made_up_script.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    _refused(name, message)


def test_an_instance_gets_the_users_arguments_and_those_offered_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up_here.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    made = REGISTRY.make("made_up_here:Reward", kwargs={"weight": 2.0}, offered={"device": "cpu", "seed": 3})
    assert [made.weight, made.device] == [2.0, "cpu"]
    assert REGISTRY.make("made_up_here:Reward", kwargs={"device": "tpu"}, offered={"device": "cpu"}).device == "tpu"


def test_an_offered_argument_may_be_one_that_the_class_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_up_here.py").write_text(
        "class Reward:\n    def __init__(self, device, weight):\n        self.given = device, weight\n"
        "    def score(self): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    offered = {"device": "cpu", "seed": 3}
    assert REGISTRY.make("made_up_here:Reward", kwargs={"weight": 2.0}, offered=offered).given == ("cpu", 2.0)
    with pytest.raises(ValueError, match="does not take these arguments: missing a required argument: 'weight'"):
        REGISTRY.make("made_up_here:Reward", offered=offered)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"wait": "hush"}, "the reward made_up_here:Reward does not take these arguments: got an unexpected keyword"),
        (
            {"device": "hush"},
            "the reward made_up_here:Reward gets device from elsewhere: leave it out of its arguments",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kwargs: dict[str, str], message: str
) -> None:
    (tmp_path / "made_up_here.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        REGISTRY.make("made_up_here:Reward", kwargs=kwargs, device="cpu")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("my.rewards:Count", True),
        ("rewards:Count", True),
        ("bertscore", False),
        ("local:qwen2.5-coder-0.5b", False),
        ("sentence-transformers/all", False),
        ("C:\\models\\bert", False),
        ("a.b:", False),
        (":Class", False),
        ("a.b:C d", False),
    ],
)
def test_a_path_is_told_by_its_form(name: str, expected: bool) -> None:
    assert is_path(name) == expected


PARTS = """
import numpy as np
from pmlm_env.kwargs import Kwargs

class Agent:
    def fit(self, call, reward):
        call(self._judge, reward)
    def _judge(self, reward):
        reward.score()

class Ours:
    def score(self):
        Kwargs([1])
"""

REWARD = """
import numpy as np

class Reward:
    def __init__(self, weight=1.0):
        if weight < 0:
            _refuse(weight)
    def score(self):
        _add()

def _add():
    np.zeros(2) + np.zeros(3)

def _refuse(weight):
    raise ValueError(f"weight is {weight}: use 0 or more")
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An agent and two rewards from outside."""
    (tmp_path / "made_up_agent.py").write_text(PARTS)
    (tmp_path / "made_up_reward.py").write_text(REWARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pmlm_env.registry.OUTSIDE", [])
    agents = Registry("agent", "pmlm.agents", {}, ["fit"])
    return {
        "agent": agents.find("made_up_agent:Agent"),
        "reward": REGISTRY.find("made_up_reward:Reward"),
        "ours": REGISTRY.find("made_up_agent:Ours"),
    }


def _failure(call: Callable[[], Any]) -> str | None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, any message
        call()
    return failure(caught.value, ("pmlm_env", "agents", "tests"))


def test_of_two_parts_the_one_that_was_called_last_has_failed(parts: dict[str, Any]) -> None:
    said = _failure(lambda: parts["agent"]().fit(_call, parts["reward"]()))
    assert said is not None
    assert said.startswith("the reward made_up_reward:Reward failed in score (")
    assert said.endswith("): ValueError: operands could not be broadcast together with shapes (2,) (3,)")


def test_a_part_that_was_called_back_has_failed_where_it_was_called_first(parts: dict[str, Any]) -> None:
    with pytest.raises(AttributeError) as caught:
        parts["agent"]().fit(_call, None)
    said = failure(caught.value, ("pmlm_env", "agents", "tests"))
    assert said is not None
    assert said.startswith("the agent made_up_agent:Agent failed in fit (")


def test_values_that_a_class_or_pmlm_env_refuses_are_no_failure_of_the_class(parts: dict[str, Any]) -> None:
    assert _failure(lambda: parts["reward"](weight=-1.0)) is None
    assert _failure(lambda: parts["ours"]().score()) is None


def _call(function: Callable[..., Any], *arguments: Any) -> None:
    function(*arguments)
