"""HTML and SVG as a tree of elements: text is escaped when it is written, whoever it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

Node = Element | str | None
"""What may stand inside an element; None stands for nothing."""


def tag(name: str, /, *children: Node, **attributes: object) -> Element:
    """An element with what is inside it.

    `tag("p", "see ", tag("b", "this"), class_="note")` is `<p class="note">see <b>this</b></p>`.

    Args:
        name: of the element.
        children: elements and plain text, in their order.
        attributes: `_` stands for `-`, one at the end is dropped (`class_`); None leaves the attribute out.
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), _shown(value))
    return fill(element, children)


def fill(element: Element, children: Iterable[Node]) -> Element:
    """Put elements and text at the end of an element, which is returned."""
    for child in children:
        if isinstance(child, Element):
            element.append(child)
        elif child and len(element):
            element[-1].tail = (element[-1].tail or "") + child
        elif child:
            element.text = (element.text or "") + child
    return element


def render(element: Element) -> str:
    """An element and all inside it as HTML."""
    return tostring(element, encoding="unicode", method="html")


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
