"""``recflow recommend``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run
from recflow.errors import RecflowError
from recflow.ranking.catalog import Id

if TYPE_CHECKING:
    from recflow.runs import Run


def run(argv: Sequence[str]) -> int:
    """Recommend to a known user, from a history, or to many users into a file."""
    parser = Parser(
        prog="recflow recommend",
        description="Recommend to a known user, to someone new, or to many users at once into a file.",
    )
    add_run_option(parser)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user", metavar="ID", help="a user id of the data")
    who.add_argument(
        "--like",
        action="append",
        metavar="TITLE[=STARS]",
        help='a movie that someone new liked, by title or id; may be repeated: --like "Heat (1995)=4"; '
        "without stars the highest of the data's",
    )
    who.add_argument("--users", metavar="all|FILE", help="all users, or those whose ids a file lists, one a line")
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--why", action="store_true", help="say which of the user's movies speak for each")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that --out names")
    parser.add_argument("--out", metavar="FILE", help="with --users: a .parquet, .csv or .jsonl file to write")
    parser.add_argument("--titles", action="store_true", help="with --users: write the titles, too")
    args = parser.parse_args(argv)
    _check(parser, args)
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)
    if args.users is not None:
        return _recommend_to_many(chosen, args, console)

    from recflow.cli.tables import print_recommendations

    history: dict[Id, float | None]
    if args.user is not None:
        answer = chosen.recommender.recommend(args.user, args.k, reasons=args.why)
        title, history = f"for user {args.user}", {}
    else:
        history = dict(_parse_like(text) for text in args.like)
        answer = chosen.recommender.recommend_for_history(history, args.k, reasons=args.why)
        found = [chosen.recommender.catalog.find(name) for name in history]
        title = f"for someone who rated {', '.join(item.title for item in found)}"
    print_recommendations(console, answer.recommendations, f"{title} ({answer.path})", args.why)
    about = chosen.recommender.about
    alike = about["task"] == "ranking" and about["relevant_from"] is None
    if args.like and any(history.values()) and alike and not chosen.recommender.ranker.whole_history:
        console.print(
            "[dim]stars made no difference: this run learnt from all interactions alike; fit with --data.relevant_from "
            "to say what counts as liked[/]"
        )
    return 0


def _check(parser: Parser, args: argparse.Namespace) -> None:
    if args.user is None and not args.like and args.users is None:
        parser.error("give --user ID, --like TITLE for someone new, or --users all --out FILE")
    if args.users is None and (args.out is not None or args.titles):
        parser.error("--out and --titles go with --users all or --users FILE")
    if args.users is not None and args.out is None:
        parser.error("--users needs --out FILE.parquet, .csv or .jsonl")
    if args.users is not None and Path(args.out).is_file() and not args.overwrite:
        raise RecflowError(f"{args.out} exists already; name another file, or add --overwrite.")
    if args.users is not None and args.why:
        parser.error("--why is for one user at a time: give --user ID")


def _recommend_to_many(chosen: Run, args: argparse.Namespace, console: Console) -> int:
    from rich.filesize import decimal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("users", total=None)
        written = chosen.recommend_all(
            args.out,
            args.k,
            None if args.users == "all" else _read_ids(Path(args.users)),
            titles=args.titles,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"{written.path}: {written.rows:,} rows, up to {args.k:,} for each of {written.users:,} users, "
        f"{decimal(written.path.stat().st_size)}, in {written.seconds:.2f} s "
        f"({written.users / written.seconds:,.0f} users/s)",
        markup=False,
        soft_wrap=True,
    )
    if written.repeated:
        console.print(f"repeated ids: {written.repeated:,}; each user counts once", style="yellow")
    if written.exhausted:
        console.print(f"users without a row, who know every item already: {written.exhausted:,}", style="yellow")
    return 0


def _read_ids(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from (line.strip() for line in lines if not line.isspace())
    except OSError as error:
        raise RecflowError(
            f"--users expects 'all' or a file with one user id a line; {str(path)!r} cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise RecflowError(f"{path} is not a text file in UTF-8: {error}.") from error


def _parse_like(text: str) -> tuple[str, float | None]:
    name, equals, stars = text.rpartition("=")
    if not equals:
        return text, None
    try:
        return name, float(stars)
    except ValueError:
        raise RecflowError(f"--like expects TITLE or TITLE=STARS, such as 'Heat (1995)=4', got {text!r}.") from None
