"""``recflow runs``: what has been fitted, how it differs, and what can go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recflow.cli.main import Parser
from recflow.errors import RecflowError


def run(argv: Sequence[str]) -> int:
    """List, show, draw, compare or clean up runs."""
    args = _parser().parse_args(argv)
    if args.command in {"list", "clean"} and not Path(args.runs_dir).is_dir():
        raise RecflowError(f"There is no folder {args.runs_dir}; recflow fit makes it, or name another by --runs_dir.")
    console = Console(highlight=False)
    if args.command == "list":
        from recflow.cli.runs_list import list_runs

        list_runs(console, Path(args.runs_dir), args.plugin, args.data, args.sort)
    elif args.command == "clean":
        from recflow.cli.runs_clean import Selection, clean_runs

        selection = Selection(args.older_than, args.broken, args.keep_best, args.checkpoints)
        clean_runs(console, Path(args.runs_dir), selection, sure=args.yes)
    elif args.command == "show":
        from recflow.cli.runs_show import show_run

        show_run(console, found_run(args.run, args.runs_dir))
    elif args.command == "plot":
        from recflow.cli.runs_plot import plot_run

        plot_run(console, found_run(args.run, args.runs_dir))
    else:
        from recflow.cli.runs_diff import diff_runs

        diff_runs(console, *(found_run(name, args.runs_dir) for name in (args.a, args.b)))
    return 0


def found_run(name: str, runs_dir: str) -> Path:
    """The folder of a run or a cross-validation: a path, or a name as ``recflow runs list`` shows it.

    Raises:
        RecflowError: If there is neither.
    """
    from recflow.runs import CONFIG, CROSS_VALIDATION, load_run

    for path in (Path(name), Path(runs_dir) / name):
        if (path / CROSS_VALIDATION).is_file() or (path / CONFIG).is_file():
            return path
    return load_run(name).path


def _parser() -> Parser:
    parser = Parser(prog="recflow runs", description="List, show, draw, compare and clean up runs.")
    commands = parser.add_subparsers(dest="command", metavar="list|show|plot|diff|clean", required=True)

    listing = commands.add_parser("list", help="all runs, those that may be compared in one table")
    listing.add_argument("--plugin", metavar="NAME", help="only this model's")
    listing.add_argument("--data", metavar="NAME", help="only this dataset's")
    listing.add_argument(
        "--sort", metavar="METRIC", help="best first, by a test metric, or by validation: val/ndcg@10 (default: newest)"
    )
    show = commands.add_parser("show", help="one run: configuration, metrics, files")
    show.add_argument("run", metavar="RUN", help="a run folder, or its name in the list")
    plot = commands.add_parser("plot", help="draw one run's pictures again, and a map of its item vectors")
    plot.add_argument("run", metavar="RUN", help="a run folder, or its name in the list")
    diff = commands.add_parser("diff", help="how two runs differ, in configuration and in metrics")
    for name in ("a", "b"):
        diff.add_argument(name, metavar=name.upper(), help="a run folder, or its name in the list")
    clean = commands.add_parser(
        "clean",
        help="delete what is no longer needed",
        description="Delete runs that all of the given conditions fit, or only their checkpoints. Asks before it does.",
    )
    clean.add_argument(
        "--older-than", type=_age, metavar="7d", help="ended, or last written to, that long ago: m h d w"
    )
    clean.add_argument(
        "--broken", action="store_true", help="unfinished or damaged; unless --older-than says else, untouched for 1h"
    )
    clean.add_argument(
        "--keep-best",
        type=_count,
        metavar="N",
        help="finished, and not among the N best of its model, data and split on the validation part",
    )
    clean.add_argument(
        "--checkpoints", action="store_true", help="delete only the checkpoints of finished runs; they still recommend"
    )
    clean.add_argument("--yes", action="store_true", help="do not ask")
    for command in (listing, show, plot, diff, clean):
        command.add_argument(
            "--runs_dir", default="runs", metavar="FOLDER", help="where run folders are (default runs)"
        )
    return parser


def _age(text: str) -> float:
    """An age in seconds.

    >>> _age("7d"), _age("90m")
    (604800.0, 5400.0)
    """
    units = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number and m, h, d or w, such as 7d, got {text!r}")
    return int(number) * units[unit]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text!r}")
    return int(text)
