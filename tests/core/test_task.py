from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pmlm_env.core
from pmlm_env import EditRules, EditTask
from tests.standins import HashEncoder, MarkedWordsReward, make_episodes, make_task

CORE = sorted(Path(pmlm_env.core.__file__).parent.glob("*.py"))


def test_it_is_its_parts_and_nothing_more() -> None:
    episodes, encoder = make_episodes(3), HashEncoder()
    reward, rules = MarkedWordsReward(episodes), EditRules(n_edits=2)
    task = EditTask(episodes, encoder, reward, rules, "index")
    assert vars(task) == {
        "episodes": episodes, "encoder": encoder, "reward": reward, "rules": rules, "observation": "index",
        "patient": "vector", "observed": slice(None),
    }  # fmt: skip


def test_without_a_number_of_slots_there_are_as_many_as_the_longest_prompt_has_words() -> None:
    assert [make_task(max_words=number).max_words for number in (None, 20)] == [12, 20]


def test_another_form_of_observation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"observation is 'pixels': use one of \('embeddings', 'index'\)"):
        make_task(observation="pixels")  # type: ignore[arg-type]


def test_it_judges_the_prompts_of_some_rows() -> None:
    task = make_task(n_edits=1)
    batch = task.batch(3)
    batch.load([0, 1, 2], [4, 1, 2])
    slot = next(slot for slot, word in enumerate(task.episodes[4].words) if "*" in word)
    batch.apply([slot, 0, 0])
    outcomes = task.judge(batch, np.array([0]))
    assert outcomes.delta.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_knows_neither_torch_nor_gymnasium_nor_models_nor_a_domain(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inside in ast.walk(node)
    }
    names = set()
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    assert not {name.partition(".")[0] for name in names} & {"torch", "gymnasium", "transformers", "agents"}
    ours = {name for name in names if name.startswith("pmlm_env")}
    assert {".".join(name.split(".")[:2]) for name in ours} <= {"pmlm_env.core", "pmlm_env.io"}


def test_envs_can_be_imported_and_lites_prompts_be_made_without_torch() -> None:
    code = (
        "import sys, pmlm_env.core.task, pmlm_env.envs.prompt_edit, pmlm_env.envs.wrappers\n"
        "from pmlm_env.envs.lite import lite_episodes\n"
        "lite_episodes({'train': 1})\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
