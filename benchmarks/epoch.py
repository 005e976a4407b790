"""Seconds per training epoch and per full-ranking evaluation: recflow's models beside RecBole's, in one run.

    python benchmarks/epoch.py --data ml-1m --model ngcf --peer .peer/bin/python PEER/run.py

Both learn from ratings of 3 and more, split 8:1:1 per user, in batches of 4096, with RecBole's own defaults for all
sizes (see MODELS), on as many threads as there are cores. The two take turns, so that a slow spell of the machine meets
both. RecBole reports its own times; ours are those of `recflow fit`, everything that Lightning adds included.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from rich.table import Table

import recflow
from recflow.data.dataset import Dataset, config_of, prepare
from recflow.metrics.evaluate import Evaluator

RATINGS = {"ml-1m": "ratings.dat", "ml-100k": "u.data"}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # ours: RecBole's name, and its defaults
    "lightgcn": ("LightGCN", {"embedding_dim": 64, "num_layers": 3}),
    "ngcf": ("NGCF", {"embedding_dim": 64, "hidden": [64, 64, 64], "message_dropout": 0.1}),
    "ncf": ("NeuMF", {"embedding_dim": 64, "mlp_dim": 64, "hidden": [128, 64], "dropout": 0.1, "num_negatives": 1}),
    "bpr-mf": ("BPR", {"embedding_dim": 64}),
}


def ours(model: str, data: str, epochs: int, folder: str) -> tuple[list[float], recflow.Run]:
    """Seconds of each epoch but the first, which warms up."""
    run = recflow.fit(
        model,
        model=MODELS[model][1],
        data={"name": data, "drop_below": 3, "batch_size": 4096},
        trainer={"max_epochs": epochs + 1},
        runs_dir=folder,
        test=False,
    )
    return pl.read_csv(run.path / "history.csv")["seconds"].to_list()[1:], run


def our_evaluation(run: recflow.Run, repeats: int) -> list[float]:
    """Seconds to rank every item for every validation user and to compute all metrics at 5, 10 and 20."""
    data: Dataset = prepare(config_of(run.config["data"]))
    evaluator = Evaluator(data, "val", "ranking")
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        evaluator.begin(run.recommender.ranker)
        for users in evaluator.chunks():
            evaluator.update(users)
        evaluator.compute()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def peer(command: list[str], model: str, ratings: Path, epochs: int) -> tuple[list[float], list[float]]:
    """RecBole's own seconds per epoch and per evaluation, from its log."""
    arguments = ["--model", MODELS[model][0], "--ratings", str(ratings), "--epochs", str(epochs), "--batch", "4096"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*map(os.path.abspath, command), *arguments], capture_output=True, text=True, check=False, cwd=folder
        )
    text = done.stdout + done.stderr
    train = [float(value) for value in re.findall(r"training.{0,10}\[.*?time.*?: ([\d.]+)s", _plain(text))]
    evaluation = [float(value) for value in re.findall(r"evaluating.{0,10}\[.*?time.*?: ([\d.]+)s", _plain(text))]
    if not train:
        raise SystemExit(f"the peer printed no times; it ended with {done.returncode}:\n{text[-2000:]}")
    return train, evaluation


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=sorted(RATINGS), default="ml-1m")
    parser.add_argument("--model", choices=sorted(MODELS), default="lightgcn")
    parser.add_argument("--epochs", type=int, default=5, help="ours in each turn; the peer does one")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"), help="the peer's interpreter and script")
    args = parser.parse_args()
    folder_of_data = os.environ.get("RECFLOW_DATA_DIR")
    if folder_of_data is None:
        raise SystemExit("set RECFLOW_DATA_DIR to the folder that holds the datasets: the peer reads the files itself")
    ratings = Path(folder_of_data) / args.data / RATINGS[args.data]

    times: dict[str, list[list[float]]] = {"recflow": [[], []], "RecBole": [[], []]}
    for _ in range(args.turns):
        with tempfile.TemporaryDirectory() as folder:
            train, run = ours(args.model, args.data, args.epochs, folder)
            times["recflow"][0] += train
            times["recflow"][1] += our_evaluation(run, 5)
        if args.peer:
            for kept, new in zip(times["RecBole"], peer(args.peer, args.model, ratings, 1), strict=True):
                kept += new

    table = Table(title=f"{args.model} on {args.data}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for column in ("", "training epoch, s", "evaluation, s"):
        table.add_column(column, justify="right")
    medians = {}
    for name, kinds in times.items():
        if kinds[0]:
            medians[name] = [statistics.median(values) for values in kinds]
            cells = [
                f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f}, n = {len(values)})"
                for values in kinds
            ]
            table.add_row(name, *cells)
    if len(medians) == 2:
        ratios = [theirs / own for own, theirs in zip(medians["recflow"], medians["RecBole"], strict=True)]
        table.add_row("ratio", *(f"{ratio:.1f}×" for ratio in ratios))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
