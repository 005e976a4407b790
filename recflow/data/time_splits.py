"""Splits by time: one moment for everybody, or each user's own last rows.

Of equal times the file's later row comes later, except across the cuts of `temporal`, which no moment straddles.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from recflow.data.interactions import Interactions
from recflow.data.split_parts import TEST, TRAIN, VAL, Index, Part, marked_in_turn, rank_within_user
from recflow.errors import RecflowError


def require_times(interactions: Interactions, method: str) -> None:
    """Refuse data without times of their own.

    Raises:
        RecflowError: If the dataset has no times.
    """
    if not interactions.has_times:
        raise RecflowError(
            f"{interactions.name} brings no times, so split {method!r} cannot be used; try ratio, k-fold or users"
        )


def by_time(interactions: Interactions, ratios: Sequence[float]) -> tuple[Part, str]:
    """Cut at two moments, the same for every user.

    Of the moments at which a cut can fall, each takes the one with as near as possible to the wanted number of rows
    before it, the earlier of two that are equally near.

    Args:
        interactions: The table.
        ratios: Shares of train, validation and test.

    Returns:
        A mark per row; and when validation and test begin, in UTC: ``"validation from 2001-03-04, test from
        2002-01-02"``.

    Raises:
        RecflowError: If so many rows share a moment that a part whose share is above 0 is left without rows.
    """
    time = interactions.table["time"].to_numpy()
    ordered = np.sort(time)
    num_rows = len(ordered)
    before_test = num_rows - ratios[2] * num_rows
    before_val = before_test - ratios[1] * num_rows
    cuts = [_nearest_cut(ordered, max(wanted, 0)) for wanted in (before_val, before_test)]
    sizes = np.diff([0, *cuts, num_rows])
    for name, size, ratio in zip(("training", "validation", "test"), sizes, ratios, strict=True):
        if ratio > 0 and size == 0:
            raise RecflowError(
                f"split 'temporal' leaves no {name} row: {interactions.name}'s {num_rows:,} ratings have only "
                f"{int((np.diff(ordered) > 0).sum()) + 1:,} distinct times to cut at; try other ratios or user-temporal"
            )
    part = np.full(num_rows, TRAIN, dtype=np.int8)
    starts: dict[str, int] = {}
    for mark, name, cut, size in zip((VAL, TEST), ("validation", "test"), cuts, sizes[1:], strict=True):
        if size:
            starts[name] = int(ordered[cut])
            part[time >= starts[name]] = mark
    return part, _starts_text(starts)


def by_user_time(table: pl.DataFrame, ratios: Sequence[float]) -> Part:
    """Each user's first rows train, the next validate and the last are tested, counted by `ratio_counts`."""
    order = _time_order(table)
    return marked_in_turn(order, table["user"].to_numpy()[order].astype(np.int64), ratios)


def leave_one_out(table: pl.DataFrame) -> Part:
    """Each user's last row is tested, the one before it validates; a user's only row trains, as does one of two."""
    order = _time_order(table)
    users = table["user"].to_numpy()[order].astype(np.int64)
    num_rows = np.bincount(users)[users]
    from_end = num_rows - rank_within_user(users)  # 1 for a user's last row
    part = np.full(len(order), TRAIN, dtype=np.int8)
    part[order[(from_end == 1) & (num_rows >= 2)]] = TEST
    part[order[(from_end == 2) & (num_rows >= 3)]] = VAL
    return part


def _time_order(table: pl.DataFrame) -> Index:
    """Row numbers by user, then time, then place in the file."""
    return np.lexsort((table["time"].to_numpy(), table["user"].to_numpy()))


def _nearest_cut(ordered: npt.NDArray[np.int64], wanted: float) -> int:
    """The number of rows next to ``wanted`` after which sorted times can be cut: at an end, or where they change."""
    at = ordered[min(int(wanted), len(ordered) - 1)]
    before, after = (int(np.searchsorted(ordered, at, side=side)) for side in ("left", "right"))
    return before if wanted - before <= after - wanted else after


def _starts_text(starts: dict[str, int]) -> str:
    """When each part begins, as dates; with the time of day where the dates are equal."""
    moments = {name: np.datetime64(second, "s") for name, second in starts.items()}
    dates = {name: str(np.datetime_as_string(moment, unit="D")) for name, moment in moments.items()}
    if len(set(dates.values())) < len(dates):
        dates = {name: str(moment).replace("T", " ") for name, moment in moments.items()}
    return ", ".join(f"{name} from {date}" for name, date in dates.items())
