"""Reading the test part: by a fit at its end, or later for a run that was fitted without."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any

import polars
import yaml

from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.metrics.examine import examine
from recflow.pictures import draw, write_tables
from recflow.plots.curves import plot_curves
from recflow.ranking.rankers import Ranker
from recflow.runs import CONFIG, CURVES, HISTORY, METRICS, PER_USER, USER_GROUPS, Run
from recflow.spec import ModelSpec
from recflow.training.baselines import BASELINES, baseline, mean_rating
from recflow.training.loggers import make_loggers
from recflow.training.quiet import quiet_libraries
from recflow.training.record import bundle_run, log_finals


def measure_test(
    ranker: Ranker, data: Dataset, spec: ModelSpec, metrics: MetricsConfig, seed: int, keep: Run | None = None
) -> dict[str, Any]:
    """Measure a model and its baselines on the test part; where there are several processes, each some of the users.

    Args:
        ranker: The fitted model.
        data: The prepared dataset.
        spec: The plugin.
        metrics: What is measured.
        seed: Fixes the baseline that goes by chance.
        keep: The run that keeps each user's metrics and the tables that pictures are drawn from.

    Returns:
        Entries for ``metrics.json``.
    """
    started = time.perf_counter()
    measured = evaluate(ranker, data, "test", spec.task, metrics, keep_per_user=True)
    seconds = time.perf_counter() - started
    beside = {name: baseline(name, data, seed, metrics) for name in BASELINES if name != spec.name}
    groups = {}
    if keep is not None:
        found = examine(spec.name, measured, data, metrics.ks, beside)
        measured.per_user.write_parquet(keep.path / PER_USER)
        found.user_groups.write_parquet(keep.path / USER_GROUPS)
        write_tables(keep, found)
        groups = found.groups
    baselines = {name: numbers(evaluation.metrics) for name, evaluation in beside.items()}
    if spec.task == "rating":
        baselines = {"mean rating": mean_rating(data), **baselines}
    return {
        "test": numbers(measured.metrics),
        "test_users": measured.users,
        "test_users_without_relevant": measured.skipped,
        "test_seconds": seconds,
        "baselines": baselines,
        "groups": groups,
    }


def add_test(run: Run, data: Dataset, spec: ModelSpec) -> None:
    """Read the test part for a finished run that was fitted without: it becomes what a fit would have left.

    Args:
        run: The run; its configuration, metrics, bundle and, where there are none, curves and events are written.
        data: What it was fitted on.
        spec: Its plugin.
    """
    config = run.config
    settings = config["metrics"]
    metrics = MetricsConfig(ks=tuple(settings["ks"]), auc=settings["auc"])
    ranker = run.recommender.ranker
    measured = measure_test(ranker, data, spec, metrics, config["seed"], run)
    content = {**run.metrics, **measured}
    bundle_run(run, data, ranker, content)
    rows = polars.read_csv(run.path / HISTORY).to_dicts()
    epochs = [{name: value for name, value in row.items() if value is not None} for row in rows]
    if not (run.path / CURVES).is_file():
        title = f"{spec.name} on {data.name}: learning curves"
        plot_curves(run.path / CURVES, epochs, content["monitor"], title, content["best_epoch"])
    pictures = [run.path / CURVES, *(draw(run, content) if config["plots"] else ())]
    if "tensorboard" in config["loggers"] and not (run.path / "tensorboard").is_dir():
        with quiet_libraries():
            loggers = make_loggers(["tensorboard"], run, config["runs_dir"], spec.name)
            for row in epochs:
                metrics_of_epoch = {name: value for name, value in row.items() if "/" in name}
                loggers[0].log_metrics(metrics_of_epoch, int(row["epoch"]))
            chosen = {"seed": config["seed"], "data": config["data"], **config.get("model", {})}
            log_finals(loggers, data, ranker, chosen, measured["test"], pictures)
    run.write_text(CONFIG, yaml.safe_dump({**config, "test": True}, sort_keys=False, allow_unicode=True))
    run.write_text(METRICS, as_json(content))


def as_json(content: Mapping[str, Any]) -> str:
    """A run's file."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that have a value: a mean over nobody has none, and JSON no word for it."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
