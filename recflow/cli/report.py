"""``recflow report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run


def run(argv: Sequence[str]) -> int:
    """Write a run's report."""
    parser = Parser(
        prog="recflow report",
        description="Write everything that a run's folder knows onto one page, report.html: metrics with intervals, "
        "groups, pictures, settings.",
    )
    add_run_option(parser)
    parser.add_argument("--out", metavar="FILE", help="where the page goes (default: report.html in the run's folder)")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)
    chosen.require_finished()
    from recflow.evaluation.report import report

    page = report(chosen, None if args.out is None else Path(args.out))
    console.print(f"{page}  open it in any browser; it needs nothing else", markup=False, soft_wrap=True)
    return 0
