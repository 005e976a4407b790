"""What a model's test metrics are shown beside: simple models on the same rows, its own error on the training rows."""

from __future__ import annotations

import torch

from recflow import registry
from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import Evaluation, MetricsConfig, evaluate
from recflow.metrics.rating import RatingMetrics
from recflow.ranking.rankers import Ranker

BASELINES = ("popularity", "random")
_CHUNK = 2**18


def baseline(name: str, data: Dataset, seed: int, metrics: MetricsConfig | None = None) -> Evaluation:
    """Fit a closed-form model on the side, and measure it on the test part.

    Args:
        name: A plugin of a ClosedFormModule that needs nothing but the data's sizes.
        data: The prepared dataset.
        seed: The run's seed.
        metrics: What to measure.
    """
    spec = registry.load(name)
    module = registry.load_target(spec, "module")(num_users=data.num_users, num_items=data.num_items)
    module.attach(data, seed, metrics)
    module.sweep()
    return evaluate(module.ranker(), data, "test", spec.task, metrics)


def training_errors(ranker: Ranker, data: Dataset) -> dict[str, float]:
    """The errors of a rating model on the rows that it was trained on: how closely it fits them."""
    errors = RatingMetrics(sync_on_compute=False).to(data.train.users.device)
    with torch.inference_mode():
        for users, items, ratings in zip(*(torch.split(column, _CHUNK) for column in data.train), strict=True):
            errors.update(ranker.predict(users, items), ratings)
    return {name: float(value) for name, value in errors.compute().items()}


def mean_rating(data: Dataset) -> dict[str, float]:
    """The test errors of always predicting the training ratings' mean."""
    errors, rows = RatingMetrics(sync_on_compute=False), data.rows["test"]
    errors.update(data.train.ratings.mean().expand(len(rows.ratings)).cpu(), rows.ratings.cpu())
    return {name: float(value) for name, value in errors.compute().items()}
