"""Any split: disjoint, complete, seeded, without a look at test rows; and its training rows thinned."""

import dataclasses
import time
import zlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.splits import split, thin_train
from recflow.errors import RecflowError
from tests.data.tiny_interactions import (
    BY_CHANCE,
    BY_TIME,
    METHODS,
    ample,
    assert_partition,
    by_pair,
    every_method,
    in_order,
    of_table,
    pairs_of,
    parts_of,
    random_interactions,
    with_folds,
)

by_chance = pytest.mark.parametrize("method", BY_CHANCE)


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
        assert thin_train(whole, 0.1, 1).describe == f"{whole.describe}, 10 % of the training rows, drawn by seed 1"
        assert thin_train(whole, 0.07, 1).describe.endswith("42, 7 % of the training rows, drawn by seed 1")
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
