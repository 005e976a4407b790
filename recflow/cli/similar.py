"""``recflow similar``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run


def run(argv: Sequence[str]) -> int:
    """List an item's nearest neighbours."""
    parser = Parser(prog="recflow similar", description="List the items most like one, as the model sees them.")
    add_run_option(parser)
    parser.add_argument("--item", required=True, metavar="TITLE", help="a movie, by title or id")
    parser.add_argument("-k", type=int, default=10, help="how many (default 10)")
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)

    from recflow.cli.tables import print_recommendations

    meant, neighbours = chosen.recommender.similar(args.item, args.k)
    print_recommendations(console, neighbours, f"like {meant.title}")
    return 0
