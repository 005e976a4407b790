"""Predicted ratings kept one by one, and what follows from them: each user's error, and whether they can be trusted.

Whoever is promised 4 stars should on average give 4: the predictions are put into bins, and each bin's mean prediction
stands beside the mean of the ratings that were given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

_BINS = 20
PREDICTION_WIDTH = 4  # numbers in a packed row


class Predictions(NamedTuple):
    """Held-out ratings and what was predicted for them, by user, on the CPU.

    Attributes:
        users: User indices, ascending, int64, shape ``[ratings]``.
        items: Item indices, int64, shape ``[ratings]``.
        ratings: Stars that were given, float64, shape ``[ratings]``.
        predicted: Stars that were predicted, float64, shape ``[ratings]``.
    """

    users: Tensor
    items: Tensor
    ratings: Tensor
    predicted: Tensor

    @staticmethod
    def rows(users: Tensor, items: Tensor, ratings: Tensor, predicted: Tensor) -> Tensor:
        """Pack predictions into whole numbers, int32, ``[ratings, 4]``: of the stars their float32 bits."""
        stars = (column.float().contiguous().view(torch.int32) for column in (ratings, predicted))
        return torch.stack([users.to(torch.int32), items.to(torch.int32), *stars], dim=1)

    @classmethod
    def of(cls, rows: Tensor) -> Predictions:
        """Unpack what :meth:`rows` has packed."""
        users, items, *stars = rows.cpu().T.contiguous().unbind()
        return cls(
            users.to(torch.int64), items.to(torch.int64), *(column.view(torch.float32).double() for column in stars)
        )

    @property
    def errors(self) -> npt.NDArray[np.float64]:
        """Absolute errors in stars, shape ``[ratings]``."""
        errors: npt.NDArray[np.float64] = (self.predicted - self.ratings).abs().numpy()
        return errors

    def per_user(self) -> pl.DataFrame:
        """Each user's errors: ``user``, ``mse`` (stars²), ``mae`` (stars) and the number of ``ratings``.

        The root of the mean of ``mse``, weighted by ``ratings``, is the RMSE.
        """
        users, place, ratings = np.unique(self.users.numpy(), return_inverse=True, return_counts=True)
        square, absolute = (np.bincount(place, error) / ratings for error in (self.errors**2, self.errors))
        return pl.DataFrame({"user": users, "mse": square, "mae": absolute, "ratings": ratings})

    def calibration(self, bins: int = _BINS) -> pl.DataFrame:
        """Mean predicted beside mean given rating, in bins of equal width over the predictions' range.

        A regression's reliability diagram: well calibrated predictions lie on the diagonal; where the ratings rise
        faster than the predictions the model is too cautious, where they rise more slowly too bold.

        Args:
            bins: How many, at least 1.

        Returns:
            ``predicted``, ``rating`` and the ratings' standard deviation ``sd``, in stars, and the number of
            ``ratings``; one row a bin that holds any, ascending.
        """
        predicted, rating = self.predicted.numpy(), self.ratings.numpy()
        lowest, highest = (float(predicted.min()), float(predicted.max())) if len(predicted) else (0.0, 0.0)
        edges = np.linspace(lowest, highest, bins + 1)
        place = np.searchsorted(edges[1:-1], predicted, side="right")
        count = np.bincount(place, minlength=bins)
        some, ratings = count > 0, count[count > 0]
        means = {
            name: np.bincount(place, values, minlength=bins)[some] / ratings
            for name, values in (("predicted", predicted), ("rating", rating))
        }
        of_bin = np.zeros(bins)
        of_bin[some] = means["rating"]
        spread = np.bincount(place, (rating - of_bin[place]) ** 2, minlength=bins)[some] / ratings
        return pl.DataFrame({**means, "sd": np.sqrt(spread), "ratings": ratings})
