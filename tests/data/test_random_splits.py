"""Splits by chance: counted as published code counts, every row as likely as another, folds."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.splits import split
from recflow.errors import RecflowError
from tests.data.tiny_interactions import (
    PARTS,
    ample,
    assert_partition,
    in_order,
    interactions,
    pairs_of,
    recbole_counts,
)


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
