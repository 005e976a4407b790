"""Intervals and tests: against SciPy, against definitions, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recflow.evaluation.significance import PerUser, bootstrap, holm, interval, paired_test


def test_intervals_are_those_of_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(1.0, 0.3, 400)
    low, high = (float(end[0]) for end in interval(bootstrap([PerUser.mean(values)], 20_000)))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.03 * width)
    assert high == pytest.approx(theirs.high, abs=0.03 * width)


def test_a_root_of_ratios_is_resampled_with_both_of_its_sums():
    rng = np.random.default_rng(1)
    ratings = rng.integers(1, 60, 300).astype(float)
    errors = ratings * rng.gamma(2.0, 0.4, 300)
    metric = PerUser(errors, ratings, root=True)
    assert metric.value == pytest.approx(np.sqrt(errors.sum() / ratings.sum()))
    low, high = (float(end[0]) for end in interval(bootstrap([metric], 20_000)))

    def rmse(e, n, axis=-1):
        return np.sqrt(e.sum(axis=axis) / n.sum(axis=axis))

    theirs = stats.bootstrap(
        (errors, ratings), rmse, paired=True, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.03 * width)
    assert high == pytest.approx(theirs.high, abs=0.03 * width)


@pytest.mark.parametrize("kind", ["mean", "rmse"])
def test_intervals_cover_the_truth_about_as_often_as_they_say(kind):
    """800 experiments of 400 users each: the standard error of the share is .8 %."""
    rng, covered = np.random.default_rng(2), 0
    for trial in range(800):
        if kind == "mean":  # most users score 0, as in recommendation
            metric, truth = PerUser.mean(rng.beta(0.4, 1.2, 400) * (rng.random(400) < 0.6)), 0.6 * 0.25
        else:
            ratings = rng.integers(1, 40, 400)
            metric, truth = PerUser(rng.chisquare(ratings), ratings.astype(float), root=True), 1.0
        low, high = interval(bootstrap([metric], 600, seed=trial))
        covered += low[0] <= truth <= high[0]
    assert 0.93 <= covered / 800 <= 0.97


def test_users_without_a_value_count_for_nothing():
    values = np.array([0.2, np.nan, 0.6, np.nan])
    metric = PerUser.mean(values)
    assert metric.value == pytest.approx(0.4)
    assert np.nanmin(bootstrap([metric], 500)) >= 0.2
    assert np.isnan(PerUser.mean(np.full(3, np.nan)).value)


def test_all_metrics_see_the_same_draws_and_the_seed_fixes_them():
    values = np.random.default_rng(3).random(50)
    both = bootstrap([PerUser.mean(values), PerUser.mean(1 - values)], 100, seed=4)
    np.testing.assert_allclose(both.sum(axis=1), 1.0)
    np.testing.assert_array_equal(both, bootstrap([PerUser.mean(values), PerUser.mean(1 - values)], 100, seed=4))
    assert not np.array_equal(both, bootstrap([PerUser.mean(values), PerUser.mean(1 - values)], 100, seed=5))


def test_randomisation_tests_are_scipys():
    rng = np.random.default_rng(5)
    differences = rng.normal([0.0, 0.1, 0.25], 1.0, (120, 3))
    ours = paired_test(differences, flips=20_000)
    for column, p in zip(differences.T, ours, strict=True):
        theirs = stats.permutation_test(
            (column, np.zeros(120)), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=20_000, rng=6
        )
        assert p == pytest.approx(theirs.pvalue, abs=0.015)


def test_no_difference_at_all_is_never_told():
    assert paired_test(np.zeros((30, 2)), flips=200).tolist() == [1.0, 1.0]


def test_chance_is_told_apart_no_more_often_than_allowed():
    rng = np.random.default_rng(7)
    p = paired_test(rng.standard_t(3, (200, 1000)), flips=1000)
    assert 0.03 < (p < 0.05).mean() < 0.07


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_its_definition(p_values):
    corrected, count = holm(np.array(p_values)), len(p_values)
    ranked = sorted(range(count), key=lambda place: p_values[place])
    highest = 0.0
    for step, place in enumerate(ranked):
        highest = max(highest, min(1.0, (count - step) * p_values[place]))
        assert corrected[place] == pytest.approx(highest)


def test_metrics_of_different_users_are_refused():
    with pytest.raises(ValueError, match=r"sizes \[2, 3\]"):
        bootstrap([PerUser.mean(np.ones(2)), PerUser.mean(np.ones(3))])
    with pytest.raises(ValueError, match="level"):
        interval(np.ones((3, 1)), 1.0)
