"""``--config FILE``: overridden by the command line, overrides the defaults."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.cli.main import COMMANDS, main
from agents.registry import settings_of
from agents.run_folder import RunFolder
from agents.training.config import TrainConfig
from tests.commands import pmlm

Read = Callable[..., Any]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Runs a command whose work is left out, with a file of this text, and returns the settings that it was given."""
    monkeypatch.chdir(tmp_path)

    def reading(command: str, text: str, *arguments: str) -> Any:
        found: list[Any] = []
        monkeypatch.setattr(f"agents.cli.{command}.run", lambda config: found.append(config) or 0)
        Path("settings.toml").write_text(text, encoding="utf-8")
        assert pmlm(command, *arguments, "--config", "settings.toml") == 0
        return found[0]

    return reading


def test_the_command_line_stands_above_the_file_and_the_file_above_the_defaults(read: Read) -> None:
    text = 'budget = 300\nseed = 7\n[models]\nllm = "responder"\nn-edits = 4\n[calls]\nmax_llm_calls = 50\n'
    config = read("train", text, "--seed", "9", "--n-edits", "5")
    assert (config.seed, config.budget, config.episodes) == (9, 300, TrainConfig.episodes)
    assert (config.models.llm, config.models.n_edits, config.models.encoder) == ("responder", 5, "minilm")
    assert config.calls.max_llm_calls == 50


@pytest.mark.parametrize("value", [1, 1.0, 0.2])
def test_the_edit_budget_is_a_number_of_words_or_a_share_by_its_decimal_point(read: Read, value: float) -> None:
    for config in (read("train", f"n-edits = {value}"), read("train", "", "--n-edits", str(value))):
        assert repr(config.models.n_edits) == repr(value)


def test_names_are_those_of_the_command_line_and_need_no_table(read: Read) -> None:
    config = read("train", 'n-edits = 4\nmax-cost = 2\nprotect = ["self", "digits"]\ndropout = 0.5\nrun = "there"\n')
    assert (config.models.n_edits, config.calls.max_cost, config.models.protect) == (4, 2.0, ("self", "digits"))
    assert (config.settings.dropout, config.run) == (0.5, Path("there"))


def test_what_a_command_cannot_do_without_may_stand_in_the_file(read: Read) -> None:
    assert read("simulate", 'out = "there"\npatients = 5\n').out == Path("there")
    assert read("cache", 'path = "run"\n', "stats").path == "run"
    config = read("prepare", 'template = "short"\n[files]\ncohort = "mine"\n')
    assert (config.files.cohort, config.pipeline.template) == (Path("mine"), "short")
    assert read("prepare", 'template = "short"\n', "--cohort", "mine").files.cohort == Path("mine")


def test_a_date_needs_no_quotes(read: Read) -> None:
    config = read("prepare", 'cohort = "mine"\ntrain-until = 2020-02-08\n')
    assert config.pipeline.train_until == "2020-02-08"


def test_the_home_folder_may_be_written_as_in_a_shell(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read("train", 'run = "~/r"\n').run == Path("/home/me/r")


#: Commands that need something on the command line, or have subcommands.
_OTHERS = {"simulate", "prepare", "schema", "cache", "prefill", "experiment"}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - _OTHERS))
def test_every_command_takes_a_file(command: str, read: Read) -> None:
    assert read(command, "") == read(command, "# nothing but a remark\n")


def test_commands_with_subcommands_take_a_file_after_them(read: Read) -> None:
    config = read("prefill", 'agent = "reinforce"\nrandom = 2\n[settings]\nhidden = 128\n', "train")
    assert (config.agent, config.settings.hidden, config.random) == ("reinforce", 128, 2)
    assert read("prefill", 'run = "there"\nbatch = 7\n', "evaluate").batch == 7


def test_an_agent_in_the_file_brings_its_own_defaults(read: Read) -> None:
    config = read("train", 'agent = "reinforce"\n[settings]\nhidden = 128\n')
    usual = settings_of("reinforce")
    assert (config.settings.hidden, config.settings.baseline, config.settings.dropout) == (128, "none", usual.dropout)
    assert read("train", 'agent = "lexicon"\nstep = 5.0\n').settings.step == 5.0


def test_an_agent_of_the_command_line_stands_above_the_files(read: Read) -> None:
    assert read("train", 'agent = "reinforce"\n', "--agent", "lexicon").agent == "lexicon"


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, *arguments: str, name: str = "s.toml"
) -> str:
    """What is said of a file that is refused: one line that begins with its name."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main("train", ["--config", str(tmp_path / name), *arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1
    head, _, rest = said.partition(f"{tmp_path / name}")
    assert head in ("pmlm train: ", "pmlm train: cannot read ")
    return rest.removeprefix(": ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n_edit = 3", "there is no setting 'n_edit': did you mean n_edits?"),
        ("pancakes = 3", "there is no setting 'pancakes': --help lists the settings there are"),
        ("[models]\nlm = 'x'", "there is no setting 'models.lm': did you mean models.llm?"),
        ("[calls]\npancakes = 1", "there is no setting 'calls.pancakes': use some of calls.max_llm_calls, "),
        ("budget = 'many'", "budget is 'many': use a whole number"),
        ("budget = 1.5", "budget is 1.5: use a whole number"),
        ("seed = true", "seed is True: use a whole number"),
        ("n-edits = [3]", "models.n_edits is [3]: use a whole number, or a share such as 0.2"),
        ("n-edits = '20%'", "models.n_edits is '20%': use a whole number, or a share such as 0.2"),
        ("n-edits = 1.5", "n_edits is 1.5: use a whole number, 0 or more, or a share of the prompt's words"),
        ("protect = 'self'", "models.protect is 'self': use a list"),
        ("protect = ['self', 3]", "models.protect[1] is 3: use text"),
        ("protect = ['names']", "protect names 'names': use some of ('background', 'self', "),
        ("models = 'minilm'", "models is 'minilm': use a table"),
        ("n-edits = 3\n[[models]]\nllm = 'x'", "models is [{'llm': 'x'}]: use a table, [models]"),
        ("long-texts = 'fold'", "models.long_texts is 'fold': use one of cut, chunks"),
        ("dropout = 1.0", "dropout is 1.0: use a number from 0 to below 1"),
        ("budget = 0", "budget is 0: use a whole number from 1 to 10,000,000"),
        ("n-edits = 3\nn_edits = 4", "n_edits occurs twice, with - and with _: leave one out"),
        ("n-edits = 3\n[models]\nn-edits = 4", "n_edits is both in [models] and outside it: leave one out"),
        ("agent = 'lexikon'", "there is no agent 'lexikon' (did you mean lexicon?): use lexicon, "),
        ("agent = 'lexicon'\ndropout = 0.5", "there is no setting 'dropout'"),
        ("agent = 3", "there is no agent '3': use lexicon"),
        ("seed = ", " is not TOML: "),
        ("seed = nan", "'seed' is nan, which is not allowed"),
        ("seed = 3\n" * 6_000, " is larger than 50,000 bytes"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(tmp_path, capsys, text)


def test_a_key_in_a_file_is_refused_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = "sk-" + "a1B2" * 8
    for text in (f"llm = 'openai:{secret}'", f"api_key = '{secret}'", f"[models]\nproviders = ['{secret}']"):
        said = refused(tmp_path, capsys, text)
        assert "contains what looks like a key: put that into the environment" in said
        assert secret not in said


def test_the_settings_of_one_agent_are_not_given_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path, capsys, "agent = 'reinforce'\n[settings]\nhidden = 128\n", "--agent", "leave-one-out")
    assert " has settings of reinforce: leave out --agent leave-one-out, or [settings] in the file" in said


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("doctor", "--config", tmp_path / "none.toml") == 2
    assert capsys.readouterr().err == f"pmlm doctor: cannot read {tmp_path / 'none.toml'}: No such file or directory\n"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of the lexicon that was begun, its episodes beside it."""
    (tmp_path / "all" / "prepared").mkdir(parents=True)
    folder = RunFolder(tmp_path / "all" / "runs" / "x")
    folder.path.mkdir(parents=True)
    config = TrainConfig(tmp_path / "all" / "prepared", folder.path, "lexicon", settings_of("lexicon"), 300, seed=5)
    folder.start(config, "the LLM", "the episodes")
    return folder


def read_back(run: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> TrainConfig:
    found: list[TrainConfig] = []
    monkeypatch.setattr("agents.cli.train.run", lambda config: found.append(config) or 0)
    assert pmlm("train", "--config", run / "config.json", *arguments) == 0
    return found[0]


def test_a_runs_settings_can_be_fed_back(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_back(run.path, monkeypatch, "--run", "another", "--seed", "6")
    assert config.run == Path("another")
    assert (config.agent, config.budget, config.seed, config.resume) == ("lexicon", 300, 6, False)
    assert config.settings == settings_of("lexicon")
    assert config.episodes == tmp_path / "all" / "prepared"


def test_a_runs_paths_are_relative_to_it(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tmp_path / "all", tmp_path / "copy")
    shutil.rmtree(tmp_path / "all")
    assert read_back(tmp_path / "copy" / "runs" / "x", monkeypatch).episodes == tmp_path / "copy" / "prepared"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is damaged: it is not JSON"),
        ('{"settings": 3}', "is damaged, or was not written by this version of pmlm-env"),
        ("[" * 100_000, "is damaged: it is not JSON"),
    ],
)
def test_a_damaged_config_of_a_run_is_one_line(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(tmp_path, capsys, content, name="config.json")


def test_another_json_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path, capsys, "{}", name="tuned.json")
    assert " is not a TOML file: name one, or the config.json in a run folder" in said


def test_a_setting_of_an_older_version_is_named(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((run.path / "config.json").read_text())
    content["settings"]["settings"]["updates"] = 3
    assert "there is no setting 'settings.updates'" in refused(
        tmp_path, capsys, json.dumps(content), name="config.json"
    )


def test_a_run_that_goes_on_takes_its_own_settings_then_the_files(run: RunFolder, read: Read) -> None:
    config = read("train", "max-llm-calls = 9\n", "--run", str(run.path), "--resume")
    assert (config.agent, config.seed, config.budget, config.calls.max_llm_calls) == ("lexicon", 5, 300, 9)
    assert config.resume


def test_a_run_that_goes_on_keeps_its_agent(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert pmlm("train", "--run", run.path, "--resume", "--agent", "reinforce") == 2
    said = capsys.readouterr().err
    assert said == (
        f"pmlm train: {run.path} is a run of lexicon: leave out --agent reinforce, or choose another --run\n"
    )


DOCS = (Path(__file__).parents[3] / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_file_in_the_docs_is_accepted(read: Read) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    config = read("train", text, "--seed", "1")
    assert (config.settings.hidden, config.models.n_edits, config.calls.max_llm_calls, config.seed) == (128, 5, 2000, 1)


def test_the_errors_in_the_docs_are_those_that_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^  (pmlm train: train.toml: .*)$", DOCS, re.MULTILINE)
    for text, line in zip(["[models]\nn-edit = 3", 'budget = "many"'], lines, strict=True):
        Path("train.toml").write_text(text)
        with pytest.raises(SystemExit):
            main("train", ["--config", "train.toml"])
        assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("command", "option", "value", "kind"),
    [("train", "--budget", "many", "whole number"), ("benchmark", "--seeds", "2.5", "whole number"),
     ("train", "--learning-rate", "1,5", "number")],
)  # fmt: skip
def test_what_is_no_number_is_named_in_plain_words(
    command: str, option: str, value: str, kind: str, capsys: Any
) -> None:
    assert pmlm(command, option, value) == 2
    assert f"Error parsing {option}: {value!r} is not a {kind}" in capsys.readouterr().err
