"""How sure a difference is: bootstrap intervals over users, paired tests between models, and Holm's correction.

A metric of a run is a ratio of two sums over its users, perhaps under a root: Σ value / Σ 1 for means, √(Σ squared
errors / Σ ratings) for RMSE. Whoever resamples users resamples both sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES, FLIPS, LEVEL = 1_000, 10_000, 0.95
_CHUNK = 2**22  # random numbers at a time


@dataclass(frozen=True)
class PerUser:
    """One metric, user by user.

    Args:
        totals: What each user adds to the numerator, shape ``[users]``; 0 where nothing is known of a user.
        counts: What each user adds to the denominator, shape ``[users]``: 1 for means over users, ratings for errors.
        root: Whether the metric is the root of the ratio.
        by_ratings: Whether ``counts`` are ratings, not users.
    """

    totals: Floats
    counts: Floats
    root: bool = False
    by_ratings: bool = False

    @classmethod
    def mean(cls, values: Floats) -> PerUser:
        """A mean over the users who have a value, ``[users]``; nan stands for none."""
        known = ~np.isnan(values)
        return cls(np.where(known, values, 0.0), known.astype(float))

    @property
    def value(self) -> float:
        """The metric over all users; nan if nobody counts."""
        counts = self.counts.sum()
        ratio = float(self.totals.sum() / counts) if counts > 0 else float("nan")
        return ratio**0.5 if self.root else ratio


def bootstrap(metrics: Sequence[PerUser], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Draw as many users as there are, with replacement, again and again; all metrics see the same draws.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        metrics: Metrics of the same users in the same order.
        resamples: How often.
        seed: Fixes the draws.

    Returns:
        Shape ``[resamples, metrics]``.

    Raises:
        ValueError: If there is no metric or no user, or their users differ in number.
    """
    sizes = {len(metric.totals) for metric in metrics} | {len(metric.counts) for metric in metrics}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"metrics must be of the same users, one at least, got sizes {sorted(sizes)}")
    users, rng = sizes.pop(), np.random.default_rng(seed)
    totals, counts = (np.stack([getattr(metric, name) for metric in metrics], axis=1) for name in ("totals", "counts"))
    draws = []
    for size in _chunks(resamples, users):
        weights = _drawn(rng, size, users)
        with np.errstate(invalid="ignore", divide="ignore"):
            draws.append((weights @ totals) / (weights @ counts))
    ratios: Floats = np.concatenate(draws)
    roots = [metric.root for metric in metrics]
    ratios[:, roots] = np.sqrt(ratios[:, roots])
    return ratios


def interval(draws: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Percentile intervals.

    Args:
        draws: Bootstrap draws, shape ``[resamples, metrics]``; nan, of nobody who counts, is left out.
        level: Share of the draws inside, half of the rest on either side.

    Returns:
        Lower and upper ends, each of shape ``[metrics]``.

    Raises:
        ValueError: If the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def paired_test(differences: Floats, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Two-sided randomisation tests: were a user's two values exchangeable, their difference's sign would be chance.

    Of ``flips`` random choices of signs, p counts those whose sum is as far from 0 as the one that was found, and that
    one itself: p = (1 + #{|Σ s d| ≥ |Σ d|}) / (1 + flips). It assumes nothing about the differences' distribution.

    Fisher, The Design of Experiments, 1935; Smucker, Allan & Carterette, CIKM 2007,
    https://doi.org/10.1145/1321440.1321528

    Args:
        differences: One model's values minus another's, user by user, shape ``[users, pairs]``.
        flips: How many choices of signs; p is never below 1 / (1 + flips).
        seed: Fixes them.

    Returns:
        One p-value a pair, shape ``[pairs]``.
    """
    users, rng = len(differences), np.random.default_rng(seed)
    scale = np.abs(differences).sum(axis=0)
    scaled = (differences / np.where(scale > 0, scale, 1.0)).astype(np.float32)  # sums in [-1, 1]: float32 is enough
    found = np.abs(scaled.sum(axis=0, dtype=np.float64))
    as_far = np.zeros(differences.shape[1], dtype=np.int64)
    for size in _chunks(flips, users):
        signs = rng.integers(0, 2, (size, users), dtype=np.int8).astype(np.float32) * 2 - 1
        as_far += (np.abs(signs @ scaled) >= found - 1e-6).sum(axis=0)
    return (1 + as_far) / (1 + flips)


def holm(p_values: Floats) -> Floats:
    """Holm's step-down correction: the chance of any false difference among all of them stays below the level.

    The i-th smallest of m p-values becomes the greatest of (m - j + 1) p_j over j ≤ i, and 1 at most.

    Holm, Scandinavian Journal of Statistics, 1979, https://www.jstor.org/stable/4615733

    Args:
        p_values: Shape ``[tests]``.

    Returns:
        Corrected p-values in the same order.

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def _drawn(rng: np.random.Generator, size: int, users: int) -> Floats:
    """How often each user was drawn, ``[size, users]``."""
    drawn = rng.integers(0, users, (size, users)) + users * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users).astype(float)


def _chunks(count: int, users: int) -> Iterator[int]:
    step = max(1, _CHUNK // users)
    for start in range(0, count, step):
        yield min(step, count - start)
