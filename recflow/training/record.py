"""What a finished fit leaves behind beside its metrics: the bundle, the logger's last words, the circumstances."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from recflow.data.dataset import Dataset
from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.newcomers import FEATURES, TakesNewItems
from recflow.ranking.rankers import Ranker
from recflow.runs import Run


def bundle_run(run: Run, data: Dataset, ranker: Ranker, metrics: Mapping[str, Any]) -> None:
    """Write the run's bundle.

    Args:
        run: Where to.
        data: Titles, ids, and what each user has rated: filtered rows and test rows too, for none of it is to be
            recommended.
        ranker: The fitted model.
        metrics: The content of ``metrics.json``.
    """
    interactions, known = data.interactions, data.known()
    counts = torch.bincount(data.train.items, minlength=data.num_items).tolist()
    untrained = data.untrained(metrics["task"]).nonzero().flatten()
    save_bundle(
        run.path / "bundle",
        plugin=metrics["plugin"],
        ranker=ranker,
        histories=Histories.from_pairs(known.users, known.items, data.num_users, data.num_items, known.ratings),
        items=(
            Item(item, row["item_id"], row["title"], row["year"], tuple(row["genres"]), counts[item])
            for item, row in enumerate(interactions.items.iter_rows(named=True))
        ),
        user_ids=interactions.users["user_id"].to_list(),
        untrained=untrained,
        about={
            "task": metrics["task"],
            "rating_scale": data.rating_scale,
            "relevant_from": data.liked_from,
            "header": metrics["header"],
            "metrics": metrics.get("test") or metrics["val"],
            **_feature_names(data, ranker),
        },
    )


def log_finals(
    loggers: Sequence[Logger],
    data: Dataset,
    ranker: Ranker,
    hyper_parameters: Mapping[str, Any],
    test: Mapping[str, float],
    pictures: Sequence[Path] = (),
) -> None:
    """Log the test metrics and hyper-parameters and, to TensorBoard, pictures and the items' vectors for its projector.

    Args:
        loggers: The trainer's.
        data: Titles, years and genres of the items.
        ranker: The fitted model.
        hyper_parameters: What was chosen; may be nested.
        test: Metrics of the test part; may be empty.
        pictures: PNG files, in the order shown.
    """
    finals = {f"test/{name}": value for name, value in test.items()}
    chosen = {name: _plain(value) for name, value in hyper_parameters.items()}
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(chosen)
            logger.log_metrics(finals)
            logger.finalize("success")
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # or the next fit of this process would write into this one's record
            continue
        logger.log_hyperparams(chosen, finals)
        log_pictures(logger.experiment, pictures)
        vectors = ranker.item_embeddings()
        if vectors is not None and vectors.shape[1] > 2:
            items = data.interactions.items.select("title", "year", "genres").iter_rows()
            logger.experiment.add_embedding(
                vectors.cpu(),
                [[title, str(year or ""), "|".join(genres)] for title, year, genres in items],
                metadata_header=["title", "year", "genres"],
                tag="items",
            )
        logger.finalize("success")


def log_pictures(writer: SummaryWriter, pictures: Sequence[Path]) -> None:
    """Show PNG files in TensorBoard, each under its name."""
    for path in pictures:
        writer.add_image(path.stem, np.asarray(Image.open(path).convert("RGB")), dataformats="HWC")


def circumstances(seed: int, device: torch.device) -> dict[str, Any]:
    """Where and with what a number was measured."""
    return {
        "seed": seed,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("recflow", "torch", "lightning", "polars")},
        },
        "commit": _commit(),
    }


def _feature_names(data: Dataset, ranker: Ranker) -> dict[str, list[str]]:
    """Whoever serves a model that takes new items must know what their features are called."""
    if data.item_features is None or not isinstance(ranker, TakesNewItems):
        return {}
    return {FEATURES: list(data.item_features.names)}


def _plain(value: Any) -> Any:
    """What TensorBoard's table of hyper-parameters can hold."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Namespace):  # its vars() would escape names such as items, which are methods of its own
        return {name: _plain(inner) for name, inner in value.as_dict().items()}
    return str(value)


def _commit() -> str | None:
    """The commit of the folder that the fit was started in, if it is under git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
