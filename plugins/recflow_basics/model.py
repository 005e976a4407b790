"""Popularity and chance: what a personalised model must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import ClosedFormModule
from recflow_basics.ranker import RandomRanker


class Popularity(ClosedFormModule):
    """``score(u, i)`` = number of training interactions of i, the same for every user.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
    """

    task = "ranking"
    counts: Tensor

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.register_buffer("counts", torch.zeros(num_items))

    def sweep(self) -> None:
        """Count."""
        self.counts = torch.bincount(self.data.positives.items, minlength=self.data.num_items).float()

    def ranker(self) -> FactorRanker:
        """Item biases and factors of no dimension."""
        users = self.counts.new_zeros(self.hparams["num_users"], 0)
        return FactorRanker(users, self.counts.new_zeros(len(self.counts), 0), item_bias=self.counts.clone())


class Random(ClosedFormModule):
    """``score(u, i)`` drawn uniformly from [0, 1) by a hash of (seed, u, i).

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
    """

    task = "ranking"

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.save_hyperparameters()

    def sweep(self) -> None:
        """Nothing to learn."""

    def ranker(self) -> RandomRanker:
        """The hash."""
        ranker = RandomRanker(self.hparams["num_users"], self.hparams["num_items"], self.seed)
        return ranker.to(self.data.train.users.device)
