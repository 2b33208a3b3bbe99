"""Make a page of run folders: one self-contained HTML file; several runs stand beside the first."""

from __future__ import annotations

import argparse

from offline_eval.cli.arguments import print_text
from offline_eval.cli.words import NEW_FILE, RUN

HELP = "one HTML page of one run or several"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "runs", type=RUN, metavar="RUN", nargs="+", help="folder that --out made, or a file with what --json printed"
    )
    parser.add_argument(
        "--out",
        type=NEW_FILE,
        metavar="FILE",
        help="of the page (default: report.html in RUN; of several, their names beside RUN)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from pathlib import Path

    from offline_eval.report.page import write_page
    from offline_eval.report.runs import read_runs
    from offline_eval.run_folder import folder_name

    runs = read_runs(arguments.runs)
    first = Path(arguments.runs[0]).resolve()
    default = first / "report.html" if first.is_dir() else first.with_suffix(".html")
    if len(runs) > 1:  # the first one's own page stays what it is
        default = first.parent / f"{folder_name('-'.join(Path(path).resolve().stem for path in arguments.runs))}.html"
    print_text(str(write_page(runs, arguments.out or default)))
