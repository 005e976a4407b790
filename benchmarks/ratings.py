"""Seconds to fit and predict, and test RMSE: recflow's svd, bias-mf and bias-only beside Surprise's, in one run.

    python benchmarks/ratings.py --peer .surprise/bin/python --data ml-100k ml-1m

Both are given the same ratings in memory and the same folds: u1 to u5 of ml-100k, five random folds of ml-1m. A fit is
timed from ratings to model, ours with all that Lightning adds; predicting is timed for the whole test part. Both take
turns fold by fold, so that a slow spell of the machine meets both. `--peer` is a Python that has scikit-surprise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from rich.console import Console
from rich.table import Table

from recflow.data.dataset import DataConfig, Dataset, prepare
from recflow.training.modules import RecModule
from recflow.training.quiet import quiet_libraries
from recflow_bias_mf.gradient import SVD
from recflow_bias_mf.means import BiasOnly
from recflow_bias_mf.model import BiasMF

PEER = """
import json, sys, time
from surprise import SVD, BaselineOnly, Dataset, Reader, accuracy
data = Dataset(Reader(line_format="user item rating", rating_scale=tuple(json.loads(sys.argv[3]))))
train, test = ([(u, i, float(r), None) for u, i, r in json.load(open(path))] for path in sys.argv[1:3])
for name, model in {"SVD": SVD(random_state=0), "BaselineOnly": BaselineOnly(verbose=False)}.items():
    start = time.perf_counter()
    model.fit(data.construct_trainset(train))
    fitted = time.perf_counter()
    predictions = model.test([row[:3] for row in test])
    end = time.perf_counter()
    print(json.dumps([name, fitted - start, end - fitted, accuracy.rmse(predictions, verbose=False)]))
"""

RECIPES = Path(__file__).parents[1] / "experiments"
MODELS: dict[str, type[RecModule]] = {"svd": SVD, "bias-mf": BiasMF, "bias-only": BiasOnly}
BATCH = {"ml-100k": 27000, "ml-1m": 54000}  # svd's; the others know none


def fold(data: str, number: int) -> Dataset:
    split: dict[str, Any] = {"split": "files"} if data == "ml-100k" else {"split": "k-fold", "folds": 5}
    return prepare(DataConfig(name=data, fold=number, val_fraction=0.0, batch_size=BATCH[data], **split))


def ours(data: Dataset, name: str) -> tuple[float, float, float]:
    """Seconds to fit, seconds to predict, RMSE, with the recipe's settings."""
    recipe = yaml.safe_load((RECIPES / name / f"{data.name}.yaml").read_text())
    start = time.perf_counter()
    torch.manual_seed(42)
    model = MODELS[name](num_users=data.num_users, num_items=data.num_items, **recipe.get("model", {}))
    model.attach(data, 42)
    with quiet_libraries():
        trainer = pl.Trainer(
            max_epochs=recipe.get("trainer", {}).get("max_epochs", model.default_max_epochs),
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(model, train_dataloaders=model.batches(data))
    fitted = time.perf_counter()
    test = data.rows["test"]
    predicted = model.ranker().predict(test.users, test.items)
    end = time.perf_counter()
    return fitted - start, end - fitted, float((predicted - test.ratings).square().mean().sqrt())


def peer(python: str, data: Dataset) -> dict[str, tuple[float, float, float]]:
    """The same of Surprise's models, in a process of its own that reads the ratings before its clock starts."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for part in ("train", "test"):
            rows = data.rows[part]  # type: ignore[index]
            path = Path(folder) / f"{part}.json"
            path.write_text(json.dumps(list(zip(*(column.tolist() for column in rows), strict=True))))
            paths.append(str(path))
        command = [python, "-c", PEER, *paths, json.dumps(data.rating_scale)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {name: tuple(values) for name, *values in map(json.loads, done.stdout.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=sorted(BATCH), default=["ml-100k"])
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has scikit-surprise")
    args = parser.parse_args()
    for name in args.data:
        found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        ours(fold(name, args.folds[0]), args.models[0])  # warms up
        for number in args.folds:
            data = fold(name, number)
            for model in args.models:
                found[f"recflow {model}"].append(ours(data, model))
            if args.peer:
                for model, values in peer(args.peer, data).items():
                    found[f"Surprise {model}"].append(values)
        table = Table(title=f"{name}, {len(args.folds)} folds, {torch.get_num_threads()} threads, median (least)")
        for column in ("", "fit, s", "predict, s", "both, s", "mean RMSE"):
            table.add_column(column, justify="right")
        for model, rows in found.items():
            fit, predict, errors = (list(column) for column in zip(*rows, strict=True))
            both = [sum(row[:2]) for row in rows]
            cells = [f"{statistics.median(values):.3f} ({min(values):.3f})" for values in (fit, predict, both)]
            table.add_row(model, *cells, f"{statistics.mean(errors):.4f}")
        Console(width=110).print(table)


if __name__ == "__main__":
    main()
