"""Make a page of run folders: one self-contained HTML file; several runs stand beside the first."""

from __future__ import annotations

import argparse

HELP = "one HTML page of one run or several"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="folder that --out made, or a file with what --json printed"
    )
    parser.add_argument("--out", metavar="FILE", help="of the page (default: report.html in the first RUN)")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from pathlib import Path

    from offline_eval.report.page import write_page
    from offline_eval.report.runs import read_runs

    runs = read_runs(arguments.runs)
    first = Path(arguments.runs[0])
    default = first / "report.html" if first.is_dir() else first.with_suffix(".html")
    print(write_page(runs, arguments.out or default))
