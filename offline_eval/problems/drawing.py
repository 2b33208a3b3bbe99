"""A picture of the maze: panels of paths around the bump, as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from offline_eval.problems.maze import GOAL, WALLS
from offline_eval.types import FloatArray

_UNIT, _GAP, _TITLE = 110.0, 24.0, 30.0
_SHADES = 6  # circles of the bump, each a little smaller and darker
_BUMP_RADIUS = 0.6
_COLUMNS = 2
_PATH = "#c22f2f"


def draw_paths(panels: Mapping[str, Sequence[FloatArray]], file: Path) -> Path:
    """Draw a panel for each name with its paths, the bump grey and the goal green.

    Args:
        panels: paths (num_steps + 1, 2) under their titles.
        file: where; its folder must exist.

    Returns:
        The file.
    """
    width, height = 2 * WALLS[0] * _UNIT, 2 * WALLS[1] * _UNIT
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = columns * (width + _GAP) + _GAP, rows * (height + _TITLE + _GAP) + _GAP
    about = {"xmlns": "http://www.w3.org/2000/svg", "font-family": "sans-serif", "font-size": "15"}
    picture = ElementTree.Element("svg", {**about, "viewBox": f"0 0 {size[0]:.0f} {size[1]:.0f}"})
    ElementTree.SubElement(picture, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    for number, (title, paths) in enumerate(panels.items()):
        left = _GAP + number % columns * (width + _GAP)
        top = _GAP + number // columns * (height + _TITLE + _GAP)
        panel = ElementTree.SubElement(picture, "g", {"transform": f"translate({left:.0f} {top:.0f})"})
        ElementTree.SubElement(panel, "text", {"y": "15"}).text = title
        plane = ElementTree.SubElement(panel, "g", {"transform": f"translate(0 {_TITLE:.0f})"})
        _draw_plane(plane, width, height)
        for path in paths:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(_place, path))
            words = {"points": points, "fill": "none", "stroke": _PATH, "stroke-opacity": "0.35"}
            ElementTree.SubElement(plane, "polyline", words)
    ElementTree.ElementTree(picture).write(file, encoding="utf-8", xml_declaration=True)
    return file


def _draw_plane(plane: ElementTree.Element, width: float, height: float) -> None:
    frame = {"width": f"{width:.0f}", "height": f"{height:.0f}", "fill": "#f7f7f5", "stroke": "#777777"}
    ElementTree.SubElement(plane, "rect", frame)
    for shade in range(_SHADES):
        radius = _BUMP_RADIUS * (1.0 - shade / _SHADES)
        _draw_circle(plane, (0.0, 0.0), radius, {"fill": "#444444", "fill-opacity": "0.12"})
    _draw_circle(plane, GOAL, 0.05, {"fill": "#28a046"})


def _draw_circle(plane: ElementTree.Element, centre: tuple[float, float], radius: float, words: dict[str, str]) -> None:
    x, y = _place(centre)
    place = {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius * _UNIT:.1f}"}
    ElementTree.SubElement(plane, "circle", {**place, **words})


def _place(point: Sequence[float] | FloatArray) -> tuple[float, float]:
    """Where a point of the plane lies in the picture; up is up."""
    return (float(point[0]) + WALLS[0]) * _UNIT, (WALLS[1] - float(point[1])) * _UNIT
