"""Splits: which rows are trained on, which choose the epoch, which are read once at the end.

Every method marks rows of the one table; nothing is copied but the three results, and no user is looped over.
Random choices are drawn in (user, item) order from PCG64's raw stream, so a file in another order is split alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.data.interactions import Interactions
from recflow.errors import RecflowError

SplitMethod = Literal["ratio", "leave-one-out", "files"]

TRAIN, VAL, TEST = 0, 1, 2

Part = npt.NDArray[np.int8]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Disjoint tables that together hold every row; columns and row order as in `Interactions.table`.

    Attributes:
        train: Rows to learn from; the graph and every statistic come from these alone.
        val: Rows that choose the epoch; may be empty.
        test: Rows that are read once.
        describe: The split in words, for a header: ``"ratio 8:1:1 per user, random, seed 42"``.
        fold_in: What is known of the users who are held out whole: never trained on, yet a model ranks for them from
            these rows alone. Without columns or rows unless the split holds users out.
    """

    train: pl.DataFrame
    val: pl.DataFrame
    test: pl.DataFrame
    describe: str
    fold_in: pl.DataFrame = field(default_factory=pl.DataFrame)


def split(
    interactions: Interactions,
    method: SplitMethod,
    *,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 42,
    fold: int = 1,
    val_fraction: float = 0.1,
) -> Split:
    """Divide the interactions into train, validation and test rows.

    Args:
        interactions: The filtered, indexed table.
        method: ``ratio``: random shares of each user's rows, counted as RecBole counts them. ``leave-one-out``: a
            user's last row by time is tested, the one before it validates. ``files``: the folds the dataset brings.
        ratios: Shares of train, validation and test, summing to 1 (``ratio`` only).
        seed: Seed of the random choices, not negative (``ratio`` and ``files``).
        fold: Which fold is tested, from 1 (``files`` only).
        val_fraction: Share of the other folds' rows that validate, in [0, 1) (``files`` only).

    Returns:
        The three tables and their description.

    Raises:
        RecflowError: If the method is unknown, an argument out of range, or the dataset has no such fold.
    """
    if method not in get_args(SplitMethod):
        close = get_close_matches(str(method), get_args(SplitMethod), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RecflowError(
            f"split method {method!r} is unknown, expected one of {', '.join(get_args(SplitMethod))}{hint}"
        )
    if seed < 0:
        raise RecflowError(f"seed is {seed}, expected a whole number from 0")
    table = interactions.table
    if method == "ratio":
        part = _by_ratio(table, _checked_ratios(ratios), seed)
        describe = f"ratio {_ratio_text(ratios)} per user, random, seed {seed}"
    elif method == "leave-one-out":
        part = _leave_one_out(table)
        describe = "leave-one-out per user, last by time tested, the one before validates"
    else:
        part = _by_files(interactions, fold, val_fraction, seed)
        describe = f"files, fold {fold} tested, {val_fraction:g} of the other rows validate, random, seed {seed}"
    train, val, test = (table.filter(pl.Series(part == wanted)) for wanted in (TRAIN, VAL, TEST))
    return Split(train=train, val=val, test=test, describe=describe)


def ratio_counts(num_rows: Index, ratios: Sequence[float]) -> tuple[Index, Index, Index]:
    """How many of a user's rows go where, exactly as RecBole's `_calcu_split_ids` counts.

    Shares are rounded down, train takes what is left over; then test and validation, in this order, are given one row
    of train's where their share is below one row and train can spare it.

    Args:
        num_rows: Rows per user, int64, shape ``[num_users]``.
        ratios: Shares of train, validation and test.

    Returns:
        Rows of train, validation and test, each of shape ``[num_users]``.

    Example:
        >>> [int(count[0]) for count in ratio_counts(np.array([5]), (0.8, 0.1, 0.1))]
        [3, 1, 1]
    """
    val = (ratios[1] * num_rows).astype(np.int64)
    test = (ratios[2] * num_rows).astype(np.int64)
    train = num_rows - val - test
    for count, ratio in ((test, ratios[2]), (val, ratios[1])):
        share = ratio * num_rows
        lent = (train > 1) & (share > 0) & (share < 1)
        count += lent
        train -= lent
    return train, val, test


def _by_ratio(table: pl.DataFrame, ratios: Sequence[float], seed: int) -> Part:
    user = table["user"].to_numpy()
    num_rows = np.bincount(user).astype(np.int64)
    train, val, _ = ratio_counts(num_rows, ratios)
    order = _pair_order(table)
    grouped = user[order].astype(np.int64)
    # one sort puts users in order and shuffles within each: the user in the high bits, chance in the low ones
    bits = 63 - len(num_rows).bit_length()
    chance = np.random.default_rng(seed).bit_generator.random_raw(len(order)) >> np.uint64(64 - bits)
    shuffled = order[np.argsort((grouped << bits) | chance.astype(np.int64), kind="stable")]
    first = np.cumsum(num_rows) - num_rows
    rank = np.arange(len(order)) - first[grouped]
    part = np.full(len(order), TEST, dtype=np.int8)
    part[shuffled[rank < (train + val)[grouped]]] = VAL
    part[shuffled[rank < train[grouped]]] = TRAIN
    return part


def _leave_one_out(table: pl.DataFrame) -> Part:
    user = table["user"].to_numpy()
    order = np.lexsort((table["time"].to_numpy(), user))  # stable: of equal times the file's last comes last
    num_rows = np.bincount(user)
    grouped = user[order]
    from_end = np.cumsum(num_rows)[grouped] - np.arange(len(order))  # 1 for a user's last row
    part = np.full(len(order), TRAIN, dtype=np.int8)
    part[order[(from_end == 1) & (num_rows[grouped] >= 2)]] = TEST
    part[order[(from_end == 2) & (num_rows[grouped] >= 3)]] = VAL
    return part


def _by_files(interactions: Interactions, fold: int, val_fraction: float, seed: int) -> Part:
    table = interactions.table
    if "fold" not in table.columns:
        raise RecflowError(f"{interactions.name} brings no folds, so split 'files' cannot be used; try 'ratio'")
    known = sorted(table["fold"].drop_nulls().unique().to_list())
    if fold not in known:
        raise RecflowError(f"fold is {fold}, expected one of {interactions.name}'s folds: {', '.join(map(str, known))}")
    if not 0 <= val_fraction < 1:
        raise RecflowError(f"val_fraction is {val_fraction:g}, expected a share from 0 to below 1, such as 0.1")
    tested = (table["fold"] == fold).fill_null(False).to_numpy()
    part = np.where(tested, TEST, TRAIN).astype(np.int8)
    order = _pair_order(table)
    rest = order[~tested[order]]
    chance = np.random.default_rng(seed).bit_generator.random_raw(len(rest))
    chosen = np.argsort(chance, kind="stable")[: round(val_fraction * len(rest))]
    part[rest[chosen]] = VAL
    return part


def _pair_order(table: pl.DataFrame) -> Index:
    """Row numbers in (user, item) order, which no file's order touches; pairs are unique."""
    user = table["user"].to_numpy().astype(np.int64)
    item = table["item"].to_numpy()
    return np.argsort(user * (int(item.max()) + 1) + item, kind="stable")


def _checked_ratios(ratios: Sequence[float]) -> Sequence[float]:
    if (
        len(ratios) != 3
        or not all(math.isfinite(ratio) for ratio in ratios)
        or ratios[0] <= 0
        or min(ratios) < 0
        or abs(sum(ratios) - 1) > 1e-6
    ):
        raise RecflowError(
            f"ratios are {tuple(ratios)}, expected three shares (train, validation, test) that sum to 1, the first "
            "above 0 and none negative, such as (0.8, 0.1, 0.1)"
        )
    return ratios


def _ratio_text(ratios: Sequence[float]) -> str:
    """Shares as people write them, `8:1:1`; decimals where no small whole numbers fit."""
    exact = [Fraction(ratio).limit_denominator(1000) for ratio in ratios]
    scale = math.lcm(*(share.denominator for share in exact))
    if scale > 1000 or sum(exact) != 1:
        return ":".join(f"{ratio:g}" for ratio in ratios)
    whole = [int(share * scale) for share in exact]
    return ":".join(str(part) for part in whole)
