import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recflow.metrics.beyond import coverage, gini

exposures = st.lists(st.integers(0, 50), min_size=2, max_size=12).filter(any)


def mean_absolute_difference(counts: list[int]) -> float:
    """The other definition: how far two items are apart on average, over all ordered pairs of different ones."""
    n = len(counts)
    apart = sum(abs(a - b) for a, b in product(counts, counts)) / (n * (n - 1))
    return apart / (2 * sum(counts) / n)


class TestGini:
    def test_equal_exposure_is_0_and_a_single_item_1(self):
        assert gini(torch.full((40,), 7)) == 0.0
        assert gini(torch.tensor([0, 0, 0, 9, 0])) == 1.0

    def test_by_hand(self):
        # ascending 0, 1, 3: weights -2, 0, 2 over (n - 1) Σ = 2 · 4
        assert gini(torch.tensor([3, 0, 1])) == (0 * -2 + 1 * 0 + 3 * 2) / (2 * 4)

    @given(exposures)
    def test_equals_the_mean_absolute_difference_over_twice_the_mean(self, counts):
        assert float(gini(torch.tensor(counts))) == pytest.approx(mean_absolute_difference(counts), rel=1e-14, abs=0)

    @given(exposures, st.randoms(), st.integers(2, 1000))
    def test_neither_the_items_order_nor_the_number_of_users_matters(self, counts, random, times):
        value = gini(torch.tensor(counts))
        assert 0 <= value <= 1
        random.shuffle(counts)
        assert gini(torch.tensor(counts)) == value
        assert float(gini(times * torch.tensor(counts))) == pytest.approx(float(value), rel=1e-15)

    @given(exposures)
    def test_an_item_that_is_never_recommended_makes_it_more_unequal(self, counts):
        assert gini(torch.tensor([*counts, 0])) >= gini(torch.tensor(counts)) - 1e-15

    @pytest.mark.parametrize("k", [1, 3, 10])
    def test_the_same_list_for_everybody_is_as_unequal_as_lists_of_k_can_be(self, k):
        exposure = torch.zeros(30, dtype=torch.int64)
        exposure[:k] = 12
        assert float(gini(exposure)) == pytest.approx(1 - (k - 1) / 29, rel=1e-15)

    def test_nothing_to_compare_is_nan(self):
        assert gini(torch.zeros(5, dtype=torch.int64)).isnan()
        assert gini(torch.tensor([3])).isnan()

    def test_large_counts_stay_exact(self):
        exposure = torch.cat([torch.zeros(10**6 - 1, dtype=torch.int64), torch.tensor([10**8])])
        assert gini(exposure) == 1.0

    def test_cut_offs_are_rows(self):
        rows = torch.tensor([[1, 1, 1], [3, 0, 0], [3, 0, 1]])
        assert gini(rows).tolist() == [float(gini(row)) for row in rows]


class TestCoverage:
    @given(exposures)
    def test_it_counts_items_that_are_there_at_all(self, counts):
        assert coverage(torch.tensor(counts)) == sum(count > 0 for count in counts) / len(counts)

    def test_cut_offs_are_rows_and_nothing_recommended_is_0(self):
        values = coverage(torch.tensor([[0, 0, 0, 0], [5, 0, 0, 1]]))
        assert values.tolist() == [0.0, 0.5]
        assert not any(math.isnan(value) for value in values.tolist())
