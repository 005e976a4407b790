"""Splits of rows by chance: shares of each user's rows, given folds, folds drawn here; and fewer training rows.

Chance is drawn in (user, item) order from PCG64's raw stream, which no version of NumPy changes, so a file in another
order is split alike.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.data.interactions import Interactions
from recflow.data.split_parts import (
    TEST,
    TRAIN,
    VAL,
    Index,
    Part,
    marked_in_turn,
    pair_order,
    shuffled_within_users,
)
from recflow.errors import RecflowError

_THINNING = 1  # names a stream of chance of its own, as a split and its thinning may have the same seed


def by_ratio(table: pl.DataFrame, ratios: Sequence[float], seed: int) -> Part:
    """Random shares of each user's rows, counted by `ratio_counts`."""
    order = pair_order(table)
    users = table["user"].to_numpy()[order].astype(np.int64)
    shuffled = order[shuffled_within_users(users, int(users[-1]) + 1, np.random.default_rng(seed))]
    return marked_in_turn(shuffled, users, ratios)


def by_given_folds(interactions: Interactions, fold: int, val_fraction: float, seed: int) -> Part:
    """One of the dataset's own folds is tested; of the other rows a random share validates.

    Raises:
        RecflowError: If the dataset brings no folds, not this one, or the share is out of range.
    """
    table = interactions.table
    if "fold" not in table.columns:
        raise RecflowError(f"{interactions.name} brings no folds, so split 'files' cannot be used; try 'ratio'")
    known = sorted(table["fold"].drop_nulls().unique().to_list())
    if fold not in known:
        raise RecflowError(f"fold is {fold}, expected one of {interactions.name}'s folds: {', '.join(map(str, known))}")
    tested = (table["fold"] == fold).fill_null(False).to_numpy()
    return _tested_and_validated(tested, pair_order(table), val_fraction, np.random.default_rng(seed))


def by_random_folds(interactions: Interactions, folds: int, fold: int, val_fraction: float, seed: int) -> Part:
    """One of several equal random parts is tested; of the other rows a random share validates.

    The parts follow from ``seed`` and ``folds`` alone; their sizes differ by one row at most.

    Raises:
        RecflowError: If there cannot be so many parts, not this one, or the share is out of range.
    """
    table = interactions.table
    if not 2 <= folds <= table.height:
        raise RecflowError(
            f"folds is {folds}, expected from 2 to {table.height:,}, the number of {interactions.name}'s ratings"
        )
    if not 1 <= fold <= folds:
        raise RecflowError(f"fold is {fold}, expected one of the {folds} parts of split 'k-fold', from 1 to {folds}")
    rng = np.random.default_rng(seed)
    order = pair_order(table)
    shuffled = order[_shuffled(len(order), rng)]
    tested = np.zeros(len(order), dtype=np.bool_)
    tested[shuffled[fold - 1 :: folds]] = True
    return _tested_and_validated(tested, order, val_fraction, rng)


def thinned(table: pl.DataFrame, fraction: float, seed: int) -> pl.DataFrame:
    """A random share of the rows, at least one, in their order; a smaller share's rows are among a larger one's.

    Args:
        table: ``user`` and ``item``, every pair once, and any further columns; at least one row.
        fraction: The share that stays, in (0, 1].
        seed: Seed of the choice, not negative.
    """
    chosen = _shuffled(table.height, np.random.default_rng((seed, _THINNING)))
    kept = np.zeros(table.height, dtype=np.bool_)
    kept[pair_order(table)[chosen[: max(1, round(fraction * table.height))]]] = True
    return table.filter(pl.Series(kept))


def _shuffled(num: int, rng: np.random.Generator) -> Index:
    return np.argsort(rng.bit_generator.random_raw(num), kind="stable")


def _tested_and_validated(
    tested: npt.NDArray[np.bool_], order: Index, val_fraction: float, rng: np.random.Generator
) -> Part:
    """Mark the tested rows, and a random share of the others for validation."""
    if not 0 <= val_fraction < 1:
        raise RecflowError(f"val_fraction is {val_fraction:g}, expected a share from 0 to below 1, such as 0.1")
    part = np.where(tested, TEST, TRAIN).astype(np.int8)
    rest = order[~tested[order]]
    part[rest[_shuffled(len(rest), rng)[: round(val_fraction * len(rest))]]] = VAL
    return part
