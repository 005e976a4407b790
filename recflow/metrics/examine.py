"""What a test says beyond its means: by group, by item, place by place, star by star, as tables to draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
import torch

from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import Evaluation
from recflow.metrics.groups import Table, by_item_group, by_user_group, item_groups, user_groups
from recflow.metrics.lists import exposure, precision_recall


class Examination(NamedTuple):
    """Tables of one model's test.

    Attributes:
        groups: By grouping, what :func:`recflow.metrics.groups.table` says.
        user_groups: Each measured user's groups: :func:`recflow.metrics.groups.user_groups`.
        per_item: Each item's ``item_id``, ``group`` by popularity, relevant ``training`` and ``test`` rows, and how
            often it was recommended to the users with a relevant item, ``exposure@10`` …; the same of models beside,
            ``exposure@10_popularity`` ….
        precision_recall: ``model``, ``k``, ``precision`` and ``recall`` of the model and those beside it.
        calibration: Of rating models, :meth:`recflow.metrics.predictions.Predictions.calibration`; else None.
    """

    groups: dict[str, Table]
    user_groups: pl.DataFrame
    per_item: pl.DataFrame
    precision_recall: pl.DataFrame
    calibration: pl.DataFrame | None


def examine(
    name: str, measured: Evaluation, data: Dataset, ks: Sequence[int], beside: Mapping[str, Evaluation] | None = None
) -> Examination:
    """Look closer at a test that has been made; nothing is ranked again.

    Args:
        name: The model's name.
        measured: Its evaluation on the test part, with per-user values.
        data: The dataset.
        ks: Cut-offs.
        beside: Evaluations of other models on the same part, by name.

    Raises:
        ValueError: If the evaluation is not of the test part, or kept no per-user values.
    """
    lists = measured.lists
    if lists is None or measured.per_user.width == 0:
        raise ValueError("examine needs an evaluation of the test part with keep_per_user=True")
    others = {other: found.lists for other, found in (beside or {}).items() if found.lists is not None}
    relevant, positives = data.relevant("test").to("cpu"), data.positives.to("cpu")
    counts = torch.bincount(positives.items, minlength=data.num_items)
    of_items, of_users = item_groups(counts), user_groups(data, measured.per_user["user_id"])
    pairs = relevant.users, relevant.items
    groups = by_user_group(measured.per_user, of_users)
    groups["item popularity"] = by_item_group(lists, pairs, of_items, ks, measured.predictions)
    shown = {
        f"exposure@{k}{suffix}": found
        for suffix, of_model in (("", lists), *((f"_{other}", theirs) for other, theirs in others.items()))
        for k, found in exposure(of_model, data.num_items, ks).items()
    }
    columns = {"training": counts, "test": torch.bincount(relevant.items, minlength=data.num_items), **shown}
    per_item = pl.DataFrame(
        [
            data.interactions.items["item_id"],
            of_items.alias("group"),
            *(pl.Series(column, values.numpy()) for column, values in columns.items()),
        ]
    )
    curves = [
        precision_recall(of_model).select(pl.lit(model).alias("model"), pl.all())
        for model, of_model in ((name, lists), *others.items())
    ]
    calibration = None if measured.predictions is None else measured.predictions.calibration()
    return Examination(groups, of_users, per_item, pl.concat(curves), calibration)
