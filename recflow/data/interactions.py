"""Interactions: one long table over contiguous indices, and the vocabulary that leads back to the dataset's own ids.

Order of work: duplicates go first (the latest opinion counts), then items by their rules (genre, year), then ratings
below `drop_below`, then items with too few ratings left, then the k-core.
Indices follow the sorted raw ids of what is left, so they depend on neither the file's order nor the machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.errors import RecflowError

RATING_COLUMNS = ("user_id", "item_id", "rating", "time")
TAG_COLUMNS = ("user_id", "item_id", "tag", "time")
PAIR_COLUMNS = ("user_id", "item_id")
ITEM_FIELDS: dict[str, pl.DataType] = {"title": pl.String(), "year": pl.Int32(), "genres": pl.List(pl.String())}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RawData:
    """A dataset as its parser read it, in the dataset's own ids.

    Attributes:
        name: The dataset's name, such as ``ml-1m``.
        sha256: Hash of the source files' bytes; of parameters and version where the data are generated.
        ratings: ``user_id`` and ``item_id`` (Int64 or String), ``rating`` Float32, ``time`` Int64 (unix seconds) and,
            where the dataset brings folds, ``fold`` Int8: the fold, from 1, in which the row is a test row; null for
            rows that are trained on in every fold.
        items: ``item_id``, ``title`` String, ``year`` Int32 (null where unknown), ``genres`` List(String), and any
            further features.
        users: ``user_id`` and the features that the dataset has.
        notices: What whoever uses these data should be told, one line each.
        tags: ``user_id``, ``item_id``, ``tag`` String, ``time`` Int64; no rows where the dataset has none.
        negatives: ``user_id``, ``item_id``: the items that a published protocol ranks a user's test item against.
        has_ratings: Whether the ratings are the dataset's own; if not, every one is 1.
        has_times: Whether the times are the dataset's own; if not, every one is 0.
    """

    name: str
    sha256: str
    ratings: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    notices: tuple[str, ...] = ()
    tags: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TAG_COLUMNS))
    negatives: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAIR_COLUMNS))
    has_ratings: bool = True
    has_times: bool = True


@dataclass(frozen=True)
class Interactions:
    """Who rated what, over contiguous indices from 0.

    Attributes:
        name: The dataset's name.
        sha256: Hash of the dataset's contents, see `RawData`.
        table: ``user`` Int32, ``item`` Int32, ``rating`` Float32, ``time`` Int64 and perhaps ``fold`` Int8; every pair
            once, sorted by user, a user's rows in the order of the file.
        users: Row n describes user n: ``user_id``, then features.
        items: Row n describes item n: ``item_id``, ``title``, ``year``, ``genres``.
        dropped: ``user``, ``item`` and ``rating`` of rows that a filter removed although both remain: nothing is learnt
            from them, yet the user knows these items.
        rating_scale: Lowest and highest rating, filtered rows included.
        filters: What was removed, for a header: ``"rating >= 3, 10-core, 0 duplicates"``, or ``"none"``.
        notices: What whoever uses these data should be told, one line each.
        negatives: ``user`` and ``item`` Int32, sorted: the candidates that a published protocol gives each user's test
            item; no rows where the dataset has none.
        has_ratings: Whether the ratings are the dataset's own; if not, every one is 1.
        has_times: Whether the times are the dataset's own; if not, every one is 0.
    """

    name: str
    sha256: str
    table: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    dropped: pl.DataFrame
    rating_scale: tuple[float, float]
    filters: str
    notices: tuple[str, ...] = ()
    negatives: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32}))
    has_ratings: bool = True
    has_times: bool = True

    @property
    def num_users(self) -> int:
        """Number of users with at least one row in the table."""
        return self.users.height

    @property
    def num_items(self) -> int:
        """Number of items with at least one row in the table."""
        return self.items.height


def build_interactions(
    raw: RawData,
    *,
    drop_below: float | None = None,
    k_core: int = 0,
    require_genre: bool = False,
    years: Sequence[int] | None = None,
    min_item_ratings: int = 0,
) -> Interactions:
    """Filter a dataset's ratings and number its users and items.

    Args:
        raw: A dataset in its own ids.
        drop_below: Ratings below this are removed before anything is split; None keeps all.
        k_core: Users and items with fewer rows than this are removed, again and again until there are none; 0 or 1
            keeps all.
        require_genre: Items without a genre are removed.
        years: First and last year of release; other items, and those of unknown year, are removed; None keeps all.
        min_item_ratings: Items with fewer rows than this, once the other rules have been applied, are removed.

    Returns:
        The table, its vocabulary and a record of what was removed.

    Raises:
        RecflowError: If an argument is out of range, a value is missing, or nothing is left.

    Example:
        >>> columns = {"user_id": [7, 7, 3], "item_id": [1, 2, 2], "rating": [5.0, 1.0, 4.0], "time": [0, 1, 2]}
        >>> ratings = pl.DataFrame(columns)
        >>> raw = RawData("tiny", "", ratings, pl.DataFrame({"item_id": [1, 2]}), pl.DataFrame({"user_id": [3, 7]}))
        >>> build_interactions(raw, drop_below=2).table["user"].to_list()
        [0, 1]
    """
    _check(raw, drop_below, k_core, years, min_item_ratings)
    user_ids, user = _codes(raw.ratings, "user_id")
    item_ids, item = _codes(raw.ratings, "item_id")
    rating = raw.ratings["rating"].cast(pl.Float32).to_numpy()
    time = raw.ratings["time"].to_numpy()

    single = _latest_of_each_pair(user, item, time, len(item_ids))
    keep = single.copy()
    steps: list[str] = []
    removed: list[str] = []

    def apply(rule: str, rows: Mask) -> None:
        removed.append(f"{rule} took {int((keep & ~rows).sum()):,}")
        steps.append(rule)
        keep[~rows] = False

    if require_genre:
        apply("items with a genre", _with_genre(item_ids, raw.items)[item])
    if years is not None:
        apply(f"released {years[0]} to {years[1]}", _released(item_ids, raw.items, years)[item])
    if drop_below is not None:
        # compared in float32, as the ratings are: 4.1 must not lie above the file's own 4.1
        apply(f"rating >= {drop_below:g}", rating >= np.float32(drop_below))
    if min_item_ratings > 1:
        enough = np.bincount(item[keep], minlength=len(item_ids)) >= min_item_ratings
        apply(f"items with {min_item_ratings:,} ratings or more", enough[item])
    if k_core > 1:
        apply(f"{k_core}-core", _core(keep, user, item, k_core))
    if not keep.any():
        raise RecflowError(
            f"{raw.name}: no ratings are left of {len(keep):,} ({', '.join(removed)}); loosen these filters"
        )
    duplicates = len(keep) - int(single.sum())
    if steps or duplicates:
        steps.append(f"{duplicates:,} duplicates")

    new_user, users = _vocabulary(user[keep], user_ids)
    new_item, items = _vocabulary(item[keep], item_ids)
    columns = [pl.Series("user", new_user[user[keep]]), pl.Series("item", new_item[item[keep]])]
    columns += [pl.Series("rating", rating[keep]), pl.Series("time", time[keep]).cast(pl.Int64)]
    if "fold" in raw.ratings.columns:
        columns.append(raw.ratings["fold"].filter(pl.Series(keep)).cast(pl.Int8))
    table = pl.DataFrame(columns)
    if not table["user"].is_sorted():
        table = table.sort("user", maintain_order=True)

    gone = single & ~keep
    dropped = pl.DataFrame({"user": new_user[user[gone]], "item": new_item[item[gone]], "rating": rating[gone]})
    dropped = dropped.filter((pl.col("user") >= 0) & (pl.col("item") >= 0)).sort("user", "item")

    notices = list(raw.notices)
    if duplicates:
        notices.append(f"{raw.name}: {duplicates:,} duplicated (user, item) rows, of which the latest was kept")
    return Interactions(
        name=raw.name,
        sha256=raw.sha256,
        table=table,
        users=_describe(users, raw.users, "user_id"),
        items=_describe_items(items, raw.items),
        dropped=dropped,
        rating_scale=(float(str(rating.min())), float(str(rating.max()))),  # 4.7, not float32's 4.69999980926
        filters=", ".join(steps) or "none",
        notices=tuple(notices),
        negatives=_indexed(raw.negatives, user_ids, new_user, item_ids, new_item),
        has_ratings=raw.has_ratings,
        has_times=raw.has_times,
    )


def _check(
    raw: RawData, drop_below: float | None, k_core: int, years: Sequence[int] | None, min_item_ratings: int
) -> None:
    if min_item_ratings < 0:
        raise RecflowError(
            f"min_item_ratings is {min_item_ratings}, expected 0 (no such filter) or a number of ratings such as 5"
        )
    if years is not None and (len(years) != 2 or years[0] > years[1]):
        raise RecflowError(f"years is {list(years)}, expected the first and the last year, such as [1990, 1999]")
    if k_core < 0:
        raise RecflowError(f"k_core is {k_core}, expected 0 (no such filter) or a number of rows such as 10")
    missing = [name for name in RATING_COLUMNS if name not in raw.ratings.columns]
    if missing:
        raise RecflowError(
            f"{raw.name}: the ratings lack the columns {', '.join(missing)}; given: {raw.ratings.columns}"
        )
    if raw.ratings.is_empty():
        raise RecflowError(f"{raw.name}: there are no ratings in it, expected at least one")
    for name in RATING_COLUMNS:
        nulls = raw.ratings[name].null_count()
        if nulls:
            raise RecflowError(f"{raw.name}: {nulls:,} rows have no {name}, expected a value in every row")
    if not raw.ratings["rating"].is_finite().all():
        raise RecflowError(f"{raw.name}: a rating is not a finite number (nan or inf), expected numbers such as 3.5")
    if drop_below is None:
        return
    highest = raw.ratings.select(pl.col("rating").cast(pl.Float64).max()).item()
    if math.isnan(drop_below) or np.float32(drop_below) > np.float32(highest):
        raise RecflowError(f"drop_below is {drop_below:g}, expected at most {raw.name}'s highest rating, {highest:g}")


def _codes(ratings: pl.DataFrame, column: str) -> tuple[pl.Series, npt.NDArray[np.int32]]:
    """The sorted distinct ids, and each row's place among them."""
    ids = ratings[column].unique().sort()
    place = pl.DataFrame({column: ids, "code": np.arange(len(ids), dtype=np.int32)})
    rows = ratings.select(column).join(place, on=column, how="left", maintain_order="left")
    return ids, rows["code"].to_numpy()


def _latest_of_each_pair(
    user: npt.NDArray[np.int32], item: npt.NDArray[np.int32], time: npt.NDArray[np.int64], num_items: int
) -> Mask:
    """True for the one row of each (user, item) that counts: the latest, of equals the last in the file."""
    key = user.astype(np.int64) * num_items + item
    ordered = np.sort(key)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    keep = np.ones(len(key), dtype=np.bool_)
    if repeated.size:
        rows = np.flatnonzero(np.isin(key, repeated))
        rows = rows[np.lexsort((rows, time[rows], key[rows]))]
        last = np.append(key[rows][1:] != key[rows][:-1], True)
        keep[rows[~last]] = False
    return keep


def _with_genre(item_ids: pl.Series, catalogue: pl.DataFrame) -> Mask:
    described = _describe(item_ids, catalogue, "item_id")
    if "genres" not in described.columns:
        raise RecflowError("require_genre is set, yet these data name no genres")
    return described.select((pl.col("genres").list.len() > 0).fill_null(False)).to_series().to_numpy()


def _released(item_ids: pl.Series, catalogue: pl.DataFrame, years: Sequence[int]) -> Mask:
    described = _describe(item_ids, catalogue, "item_id")
    if "year" not in described.columns:
        raise RecflowError("years is set, yet these data name no year of release")
    return described.select(pl.col("year").is_between(years[0], years[1]).fill_null(False)).to_series().to_numpy()


def _core(keep: Mask, user: npt.NDArray[np.int32], item: npt.NDArray[np.int32], k_core: int) -> Mask:
    """The kept rows but those of users or items with fewer than `k_core` of them, to the fixed point."""
    rows = np.flatnonzero(keep)
    while rows.size:
        enough = np.bincount(user[rows])[user[rows]] >= k_core
        enough &= np.bincount(item[rows])[item[rows]] >= k_core
        if enough.all():
            break
        rows = rows[enough]
    core = np.zeros_like(keep)
    core[rows] = True
    return core


def _vocabulary(used: npt.NDArray[np.int32], ids: pl.Series) -> tuple[npt.NDArray[np.int32], pl.Series]:
    """New index per old code, -1 for codes no longer in use; and the ids in the order of the new index."""
    present = np.bincount(used, minlength=len(ids)) > 0
    index = np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)
    return index, ids.filter(pl.Series(present))


def _indexed(
    pairs: pl.DataFrame,
    user_ids: pl.Series,
    new_user: npt.NDArray[np.int32],
    item_ids: pl.Series,
    new_item: npt.NDArray[np.int32],
) -> pl.DataFrame:
    """Pairs of raw ids as pairs of indices, sorted and distinct; those that a filter removed are left out."""
    if pairs.is_empty():
        return pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32})
    users = pl.DataFrame({"user_id": user_ids, "user": new_user})
    items = pl.DataFrame({"item_id": item_ids, "item": new_item})
    known = pairs.join(users, on="user_id").join(items, on="item_id").select("user", "item")
    return known.filter((pl.col("user") >= 0) & (pl.col("item") >= 0)).unique().sort("user", "item")


def _describe(ids: pl.Series, features: pl.DataFrame, column: str) -> pl.DataFrame:
    """One row per id, in the order of `ids`, with the features known of it."""
    frame = ids.to_frame(column)
    if column not in features.columns:
        return frame
    if features[column].dtype != ids.dtype:
        raise RecflowError(
            f"{column} is {features[column].dtype} among features but {ids.dtype} in the ratings; expected one type"
        )
    return frame.join(features.unique(column, keep="first"), on=column, how="left", maintain_order="left")


def _describe_items(ids: pl.Series, catalogue: pl.DataFrame) -> pl.DataFrame:
    frame = _describe(ids, catalogue, "item_id")
    absent = [pl.lit(None, dtype=dtype).alias(name) for name, dtype in ITEM_FIELDS.items() if name not in frame.columns]
    frame = frame.with_columns(absent).with_columns(
        pl.col("title").fill_null(pl.col("item_id").cast(pl.String)),
        pl.col("genres").fill_null(pl.lit([], dtype=pl.List(pl.String))),
    )
    return frame.select("item_id", *ITEM_FIELDS, pl.exclude("item_id", *ITEM_FIELDS))
