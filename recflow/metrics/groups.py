"""Metrics by group: whom a model serves well and whom badly, and which items it finds.

Users are grouped by activity and, where the data say, by gender and age; relevant items by popularity. Each grouping
has a rule, its groups, and for every metric the gap between the best and the worst group. Ekstrand et al., All The Cool
Kids, FAT* 2018, https://proceedings.mlr.press/v81/ekstrand18b.html, found such gaps in MovieLens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.metrics.lists import TopLists, mean_of_known
from recflow.metrics.predictions import Predictions
from recflow.metrics.ranking import cutoffs

SMALL = 30
"""Groups of fewer users are shown and marked, and count neither for the gap nor as the worst."""

RULES = {
    "activity": "users by training interactions, at the quartiles of the users measured",
    "gender": "users by gender",
    "age": "users by age in years, at MovieLens-1M's bounds",
    "item popularity": "relevant items by training interactions: head holds a third of them all, mid the next, tail "
    "the rest; recall and errors are of the group's items alone, users those who have any",
}
_MEANS = ("ndcg", "recall", "hit")  # of the per-user metrics; the others follow from per_user.parquet
_ERRORS = ("rmse", "mae")  # less is better
_AGES = (18, 25, 35, 45, 50, 56)
_MAX_VALUES = 10

Table = dict[str, Any]


def user_groups(data: Dataset, user_ids: pl.Series) -> pl.DataFrame:
    """Which group each user belongs to, under every grouping that the data allow.

    Args:
        data: The dataset.
        user_ids: Ids of the users measured.

    Returns:
        ``user_id`` and, of ``activity``, ``gender`` and ``age``, those that there are: Enums, whose categories are the
        groups in order; null where a user's is unknown.
    """
    users = data.interactions.users
    index = pl.DataFrame({"user_id": users["user_id"], "index": range(len(users))})
    place = pl.DataFrame({"user_id": user_ids}).join(index, on="user_id", how="left", maintain_order="left")["index"]
    known = torch.cat([data.rows[part].users.cpu() for part in ("train", "fold_in")])
    counts = torch.bincount(known, minlength=data.num_users).numpy()[place.to_numpy()]
    columns = [_activity(counts)]
    for name, usual in (("gender", ("gender", "sex")), ("age", ("age",))):
        column = next((users[given].gather(place) for given in usual if given in users.columns), None)
        labels = None if column is None else (_ages(column) if name == "age" else _values(column))
        if labels is not None:
            columns.append(labels.alias(name))
    return pl.DataFrame([user_ids.alias("user_id"), *columns])


def item_groups(counts: Tensor) -> pl.Series:
    """Head, mid or tail: by the share of all training interactions that more popular items hold.

    An item is in the head if items with more interactions than it hold less than a third of them all, in the middle if
    less than two thirds, else in the tail. Equally popular items so stay together, whatever their order.

    Args:
        counts: Training interactions of each item, int64, shape ``[num_items]``; not all of them 0.

    Returns:
        An Enum of ``head``, ``mid`` and ``tail``.

    Example:
        >>> item_groups(torch.tensor([6, 3, 3, 3, 2, 1, 0])).to_list()
        ['head', 'mid', 'mid', 'mid', 'tail', 'tail', 'tail']
    """
    number = counts.cpu().numpy()
    descending = -np.sort(-number)
    before = np.concatenate([[0], np.cumsum(descending)])[np.searchsorted(-descending, -number)]
    third = (3 * before >= number.sum()).astype(np.int64) + (3 * before >= 2 * number.sum())
    names = ["head", "mid", "tail"]
    return pl.Series("item popularity", [names[place] for place in third], dtype=pl.Enum(names))


def by_user_group(per_user: pl.DataFrame, groups: pl.DataFrame) -> dict[str, Table]:
    """Means of the metrics over the users of each group.

    rmse and mae of a group are taken over all of its users' ratings, as over the whole part.

    Args:
        per_user: ``user_id`` and metrics, as :class:`~recflow.metrics.evaluate.Evaluation` has them.
        groups: ``user_id`` and groupings, the same users in the same order.

    Returns:
        Each grouping's table, see :func:`table`.
    """
    names = [name for name in per_user.columns if name.partition("@")[0] in _MEANS and "_neg" not in name]
    tables = {}
    for grouping in groups.columns[1:]:
        rows = []
        for group in groups[grouping].dtype.categories:  # type: ignore[attr-defined]  # polars: of an Enum
            own = per_user.filter(groups[grouping] == group)
            values = {name: _mean(own[name]) for name in names if own[name].null_count() < len(own)}
            if "ratings" in own.columns and len(own):
                values = _errors(own) | values
            rows.append((group, len(own), values))
        tables[grouping] = table(RULES[grouping], rows)
    return {grouping: content for grouping, content in tables.items() if content["groups"]}


def by_item_group(
    lists: TopLists,
    relevant: tuple[Tensor, Tensor],
    groups: pl.Series,
    ks: Sequence[int],
    predictions: Predictions | None,
) -> Table:
    """Recall of the relevant items of each group, a mean over the users who have any, and the errors of their ratings.

    Args:
        lists: Who was recommended what.
        relevant: Users and items of the relevant rows, int64, each of shape ``[relevant]``.
        groups: Each item's group, an Enum.
        ks: Cut-offs.
        predictions: What was predicted for the part's ratings, if anything was.

    Returns:
        The grouping's table, see :func:`table`.
    """
    code = torch.from_numpy(groups.to_physical().to_numpy().astype(np.int64))
    size = 1 + max(int(users.max()) if len(users) else 0 for users in (lists.users, relevant[0]))
    rows = []
    for number, group in enumerate(groups.dtype.categories):  # type: ignore[attr-defined]
        there = torch.bincount(relevant[0][code[relevant[1]] == number], minlength=size)[lists.users]
        found = lists.hits & (code[lists.items.clamp(min=0)] == number)
        some = there > 0
        values = {}
        if bool(some.any()):
            for k in cutoffs(ks):
                values[f"recall@{k}"] = mean_of_known((found[:, :k].sum(dim=1).double() / there)[some])
        users = int(some.sum())
        if predictions is not None:
            own = (code[predictions.items] == number).numpy()
            users = len(np.unique(predictions.users.numpy()[own]))
            errors = predictions.errors[own]
            if len(errors):
                mse, mae = (math.fsum(some_errors) / len(errors) for some_errors in (errors**2, errors))
                values = {"rmse": math.sqrt(mse), "mae": mae, **values}
        rows.append((group, users, values))
    return table(RULES["item popularity"], rows)


def table(rule: str, rows: Sequence[tuple[str, int, Mapping[str, float]]]) -> Table:
    """One grouping, as ``metrics.json`` holds it.

    Args:
        rule: How the groups came about.
        rows: Each group's name, number of users, and metrics; groups of nobody are left out.

    Returns:
        ``rule``; ``groups``: of each ``group``, ``users``, ``small`` and ``metrics``; ``gap``: best minus worst group
        of each metric, never negative; ``worst``: which group that is. Gap and worst leave small groups out, and are
        missing for a metric that fewer than two others have.

    Example:
        >>> table("by size", [("a", 40, {"hit@1": 0.5}), ("b", 31, {"hit@1": 0.2}), ("c", 2, {"hit@1": 0.0})])["worst"]
        {'hit@1': 'b'}
    """
    rows = [row for row in rows if row[1]]
    gap, worst = {}, {}
    large = [(group, values) for group, users, values in rows if users >= SMALL]
    for name in dict.fromkeys(name for _, values in large for name in values):
        found = {group: values[name] for group, values in large if name in values}
        if len(found) < 2:
            continue
        gap[name] = max(found.values()) - min(found.values())
        pick = max if name in _ERRORS else min
        worst[name] = pick(found, key=found.__getitem__)
    groups = [
        {"group": group, "users": users, "small": users < SMALL, "metrics": dict(found)} for group, users, found in rows
    ]
    return {"rule": rule, "groups": groups, "gap": gap, "worst": worst}


def _activity(counts: npt.NDArray[np.int64]) -> pl.Series:
    """Quartiles, as ranges of whole numbers; users as active as each other stay together."""
    if len(counts) == 0:
        return pl.Series("activity", [], dtype=pl.Enum([]))
    inner = np.unique(np.quantile(counts, [0.25, 0.5, 0.75], method="lower"))
    place = np.searchsorted(inner, counts, side="left")
    bounds = [(counts[place == number].min(), counts[place == number].max()) for number in np.unique(place)]
    names = {
        number: f"{low}" if low == high else f"{low}–{high}"
        for number, (low, high) in zip(np.unique(place).tolist(), bounds, strict=True)
    }
    return pl.Series("activity", [names[number] for number in place.tolist()], dtype=pl.Enum(list(names.values())))


def _ages(ages: pl.Series) -> pl.Series | None:
    if not ages.dtype.is_numeric():
        return _values(ages)
    between = [f"{low}–{high - 1}" for low, high in pairwise(_AGES)]
    names = [f"under {_AGES[0]}", *between, f"{_AGES[-1]}+"]
    place = np.searchsorted(_AGES, ages.fill_null(0).to_numpy(), side="right")
    unknown = ages.is_null().to_list()
    labels = [None if missing else names[number] for number, missing in zip(place.tolist(), unknown, strict=True)]
    return pl.Series(labels, dtype=pl.Enum(names))


def _values(column: pl.Series) -> pl.Series | None:
    """A column of few values as groups; None if they are many or a single one."""
    texts = column.cast(pl.String)
    names = texts.drop_nulls().unique().sort().to_list()
    return texts.cast(pl.Enum(names)) if 2 <= len(names) <= _MAX_VALUES else None


def _mean(values: pl.Series) -> float:
    known = values.drop_nulls().to_list()
    return math.fsum(known) / len(known)


def _errors(own: pl.DataFrame) -> dict[str, float]:
    ratings = int(own["ratings"].sum())
    mse, mae = (math.fsum((own[name] * own["ratings"]).to_list()) / ratings for name in ("mse", "mae"))
    return {"rmse": math.sqrt(mse), "mae": mae}
