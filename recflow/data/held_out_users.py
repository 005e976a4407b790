"""Strong generalisation: some users are held out whole, and a model knows them by a part of their rows alone.

Source     Liang et al., WWW 2018, https://arxiv.org/abs/1802.05814, from whose code the counting of rows is taken
Differs    there, held-out users' rows of items that no training user has rated are left out, and users with fewer
           than five rows are not tested; here, every row stays, and users with two rows or more are tested
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from recflow.data.interactions import Interactions
from recflow.data.split_parts import (
    FOLD_IN,
    TEST,
    TRAIN,
    VAL,
    Index,
    Part,
    pair_order,
    rank_within_user,
    ratio_counts,
    shuffled_within_users,
)
from recflow.errors import RecflowError


def hold_out_users(interactions: Interactions, ratios: Sequence[float], fold_in_fraction: float, seed: int) -> Part:
    """Draw the users who train, validate and are tested, and of the latter two the rows that a model may know.

    Which users are held out follows from ``seed`` and ``ratios`` alone.

    Args:
        interactions: The table.
        ratios: Shares of the *users*, counted by `ratio_counts`.
        fold_in_fraction: Share of a held-out user's rows that is known, in (0, 1); what is left over is rounded down,
            but a user with two rows or more has at least one known and one held out. A single row is known.
        seed: Seed of both choices, not negative.

    Returns:
        A mark per row.

    Raises:
        RecflowError: If the fraction is out of range, there are too few users, or no held-out user of a part has two
            rows.
    """
    if not 0 < fold_in_fraction < 1:
        raise RecflowError(
            f"fold_in_fraction is {fold_in_fraction:g}, expected a share above 0 and below 1, such as 0.8"
        )
    table = interactions.table
    user = table["user"].to_numpy()
    num_rows = np.bincount(user).astype(np.int64)
    num_users = len(num_rows)
    rng = np.random.default_rng(seed)
    role = _roles(interactions.name, num_users, ratios, rng)

    part: Part = role[user]
    order = pair_order(table)
    held = order[part[order] != TRAIN]
    users = user[held].astype(np.int64)
    known = _known_counts(num_rows, fold_in_fraction)
    shuffled = held[shuffled_within_users(users, num_users, rng)]
    part[shuffled[rank_within_user(users) < known[users]]] = FOLD_IN
    for mark, name in ((VAL, "validation"), (TEST, "test")):
        if (role == mark).any() and not (part == mark).any():
            raise RecflowError(
                f"split 'users' leaves no {name} row: each of {interactions.name}'s {int((role == mark).sum()):,} "
                f"{name} users has a single rating; filter by k_core, or try ratio"
            )
    return part


def _roles(name: str, num_users: int, ratios: Sequence[float], rng: np.random.Generator) -> Part:
    """A mark per user: whose rows train, and who is held out for validation and test."""
    counts = [int(count[0]) for count in ratio_counts(np.array([num_users]), ratios)]
    if any(count == 0 and ratio > 0 for count, ratio in zip(counts, ratios, strict=True)):
        raise RecflowError(
            f"split 'users' needs a user for each part whose share is above 0, but {name} has {num_users:,}; try ratio"
        )
    shuffled = np.argsort(rng.bit_generator.random_raw(num_users), kind="stable")
    role = np.empty(num_users, dtype=np.int8)
    role[shuffled] = np.repeat(np.array([TRAIN, VAL, TEST], dtype=np.int8), counts)
    return role


def _known_counts(num_rows: Index, fold_in_fraction: float) -> Index:
    """How many of a held-out user's rows are known; whole numbers, since 1 - 0.8 is a little less than 0.2."""
    share = Fraction(fold_in_fraction).limit_denominator(1_000_000)
    held_out = num_rows * (share.denominator - share.numerator) // share.denominator
    return num_rows - np.clip(held_out, np.minimum(num_rows - 1, 1), num_rows - 1)
