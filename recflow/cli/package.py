"""``recflow package``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recflow import registry
from recflow.cli.main import Parser
from recflow.cli.options import add_run_option, chosen_run
from recflow.errors import RecflowError
from recflow.runs import Run, load_run


def run(argv: Sequence[str]) -> int:
    """Put a run into the model store and say what to do with it."""
    parser = Parser(
        prog="recflow package",
        description="Put a run into BentoML's model store, with a model card: what `recflow serve` and `bentoml serve` "
        "then find there.",
    )
    add_run_option(parser)
    parser.add_argument("--study", metavar="NAME", help="the best run of a study: runs/tune/NAME/best")
    parser.add_argument("--name", default="recflow", help="what the store calls it (default recflow)")
    parser.add_argument(
        "--without-histories",
        action="store_true",
        help="leave out what users have rated: known users can still be recommended to, but what they have seen is no "
        "longer left out of their lists",
    )
    args = parser.parse_args(argv)
    if args.run is not None and args.study is not None:
        parser.error("give --run or --study, not both")
    console = Console(highlight=False, soft_wrap=True)
    chosen = chosen_run(args.run, console) if args.study is None else _best_of(args.study)
    chosen.require_finished()

    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    from recflow.serving import store
    from recflow.serving.card import model_card

    metrics, histories = chosen.metrics, not args.without_histories
    spec = registry.load(metrics["plugin"])
    dataset = str(metrics["header"]["dataset"])
    licence = _licence(dataset)
    card = model_card(chosen, summary=spec.summary, paper=spec.paper, licence=licence, histories=histories)
    tag = store.put(
        chosen.path / "bundle",
        card,
        name=args.name,
        labels={"plugin": metrics["plugin"], "task": metrics["task"]},
        histories=histories,
    )
    console.print(f"{tag}: {metrics['plugin']} on {dataset}, from {chosen.path}", markup=False)
    if args.without_histories:
        console.print("  without histories: what known users have seen is not left out of their lists", markup=False)
    console.print(f"  model card: {store.find(tag)}/{store.CARD}", markup=False)
    if licence:
        console.print(f"  licence of the data: {licence}", markup=False)
    named = "" if args.name == store.NAME else f"RECFLOW_BUNDLE={tag} "
    console.print(f"next: {named}recflow serve", markup=False)
    console.print(f"  or: RECFLOW_BUNDLE={tag} bentoml serve {_service()}", markup=False)
    if Path("bentofile.yaml").is_file() and args.name == store.NAME:
        console.print("  or, as an image: make image", markup=False)
    return 0


def _best_of(study: str) -> Run:
    folder = Path("runs/tune") / study
    if not (folder / "best").is_dir():
        known = sorted(path.parent.name for path in Path("runs/tune").glob("*/best"))
        hint = f"studies with one are: {', '.join(known)}" if known else "recflow tune makes one"
        raise RecflowError(f"The study {study!r} has no best run: there is no {folder / 'best'}; {hint}.")
    return load_run(folder / "best")


def _licence(dataset: str) -> str:
    from recflow.data.catalog import DATASETS

    if dataset == "sample":
        return "invented, and free to use"
    return DATASETS[dataset].licence if dataset in DATASETS else ""


def _service() -> str:
    return "service:Recommender" if Path("service.py").is_file() else "recflow.serving.service:Recommender"
