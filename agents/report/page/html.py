"""HTML pages in one file: style, script, figures and data are inside, and no request leaves the page."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).parent / "templates"

#: The parts of the script, in the order in which they need one another.
_SCRIPTS = ("elements.js", "page.js", "model.js", "detail.js", "patients.js")

#: What a page may load: the one script of this package, styles and pictures that are inside, and nothing else.
_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)


def page(template: str, **content: Any) -> str:
    """Fill a template; texts are escaped.

    Args:
        template: A file in ``templates``.
        content: The template's variables; those whose names end in ``_svg`` come from ``svg.inline``.
    """
    script = "".join(map(_file, _SCRIPTS))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = _POLICY.format(script=f"sha256-{digest}")
    style = Markup(_file("page.css"))
    return _environment().get_template(template).render(policy=policy, style=style, script=Markup(script), **content)


def embedded(value: Any) -> Markup:
    """Return a JSON value for a script element: no text in it can end the element, whatever it is."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
