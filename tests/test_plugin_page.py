"""docs/write-your-own.md shows the example package as it is, which uses only what is public."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin_options import COMMANDS, NAMES, PAGE, PLUGIN, PYTHON, ROOT


@pytest.mark.parametrize("file", [*sorted((PLUGIN / "example_parts").glob("[!_]*.*")), PLUGIN / "pyproject.toml"])
def test_the_page_shows_each_file_as_it_is(file: Path) -> None:
    assert f"\n{file.read_text(encoding='utf-8')}```\n" in PAGE


def test_the_package_needs_no_private_name_of_ours() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (PLUGIN / "example_parts").glob("*.py"))
    imports = re.findall(r"^from (?:agents|pmlm_env)\S* import .*", code, re.MULTILINE)
    assert len(imports) > 10
    assert not [line for line in imports if re.search(r"[ .]_", line)]


def test_our_packages_do_not_mention_it() -> None:
    for file in [*(ROOT / "pmlm_env").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]:
        assert not re.search("example.parts", file.read_text(encoding="utf-8")), file


def test_the_page_has_a_command_and_a_line_of_python_for_each_part() -> None:
    for option, name in NAMES.items():
        assert any(f"{option} {name}" in line for line in COMMANDS), option
        assert any(f'"{name}"' in line for line in PYTHON), option
