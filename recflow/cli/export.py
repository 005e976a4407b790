"""``recflow export``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.filesize import decimal

from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run

if TYPE_CHECKING:
    from recflow.ranking.rankers import FactorRanker


def run(argv: Sequence[str]) -> int:
    """Write a run's vectors to files."""
    parser = Parser(prog="recflow export", description="Write what a model has learnt to files for other tools.")
    add_run_option(parser)
    parser.add_argument("--embeddings", required=True, metavar="FOLDER", help="where the vectors go")
    parser.add_argument(
        "--format",
        choices=("parquet", "tsv"),
        default="parquet",
        help="parquet: users.parquet and items.parquet (default); tsv: the items' vectors.tsv and metadata.tsv for "
        "TensorBoard's projector",
    )
    args = parser.parse_args(argv)
    console = Console(highlight=False)
    chosen = chosen_run(args.run, console)
    paths = chosen.export_embeddings(args.embeddings, args.format)
    for path in paths:
        console.print(f"{path}  {decimal(path.stat().st_size)}", markup=False, soft_wrap=True)
    ranker = cast("FactorRanker", chosen.recommender.ranker)  # no other has vectors
    users, items, dim = ranker.num_users, ranker.num_items, ranker.item_factors.shape[1]
    mean = f"{ranker.mean:.6g} + " if ranker.mean else ""
    if args.format == "parquet":
        console.print(f"{users:,} users, {items:,} items, {dim} dimensions", style="dim")
        console.print(
            f"score = {mean}bias(user) + bias(item) + <vector(user), vector(item)>", style="dim", markup=False
        )
    else:
        console.print(f"{items:,} items, {dim} dimensions; load both at projector.tensorflow.org", style="dim")
    return 0
