"""One resolver for everything that can be replaced: a built-in name, an installed plugin's name, or a Python class."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from reprlib import repr as shortened
from traceback import walk_tb
from types import FrameType
from typing import Any

#: The value of an entry point: a class may be inside another one, and extras may follow.
_ENTRY = re.compile(r"[\w.]+\s*:\s*[\w.]+\s*(\[.*\])?")

#: ``package.module:Class``.
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

#: Comparing names takes quadratic time.
_LONGEST_NAME = 100


def is_path(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:Class``."""
    return _PATH.fullmatch(name) is not None


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return " (did you mean dqn?)", or "" if none of the names is similar."""
    close = get_close_matches(name[:_LONGEST_NAME], names, 1)
    return f" (did you mean {close[0]}?)" if close else ""


class Registry:
    """The implementations of one replaceable part, such as the predictor.

    A name is looked up in this order:

    1. the names that are built in;
    2. the entry points of installed packages in ``group`` ("Entry points", packaging.python.org);
    3. ``package.module:Class``, imported from the installed packages or the current folder.

    Nothing is imported before it is asked for.

    Args:
        part: What is replaced, for messages: "predictor".
        group: The group of entry points: "pmlm.predictors".
        builtin: Built-in names, each with its "module:Class".
        methods: The methods that a class needs.
    """

    def __init__(self, part: str, group: str, builtin: Mapping[str, str], methods: Sequence[str] = ()) -> None:
        """Store the arguments."""
        self.part, self.group, self.builtin, self.methods = part, group, dict(builtin), tuple(methods)

    def names(self) -> tuple[str, ...]:
        """Return the built-in names and those of installed packages."""
        return (*self.builtin, *sorted(self._plugins().keys() - self.builtin.keys()))

    def knows(self, name: str) -> bool:
        """Whether ``name`` can be looked up: it is registered, or is a path."""
        return name in self.builtin or is_path(name) or name in self._plugins()

    def is_path(self, name: str) -> bool:
        """Whether ``find`` would import the module in ``name``: it is a path, and not a registered name."""
        return is_path(name) and name not in self.builtin and name not in self._plugins()

    def find(self, name: str, *, allow_import: bool = True) -> Any:
        """Return the class, or another callable, that ``name`` stands for.

        Args:
            name: A registered name, or ``package.module:Class``.
            allow_import: Whether a path may be imported. False for a name out of a file that may come from a
                stranger, such as a saved agent: such a file must not decide which code runs.

        Raises:
            ValueError: There is none, it cannot be imported, or it must not be; it lacks a method; or two packages
                have this name.
        """
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            return getattr(import_module(module), attribute)
        if plugins := self._plugins().get(name):
            if len({plugin.value for plugin in plugins}) > 1:
                owners = " and ".join(plugin.dist.name if plugin.dist else plugin.value for plugin in plugins)
                raise ValueError(
                    f"the packages {owners} each have a {self.part} {name}: uninstall one, or name its class"
                )
            if not _ENTRY.fullmatch(plugins[0].value.strip()):
                raise ValueError(
                    f"the {self.part} {name}: an installed package registers it as {shortened(plugins[0].value)}, "
                    "which is not module:Class: correct or uninstall the package"
                )
            return self._import(name, plugins[0].module, plugins[0].attr)
        if not is_path(name):
            names = self.names()
            raise ValueError(
                f"there is no {self.part} {shortened(name)}{did_you_mean(name, names)}: use {', '.join(names)}, or "
                "package.module:Class"
            )
        if not allow_import:
            raise ValueError(
                f"the {self.part} is {name}, which is code from outside pmlm-env: give --allow-import to run it, if "
                "you trust it"
            )
        module, _, attribute = name.partition(":")
        return self._import(name, module, attribute)

    def make(
        self,
        name: str,
        *arguments: Any,
        kwargs: Mapping[str, Any] | None = None,
        offered: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> Any:
        """Find a class and make an instance of it.

        Args:
            name: As for ``find``.
            arguments: Positional arguments, defined by the interface of the part.
            kwargs: The user's own keyword arguments.
            offered: Keyword arguments for a class that has a parameter of that name, unless ``kwargs`` has it.
            given: Further keyword arguments, defined by the interface of the part.

        Raises:
            ValueError: As for ``find``; or the class does not take these arguments.
        """
        known = _signature(self.find(name)).parameters
        kwargs = {key: value for key, value in (offered or {}).items() if key in known} | dict(kwargs or {})
        return self.check(name, *arguments, kwargs=kwargs, **given)(*arguments, **given, **kwargs)

    def check(self, name: str, *arguments: Any, kwargs: Mapping[str, Any] | None = None, **given: Any) -> Any:
        """Find a class and check that it takes these arguments; see ``make``.

        Returns:
            The class.

        Raises:
            ValueError: As for ``make``.
        """
        found = self.find(name)
        kwargs = dict(kwargs or {})
        if repeated := sorted(kwargs.keys() & given.keys()):
            raise ValueError(f"the {self.part} {name} gets {repeated[0]} from elsewhere: leave it out of its arguments")
        try:
            _signature(found).bind(*arguments, **given, **kwargs)
        except TypeError as error:
            raise ValueError(f"the {self.part} {name} does not take these arguments: {error}") from None
        return found

    def _plugins(self) -> dict[str, list[EntryPoint]]:
        """Return the entry points by name."""
        found: dict[str, list[EntryPoint]] = {}
        for each in entry_points(group=self.group):
            found.setdefault(each.name, []).append(each)
        return found

    def _import(self, name: str, module: str, attribute: str) -> Any:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())  # last, so that a file there cannot replace an installed package
        try:
            found: Any = import_module(module)
            for part in attribute.split("."):  # an entry point may name a class inside another one
                found = getattr(found, part, None)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{self.part} {name}: there is no module {error.name}: install it, or put its folder on PYTHONPATH"
            ) from error
        except (Exception, SystemExit) as error:  # a script may end with sys.exit
            why = " ".join(str(error).split())
            raise ValueError(f"{self.part} {name}: importing {module} failed: {type(error).__name__}: {why}") from error
        if not callable(found):
            raise ValueError(f"{self.part} {name}: {module} has no class {attribute}")
        lacking = [method for method in self.methods if not callable(getattr(found, method, None))]
        if lacking := lacking or sorted(getattr(found, "__abstractmethods__", ())):
            raise ValueError(f"the {self.part} {name} lacks {', '.join(lacking)}: see docs/write-your-own.md")
        OUTSIDE.append((f"the {self.part} {name}", found))
        return found


#: Methods that raise a ``ValueError`` with a message for the user; the last two are those of experiments.
_REFUSING = ("__init__", "__post_init__", "load", "cells", "run")

#: Classes and functions from outside pmlm-env that were found, each with its description.
OUTSIDE: list[tuple[str, Any]] = []


def failed_part(error: BaseException, ours: Collection[str]) -> str | None:
    """Say which class or function from outside pmlm-env an error came from, with the method and the line.

    Of several that called each other, such as an agent whose prompts a reward scores, it is the one called last.

    Args:
        error: The error, with its traceback.
        ours: The top-level packages that are not outside.

    Returns:
        Such as "the reward mine:Mine failed in score (/home/me/mine.py, line 12)"; None if it came from elsewhere.
    """
    place = _place(error, ours)
    return None if place is None else place[0]


def _place(error: BaseException, ours: Collection[str]) -> tuple[str, str] | None:
    """Return what ``failed_part`` says, and the name of the method."""
    found: tuple[str, str] | None = None
    blamed = ""
    for frame, line in walk_tb(error.__traceback__):
        if _is_ours(frame, ours):
            continue  # which such a class may inherit
        code, module = frame.f_code, frame.f_globals.get("__name__")
        owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
        by_owner = [name for name, part in OUTSIDE if owner is part or type(owner) is part]
        by_module = [name for name, part in OUTSIDE if module == getattr(part, "__module__", None)]
        names = by_owner or by_module
        if names and blamed not in names:
            blamed = names[-1]
            found = f"{blamed} failed in {code.co_name} ({code.co_filename}, line {line})", code.co_name
    return found


def failure(error: BaseException, ours: Collection[str]) -> str | None:
    """Describe an error of a class from outside pmlm-env, in one line.

    Args:
        error: The error, with its traceback.
        ours: The top-level packages that are not outside.

    Returns:
        None for other errors, and for those that say what to do: pmlm-env's own, and a ``ValueError`` by which a class
        refuses its settings, what it is to load, or an experiment a run.
    """
    explained = type(error).__module__.partition(".")[0] in ours or isinstance(error, OSError)  # such as LLMError
    place = None if explained else _place(error, ours)
    if place is None or (isinstance(error, ValueError) and (place[1] in _REFUSING or _raised_by(error, ours))):
        return None
    why = " ".join(str(error).split())
    return f"{place[0]}: {type(error).__name__}{': ' if why else ''}{why}"


def _raised_by(error: BaseException, ours: Collection[str]) -> bool:
    """Whether an error was raised in one of some packages."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and _is_ours(frames[-1], ours)


def _is_ours(frame: FrameType, ours: Collection[str]) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in ours


def _signature(found: Any) -> inspect.Signature:
    try:
        return inspect.signature(found)
    except ValueError:  # some classes written in C have none: any arguments may do
        return inspect.signature(lambda *_, **__: None)
