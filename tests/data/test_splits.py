"""Splits: disjoint, complete, counted as RecBole counts, in time order, decided by the seed alone."""

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.interactions import Interactions
from recflow.data.splits import split
from recflow.errors import RecflowError

PARTS = ("train", "val", "test")
pairs_and_times = st.dictionaries(
    st.tuples(st.integers(0, 5), st.integers(0, 40)), st.integers(0, 9), min_size=1, max_size=120
)


def interactions(pairs, folds=None):
    """A table from {(user, item): time} or a list of (user, item, time), users numbered from 0 without a gap."""
    rows = [(user, item, when) for (user, item), when in pairs.items()] if isinstance(pairs, dict) else pairs
    known = sorted({row[0] for row in rows})
    table = pl.DataFrame(
        {
            "user": pl.Series([known.index(row[0]) for row in rows], dtype=pl.Int32),
            "item": pl.Series([row[1] for row in rows], dtype=pl.Int32),
            "rating": pl.Series([4.0] * len(rows), dtype=pl.Float32),
            "time": pl.Series([row[2] for row in rows], dtype=pl.Int64),
        }
    )
    if folds is not None:
        table = table.with_columns(pl.Series("fold", folds, dtype=pl.Int8))
    table = table.sort("user", maintain_order=True)
    nothing = pl.DataFrame()
    return Interactions("tiny", "", table, nothing, nothing, nothing, (1.0, 5.0), "none")


def random_interactions(num_users=50, num_items=60, num_rows=1500, seed=0):
    rng = np.random.default_rng(seed)
    keys = rng.choice(num_users * num_items, num_rows, replace=False)
    return interactions([(int(k) // num_items, int(k) % num_items, int(rng.integers(0, 1000))) for k in keys])


def assert_partition(data, result):
    rows = [row for name in PARTS for row in getattr(result, name).rows()]
    assert sorted(rows) == sorted(data.table.rows())
    for name in PARTS:
        part = getattr(result, name)
        assert part.schema == data.table.schema
        assert part["user"].is_sorted()


def recbole_counts(num_rows, ratios):
    """`_calcu_split_ids`, as it stands in RecBole, one user at a time."""
    counts = [int(ratio * num_rows) for ratio in ratios]
    counts[0] = num_rows - sum(counts[1:])
    for i in range(1, len(ratios)):
        if counts[0] <= 1:
            break
        if 0 < ratios[-i] * num_rows < 1:
            counts[-i] += 1
            counts[0] -= 1
    return counts


@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1, 0.1), (0.9, 0.0, 0.1), (0.7, 0.2, 0.1), (0.34, 0.33, 0.33), (1.0, 0.0, 0.0)]
)
def test_every_user_size_is_divided_as_recbole_divides_it(ratios):
    sizes = list(range(1, 70))
    data = interactions([(user, item, item) for user, size in enumerate(sizes) for item in range(size)])
    result = split(data, "ratio", ratios=ratios)
    assert_partition(data, result)
    found = [np.bincount(getattr(result, name)["user"], minlength=len(sizes)) for name in PARTS]
    assert np.stack(found, axis=1).tolist() == [recbole_counts(size, ratios) for size in sizes]


@settings(max_examples=50, deadline=None)
@given(pairs_and_times, st.integers(0, 2**32))
def test_a_ratio_split_is_disjoint_complete_and_repeatable(pairs, seed):
    data = interactions(pairs)
    first, again = split(data, "ratio", seed=seed), split(data, "ratio", seed=seed)
    assert_partition(data, first)
    for name in PARTS:
        assert getattr(first, name).equals(getattr(again, name))


def test_another_seed_is_another_split():
    data = random_interactions()
    assert not split(data, "ratio", seed=1).test.equals(split(data, "ratio", seed=2).test)


def test_a_ratio_split_does_not_depend_on_the_order_of_the_file():
    data = random_interactions()
    shuffled = data.table.sample(fraction=1.0, shuffle=True, seed=5).sort("user", maintain_order=True)
    assert not shuffled.equals(data.table)
    other = Interactions("tiny", "", shuffled, data.users, data.items, data.dropped, (1.0, 5.0), "none")
    for name in PARTS:
        one, two = (getattr(split(d, "ratio"), name).sort("user", "item") for d in (data, other))
        assert one.equals(two)


def test_every_row_of_a_user_is_as_likely_to_be_tested():
    data = interactions([(0, item, item) for item in range(10)])
    tested = [split(data, "ratio", seed=seed).test["item"][0] for seed in range(1000)]
    counts = np.bincount(tested, minlength=10)
    assert counts.min() > 60  # 100 expected, standard deviation 9.5
    assert counts.max() < 140


@settings(max_examples=50, deadline=None)
@given(pairs_and_times)
def test_leave_one_out_holds_out_the_last_rows(pairs):
    data = interactions(pairs)
    result = split(data, "leave-one-out")
    assert_partition(data, result)
    for user in data.table["user"].unique():
        # the file's order breaks ties, as Python's stable sort does
        rows = sorted(data.table.filter(pl.col("user") == user).rows(), key=lambda row: row[3])
        train, val, test = (getattr(result, name).filter(pl.col("user") == user).rows() for name in PARTS)
        assert test == rows[-1:] * (len(rows) >= 2)
        assert val == rows[-2:-1] * (len(rows) >= 3)
        assert all(row[3] <= test[0][3] for row in train + val if test)


def test_given_folds_are_tested_and_the_rest_divided_by_chance():
    rows = [(user, item, 0) for user in range(10) for item in range(20)]
    data = interactions(rows, folds=[1 + item % 5 for _, item, _ in rows])
    result = split(data, "files", fold=2, val_fraction=0.1)
    assert_partition(data, result)
    assert result.test.equals(data.table.filter(pl.col("fold") == 2))
    assert (result.train.height, result.val.height) == (144, 16)
    assert split(data, "files", fold=2).val.equals(result.val)
    assert not split(data, "files", fold=2, seed=1).val.equals(result.val)
    assert split(data, "files", fold=2, seed=1).test.equals(result.test)
    assert split(data, "files", val_fraction=0).val.is_empty()


def test_a_split_describes_itself():
    data = random_interactions()
    assert split(data, "ratio").describe == "ratio 8:1:1 per user, random, seed 42"
    assert split(data, "ratio", ratios=(0.9, 0.0, 0.1), seed=1).describe == "ratio 9:0:1 per user, random, seed 1"
    assert split(data, "leave-one-out").describe.startswith("leave-one-out per user")


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("ratios", {}, "split method 'ratios' is unknown, expected one of .*; did you mean 'ratio'"),
        ("ratio", {"ratios": (0.8, 0.1)}, "expected three shares"),
        ("ratio", {"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ("ratio", {"ratios": (0.0, 0.5, 0.5)}, "first above 0"),
        ("ratio", {"ratios": (1.1, -0.1, 0.0)}, "none negative"),
        ("ratio", {"ratios": (float("nan"), 0.1, 0.1)}, "expected three shares"),
        ("ratio", {"seed": -1}, "seed is -1"),
        ("files", {}, "tiny brings no folds"),
    ],
)
def test_what_cannot_be_split_is_refused(method, arguments, message):
    with pytest.raises(RecflowError, match=message):
        split(random_interactions(), method, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"fold": 6}, "fold is 6, expected one of tiny's folds: 1, 2"), ({"val_fraction": 1.0}, "is 1")],
)
def test_a_fold_or_share_out_of_range_is_refused(arguments, message):
    data = interactions([(0, item, 0) for item in range(4)], folds=[1, 2, 1, 2])
    with pytest.raises(RecflowError, match=message):
        split(data, "files", **arguments)


def test_a_million_rows_are_split_at_once():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 6000, 1_000_000)).astype(np.int32)
    table = pl.DataFrame({"user": user, "item": rng.permutation(1_000_000).astype(np.int32)}).with_columns(
        pl.lit(4.0, dtype=pl.Float32).alias("rating"), pl.lit(0, dtype=pl.Int64).alias("time")
    )
    nothing = pl.DataFrame()
    data = Interactions("big", "", table, nothing, nothing, nothing, (1.0, 5.0), "none")
    start = time.perf_counter()
    split(data, "ratio")
    assert time.perf_counter() - start < 5  # 0.1 s on two quiet cores; a loop over users takes far longer than 5
