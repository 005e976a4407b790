"""Splits: which rows are trained on, which choose the epoch, which are read once at the end.

Every method marks rows of the one table; nothing is copied but the results, and no user is looped over.
Random choices are drawn in (user, item) order from PCG64's raw stream, so a file in another order is split alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Literal, get_args

import polars as pl

from recflow.data.held_out_users import hold_out_users
from recflow.data.interactions import Interactions
from recflow.data.random_splits import by_given_folds, by_random_folds, by_ratio, thinned
from recflow.data.split_parts import FOLD_IN, TEST, TRAIN, VAL, Part
from recflow.data.time_splits import by_time, by_user_time, leave_one_out, require_times
from recflow.errors import RecflowError

SplitMethod = Literal["ratio", "temporal", "user-temporal", "leave-one-out", "users", "k-fold", "files"]


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
    folds: int = 5,
    val_fraction: float = 0.1,
    fold_in_fraction: float = 0.8,
) -> Split:
    """Divide the interactions into train, validation and test rows.

    Args:
        interactions: The filtered, indexed table.
        method: ``ratio``: random shares of each user's rows, counted as RecBole counts them. ``temporal``: everybody's
            rows before one moment train, those after another are tested, those between validate. ``user-temporal``:
            shares as in ``ratio``, of each user's rows in order of time. ``leave-one-out``: a user's last row by time
            is tested, the one before it validates. ``users``: random users are held out whole, and known by a part of
            their rows, ``Split.fold_in``. ``k-fold``: one of several equal random parts is tested. ``files``: the folds
            the dataset brings.
        ratios: Shares of train, validation and test, summing to 1: of users (``users``) or of rows (``ratio``,
            ``temporal``, ``user-temporal``).
        seed: Seed of the random choices, not negative (``ratio``, ``users``, ``k-fold`` and ``files``).
        fold: Which fold is tested, from 1 (``k-fold`` and ``files``).
        folds: Number of random parts, at least 2 (``k-fold``).
        val_fraction: Share of the other folds' rows that validate, in [0, 1) (``k-fold`` and ``files``).
        fold_in_fraction: Share of a held-out user's rows that is known, in (0, 1), at least one row, and at least one
            left over; a user with a single row has it known, and is not tested (``users``).

    Returns:
        The tables and their description.

    Raises:
        RecflowError: If the method is unknown, an argument out of range, the dataset has no such fold or no times, or
            no row is left where one must be.
    """
    if method not in get_args(SplitMethod):
        close = get_close_matches(str(method), get_args(SplitMethod), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise RecflowError(
            f"split method {method!r} is unknown, expected one of {', '.join(get_args(SplitMethod))}{hint}"
        )
    _check_seed(seed)
    if method in ("temporal", "user-temporal", "leave-one-out"):
        require_times(interactions, method)
    if method in ("ratio", "temporal", "user-temporal", "users"):
        _check_ratios(ratios)

    table = interactions.table
    chance = f"random, seed {seed}"
    validation = f"{val_fraction} of the other rows validate, {chance}"
    match method:
        case "ratio":
            part = by_ratio(table, ratios, seed)
            describe = f"ratio {_ratio_text(ratios)} per user, {chance}"
        case "temporal":
            part, starts = by_time(interactions, ratios)
            describe = f"temporal {_ratio_text(ratios)}, global" + (f": {starts}" if starts else "")
        case "user-temporal":
            part = by_user_time(table, ratios)
            describe = f"user-temporal {_ratio_text(ratios)} per user, in order of time"
        case "leave-one-out":
            part = leave_one_out(table)
            describe = "leave-one-out per user, last by time tested, the one before validates"
        case "users":
            part = hold_out_users(interactions, ratios, fold_in_fraction, seed)
            known = f"{_percent(fold_in_fraction)} of their rows known"
            describe = f"users {_ratio_text(ratios)}, held out whole, {known}, {chance}"
        case "k-fold":
            part = by_random_folds(interactions, folds, fold, val_fraction, seed)
            describe = f"k-fold, part {fold} of {folds} tested, {validation}"
        case "files":
            part = by_given_folds(interactions, fold, val_fraction, seed)
            describe = f"files, fold {fold} tested, {validation}"
    if not (part == TRAIN).any():
        raise RecflowError(
            f"split {method!r} leaves none of {interactions.name}'s {table.height:,} ratings to train on; "
            "give training a larger share"
        )
    train, val, test = (_marked(table, part, mark) for mark in (TRAIN, VAL, TEST))
    fold_in = _marked(table, part, FOLD_IN) if method == "users" else pl.DataFrame()
    return Split(train=train, val=val, test=test, describe=describe, fold_in=fold_in)


def thin_train(split: Split, fraction: float, seed: int) -> Split:
    """Keep a random share of the training rows and all others, to see what more data are worth.

    With one seed, the rows of a smaller share are among those of a larger one. Users and items may lose all of their
    training rows; their indices stay.

    Args:
        split: What is thinned.
        fraction: The share of the training rows that stays, in (0, 1]; at least one row.
        seed: Seed of the choice, not negative.

    Returns:
        The split with fewer training rows, its description ending in ``", 10 % of the training rows, drawn by seed
        42"``; the split itself if the share is 1.

    Raises:
        RecflowError: If an argument is out of range.
    """
    if not 0 < fraction <= 1:
        raise RecflowError(f"fraction is {fraction:g}, expected a share of the training rows above 0 and up to 1")
    _check_seed(seed)
    if fraction == 1:
        return split
    describe = f"{split.describe}, {_percent(fraction)} of the training rows, drawn by seed {seed}"
    return replace(split, train=thinned(split.train, fraction, seed), describe=describe)


def _marked(table: pl.DataFrame, part: Part, mark: int) -> pl.DataFrame:
    return table.filter(pl.Series(part == mark))


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise RecflowError(f"seed is {seed}, expected a whole number from 0")


def _check_ratios(ratios: Sequence[float]) -> None:
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


def _percent(share: float) -> str:
    return f"{round(100 * share, 10):.12g} %"


def _ratio_text(ratios: Sequence[float]) -> str:
    """Shares as people write them, `8:1:1`; decimals where no small whole numbers fit."""
    exact = [Fraction(ratio).limit_denominator(1000) for ratio in ratios]
    scale = math.lcm(*(share.denominator for share in exact))
    near = all(math.isclose(share, ratio, abs_tol=1e-12) for share, ratio in zip(exact, ratios, strict=True))
    if scale > 1000 or sum(exact) != 1 or not near:  # two protocols must not look like one
        return ":".join(map(repr, ratios))
    whole = [int(share * scale) for share in exact]
    return ":".join(str(part) for part in whole)
