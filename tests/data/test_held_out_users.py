"""Users held out whole: disjoint, counted as published code counts, a share of their rows known."""

import numpy as np
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
    parts_of,
    random_interactions,
    recbole_counts,
    rows_of,
    shares,
)


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
