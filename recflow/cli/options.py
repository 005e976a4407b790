"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from recflow.errors import RecflowError
from recflow.runs import Run, load_run, newest_run

if TYPE_CHECKING:
    from rich.console import Console


def add_run_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--run``."""
    parser.add_argument("--run", metavar="RUN", help="a run folder (default: the newest under runs/)")


def chosen_run(path: str | None, console: Console) -> Run:
    """The run that was named, or else the newest one, which is then said.

    Raises:
        RecflowError: If there is none.
    """
    if path is not None:
        return load_run(path)
    newest = newest_run("runs")
    if newest is None:
        raise RecflowError("There is no finished run under runs/; make one by: recflow fit --plugin lightgcn")
    console.print(f"[dim]run {newest.path}[/]", highlight=False)
    return newest
