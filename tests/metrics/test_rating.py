import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from recflow.metrics.rating import RATING_METRICS, RatingMetrics


def measure(predicted, rating, size=None):
    metrics = RatingMetrics()
    size = size or max(len(rating), 1)
    for p, r in zip(predicted.split(size), rating.split(size), strict=True):
        metrics.update(p, r)
    return {name: value.item() for name, value in metrics.compute().items()}


class TestByHand:
    def test_errors_of_one_and_three_stars(self):
        values = measure(torch.tensor([3.0, 5.0]), torch.tensor([4, 2]))
        assert values == {"rmse": math.sqrt((1 + 9) / 2), "mae": (1 + 3) / 2, "mse": (1 + 9) / 2}
        assert tuple(values) == RATING_METRICS

    def test_perfect_predictions_have_no_error(self):
        stars = torch.tensor([0.5, 3.5, 5.0])
        assert measure(stars, stars) == {"rmse": 0.0, "mae": 0.0, "mse": 0.0}

    def test_rmse_is_the_root_over_everything_not_a_mean_of_roots(self):
        values = measure(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 4.0]), size=2)
        assert values["rmse"] == math.sqrt(9 / 3)

    def test_a_prediction_off_the_scale_is_taken_as_it_comes(self):
        assert measure(torch.tensor([7.0]), torch.tensor([5.0]))["mae"] == 2.0


stars = st.integers(1, 10).map(lambda half: half / 2)
guesses = st.floats(-10, 10, width=32)


class TestAgainstOthers:
    @given(st.lists(st.tuples(guesses, stars), min_size=1, max_size=30), st.integers(1, 30))
    def test_equals_a_loop_in_batches_of_any_size(self, pairs, size):
        values = measure(torch.tensor([p for p, _ in pairs]), torch.tensor([r for _, r in pairs]), size)
        mse = sum((p - r) ** 2 for p, r in pairs) / len(pairs)
        mae = sum(abs(p - r) for p, r in pairs) / len(pairs)
        assert values == pytest.approx({"rmse": math.sqrt(mse), "mae": mae, "mse": mse}, rel=1e-12, abs=1e-300)

    def test_equals_torchmetrics(self):
        generator = torch.Generator().manual_seed(0)
        predicted = 5 * torch.rand(1000, generator=generator, dtype=torch.float64)
        rating = torch.randint(1, 6, (1000,), generator=generator)
        expected = {
            "rmse": MeanSquaredError(squared=False)(predicted, rating.double()).item(),
            "mae": MeanAbsoluteError()(predicted, rating.double()).item(),
            "mse": MeanSquaredError()(predicted, rating.double()).item(),
        }
        assert measure(predicted, rating, size=64) == pytest.approx(expected, rel=1e-6)  # their sums are float32

    def test_many_small_errors_are_not_lost_to_float32(self):
        metrics = RatingMetrics()
        for _ in range(40):
            metrics.update(torch.full((500_000,), 1.0), torch.zeros(500_000))
        metrics.update(torch.tensor([1.0]), torch.zeros(1))  # 20,000,001 does not exist in float32
        assert metrics.count == 20_000_001
        assert metrics.compute()["mse"] == 1.0

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.floats(-1e12, 1e12), stars), min_size=1, max_size=30), st.randoms())
    def test_no_order_of_batches_changes_a_bit_and_the_sums_are_those_of_fractions(self, pairs, random):
        whole = measure(torch.tensor([p for p, _ in pairs], dtype=torch.float64), torch.tensor([r for _, r in pairs]))
        random.shuffle(pairs)
        predicted = torch.tensor([p for p, _ in pairs], dtype=torch.float64)
        assert measure(predicted, torch.tensor([r for _, r in pairs]), random.randint(1, len(pairs))) == whole
        errors = [Fraction(abs(p - r)) for p, r in pairs]  # rounded to float64, as the metric does, then exact
        squares = [Fraction(abs(p - r) ** 2) for p, r in pairs]
        assert whole["mae"] == pytest.approx(float(sum(errors) / len(pairs)), rel=1e-15, abs=2**-64)
        assert whole["mse"] == pytest.approx(float(sum(squares) / len(pairs)), rel=1e-15, abs=2**-64)

    def test_the_order_changes_nothing_where_a_float64_sum_would_change(self):
        predicted = 5 * torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        rating = torch.full((1000,), 3)
        assert measure(predicted, rating, size=1) == measure(predicted.flip(0), rating, size=7)
        squares = (predicted - rating).square().tolist()
        assert sum(squares) != sum(reversed(squares))


class TestStates:
    predicted = torch.tensor([1.25, 2.5, 4.75, 3.0, 0.5])  # quarters: their sums are exact in any order
    rating = torch.tensor([1.0, 4.0, 5.0, 3.5, 2.0])

    def test_chunks_equal_one_update(self):
        whole = measure(self.predicted, self.rating)
        assert all(measure(self.predicted, self.rating, size) == whole for size in (1, 2, 3))

    def test_merged_states_equal_one_process(self):
        whole, first, second = RatingMetrics(), RatingMetrics(), RatingMetrics()
        whole.update(self.predicted, self.rating)
        first.update(self.predicted[:2], self.rating[:2])
        second.update(self.predicted[2:], self.rating[2:])
        first.merge_state(second)
        assert first.compute() == whole.compute()
        assert first.count == 5

    def test_reset_forgets_even_under_inference_mode(self):
        metrics = RatingMetrics()
        metrics.update(self.predicted, self.rating)
        with torch.inference_mode():
            metrics.reset()
        metrics.update(self.predicted[:1], self.rating[:1])
        assert metrics.compute()["mae"] == 0.25

    def test_a_cast_of_the_model_to_half_precision_does_not_narrow_the_sums(self):
        metrics = RatingMetrics().to(torch.bfloat16)
        metrics.update(torch.full((1001,), 1.0), torch.zeros(1001))  # 1001 does not exist in bfloat16
        assert metrics.compute()["mse"] == 1.0

    def test_half_precision_predictions_are_widened_before_the_difference(self):
        values = measure(torch.tensor([3.0], dtype=torch.bfloat16), torch.tensor([3.001], dtype=torch.float64))
        assert values["mae"] == pytest.approx(0.001)

    @pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
    def test_nothing_seen_is_nan_and_so_is_an_empty_batch(self):
        metrics = RatingMetrics()
        assert all(value.isnan() for value in metrics.compute().values())
        metrics.update(torch.empty(0), torch.empty(0))
        assert all(value.isnan() for value in metrics.compute().values())


class TestMistakes:
    def test_nan_predictions_are_refused_by_number(self):
        with pytest.raises(ValueError, match="predictions must be numbers, got nan in 2 of 3"):
            RatingMetrics().update(torch.tensor([torch.nan, 1.0, torch.nan]), torch.ones(3))

    def test_nan_ratings_are_refused_too(self):
        with pytest.raises(ValueError, match="ratings must be numbers, got nan in 1 of 2"):
            RatingMetrics().update(torch.ones(2), torch.tensor([torch.nan, 1.0]))

    def test_a_refused_batch_leaves_no_trace(self):
        metrics = RatingMetrics()
        metrics.update(torch.tensor([1.0]), torch.tensor([2.0]))
        with pytest.raises(ValueError, match="nan"):
            metrics.update(torch.tensor([torch.nan]), torch.tensor([2.0]))
        assert metrics.compute()["mae"] == 1.0

    def test_errors_too_large_to_sum_are_refused(self):
        with pytest.raises(ValueError, match=r"at most 2\^47 to be summed, got one of 1e\+20"):
            RatingMetrics().update(torch.tensor([1.0, 1e20]), torch.ones(2))
        with pytest.raises(ValueError, match="got one of inf"):
            RatingMetrics().update(torch.tensor([torch.inf]), torch.ones(1))

    @pytest.mark.parametrize("shapes", [((3,), (2,)), ((3,), (3, 1)), ((3, 1), (3, 1))])
    def test_shapes_that_would_broadcast_are_refused(self, shapes):
        with pytest.raises(ValueError, match=r"must both have shape \[n\]"):
            RatingMetrics().update(torch.ones(shapes[0]), torch.ones(shapes[1]))
