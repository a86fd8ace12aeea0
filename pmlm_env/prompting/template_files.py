"""Reading template files: one part per line, ``role: text``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from reprlib import repr as shortened
from typing import cast, get_args

from pmlm_env.cohort.schema import Schema
from pmlm_env.core.languages import primary
from pmlm_env.core.words import Role
from pmlm_env.io.text import printable
from pmlm_env.registry import did_you_mean

#: What stands for a line break in the text of a part.
BREAK = "\\n"

#: Limit on the bytes of a template: more than small LLMs read.
_MOST_BYTES = 2**16


def read_template(template: str | Path, schema: Schema, names: Sequence[str], option: str = "--template") -> str:
    """Return the text of a template.

    Args:
        template: One of ``names``, or the path of a file.
        schema: Chooses a built-in template by its language and its family of templates.
        names: The built-in templates to choose from.
        option: The option that takes a file, for messages.

    Raises:
        ValueError: The template does not exist, or not in the schema's language, or is too large.
    """
    if template in names:
        return _built_in(str(template), schema, option)
    path = Path(template)
    try:
        if path.exists() and not path.is_file():  # reading a pipe or device might never end
            raise ValueError(f"template {template} is not a file: use {', '.join(names)} or a file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(
                f"template {template} is larger than {_MOST_BYTES // 2**10} KiB: this is too long for an LLM"
            )
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"template {template} is not UTF-8 text") from None
    except OSError as error:
        if path.exists():
            raise ValueError(f"template {template} cannot be read: {error.strerror}") from None
        name = str(template)
        raise ValueError(
            f"there is no template {name!r}{did_you_mean(name, names)}: use {', '.join(names)} or a file"
        ) from None


def _built_in(name: str, schema: Schema, option: str) -> str:
    language = primary(schema.language)  # the templates of "en" serve "en-US" too
    there = {
        (folder.name, family.name): family
        for folder in (resources.files(__package__) / "templates").iterdir()
        for family in folder.iterdir()
    }
    if language not in {folder for folder, _ in there}:
        raise ValueError(
            f"there are no built-in templates in the schema's language, {schema.language!r}: give your own template "
            f"file ({option})"
        )
    if (language, schema.templates) not in there:
        families = ", ".join(sorted(family for folder, family in there if folder == language))
        raise ValueError(
            f"the schema's templates are {schema.templates!r}, which are not built in: use {families}, or give your "
            f"own template file ({option})"
        )
    return (there[language, schema.templates] / f"{name}.txt").read_text(encoding="utf-8")


def parse(text: str, name: str, check_fields: Callable[[str, str], None]) -> tuple[tuple[Role, str], ...]:
    """Return the role and the text of each part of a template.

    Args:
        text: The template: a part per line, ``role: text``. Lines that start with ``#`` are comments.
        name: Its name, for messages.
        check_fields: Raises a ValueError if a part has a field that cannot be filled, given the part's text and where
            it is.

    Raises:
        ValueError: A line has an unknown role, a field that cannot be filled, or an invisible character.
    """
    parts = []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        where = f"template {name}, line {number}"
        if (seen := printable(line)) != line:
            raise ValueError(f"{where}: {shortened(seen)} contains an invisible character, shown here as an escape")
        if not line.strip() or line.startswith("#"):
            continue
        role, colon, rest = line.partition(":")
        if not colon or role.strip() not in get_args(Role):
            raise ValueError(f"{where}: {shortened(line)} must begin with one of {get_args(Role)} and a colon")
        if not rest.strip():
            raise ValueError(f"{where}: there is no text after {role.strip()}:")
        check_fields(rest, where)
        parts.append((cast(Role, role.strip()), rest.strip()))
    if not parts:
        raise ValueError(f"template {name} has no parts: write lines such as 'instruction: Write a discharge note.'")
    return tuple(parts)
