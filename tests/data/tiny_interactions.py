"""Interactions to be split, small and drawn at random, and what is asked of any split of them."""

import numpy as np
import polars as pl
import pytest
from hypothesis import strategies as st

from recflow.data.interactions import Interactions

PARTS = ("train", "val", "test")
BY_CHANCE = {"ratio": {}, "users": {}, "k-fold": {"folds": 3, "fold": 2}, "files": {"fold": 2}}
BY_TIME = {"temporal": {}, "user-temporal": {}, "leave-one-out": {}}
METHODS = {**BY_CHANCE, **BY_TIME}

every_method = pytest.mark.parametrize("method", METHODS)
pairs_and_times = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(0, 40)), st.integers(0, 30), min_size=1, max_size=120
)
shares = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.75, 0.0, 0.25), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0)])


@st.composite
def ample(draw):
    """{(user, item): time} that any method can divide: three users or more, each with four rows or more."""
    items = st.sets(st.integers(0, 40), min_size=4, max_size=12)
    owned = draw(st.lists(items, min_size=3, max_size=8))
    pairs = [(user, item) for user, items in enumerate(owned) for item in items]
    unit = draw(st.sampled_from([1, 100]))  # of time; some rows share a moment where it is coarse
    return {pair: 7919 * n % 10007 // unit for n, pair in enumerate(draw(st.permutations(pairs)))}


def of_table(table, **fields):
    nothing = pl.DataFrame()
    return Interactions("tiny", "", table, nothing, nothing, nothing, (1.0, 5.0), "none", **fields)


def interactions(pairs, folds=None, **fields):
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
    return of_table(table.sort("user", maintain_order=True), **fields)


def with_folds(pairs):
    place = {pair: n for n, pair in enumerate(sorted(pairs))}
    return interactions(pairs, folds=[1 + place[pair] % 3 for pair in pairs])


def in_order(num_users, num_items):
    """Every user rates every item, item n at time n; three folds in turn."""
    return with_folds({(user, item): item for user in range(num_users) for item in range(num_items)})


def random_interactions(num_users=50, num_items=60, num_rows=1500, seed=0):
    """No two rows at one time; three folds."""
    rng = np.random.default_rng(seed)
    keys = rng.choice(num_users * num_items, num_rows, replace=False)
    return with_folds({(int(k) // num_items, int(k) % num_items): 7919 * n % 10007 for n, k in enumerate(keys)})


def parts_of(result):
    return {name: getattr(result, name) for name in (*PARTS, "fold_in") if getattr(result, name).width}


def pairs_of(table):
    return set(table.select("user", "item").rows())


def rows_of(table, user):
    return table.filter(pl.col("user") == user).rows()


def by_pair(result):
    return {name: part.sort("user", "item").rows() for name, part in parts_of(result).items()}


def assert_partition(data, result):
    parts = parts_of(result)
    assert sorted(row for part in parts.values() for row in part.rows()) == sorted(data.table.rows())
    place = {row[:2]: number for number, row in enumerate(data.table.rows())}
    for part in parts.values():
        assert part.schema == data.table.schema
        places = [place[row[:2]] for row in part.rows()]
        assert places == sorted(places)


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
