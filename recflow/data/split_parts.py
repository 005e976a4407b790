"""Parts of a split: a mark per row, how many of a user's rows get which, and an order that no file's order touches.

What the methods of `recflow.data.splits` share; the methods themselves are in `random_splits`, `time_splits` and
`held_out_users`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

TRAIN, VAL, TEST, FOLD_IN = 0, 1, 2, 3

Part = npt.NDArray[np.int8]
Index = npt.NDArray[np.int64]


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


def pair_order(table: pl.DataFrame) -> Index:
    """Row numbers in (user, item) order, which no file's order touches; pairs are unique."""
    user = table["user"].to_numpy().astype(np.int64)
    item = table["item"].to_numpy()
    return np.argsort(user * (int(item.max()) + 1) + item, kind="stable")


def shuffled_within_users(users: Index, num_users: int, rng: np.random.Generator) -> Index:
    """Positions that shuffle each user's rows and put the users in order.

    Args:
        users: The user of each row, int64, shape ``[num_rows]``.
        num_users: Number of users, more than any index.
        rng: Gives one raw number per row, in the order of the rows.

    Returns:
        Positions in ``users``, shape ``[num_rows]``.
    """
    # one sort does both: the user in the high bits, chance in the low ones
    bits = 63 - num_users.bit_length()
    chance = rng.bit_generator.random_raw(len(users)) >> np.uint64(64 - bits)
    return np.argsort((users << bits) | chance.astype(np.int64), kind="stable")


def rank_within_user(users: Index) -> Index:
    """Each row's place among the rows of its user, from 0.

    Args:
        users: The user of each row in ascending order, shape ``[num_rows]``.

    Example:
        >>> rank_within_user(np.array([0, 0, 2, 2, 2])).tolist()
        [0, 1, 0, 1, 2]
    """
    num_rows = np.bincount(users)
    first = np.cumsum(num_rows) - num_rows
    return np.arange(len(users)) - first[users]


def marked_in_turn(order: Index, users: Index, ratios: Sequence[float]) -> Part:
    """Mark each user's first rows train, the next validation and the last test, counted by `ratio_counts`.

    Args:
        order: Row numbers, users ascending, shape ``[num_rows]``; a user's rows in the order in which they are given
            out.
        users: The user of each row of ``order``, shape ``[num_rows]``.
        ratios: Shares of train, validation and test.

    Returns:
        A mark per row of the table, shape ``[num_rows]``.
    """
    train, val, _ = ratio_counts(np.bincount(users).astype(np.int64), ratios)
    rank = rank_within_user(users)
    part = np.full(len(order), TEST, dtype=np.int8)
    part[order[rank < (train + val)[users]]] = VAL
    part[order[rank < train[users]]] = TRAIN
    return part
