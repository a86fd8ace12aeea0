"""Figures of matplotlib as part of a page, in the page's colors and font."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

#: The elements and attributes that figures are made of; all others are left out.
_ELEMENTS = {"svg", "g", "path", "use", "defs", "clipPath", "rect", "text", "tspan", "image"}
_ATTRIBUTES = {
    *("id", "d", "x", "y", "width", "height", "viewBox", "transform", "clip-path", "style", "href"),
    *("preserveAspectRatio",),
}

#: The page's names of the figures' colors: those of ``agents.report.figures``, black and white.
_COLORS = {
    "#000000": "currentColor",
    "#ffffff": "none",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--orange)",
    "#009e73": "var(--green)",
    "#999999": "var(--grey)",
}
_COLOR = re.compile("|".join(_COLORS))
_FONT = re.compile(r"'DejaVu Sans'(, [^;]*)?")
_REFERENCE = re.compile(r"url\(#")
_NOT_IN_IDS = re.compile(r"[^\w.-]")  # they would end a reference


def inline(figure: str, name: str, title: str) -> Markup:
    """Return a figure as an element of a page; it is safe whoever made the file.

    Args:
        figure: The content of an SVG file of matplotlib.
        name: Unique in the page: it begins the figure's ids.
        title: What it shows, for people who cannot see it.

    Raises:
        ValueError: It is no SVG.
    """
    try:
        root = ElementTree.fromstring(figure)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    _clean(root, _NOT_IN_IDS.sub("-", name))
    root.attrib |= {"class": "plot", "role": "img", "aria-label": title}
    for size in ("width", "height"):
        root.attrib.pop(size, None)  # the page's style decides; viewBox has the shape
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, name: str) -> None:
    """Remove namespaces, unknown parts and references to elsewhere, and give colors and ids the page's names."""
    element.tag = _local(element.tag)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    element.attrib.clear()
    for key, value in attributes.items():
        if key not in _ATTRIBUTES:
            continue
        if key == "href" and not value.startswith(("#", "data:image/png;base64,")):
            continue
        if key == "id":
            value = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            value = f"#{name}-{value[1:]}"
        elif key == "style":
            value = _FONT.sub("var(--font)", _COLOR.sub(lambda found: _COLORS[found[0]], value))
        element.attrib[key] = _REFERENCE.sub(f"url(#{name}-", value)
    for child in list(element):
        if isinstance(child.tag, str) and _local(child.tag) in _ELEMENTS:
            _clean(child, name)
        else:
            element.remove(child)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
