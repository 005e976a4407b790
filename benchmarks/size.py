"""Seconds and peak memory by size, from a CSV to a training epoch, and pandas doing the same reading and splitting.

    python benchmarks/size.py --millions 1 4 16 32 --folder /tmp/size

For each size a CSV of the sample is written once. Then every stage runs in a process of its own, which reports its
seconds and its peak memory (resident, from the operating system): recflow from the CSV, recflow again from its cache,
pandas with its default parser and with pyarrow's, and epochs of LightGCN. What pandas does is what recflow does with a
file of unknown content: read, number users and items by sorted id, keep the latest of repeated pairs, split each user's
rows 8:1:1 at random.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STAGES = ("recflow from CSV", "recflow from cache", "pandas", "pandas, pyarrow")


class Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.steps: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, step: str) -> None:
        """Give the time since the last mark to a step."""
        now = time.perf_counter()
        self.steps[step] = now - self._last
        self._last = now


def recflow_stage(path: Path, clock: Clock) -> dict[str, Any]:
    from recflow.data.dataset import DataConfig, Dataset, load
    from recflow.data.interactions import build_interactions
    from recflow.data.splits import split

    clock.mark("import")
    config = DataConfig(path=str(path))
    raw = load(config)
    clock.mark("read")
    interactions = build_interactions(raw)
    clock.mark("number")
    parts = split(interactions, "ratio")
    clock.mark("split")
    data = Dataset(interactions, parts, config)
    del raw
    data.graph  # noqa: B018
    clock.mark("graph")
    return {"users": data.num_users, "items": data.num_items, "train": len(data.train.users)}


def pandas_stage(path: Path, clock: Clock, engine: str) -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    clock.mark("import")
    frame = pd.read_csv(path, engine=engine)
    clock.mark("read")
    users, user_ids = pd.factorize(frame["user_id"], sort=True)
    items, item_ids = pd.factorize(frame["item_id"], sort=True)
    frame["user"], frame["item"] = users.astype("int32"), items.astype("int32")
    frame = frame.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"], keep="last")
    clock.mark("number")
    frame["chance"] = np.random.default_rng(42).random(len(frame))
    frame = frame.sort_values(["user", "chance"])
    rank = frame.groupby("user").cumcount()
    count = frame.groupby("user")["item"].transform("size")
    held_out = (0.1 * count).astype("int64")
    train = frame[rank < count - 2 * held_out]
    val = frame[(rank >= count - 2 * held_out) & (rank < count - held_out)]
    test = frame[rank >= count - held_out]
    assert len(train) + len(val) + len(test) == len(frame)
    clock.mark("split")
    return {"users": len(user_ids), "items": len(item_ids), "train": len(train)}


def epoch_stage(path: Path, clock: Clock, batch_size: int, epochs: int) -> dict[str, Any]:
    import torch

    from recflow import registry
    from recflow.data.dataset import DataConfig, prepare

    data = prepare(DataConfig(path=str(path), batch_size=batch_size))
    data.graph  # noqa: B018
    clock.mark("prepare")
    torch.manual_seed(0)
    model = registry.load_target(registry.load("lightgcn"), "module")(data.num_users, data.num_items)
    model.attach(data)
    optimizer = model.configure_optimizers()
    batches = model.batches(data)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for batch in batches:
            optimizer.zero_grad()
            loss = model.loss(batch)
            loss.backward()
            optimizer.step()
    clock.mark("epochs")
    steps = len(batches) * epochs
    return {
        "seconds an epoch": clock.steps["epochs"] / epochs,
        "seconds a step": clock.steps["epochs"] / steps,
        "steps": len(batches),
        "loss": float(loss),
    }


def measure(stage: str, path: Path, cache: Path, *options: str) -> dict[str, Any]:
    """Run one stage in a process of its own."""
    command = [sys.executable, __file__, "--stage", stage, "--csv", str(path), *options]
    environment = {**os.environ, "RECFLOW_CACHE_DIR": str(cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{stage} failed: {done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def write_csv(millions: float, folder: Path) -> Path:
    """The sample as a CSV, made in a process of its own: its memory is not this one's."""
    path = folder / f"ratings-{millions:g}m.csv"
    if not path.is_file():
        code = (
            "import sys; from recflow.data.sample import generate; "
            "generate(int(sys.argv[1])).ratings.rename({'time': 'timestamp'}).write_csv(sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, str(int(millions * 1e6)), f"{path}.new"], check=True)
        os.replace(f"{path}.new", path)
    return path


def in_this_process(stage: Callable[[Clock], dict[str, Any]]) -> None:
    clock = Clock()
    found = stage(clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"steps": clock.steps, "peak": peak, **found}))


def plot(results: dict[float, dict[str, Any]], target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=130, layout="constrained")
    time_panel, memory_panel = figure.subplots(1, 2)
    colours = {
        "recflow from CSV": "#0b6e99",
        "recflow from cache": "#66b2d1",
        "pandas": "#d1495b",
        "pandas, pyarrow": "#edae49",
        "LightGCN epoch": "#3b3b3b",
    }
    sizes = sorted(results)
    for stage, colour in colours.items():
        seconds = [
            results[size][stage]["seconds an epoch"] if stage == "LightGCN epoch" else total(results[size][stage])
            for size in sizes
        ]
        peaks = [results[size][stage]["peak"] for size in sizes]
        time_panel.plot(sizes, seconds, marker="o", color=colour, label=stage)
        memory_panel.plot(sizes, peaks, marker="o", color=colour, label=stage)
    memory_panel.axhline(8, color="#8a8f98", linewidth=1, linestyle=":", label="limit for data: 8 GiB")
    for panel, label in ((time_panel, "seconds"), (memory_panel, "peak memory, GiB")):
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(sizes, [f"{size:g} M" for size in sizes])
        panel.set_xlabel("ratings")
        panel.set_ylabel(label)
        panel.grid(alpha=0.25, which="both")
        panel.spines[["top", "right"]].set_visible(False)
    time_panel.legend(frameon=False, fontsize=8)
    memory_panel.legend(frameon=False, fontsize=8)
    figure.suptitle("From a CSV to a graph, and an epoch of LightGCN on it")
    figure.savefig(target)


def total(measured: dict[str, Any]) -> float:
    """All steps but importing libraries."""
    return sum(seconds for step, seconds in measured["steps"].items() if step != "import")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--folder", type=Path, default=Path("size-scratch"), help="for the CSVs, results and the plot")
    parser.add_argument("--batch_size", type=int, default=2**18, help="of LightGCN's epochs")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        stages: dict[str, Callable[[Clock], dict[str, Any]]] = {
            "recflow": lambda clock: recflow_stage(args.csv, clock),
            "c": lambda clock: pandas_stage(args.csv, clock, "c"),
            "pyarrow": lambda clock: pandas_stage(args.csv, clock, "pyarrow"),
            "epoch": lambda clock: epoch_stage(args.csv, clock, args.batch_size, 1),
        }
        in_this_process(stages[args.stage])
        return
    console = Console(highlight=False)
    args.folder.mkdir(parents=True, exist_ok=True)
    results: dict[float, dict[str, Any]] = {}
    for millions in args.millions:
        path, cache = write_csv(millions, args.folder), args.folder / f"cache-{millions:g}m"
        measured = {}
        for stage, name in zip(STAGES, ("recflow", "recflow", "c", "pyarrow"), strict=True):
            if stage == "recflow from CSV":
                subprocess.run(["rm", "-rf", str(cache)], check=True)
            measured[stage] = measure(name, path, cache)
            shown = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in measured[stage]["steps"].items())
            console.print(f"{millions:g} M  {stage}: {shown}; peak {measured[stage]['peak']:.2f} GiB")
        measured["LightGCN epoch"] = measure("epoch", path, cache, "--batch_size", str(args.batch_size))
        console.print(f"{millions:g} M  LightGCN: {measured['LightGCN epoch']}")
        results[millions] = measured
        (args.folder / "size.json").write_text(json.dumps(results, indent=1))
    table = Table(box=None, pad_edge=False)
    for column in ("ratings", *STAGES, "LightGCN epoch"):
        table.add_column(column, justify="right")
    for millions, measured in results.items():
        epoch = measured["LightGCN epoch"]
        cells = [f"{total(measured[stage]):.1f} s, {measured[stage]['peak']:.1f} GiB" for stage in STAGES]
        table.add_row(f"{millions:g} M", *cells, f"{epoch['seconds an epoch']:.1f} s, {epoch['peak']:.1f} GiB")
    console.print(table)
    plot(results, args.folder / "size.png")
    console.print(f"plot in {args.folder / 'size.png'}")


if __name__ == "__main__":
    main()
