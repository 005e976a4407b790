"""One request at a time from an index and by scoring every item: seconds to build, recall, memory, latency, in one run.

    python benchmarks/index.py --items 200000 500000 1000000

A generated factor model in 64 dimensions: items lie in a thousand groups whose variance falls off along the axes, and
are the longer the more popular they are; users lie between a few groups. Random vectors without structure are no test,
nothing being near anything in them: `--plain` takes them all the same. Both ways go through `Recommender`, titles and
seen items included, in turns and on one thread. What the service does about it stands in docs/serving.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from serving import generate, noise

from recflow.ranking.item_facts import Wishes
from recflow.ranking.recommender import Recommender


def factors(users: int, items: int, dim: int, plain: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int) -> torch.Tensor:
        return torch.randn(rows, dim, generator=generator)

    if plain:
        return noise(users, items, dim)
    scale = (1 + torch.arange(dim)) ** -0.5
    groups = drawn(1000) * scale

    def members(rows: int) -> torch.Tensor:
        return groups[torch.randint(1000, (rows,), generator=generator)]

    length = torch.exp(0.5 * torch.randn(items, 1, generator=generator))
    taste = sum((members(users) for _ in range(3)), members(users)) / 4
    return taste + 0.3 * drawn(users) * scale, (members(items) + 0.6 * drawn(items) * scale) * length


def requests(model: Recommender) -> dict[str, Callable[[int], object]]:
    """What is asked, as functions of a number."""
    users, items = model.ranker.num_users, model.ranker.num_items
    return {
        "recommend": lambda n: model.recommend(n % users + 1),
        "recommend, a genre": lambda n: model.recommend(n % users + 1, wishes=Wishes(genres=["Comedy"])),
        "recommend, a history": lambda n: model.recommend_for_history(range(n + 1, n + 1 + 50 * 97, 97)),
        "recommend 100": lambda n: model.recommend(n % users + 1, 100),
        "similar": lambda n: model.similar(n * 97 % items + 1),
    }


def resident() -> float:
    """MiB of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[200_000, 500_000, 1_000_000])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"d = {args.dim}, one thread; milliseconds a request: median (99 %), all items → index")
    for column in ("items", "request", "all items", "index", "times", "recall@10", "candidates", "built", "MiB"):
        table.add_column(column, justify="right")
    for items in args.items:
        with tempfile.TemporaryDirectory() as scratch:
            vectors = factors(args.users, items, args.dim, args.plain)
            model = Recommender.load(generate(Path(scratch) / "bundle", vectors, history=50))
            model.recommend(1, wishes=Wishes(genres=["Comedy"]))  # what is read once is read now
            before, started = resident(), time.perf_counter()
            built = model.build_index()
            seconds, memory = time.perf_counter() - started, resident() - before
            for name, ask in requests(model).items():
                kind = name.split(",")[0].split()[0]
                took: dict[bool, list[float]] = {False: [], True: []}
                for n in range(args.requests if kind == "recommend" else args.requests // 10):
                    for indexed in took:
                        model.shortlists = built if indexed else {}
                        at = time.perf_counter()
                        ask(n)
                        took[indexed].append(1000 * (time.perf_counter() - at))
                plain, quick = (sorted(times) for times in took.values())
                shown = [f"{t[len(t) // 2]:.2f} ({t[len(t) * 99 // 100]:.2f})" for t in (plain, quick)]
                times = f"{plain[len(plain) // 2] / quick[len(quick) // 2]:.1f}"
                made = built[kind]
                first = [f"{made.recall:.4f}", str(made.candidates)] if name == kind else ["", ""]
                whole = [f"{seconds:.1f} s", f"{memory:.0f}"] if name == "recommend" else ["", ""]
                table.add_row(f"{items:,}" if name == "recommend" else "", name, *shown, times, *first, *whole)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
