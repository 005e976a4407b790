"""``recflow compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recflow.cli.main import Parser
from recflow.errors import RecflowError

if TYPE_CHECKING:
    from recflow.evaluation.leaderboard import Leaderboard

_EPILOG = """\
Every other setting of `recflow fit` holds for all models alike: --data ml-1m --data.drop_below 3 --trainer.max_epochs 5
"""


def run(argv: Sequence[str]) -> int:
    """Fit or read the models, print the leaderboard, and write its files."""
    parser = _parser()
    args, settings = parser.parse_known_args(argv)
    console = Console(highlight=False)
    if (args.plugins is None) == (args.runs is None):
        raise RecflowError(
            "Give either --plugins, to fit models and compare them, or --runs, to compare finished ones."
        )
    if args.runs is not None:
        if settings:
            raise RecflowError(f"--runs compares what is there: nothing is fitted by {' '.join(settings)}.")
        from recflow.evaluation.compare import compare_runs

        board, folder = compare_runs(args.runs, args.metric), None if args.out is None else Path(args.out)
    else:
        from recflow.evaluation.compare import compare, make_folder

        if args.out is not None:
            make_folder(Path(args.out))  # rather now than after all fits
        done = compare(
            [name.strip() for name in args.plugins.split(",") if name.strip()],
            seeds=_seeds(args.seeds),
            name=args.name,
            metric=args.metric,
            recipes=not args.defaults,
            baselines=not args.no_baselines,
            resplit=args.resplit,
            runs_dir=args.runs_dir,
            console=console,
            **_pairs(settings),
        )
        board, folder = done.leaderboard, done.path if args.out is None else Path(args.out)
    console.print()
    print_leaderboard(console, board)
    if folder is None:
        console.print("\nwrite it to files: --out FOLDER", style="dim")
        return 0
    from recflow.evaluation.publish import publish

    try:
        page = publish(board, folder)[0]
    except OSError as error:
        raise RecflowError(f"{folder} cannot be written to: {error.strerror}; choose another --out.") from error
    console.print(
        f"\n{page}  the whole of it, with pictures; beside it .md, .csv, .parquet", markup=False, soft_wrap=True
    )
    best = board.finished[0].runs[0].path
    console.print(f"[dim]next: recflow recommend --run {escape(str(best))} --user ID[/]", soft_wrap=True)
    return 0


def print_leaderboard(console: Console, board: Leaderboard) -> None:
    """Print the short table, what the tests say, and the protocol."""
    from recflow.evaluation.publish import shown_metrics

    names = shown_metrics(board)[: 7 if console.width >= 100 else 5]  # the files have all of them
    costs = ["train s", "test s", "parameters"][: 3 if console.width >= 120 else 1]
    title = f"{board.header['dataset']}, test part; best first, by {board.metric}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    for name in [names[0], "95 %", *names[1:], *costs]:
        table.add_column(name, justify="right", no_wrap=True, style="dim" if name == "95 %" else None)
    for row in board.finished:
        values = [f"{row.means[name]:.4f}" if name in row.means else "–" for name in names]
        if names[0] in row.deviations:
            values[0] += f"\n[dim]±{row.deviations[names[0]]:.4f}[/]"
        ends = board.intervals[row.name].get(names[0])
        between = "–" if ends is None else f"{ends[0]:.4f}\n{ends[1]:.4f}"
        spent = [f"{row.train_seconds:.3g}", f"{row.test_seconds:.3g}", f"{row.parameters:,}"][: len(costs)]
        table.add_row(escape(row.name), values[0], between, *values[1:], *spent)
    console.print(table)
    settings = dict[str, list[str]]()
    for row in board.finished:
        settings.setdefault(row.recipe, []).append(row.name)
    for recipe, models in settings.items():
        console.print(f"settings of {', '.join(models)}: {recipe}", style="dim", markup=False, soft_wrap=True)
    for row in board.failed:
        console.print(f"{row.name} failed: {row.problem}", style="red", markup=False, soft_wrap=True)
    console.print()
    for sentence in board.sentences():
        console.print(sentence, markup=False, soft_wrap=True)
    console.print()
    for line in board.protocol():
        console.print(line, style="dim", markup=False, soft_wrap=True)


def _parser() -> Parser:
    import argparse

    parser = Parser(
        prog="recflow compare",
        usage="recflow compare --plugins A,B,… [--data NAME] [--seeds 42,43,44] [settings]\n"
        "       recflow compare --runs RUN RUN …",
        description="Compare models on the same rows: means and deviations over seeds, 95 % intervals over users, "
        "tests of every difference, beside popularity, random and item-knn. What was fitted before is taken as it is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--plugins", metavar="A,B", help="models, or recipes (.yaml files), separated by commas")
    parser.add_argument("--runs", nargs="+", metavar="RUN", help="finished runs; those that differ by seed are one row")
    parser.add_argument("--seeds", default="42", metavar="N,N", help="one fit a seed and model (default 42)")
    parser.add_argument("--resplit", action="store_true", help="each seed splits the data anew, too")
    parser.add_argument("--metric", metavar="NAME", help="what orders and tests (default ndcg@10; rmse if all rate)")
    parser.add_argument(
        "--defaults", action="store_true", help="the plugins' defaults, not the recipes of experiments/"
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave popularity, random and item-knn out")
    parser.add_argument("--name", metavar="NAME", help="the folder under runs/compare (default: the dataset's name)")
    parser.add_argument("--runs_dir", default="runs", metavar="DIR", help="where runs go (default runs)")
    parser.add_argument(
        "--out", metavar="DIR", help="where the leaderboard's files go (default: the comparison's folder)"
    )
    return parser


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise RecflowError(
            f"--seeds expects whole numbers separated by commas, such as 42,43,44; got {text}."
        ) from None


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    """``--name value`` and ``--name=value`` as a mapping."""
    found: dict[str, str] = {}
    waiting: str | None = None
    for arg in settings:
        if arg == "--no-test":
            raise RecflowError("A comparison is of the test part: leave out --no-test.")
        if waiting is not None:
            found[waiting], waiting = arg, None
        elif not arg.startswith("--"):
            raise RecflowError(f"{arg!r} belongs to no option; see recflow compare --help")
        elif "=" in arg:
            name, _, found_value = arg[2:].partition("=")
            found[name] = found_value
        else:
            waiting = arg[2:]
    if waiting is not None:
        raise RecflowError(f"--{waiting} expects a value.")
    return found
