"""The documentation site: `tox run -e docs` builds it from the installed wheel, with warnings as errors."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from typing import Any

import offline_eval

project = "offline-eval"
copyright = "the offline-eval contributors"  # Sphinx asks for this name
version = release = offline_eval.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["build"]
html_theme = "furo"
html_title = f"offline-eval {version}"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
napoleon_google_docstring, napoleon_numpy_docstring, napoleon_use_ivar = True, False, True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
add_module_names = False
default_role = "code"  # docstrings write code between single backticks
os.environ["COLUMNS"] = "80"  # argparse folds its help to the terminal


ROOMS = [
    "episodes",
    "diagnosis",
    "measurement",
    "steering",
    "training",
    "wrappers",
    "policies",
    "datasets",
    "diagnostics",
    "stats",
    "testing",
]
"""Packages with a page of their own."""


def reference_of(module: str) -> list[str]:
    """A directive for every public name of a module; at the top a line for what a room documents."""
    rooms = [] if module in map("offline_eval.{}".format, ROOMS) else [f"offline_eval.{room}" for room in ROOMS]
    lines: list[str] = []
    for name in public(module):
        value = getattr(import_module(module), name)
        home = next((room for room in rooms if name in public(room)), None)
        if home is None:
            directive = "autoclass" if isinstance(value, type) else "autofunction" if callable(value) else "py:data"
            lines += [f".. {directive}:: {module}.{name}", ""]
        else:
            lines += [f":py:obj:`{name} <{home}.{name}>`", f"    {str(value.__doc__).splitlines()[0]}", ""]
    return lines


def public(module: str) -> list[str]:
    """The public names of a module."""
    return [name for name in import_module(module).__all__ if not name.startswith("__")]


def helps(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """The help of a command, and of its own commands, as MyST."""
    own = [f"## {name}", "", "```text", *parser.format_help().splitlines(), "```", ""]
    return [*own, *(line for inner, child in commands(parser) for line in helps(f"{name} {inner}", child))]


def commands(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser, by name."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [item for action in actions for item in action.choices.items()]


def fill(app: Any, page: str, source: list[str]) -> None:
    """Write the reference from the code itself: `{{ names of MODULE }}` and `{{ commands }}` in a page."""
    if "{{ names of " in source[0]:
        before, _, rest = source[0].partition("{{ names of ")
        module, _, after = rest.partition(" }}")
        source[0] = "\n".join([before, "```{eval-rst}", *reference_of(module), "```", after])
    if "{{ commands }}" in source[0]:
        from offline_eval.cli import build_parser

        sections = [line for name, parser in commands(build_parser()) for line in helps(name, parser)]
        source[0] = source[0].replace("{{ commands }}", "\n".join(sections))


def escape(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Stars and bars in docstrings are no markup: `(batch, *shape)`, `|g|`."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*").replace("|", r"\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app: Any) -> None:
    """Sphinx asks for it."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before Napoleon writes its own
