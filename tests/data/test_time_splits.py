"""Splits by time: for everybody at one moment, and of each user's own rows."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.splits import split
from recflow.errors import RecflowError
from tests.data.tiny_interactions import (
    BY_TIME,
    PARTS,
    assert_partition,
    interactions,
    pairs_and_times,
    pairs_of,
    random_interactions,
    recbole_counts,
    rows_of,
    shares,
)


@settings(max_examples=50, deadline=None)
@given(pairs_and_times, shares)
def test_user_temporal_takes_each_users_rows_in_order_of_time(pairs, ratios):
    data = interactions(pairs)
    result = split(data, "user-temporal", ratios=ratios)
    for user in data.table["user"].unique():
        # the file's order breaks ties, as Python's stable sort does
        rows = sorted(rows_of(data.table, user), key=lambda row: row[3])
        train, val, _ = recbole_counts(len(rows), ratios)
        expected = rows[:train], rows[train : train + val], rows[train + val :]
        for name, part in zip(PARTS, expected, strict=True):
            assert pairs_of(getattr(result, name).filter(pl.col("user") == user)) == {row[:2] for row in part}


@settings(max_examples=50, deadline=None)
@given(pairs_and_times)
def test_leave_one_out_holds_out_the_last_rows(pairs):
    data = interactions(pairs)
    result = split(data, "leave-one-out")
    assert_partition(data, result)
    for user in data.table["user"].unique():
        rows = sorted(rows_of(data.table, user), key=lambda row: row[3])
        train, val, test = (rows_of(getattr(result, name), user) for name in PARTS)
        assert test == rows[-1:] * (len(rows) >= 2)
        assert val == rows[-2:-1] * (len(rows) >= 3)
        assert all(row[3] <= test[0][3] for row in train + val if test)


class TestTemporal:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.integers(0, 15), min_size=1, max_size=60), shares.filter(lambda ratios: ratios[0] != 0.8))
    def test_cuts_where_times_change_nearest_to_the_shares(self, times, ratios):
        data = interactions({(0, item): when for item, when in enumerate(times)})
        possible = [sum(when < moment for when in times) for moment in sorted(set(times))] + [len(times)]
        cuts = [
            min(possible, key=lambda cut: (abs(cut - wanted * len(times)), cut))
            for wanted in (ratios[0], ratios[0] + ratios[1])
        ]
        sizes = [cuts[0], cuts[1] - cuts[0], len(times) - cuts[1]]
        if any(size == 0 and ratio > 0 for size, ratio in zip(sizes, ratios, strict=True)):
            with pytest.raises(RecflowError, match=r"leaves no (training|validation|test) row: tiny's"):
                split(data, "temporal", ratios=ratios)
            return
        result = split(data, "temporal", ratios=ratios)
        assert_partition(data, result)
        found = [getattr(result, name)["time"].to_list() for name in PARTS]
        assert [len(part) for part in found] == sizes
        filled = [part for part in found if part]
        assert all(max(earlier) < min(later) for earlier, later in pairwise(filled))

    def test_cuts_at_one_moment_for_everybody(self):
        data = random_interactions()
        result = split(data, "temporal")
        assert [getattr(result, name).height for name in PARTS] == [1200, 150, 150]
        ordered = data.table["time"].sort()
        assert (result.val["time"].min(), result.test["time"].min()) == (ordered[1200], ordered[1350])

    @pytest.mark.parametrize("num_rows", [10, 30, 70, 1000, 4567])
    def test_gives_shares_to_the_row_where_no_times_are_equal(self, num_rows):
        data = interactions([(0, item, item) for item in range(num_rows)])
        result = split(data, "temporal", ratios=(0.9, 0.0, 0.1))
        assert (result.val.height, result.test.height) == (0, round(num_rows / 10))
        assert split(data, "temporal", ratios=(0.7, 0.3, 0.0)).test.is_empty()

    @pytest.mark.parametrize(
        ("times", "ratios", "describe"),
        [
            (
                [*range(8), 983_664_000, 1_009_929_600],
                (0.8, 0.1, 0.1),
                "temporal 8:1:1, global: validation from 2001-03-04, test from 2002-01-02",
            ),
            (
                [*range(8), 1_009_929_600, 1_009_933_205],
                (0.8, 0.1, 0.1),
                "temporal 8:1:1, global: validation from 2002-01-02 00:00:00, test from 2002-01-02 01:00:05",
            ),
            ([1, 1, 2, 1_009_929_600], (0.75, 0, 0.25), "temporal 3:0:1, global: test from 2002-01-02"),
            ([1, 1, 2, 1_009_929_600], (0.75, 0.25, 0), "temporal 3:1:0, global: validation from 2002-01-02"),
            ([1, 1], (1, 0, 0), "temporal 1:0:0, global"),
            ([-1, 10**15], (0.5, 0, 0.5), "temporal 1:0:1, global: test from 31690708-07-05"),
        ],
    )
    def test_says_when_its_parts_begin(self, times, ratios, describe):
        data = interactions([(0, item, when) for item, when in enumerate(times)])
        assert split(data, "temporal", ratios=ratios).describe == describe

    def test_refuses_times_that_leave_a_part_empty_and_says_why(self):
        data = interactions([(0, item, item // 9) for item in range(10)])
        message = "leaves no validation row: tiny's 10 ratings have only 2 distinct times"
        with pytest.raises(RecflowError, match=message):
            split(data, "temporal")


@pytest.mark.parametrize("method", BY_TIME)
def test_data_without_times_are_not_split_by_time(method):
    data = interactions([(0, item, 0) for item in range(10)], has_times=False)
    message = f"tiny brings no times, so split '{method}' cannot be used; try ratio, k-fold or users"
    with pytest.raises(RecflowError, match=message):
        split(data, method)
