"""Accuracy of predicted ratings: RMSE, MAE and MSE, from one pass over the errors, exact whatever their order."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from recflow.metrics.ranking import wide_float

RATING_METRICS = ("rmse", "mae", "mse")

# A sum is a number of five digits to base 2^32, each an int64 that may outgrow its base: room for 2^31 pairs.
_DIGITS = tuple(2.0**power for power in (64, 32, 0, -32, -64))
_LARGEST_ERROR = 2.0**47


class RatingMetrics(Metric):
    """Errors of predicted ratings over all n held-out (user, item) pairs, every pair weighing the same.

    With e = predicted - rating, mse = Σ e² / n, rmse = sqrt(mse) and mae = Σ |e| / n. rmse and mae are in units of
    the rating (stars), mse in their square. These are means over pairs, not over users: a user with many ratings
    counts as often. rmse is the root over everything seen, not a mean of the batches' roots.

    The sums are kept in integers, of which each e² and each |e| adds a whole multiple of 2^-64 (5.4e-20). Adding
    integers gives one result in whatever order, so neither the batches nor several processes change a bit of it.
    Predictions are taken as they come, clipped to the rating scale or not.

    Args:
        **kwargs: Handed to ``torchmetrics.Metric`` (how to synchronise processes).

    Attributes:
        count: Pairs seen, int64 scalar; of this process, where there are several.

    Example:
        >>> metrics = RatingMetrics()
        >>> metrics.update(torch.tensor([3.0, 5.0]), torch.tensor([4.0, 2.0]))
        >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
        {'rmse': 2.236, 'mae': 2.0, 'mse': 5.0}
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    squared_error: Tensor
    absolute_error: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("squared_error", torch.zeros(len(_DIGITS), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("absolute_error", torch.zeros(len(_DIGITS), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, rating: Tensor) -> None:
        """Count a batch of predictions.

        Args:
            predicted: Predicted ratings, float, shape ``[n]``.
            rating: True ratings, int or float, shape ``[n]``.

        Raises:
            ValueError: If the shapes differ, a prediction or a rating is nan, or an error is above 2^47.
        """
        if predicted.dim() != 1 or predicted.shape != rating.shape:  # [n] - [n, 1] would be [n, n]
            raise ValueError(
                f"predicted and rating must both have shape [n], got {list(predicted.shape)} and {list(rating.shape)}"
            )
        wide = wide_float(predicted.device)
        error = (predicted.to(wide) - rating.to(wide)).abs()
        for name, values in (("predictions", predicted), ("ratings", rating)):
            if broken := int(values.isnan().sum()):
                raise ValueError(f"{name} must be numbers, got nan in {broken} of {len(values)}")
        if len(error) and float(error.max()) > _LARGEST_ERROR:
            raise ValueError(f"errors must be at most 2^47 to be summed, got one of {float(error.max()):g}")
        # Nothing in place: a state that `reset` made under inference mode could not be changed outside it.
        self.squared_error = self.squared_error + _digit_sums(error.square())
        self.absolute_error = self.absolute_error + _digit_sums(error)
        self.count = self.count + len(error)

    def compute(self) -> dict[str, Tensor]:
        """Return the three errors over all pairs seen so far.

        Returns:
            ``"rmse"``, ``"mae"`` and ``"mse"``, float64 scalars; nan if nothing was seen.
        """
        wide = wide_float(self.count.device)
        digits = torch.tensor(_DIGITS, dtype=wide, device=self.count.device)
        mse = (self.squared_error.to(wide) * digits).sum() / self.count
        mae = (self.absolute_error.to(wide) * digits).sum() / self.count
        return {"rmse": mse.sqrt(), "mae": mae, "mse": mse}


def _digit_sums(values: Tensor) -> Tensor:
    """Sums over some values, not negative and below 2^96, digit by digit, int64, shape ``[5]``."""
    sums = []
    for unit in _DIGITS:
        digit = (values / unit).floor()
        values = values - digit * unit  # exact: the leading bits go
        sums.append(digit.to(torch.int64).sum())
    return torch.stack(sums)
