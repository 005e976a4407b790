"""Accuracy of predicted ratings: RMSE, MAE and MSE, from one pass over the errors."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

RATING_METRICS = ("rmse", "mae", "mse")


class RatingMetrics(Metric):
    """Errors of predicted ratings over all n held-out (user, item) pairs, every pair weighing the same.

    With e = predicted - rating, mse = Σ e² / n, rmse = sqrt(mse) and mae = Σ |e| / n. rmse and mae are in units of
    the rating (stars), mse in their square. These are means over pairs, not over users: a user with many ratings
    counts as often. rmse is the root over everything seen, not a mean of the batches' roots.

    The sums are float64; predictions are taken as they come, clipped to the rating scale or not.

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
        self.add_state("squared_error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("absolute_error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, rating: Tensor) -> None:
        """Count a batch of predictions.

        Args:
            predicted: Predicted ratings, float, shape ``[n]``.
            rating: True ratings, int or float, shape ``[n]``.

        Raises:
            ValueError: If the shapes differ, or a prediction or a rating is nan.
        """
        if predicted.dim() != 1 or predicted.shape != rating.shape:  # [n] - [n, 1] would be [n, n]
            raise ValueError(
                f"predicted and rating must both have shape [n], got {list(predicted.shape)} and {list(rating.shape)}"
            )
        error = predicted.to(torch.float64) - rating.to(torch.float64)
        for name, values in (("predictions", predicted), ("ratings", rating)):
            if broken := int(values.isnan().sum()):
                raise ValueError(f"{name} must be numbers, got nan in {broken} of {len(values)}")
        # Not in place: the float64 sum also widens a state that a cast of the whole model to half precision took along.
        self.squared_error = self.squared_error + error.square().sum()
        self.absolute_error = self.absolute_error + error.abs().sum()
        self.count = self.count + len(error)

    def compute(self) -> dict[str, Tensor]:
        """Return the three errors over all pairs seen so far.

        Returns:
            ``"rmse"``, ``"mae"`` and ``"mse"``, float64 scalars; nan if nothing was seen.
        """
        mse = self.squared_error / self.count
        mae = self.absolute_error / self.count
        return {"rmse": mse.sqrt(), "mae": mae, "mse": mse}
