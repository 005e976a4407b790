"""Biases alone: how well a model predicts that knows nobody's taste.

Model      r(u, i) = mean + b_u + b_i
Loss       Σ (r - r̂)² + reg_user Σ_u b_u² + reg_item Σ_i b_i²
Solution   alternating: b_i = Σ over i's ratings of (r - mean - b_u) / (n_i + reg_item), then b_u the same with reg_user
Source     Koren, TKDD 2010, section 2.1, https://doi.org/10.1145/1644873.1644874; the baseline of every rating model
Differs    the paper solves each side once, without the other's penalty; here sweeps alternate until they agree
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import ClosedFormModule


class BiasOnly(ClosedFormModule):
    """A mean, a bias for each user and one for each item. Its order of items is the same for everybody.

    A user unseen in training gets bias 0, as does an item.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        reg_user: Ridge penalty on user biases, above 0, in units of ratings: a user with so many ratings is believed
            half.
        reg_item: The same for items.
    """

    task = "rating"
    monitor = "val/rmse"
    default_max_epochs = 10

    user_bias: Tensor
    item_bias: Tensor
    mean: Tensor

    def __init__(self, num_users: int, num_items: int, reg_user: float = 5.0, reg_item: float = 2.0) -> None:
        super().__init__()
        if reg_user <= 0 or reg_item <= 0:
            raise ValueError(f"reg_user and reg_item must be above 0, got {reg_user} and {reg_item}")
        self.save_hyperparameters()
        self.register_buffer("user_bias", torch.zeros(num_users))
        self.register_buffer("item_bias", torch.zeros(num_items))
        self.register_buffer("mean", torch.zeros(()))

    def sweep(self) -> float:
        """Solve all items, then all users; returns the mean squared error on the training ratings."""
        train = self.data.train
        self.mean = train.ratings.double().mean().float()
        self.item_bias = self._item_biases()
        self.user_bias = self._user_biases()
        return float((self.ranker().predict(train.users, train.items) - train.ratings).square().mean())

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """New users are solved against the known items, then new items against all users."""
        self.item_bias[items] = 0
        self.user_bias[users] = self._user_biases()[users]
        self.item_bias[items] = self._item_biases()[items]

    def _user_biases(self) -> Tensor:
        train = self.data.train
        left = train.ratings - self.mean - self.item_bias[train.items]
        return _shrunk_means(left, train.users, self.data.num_users, self.hparams["reg_user"])

    def _item_biases(self) -> Tensor:
        train = self.data.train
        left = train.ratings - self.mean - self.user_bias[train.users]
        return _shrunk_means(left, train.items, self.data.num_items, self.hparams["reg_item"])

    def ranker(self) -> FactorRanker:
        """Biases and vectors of no dimension; a history's bias is the same shrunk mean."""
        return FactorRanker(
            self.user_bias.new_zeros(len(self.user_bias), 0),
            self.item_bias.new_zeros(len(self.item_bias), 0),
            self.user_bias,
            self.item_bias,
            mean=float(self.mean),
            reg_bias=self.hparams["reg_user"],
            rating_scale=self.data.rating_scale,
        )


def _shrunk_means(values: Tensor, rows: Tensor, num_rows: int, reg: float) -> Tensor:
    """``Σ values / (n + reg)`` over each row's n values, ``[num_rows]``; 0 where there are none."""
    sums = torch.bincount(rows, weights=values.double(), minlength=num_rows)
    return (sums / (torch.bincount(rows, minlength=num_rows) + reg)).float()
