"""``recflow recommend``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run
from recflow.errors import RecflowError
from recflow.ranking.catalog import Id


def run(argv: Sequence[str]) -> int:
    """Recommend to a known user, or from a history."""
    parser = Parser(prog="recflow recommend", description="Recommend to a known user, or to someone new.")
    add_run_option(parser)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user", metavar="ID", help="a user id of the data")
    who.add_argument(
        "--like",
        action="append",
        metavar="TITLE[=STARS]",
        help='a movie that someone new liked, by title or id; may be repeated: --like "Heat (1995)=4"',
    )
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    parser.add_argument("--why", action="store_true", help="say which of the user's movies speak for each")
    args = parser.parse_args(argv)
    if args.user is None and not args.like:
        parser.error("give --user ID, or --like TITLE for someone new")
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)

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
    if args.like and any(history.values()) and about["task"] == "ranking" and about["relevant_from"] is None:
        console.print(
            "[dim]stars made no difference: this run learnt from all interactions alike; fit with --data.relevant_from "
            "to say what counts as liked[/]"
        )
    return 0


def _parse_like(text: str) -> tuple[str, float | None]:
    name, equals, stars = text.rpartition("=")
    if not equals:
        return text, None
    try:
        return name, float(stars)
    except ValueError:
        raise RecflowError(f"--like expects TITLE or TITLE=STARS, such as 'Heat (1995)=4', got {text!r}.") from None
