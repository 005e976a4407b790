"""What a dataset is like, in numbers: sizes, scale, skew, time span, features, and how cold its held-out parts are.

Two steps, since a source table need not be kept beside the indexed one: `describe_source` before the filters,
`describe` after filters and split. Both give plain values, as ``describe.json`` holds them.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.data.interactions import Interactions, RawData
from recflow.data.splits import Split

MAX_BARS = 20  # ratings with more distinct values than this are counted in as many equal bins
_MAX_CATEGORIES = 12  # a numeric feature with more distinct values than this is told by its quartiles
_TOP_VALUES = 25

_OCCUPATIONS = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip
#: What MovieLens 1M's README says that its users' codes stand for.
_LABELS: dict[str, dict[str, dict[int, str]]] = {
    "ml-1m": {
        "age": {1: "under 18", 18: "18–24", 25: "25–34", 35: "35–44", 45: "45–49", 50: "50–55", 56: "56 and over"},
        "occupation": dict(enumerate(_OCCUPATIONS)),
    }
}

Counts = npt.NDArray[np.int64]


def describe_source(raw: RawData) -> dict[str, Any]:
    """Count a dataset as it was read, before any filter.

    Returns:
        ``ratings``, ``users`` and ``items`` with at least one rating, ``duplicates`` (rows beyond the first of a user
        and an item), ``items_listed`` (rows of the item table, rated or not) and ``tags``.

    Example:
        >>> from recflow.data.catalog import load_raw
        >>> describe_source(load_raw("sample:ratings=500"))["ratings"]
        500
    """
    items_of_user = raw.ratings.group_by("user_id").agg(pl.col("item_id").n_unique())["item_id"]
    return {
        "ratings": raw.ratings.height,
        "users": len(items_of_user),
        "items": raw.ratings["item_id"].n_unique(),
        "duplicates": raw.ratings.height - int(items_of_user.sum()),
        "items_listed": raw.items.height,
        "tags": raw.tags.height,
    }


def describe(interactions: Interactions, parts: Split, relevant_from: float | None = None) -> dict[str, Any]:
    """Describe filtered, indexed and split data.

    Args:
        interactions: What is left after the filters.
        parts: Its split.
        relevant_from: The rating from which a row counts as relevant; None counts every row.

    Returns:
        Counts, shares from 0 to 1, quartiles as ``{"min", "q1", "median", "q3", "max"}``, and times as UTC dates.
        ``rating`` and ``time`` are None where the dataset has none of its own, ``years`` where no item has one.
    """
    table = interactions.table
    per_user = _counts(table["user"], interactions.num_users)
    per_item = _counts(table["item"], interactions.num_items)
    labels = _LABELS.get(interactions.name, {})
    users = interactions.users
    return {
        "dataset": interactions.name,
        "sha256": interactions.sha256,
        "filter": interactions.filters,
        "notices": list(interactions.notices),
        "ratings": table.height,
        "users": interactions.num_users,
        "items": interactions.num_items,
        "density": table.height / (interactions.num_users * interactions.num_items),
        "rating": _describe_ratings(table["rating"]) if interactions.has_ratings else None,
        "ratings_per_user": {"mean": float(per_user.mean()), **quartiles(per_user)},
        "ratings_per_item": {"mean": float(per_item.mean()), **quartiles(per_item)},
        "share_of_top_items": {"1 %": top_share(per_item, 0.01), "10 %": top_share(per_item, 0.1)},
        "share_of_top_users": {"1 %": top_share(per_user, 0.01), "10 %": top_share(per_user, 0.1)},
        "time": _describe_times(table["time"]) if interactions.has_times else None,
        "genres": _describe_genres(interactions.items["genres"], per_item),
        "items_without_genre": int((interactions.items["genres"].list.len() == 0).sum()),
        "years": _describe_years(interactions.items["year"]),
        "user_features": {
            name: _describe_feature(users[name], labels.get(name)) for name in users.columns if name != "user_id"
        },
        "split": {"describe": parts.describe, "parts": _describe_parts(interactions, parts, relevant_from)},
    }


def quartiles(values: npt.NDArray[Any]) -> dict[str, float]:
    """Minimum, quartiles (interpolated) and maximum of at least one value.

    Example:
        >>> quartiles(np.array([1, 2, 3, 4]))["median"]
        2.5
    """
    names = ("min", "q1", "median", "q3", "max")
    return {name: float(value) for name, value in zip(names, np.quantile(values, np.linspace(0, 1, 5)), strict=True)}


def top_share(counts: Counts, fraction: float) -> float:
    """Share of all rows that belong to the largest counts.

    Args:
        counts: Rows per user or item, shape ``[size]``.
        fraction: How many of the counts are the largest, in (0, 1]; rounded up.

    Example:
        >>> top_share(np.array([1, 8, 1]), 0.1)
        0.8
    """
    top = math.ceil(round(fraction * len(counts), 9))  # 0.1 * 30 is a little above 3
    return float(np.sort(counts)[-top:].sum() / counts.sum())


def _counts(column: pl.Series, size: int) -> Counts:
    return np.bincount(column.to_numpy(), minlength=size)


def _describe_ratings(ratings: pl.Series) -> dict[str, Any]:
    """Everything from the few distinct values and their counts: no rating is looked at twice."""
    distinct = ratings.value_counts(name="ratings").sort("rating")
    values = np.array([float(str(value)) for value in distinct["rating"].to_numpy()])  # 4.1, not float32's 4.0999999
    counts = distinct["ratings"].to_numpy().astype(np.int64)
    total, reached = int(counts.sum()), np.cumsum(counts)
    mean = float(values @ counts / total)
    places = np.searchsorted(reached, np.ceil(np.array([0.25, 0.5, 0.75]) * total))
    return {
        "distinct": len(values),
        "mean": mean,
        "sd": math.sqrt(float((values - mean) ** 2 @ counts / total)),
        "min": float(values[0]),
        **{name: float(values[place]) for name, place in zip(("q1", "median", "q3"), places, strict=True)},
        "max": float(values[-1]),
        "distribution": _distribution(values, counts),
    }


def _distribution(values: npt.NDArray[np.float64], counts: Counts) -> list[dict[str, float]]:
    """Ratings from ``from`` to ``to``: single values where they are few, else equal bins (the last one closed)."""
    if len(values) <= MAX_BARS:
        return [
            {"from": float(value), "to": float(value), "ratings": int(n)}
            for value, n in zip(values, counts, strict=True)
        ]
    inside, edges = np.histogram(values, bins=MAX_BARS, weights=counts)
    return [
        {"from": float(low), "to": float(high), "ratings": round(float(n))}
        for low, high, n in zip(edges[:-1], edges[1:], inside, strict=True)
    ]


def _describe_times(times: pl.Series) -> dict[str, Any]:
    first, last = int(times.min()), int(times.max())  # type: ignore[arg-type]  # polars: any literal, here Int64
    return {"first": utc_date(first), "last": utc_date(last), "days": (last - first) / 86_400}


def utc_date(seconds: int) -> str:
    """The day of a unix time.

    Example:
        >>> utc_date(874724710)
        '1997-09-20'
    """
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def _describe_genres(genres: pl.Series, per_item: Counts) -> list[dict[str, Any]]:
    """Items and their ratings by genre, the most rated first; an item counts for each of its genres."""
    counted = (
        pl.DataFrame({"genre": genres, "ratings": per_item})
        .explode("genre")
        .drop_nulls("genre")
        .group_by("genre")
        .agg(pl.len().alias("items"), pl.col("ratings").sum())
    )
    return counted.sort(["ratings", "genre"], descending=[True, False]).to_dicts()


def _describe_years(years: pl.Series) -> dict[str, Any] | None:
    known = years.drop_nulls()
    return {"known": len(known), **quartiles(known.to_numpy())} if len(known) else None


def _describe_feature(column: pl.Series, labels: dict[int, str] | None = None) -> dict[str, Any]:
    """A feature by its commonest values, or by quartiles where it is a number of many values."""
    known = column.drop_nulls()
    if isinstance(known.dtype, pl.List | pl.Array):
        known = known.explode().drop_nulls()
    summary: dict[str, Any] = {"known": len(column) - column.null_count()}
    if known.dtype.is_nested() or known.dtype == pl.Object:
        return summary
    if known.dtype.is_float():
        known = known.drop_nans()
    summary["distinct"] = known.n_unique()
    if known.dtype.is_numeric() and labels is None and summary["distinct"] > _MAX_CATEGORIES:
        return {**summary, "mean": float(known.cast(pl.Float64).mean()), **quartiles(known.to_numpy())}  # type: ignore[arg-type]
    counted = known.alias("value").value_counts(name="users").sort(["users", "value"], descending=[True, False])
    if known.dtype.is_numeric():  # codes and small numbers have an order of their own
        counted = counted.sort("value")
    rows = counted.head(_TOP_VALUES).iter_rows()
    return {**summary, "values": {(labels or {}).get(value, str(value)): users for value, users in rows}}


def _describe_parts(interactions: Interactions, parts: Split, relevant_from: float | None) -> dict[str, dict[str, Any]]:
    """Each part's rows, users and items; of the held-out ones, how many have no training row."""
    tables = {"train": parts.train, "val": parts.val, "test": parts.test}
    if parts.fold_in.height:
        tables["fold_in"] = parts.fold_in
    sizes = {"user": interactions.num_users, "item": interactions.num_items}
    trained = {side: _counts(parts.train[side], size) > 0 for side, size in sizes.items()}
    return {
        name: _describe_part(table, interactions.table.height, sizes, trained, relevant_from)
        for name, table in tables.items()
    }


def _describe_part(
    table: pl.DataFrame,
    total: int,
    sizes: dict[str, int],
    trained: dict[str, npt.NDArray[np.bool_]],
    relevant_from: float | None,
) -> dict[str, Any]:
    part: dict[str, Any] = {"rows": table.height, "share": table.height / total}
    if relevant_from is not None:
        part["relevant"] = int((table["rating"].to_numpy() >= np.float32(relevant_from)).sum())
    for side, size in sizes.items():
        present = _counts(table[side], size) > 0
        cold = present & ~trained[side]
        rows = int((~trained[side][table[side].to_numpy()]).sum())
        part[f"{side}s"] = int(present.sum())
        part[f"cold_{side}s"] = {
            "count": int(cold.sum()),
            "share": _ratio(int(cold.sum()), int(present.sum())),
            "rows": rows,
            "share_of_rows": _ratio(rows, table.height),
        }
    return part


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
