"""Read a command's settings from its options, from ``--config FILE``, and from the run that it resumes."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import MISSING, fields, is_dataclass, replace
from io import StringIO
from pathlib import Path
from traceback import walk_tb
from typing import Any, Protocol, TypeVar, get_type_hints

import tyro

from agents.cli.config_file import arranged, read_config_file
from agents.cli.terminal import printable_output
from agents.settings import from_plain
from agents.training.config import with_agent_settings
from pmlm_env.kwargs import Kwargs

Config = TypeVar("Config")

#: Appended to the help of every command.
_ABOUT_FILE = "--config FILE.toml reads options from a file; those on the command line take precedence."


class Saved(Protocol):
    """Reads the settings of the run in a folder; for commands with ``--resume``."""

    def __call__(self, run: Path, allow_import: bool) -> Any:
        """Read them; ``allow_import`` says whether they may name classes as ``package.module:Class``."""


def read(command: str, kind: Any, arguments: Sequence[str], saved: Saved | None = None) -> Any:
    """Read a command's settings.

    Precedence, highest first: options, the ``--config`` file, the settings of the resumed run, the defaults.
    ``--agent``, ``--config`` and ``--resume`` determine which other options exist and what their defaults are, so they
    are read before tyro parses the command line.

    Args:
        command: Name of the command.
        kind: The dataclass of its settings; for a command with subcommands, such as ``cache``, a mapping from each
            subcommand's name to its dataclass.
        arguments: The command line after the command's name.
        saved: For a command with ``--resume``, a function that reads the settings of the run in a folder.

    Returns:
        An instance of ``kind``; if it has ``agent`` and ``settings``, with that agent's own settings.

    Raises:
        ValueError: A setting in the file is unknown or not allowed, or settings are incompatible.
        SystemExit: Help was requested, or tyro rejected an option or its value.
    """
    if isinstance(kind, Mapping):
        part = _part(command, kind, arguments)
        return read(f"{command} {part}", kind[part], arguments[1:])
    arguments, name = _without(arguments, "--config")
    file = None if name is None else Path(os.path.expanduser(name))
    content = {} if file is None else read_config_file(file)
    resumed = None
    if saved is not None and _is_on("resume", arguments, content) and not {"-h", "--help"} & {*arguments}:
        run = _given(arguments, "--run") or content.get("run") or _default_of(kind, "run")
        resumed = saved(Path(os.path.expanduser(str(run))), _is_on("allow-import", arguments, content))
    if {"agent", "settings"} <= {each.name for each in fields(kind)}:
        kind = _of_agent(kind, arguments, file, content, resumed)
    with _naming(file):
        default = from_plain(kind, arranged(kind, content), _defaults(kind) if resumed is None else resumed)
    return _at_home(_parse(command, kind, arguments, default))


def _part(command: str, kinds: Mapping[str, Any], arguments: Sequence[str]) -> str:
    """Return the subcommand to run; if help is requested, print all subcommands and exit."""
    if not arguments or arguments[0] in ("-h", "--help"):
        usage = f"usage: pmlm {command} {{{','.join(kinds)}}} [OPTIONS]; --help after the name shows the options\n"
        about = (f"  {name:10} {_about(kind).splitlines()[0]}" for name, kind in kinds.items())
        print("\n".join([usage, *about]))
        sys.exit(0 if arguments else 2)
    if arguments[0] not in kinds:
        raise ValueError(f"there is no {arguments[0]!r}: use one of {', '.join(kinds)}")
    return arguments[0]


def _of_agent(kind: type, arguments: Sequence[str], file: Path | None, content: dict[str, Any], resumed: Any) -> type:
    """Return ``kind`` with the settings of the chosen agent, and put the agent's name into ``content``.

    Raises:
        ValueError: The agent is unknown, or the resumed run or the file's settings belong to another agent.
    """
    option, in_file = _given(arguments, "--agent"), content.get("agent")
    agent = str(option or in_file or (_default_of(kind, "agent") if resumed is None else resumed.agent))
    if resumed is not None and agent != resumed.agent:
        raise ValueError(
            f"{resumed.run} is a run of {resumed.agent}: leave out --agent {agent}, or choose another --run"
        )
    if in_file not in (None, agent) and "settings" in content:
        raise ValueError(f"{file} has settings of {in_file}: leave out --agent {agent}, or [settings] in the file")
    with _naming(file if option is None and in_file is not None else None):
        content["agent"] = agent
        return with_agent_settings(kind, agent)


@contextmanager
def _naming(file: Path | None) -> Iterator[None]:
    """Prefix error messages about settings with the name of the file that they come from."""
    try:
        yield
    except ValueError as error:
        raise error if file is None else ValueError(f"{file}: {error}") from None


def _is_on(flag: str, arguments: Sequence[str], content: Mapping[str, Any]) -> bool:
    """Return whether a flag such as "resume" is set by an option, or else by the settings file."""
    words = (word.replace("_", "-") for word in arguments)  # as tyro reads them
    given = [word for word in words if word in (f"--{flag}", f"--no-{flag}")]
    return given[-1] == f"--{flag}" if given else content.get(flag.replace("-", "_")) is True


def _default_of(kind: type, name: str) -> Any:
    """Return the default of a dataclass field."""
    return next(each.default for each in fields(kind) if each.name == name)


def _defaults(kind: Any) -> Any:
    """Return an instance of a dataclass with its defaults, and ``tyro.MISSING`` for fields without a default."""
    kinds = get_type_hints(kind)
    needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    return kind(**{name: _defaults(kinds[name]) if is_dataclass(kinds[name]) else tyro.MISSING for name in needed})


#: How tyro reads types of ours: put calls of ``tyro.cli`` with such options into ``with CONSTRUCTORS:``.
CONSTRUCTORS = tyro.constructors.ConstructorRegistry()


@CONSTRUCTORS.primitive_rule
def _kwargs_option(option: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Take ``Kwargs`` as one JSON text; the dataclass reads it, so that an error is that of a check."""
    if option.type is not Kwargs:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, Kwargs),
        str_from_instance=lambda value: [value.json],
    )


@CONSTRUCTORS.primitive_rule
def _share_option(option: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Take a number, whole or not, or a text: the dataclass checks it, so that an error is that of a check."""
    if option.type != int | float:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|SHARE",
        instance_from_str=lambda words: _number(words[0]),
        is_instance=lambda value: isinstance(value, int | float),
        str_from_instance=lambda value: [str(value)],
    )


@CONSTRUCTORS.primitive_rule
def _number_option(option: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Take a number, as tyro does, with an error in plain words."""
    if option.type not in (int, float):
        return None
    kind = option.type

    def read(words: list[str]) -> int | float:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"{words[0]!r} is not a {'whole ' if kind is int else ''}number") from None

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, int if kind is int else int | float),
        str_from_instance=lambda value: [str(value)],
    )


def _number(text: str) -> int | float | str:
    """Return the number that a text says; the text itself if it says none."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


@printable_output(bars=False)  # disables colors, which some versions of tyro write to standard error too
def _parse(command: str, kind: type[Config], arguments: Sequence[str], default: Config) -> Config:
    """Parse a command line with tyro; errors from a dataclass's own checks are raised without tyro's formatting."""
    said = StringIO()
    try:
        with redirect_stderr(said), CONSTRUCTORS:
            return tyro.cli(
                kind,
                prog=f"pmlm {command}",
                description=f"{_about(kind)}\n\n{_ABOUT_FILE}",
                args=list(arguments),
                default=default,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as end:
        error = end.__context__
        while error is not None:
            if isinstance(error, ValueError) and _is_of_check(error):
                raise ValueError(str(error)) from None
            error = error.__context__
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _about(kind: type) -> str:
    """Return a dataclass's docstring up to its attributes."""
    return (inspect.getdoc(kind) or "").partition("Attributes:")[0].strip()


def _is_of_check(error: ValueError) -> bool:
    """Return whether an error was raised by a dataclass's check rather than by tyro's parsing of a value."""
    return any(frame.f_code.co_name == "__post_init__" for frame, _ in walk_tb(error.__traceback__))


def _at_home(config: Config) -> Config:
    """Expand a leading "~" to the home folder, because shells do not expand it in ``--run=~/r``."""
    changes: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if is_dataclass(value):
            changes[each.name] = _at_home(value)
        elif isinstance(value, Path) or (isinstance(value, str) and value.startswith("~/")):
            changes[each.name] = type(value)(os.path.expanduser(value))
    return replace(config, **changes)  # type: ignore[type-var]


def _given(arguments: Sequence[str], option: str) -> str | None:
    """Return the last value given for an option; None if it is not given."""
    return _without(arguments, option)[1]


def _without(arguments: Sequence[str], option: str) -> tuple[list[str], str | None]:
    """Return a command line without an option, and the option's last value; None if it is not given.

    Raises:
        ValueError: The option has no value.
    """
    rest: list[str] = []
    value = None
    words = iter(arguments)
    for word in words:
        name, equals, text = word.partition("=")
        if name != option:
            rest.append(word)
            continue
        value = text if equals else next(words, "")
        if not value:
            raise ValueError(f"{option} needs a value: see --help")
    return rest, value
