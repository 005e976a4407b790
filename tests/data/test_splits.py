"""Splits: disjoint, complete, counted as published code counts, in time order where promised, seeded."""

import dataclasses
import time
import zlib
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.interactions import Interactions
from recflow.data.splits import split, thin_train
from recflow.errors import RecflowError

PARTS = ("train", "val", "test")
BY_CHANCE = {"ratio": {}, "users": {}, "k-fold": {"folds": 3, "fold": 2}, "files": {"fold": 2}}
BY_TIME = {"temporal": {}, "user-temporal": {}, "leave-one-out": {}}
METHODS = {**BY_CHANCE, **BY_TIME}

every_method = pytest.mark.parametrize("method", METHODS)
by_chance = pytest.mark.parametrize("method", BY_CHANCE)
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


class TestEveryMethod:
    @every_method
    @settings(max_examples=25, deadline=None)
    @given(pairs=ample(), seed=st.integers(0, 2**32))
    def test_is_disjoint_complete_and_repeatable(self, method, pairs, seed):
        data = with_folds(pairs)
        first = split(data, method, **METHODS[method], seed=seed)
        assert_partition(data, first)
        again = split(data, method, **METHODS[method], seed=seed)
        assert by_pair(again) == by_pair(first)
        assert again.describe == first.describe

    @every_method
    @settings(max_examples=25, deadline=None)
    @given(pairs=ample())
    def test_does_not_depend_on_the_order_of_the_file(self, method, pairs):
        distinct = {pair: 7919 * n % 10007 for n, pair in enumerate(pairs)}
        one, two = (with_folds({pair: distinct[pair] for pair in order}) for order in (pairs, sorted(pairs)))
        assert by_pair(split(one, method, **METHODS[method])) == by_pair(split(two, method, **METHODS[method]))

    @every_method
    def test_follows_the_seed_where_chance_decides_and_there_alone(self, method):
        data = random_interactions()
        one, two = (by_pair(split(data, method, **METHODS[method], seed=seed)) for seed in (1, 2))
        assert (one != two) == (method in BY_CHANCE)

    @by_chance
    def test_by_chance_trains_alike_whatever_test_rows_say(self, method):
        data = random_interactions()
        clean = split(data, method, **METHODS[method])
        tested = pl.struct("user", "item").is_in(clean.test.select(pl.struct("user", "item")).to_series().implode())
        poison = data.table.with_columns(
            pl.when(tested).then(pl.lit(-99.0, pl.Float32)).otherwise("rating").alias("rating"),
            pl.when(tested).then(-pl.col("time")).otherwise("time").alias("time"),
        )
        poisoned = split(of_table(poison), method, **METHODS[method])
        assert (poisoned.test["rating"] == -99).all()
        for name in ("train", "val", "fold_in"):
            assert getattr(poisoned, name).equals(getattr(clean, name))

    @pytest.mark.parametrize("method", BY_TIME)
    def test_by_time_trains_alike_however_late_test_rows_are(self, method):
        data = random_interactions()
        clean = split(data, method)
        tested = pl.struct("user", "item").is_in(clean.test.select(pl.struct("user", "item")).to_series().implode())
        later = data.table.with_columns(
            pl.when(tested).then(pl.lit(1.0, pl.Float32)).otherwise("rating").alias("rating"),
            pl.when(tested).then(20_000 - pl.col("item") % 7).otherwise("time").alias("time"),
        )
        poisoned = split(of_table(later), method)
        assert (poisoned.test["rating"] == 1).all()
        assert poisoned.train.equals(clean.train)
        assert poisoned.val.equals(clean.val)

    @pytest.mark.parametrize(
        ("method", "checksums"),
        [
            ("ratio", [627260588, 3822687421, 3436085590]),
            ("users", [1539258689, 1451165786, 3243624202, 432294469]),
            ("k-fold", [133683034, 4146153948, 3566317057]),
            ("files", [244818270, 4273771398, 4222197171]),
            ("temporal", [12255324, 3572030451, 1406137569]),
            ("user-temporal", [12255324, 3572030451, 1406137569]),
            ("leave-one-out", [2931827998, 821613786, 2148241122]),
        ],
    )
    def test_published_numbers_rest_on_these_rows(self, method, checksums):
        result = split(in_order(10, 20), method, **METHODS[method])
        found = {
            name: zlib.crc32(part.select("user", "item").to_numpy().astype("<i4").tobytes())
            for name, part in parts_of(result).items()
        }
        assert list(found.values()) == checksums

    @every_method
    def test_divides_a_million_rows_at_once(self, method, million):
        start = time.perf_counter()
        result = split(million, method, **METHODS[method])
        assert time.perf_counter() - start < 5  # half a second on two quiet cores; a loop over users takes far longer
        assert sum(part.height for part in parts_of(result).values()) == 1_000_000


@pytest.fixture(scope="module")
def million():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 6000, 1_000_000)).astype(np.int32)
    table = pl.DataFrame({"user": user, "item": rng.permutation(1_000_000).astype(np.int32)}).with_columns(
        pl.lit(4.0, dtype=pl.Float32).alias("rating"),
        pl.Series("time", rng.integers(0, 10**9, 1_000_000)),
        (pl.col("item") % 3 + 1).cast(pl.Int8).alias("fold"),
    )
    return of_table(table)


@pytest.mark.parametrize("method", ["ratio", "user-temporal"])
@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1, 0.1), (0.9, 0.0, 0.1), (0.7, 0.2, 0.1), (0.34, 0.33, 0.33), (1.0, 0.0, 0.0)]
)
def test_every_user_size_is_divided_as_recbole_divides_it(method, ratios):
    sizes = list(range(1, 70))
    data = interactions([(user, item, item) for user, size in enumerate(sizes) for item in range(size)])
    result = split(data, method, ratios=ratios)
    assert_partition(data, result)
    found = [np.bincount(getattr(result, name)["user"], minlength=len(sizes)) for name in PARTS]
    assert np.stack(found, axis=1).tolist() == [recbole_counts(size, ratios) for size in sizes]


def test_every_row_of_a_user_is_as_likely_to_be_tested():
    data = interactions([(0, item, item) for item in range(10)])
    tested = [split(data, "ratio", seed=seed).test["item"][0] for seed in range(1000)]
    counts = np.bincount(tested, minlength=10)
    assert counts.min() > 60  # 100 expected, standard deviation 9.5
    assert counts.max() < 140


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


class TestUsers:
    @settings(max_examples=100, deadline=None)
    @given(ample(), shares, st.sampled_from([0.2, 0.5, 0.8, 0.9]), st.integers(0, 2**32))
    def test_are_held_out_whole_with_a_share_of_their_rows_known(self, pairs, ratios, fraction, seed):
        data = interactions(pairs)
        result = split(data, "users", ratios=ratios, fold_in_fraction=fraction, seed=seed)
        assert_partition(data, result)
        users = {name: set(part["user"]) for name, part in parts_of(result).items()}
        assert not users["train"] & (users["val"] | users["test"] | users["fold_in"])
        assert not users["val"] & users["test"]
        assert users["val"] | users["test"] == users["fold_in"]
        num_users = data.table["user"].n_unique()
        assert len(users["train"]) == recbole_counts(num_users, ratios)[0]
        for user in users["fold_in"]:
            known = rows_of(result.fold_in, user)
            held_out = rows_of(result.val, user) + rows_of(result.test, user)
            num_rows = len(rows_of(data.table, user))
            assert len(known) + len(held_out) == num_rows
            # in tenths, and thereby in whole numbers
            wanted = num_rows * (10 - round(10 * fraction)) // 10
            assert len(held_out) == max(wanted, 1)

    def test_are_counted_as_a_users_rows_are(self):
        for num_users in range(3, 40):
            result = split(in_order(num_users, 4), "users")
            assert [getattr(result, name)["user"].n_unique() for name in PARTS] == recbole_counts(
                num_users, (0.8, 0.1, 0.1)
            )

    def test_have_as_many_rows_held_out_as_the_authors_code_holds_out(self):
        sizes = list(range(5, 105))
        data = interactions([(user, item, 0) for user, size in enumerate(sizes) for item in range(size)])
        result = split(data, "users", ratios=(0.01, 0.0, 0.99))
        tested = result.test.group_by("user").len().rows()
        assert len(tested) == 99
        for user, held_out in tested:
            assert held_out == int(0.2 * sizes[user])  # `split_train_test_proportion` of Mult-VAE

    def test_are_as_likely_to_be_tested_and_their_rows_to_be_known(self):
        data = in_order(10, 5)
        results = [split(data, "users", seed=seed) for seed in range(1000)]
        users = np.bincount([result.test["user"][0] for result in results], minlength=10)
        items = np.bincount([result.test["item"][0] for result in results], minlength=5)
        assert 60 < users.min() < users.max() < 140  # 100 expected, standard deviation 9.5
        assert 150 < items.min() < items.max() < 250  # 200 expected, standard deviation 13

    def test_stay_the_same_however_much_is_known_of_them(self):
        data = random_interactions()
        some, most = (split(data, "users", fold_in_fraction=fraction) for fraction in (0.5, 0.9))
        assert some.train.equals(most.train)
        assert set(some.test["user"]) == set(most.test["user"])
        assert pairs_of(some.fold_in) < pairs_of(most.fold_in)

    def test_with_a_single_row_have_it_known_and_are_not_tested(self):
        single = [(user, 0, 0) for user in range(5)]
        both = [(user, item, 0) for user in range(5, 10) for item in range(2)]
        result = split(interactions(single + both), "users", ratios=(0.1, 0.4, 0.5))
        known = result.fold_in.group_by("user").len()
        assert (known["len"] == 1).all()
        assert known.height == 9
        assert not set(range(5)) & (set(result.val["user"]) | set(result.test["user"]))

    @pytest.mark.parametrize(
        ("rows", "arguments", "message"),
        [
            (2, {}, "needs a user for each part whose share is above 0, but tiny has 2; try ratio"),
            (30, {}, "leaves no validation row: each of tiny's 3 validation users has a single rating"),
            (30, {"ratios": (0.8, 0, 0.2)}, "leaves no test row: each of tiny's 6 test users has a single rating"),
            (30, {"fold_in_fraction": 0.0}, "fold_in_fraction is 0, expected a share above 0 and below 1"),
            (30, {"fold_in_fraction": 1.0}, "fold_in_fraction is 1,"),
            (30, {"fold_in_fraction": float("nan")}, "fold_in_fraction is nan,"),
            (30, {"ratios": (0.5, 0.5)}, "expected three shares"),
        ],
    )
    def test_that_cannot_be_held_out_are_refused(self, rows, arguments, message):
        data = interactions([(user, 0, 0) for user in range(rows)])
        with pytest.raises(RecflowError, match=message):
            split(data, "users", **arguments)


class TestFolds:
    @settings(max_examples=50, deadline=None)
    @given(ample(), st.integers(2, 12), st.sampled_from([0.0, 0.1, 0.5]), st.integers(0, 2**32))
    def test_drawn_at_random_are_equal_disjoint_and_complete(self, pairs, folds, val_fraction, seed):
        data = interactions(pairs)
        arguments = {"folds": folds, "val_fraction": val_fraction, "seed": seed}
        results = [split(data, "k-fold", fold=fold, **arguments) for fold in range(1, folds + 1)]
        sizes = [result.test.height for result in results]
        assert max(sizes) - min(sizes) <= 1
        assert sum(sizes) == data.table.height
        assert set.union(*(pairs_of(result.test) for result in results)) == pairs_of(data.table)
        for result in results:
            assert_partition(data, result)
            assert result.val.height == round(val_fraction * (data.table.height - result.test.height))

    def test_drawn_at_random_leave_every_row_as_likely_to_be_tested_and_to_validate(self):
        data = in_order(1, 10)
        results = [split(data, "k-fold", fold=2, val_fraction=0.125, seed=seed) for seed in range(1000)]
        tested = np.bincount(np.concatenate([result.test["item"] for result in results]), minlength=10)
        validates = np.bincount([result.val["item"][0] for result in results], minlength=10)
        assert 145 < tested.min() < tested.max() < 255  # 200 expected, standard deviation 13
        assert 60 < validates.min() < validates.max() < 140  # 100 expected, standard deviation 9.5

    def test_given_are_tested_and_the_rest_divided_by_chance(self):
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

    def test_given_leave_rows_without_a_fold_to_training(self):
        data = interactions([(0, item, 0) for item in range(6)], folds=[None, 1, None, 1, None, None])
        result = split(data, "files", val_fraction=0.25)
        assert result.test["item"].to_list() == [1, 3]
        assert (result.train.height, result.val.height) == (3, 1)

    @pytest.mark.parametrize(
        ("method", "arguments", "message"),
        [
            ("files", {"fold": 6}, "fold is 6, expected one of tiny's folds: 1, 2, 3"),
            ("files", {"val_fraction": 1.0}, "val_fraction is 1, expected a share from 0 to below 1"),
            ("files", {"val_fraction": 0.99}, "split 'files' leaves none of tiny's 6 ratings to train on"),
            ("k-fold", {"folds": 1}, "folds is 1, expected from 2 to 6, the number of tiny's ratings"),
            ("k-fold", {"folds": 7}, "folds is 7, expected from 2 to 6"),
            ("k-fold", {"fold": 6}, "fold is 6, expected one of the 5 parts of split 'k-fold', from 1 to 5"),
            ("k-fold", {"fold": 0}, "fold is 0, expected one of the 5 parts"),
            ("k-fold", {"val_fraction": -0.1}, "val_fraction is -0.1"),
            ("k-fold", {"val_fraction": float("nan")}, "val_fraction is nan"),
            ("k-fold", {"val_fraction": 0.99}, "split 'k-fold' leaves none of tiny's 6 ratings to train on"),
        ],
    )
    def test_or_shares_out_of_range_are_refused(self, method, arguments, message):
        with pytest.raises(RecflowError, match=message):
            split(in_order(1, 6), method, **arguments)


class TestThinning:
    @every_method
    @settings(max_examples=15, deadline=None)
    @given(
        fractions=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
        seed=st.integers(0, 2**32),
    )
    def test_keeps_a_share_of_the_training_rows_among_those_of_any_larger_share(self, method, fractions, seed):
        whole = split(random_interactions(20, 30, 300), method, **METHODS[method])
        few, more = (thin_train(whole, fraction, seed) for fraction in fractions)
        assert pairs_of(few.train) <= pairs_of(more.train) <= pairs_of(whole.train)
        for thin, fraction in zip((few, more), fractions, strict=True):
            assert thin.train.height == max(1, round(fraction * whole.train.height))
            assert thin.train.equals(thin_train(whole, fraction, seed).train)
            assert thin.train["user"].is_sorted()
            for name in ("val", "test", "fold_in"):
                assert getattr(thin, name) is getattr(whole, name)

    def test_does_not_depend_on_the_order_of_the_file(self):
        whole = split(random_interactions(), "ratio")
        turned = dataclasses.replace(whole, train=whole.train.reverse().sort("user", maintain_order=True))
        assert not turned.train.equals(whole.train)
        one, two = (by_pair(thin_train(parts, 0.3, 1))["train"] for parts in (whole, turned))
        assert one == two

    def test_follows_the_seed(self):
        whole = split(random_interactions(), "ratio")
        assert pairs_of(thin_train(whole, 0.5, 1).train) != pairs_of(thin_train(whole, 0.5, 2).train)

    def test_leaves_every_row_as_likely_to_stay_though_the_split_has_the_same_seed(self):
        data = in_order(1, 10)
        wholes = [split(data, "ratio", ratios=(0.5, 0, 0.5), seed=seed) for seed in range(1000)]
        kept = [thin_train(whole, 0.2, seed).train["item"][0] for seed, whole in enumerate(wholes)]
        counts = np.bincount(kept, minlength=10)
        assert 60 < counts.min() < counts.max() < 140  # 100 expected, standard deviation 9.5

    def test_describes_itself_and_is_the_split_itself_at_the_whole(self):
        whole = split(random_interactions(), "ratio")
        assert thin_train(whole, 0.1, 1).describe == f"{whole.describe}, 10 % of the training rows"
        assert thin_train(whole, 0.07, 1).describe.endswith("42, 7 % of the training rows")
        assert thin_train(whole, 1, 1) is whole
        assert thin_train(whole, 1e-9, 1).train.height == 1

    @pytest.mark.parametrize("fraction", [0, -0.5, 1.1, float("nan")])
    def test_to_a_share_out_of_range_is_refused(self, fraction):
        whole = split(in_order(2, 4), "ratio")
        with pytest.raises(RecflowError, match=f"fraction is {fraction:g}, expected a share of the training rows"):
            thin_train(whole, fraction, 1)
        with pytest.raises(RecflowError, match="seed is -1"):
            thin_train(whole, 0.5, -1)


def test_a_split_describes_itself():
    data = random_interactions()
    assert split(data, "ratio").describe == "ratio 8:1:1 per user, random, seed 42"
    assert split(data, "ratio", ratios=(0.9, 0.0, 0.1), seed=1).describe == "ratio 9:0:1 per user, random, seed 1"
    assert split(data, "user-temporal").describe == "user-temporal 8:1:1 per user, in order of time"
    assert split(data, "leave-one-out").describe.startswith("leave-one-out per user")
    assert split(data, "users").describe == "users 8:1:1, held out whole, 80 % of their rows known, random, seed 42"
    folds = split(data, "k-fold", fold=2, seed=3).describe
    assert folds == "k-fold, part 2 of 5 tested, 0.1 of the other rows validate, random, seed 3"
    given_folds = split(data, "files", fold=2, seed=3).describe
    assert given_folds == "files, fold 2 tested, 0.1 of the other rows validate, random, seed 3"


@pytest.mark.parametrize("method", BY_TIME)
def test_data_without_times_are_not_split_by_time(method):
    data = interactions([(0, item, 0) for item in range(10)], has_times=False)
    message = f"tiny brings no times, so split '{method}' cannot be used; try ratio, k-fold or users"
    with pytest.raises(RecflowError, match=message):
        split(data, method)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("ratios", {}, "split method 'ratios' is unknown, expected one of .*; did you mean 'ratio'"),
        ("kfold", {}, "did you mean 'k-fold'"),
        ("ratio", {"ratios": (0.8, 0.1)}, "expected three shares"),
        ("ratio", {"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ("ratio", {"ratios": (0.0, 0.5, 0.5)}, "first above 0"),
        ("ratio", {"ratios": (1.1, -0.1, 0.0)}, "none negative"),
        ("ratio", {"ratios": (float("nan"), 0.1, 0.1)}, "expected three shares"),
        ("temporal", {"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ("user-temporal", {"ratios": (0.8, 0.1, 0.2)}, "sum to 1"),
        ("ratio", {"seed": -1}, "seed is -1"),
        ("k-fold", {"seed": -1}, "seed is -1"),
        ("files", {}, "tiny brings no folds"),
    ],
)
def test_what_cannot_be_split_is_refused(method, arguments, message):
    with pytest.raises(RecflowError, match=message) as error:
        split(of_table(random_interactions().table.drop("fold")), method, **arguments)
    assert "\n" not in str(error.value)
