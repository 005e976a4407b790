"""Popularity that fades: an interaction counts half as much after every half-life.

Model      score(u, i) = Σ over i's training interactions of 2^(-(now - time) / half-life), the same for every user;
           now is the time of the last training interaction
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import ClosedFormModule

SECONDS_A_DAY = 24 * 60 * 60


class TopPop(ClosedFormModule):
    """Popularity with exponential decay.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        half_life: After how many days an interaction counts half, above 0; infinity is plain popularity.
    """

    task = "ranking"
    weights: Tensor

    def __init__(self, num_users: int, num_items: int, half_life: float = 90.0) -> None:
        super().__init__()
        if half_life <= 0:
            raise ValueError(f"half_life must be above 0 days, got {half_life}")
        self.save_hyperparameters()  # plain numbers only: they rebuild the model from a checkpoint
        self.register_buffer("weights", torch.zeros(num_items))  # what is learnt, so that checkpoints hold it

    def sweep(self) -> None:
        """Add up, in double precision: one look at the training rows is all there is to learn."""
        liked = self.data.positives
        age = self._days_before_the_last(liked.users.device)  # [num_interactions]
        worth = torch.exp2(-age / self.hparams["half_life"])
        total = torch.zeros(self.data.num_items, dtype=torch.float64, device=worth.device)
        self.weights = total.index_add_(0, liked.items, worth).float()  # [num_items]

    def ranker(self) -> FactorRanker:
        """Item biases and vectors of no dimension: a list that is the same for everybody."""
        nobody, nothing = (self.weights.new_zeros(self.hparams[name], 0) for name in ("num_users", "num_items"))
        return FactorRanker(nobody, nothing, item_bias=self.weights.clone())

    def _days_before_the_last(self, device: torch.device) -> Tensor:
        """The age of each liked training row, in the order of ``data.positives``."""
        time = torch.tensor(self.data.parts.train["time"].to_list(), dtype=torch.float64, device=device)
        threshold = self.data.config.relevant_from
        if threshold is not None:
            time = time[self.data.train.ratings >= threshold]
        return (time.max() - time) / SECONDS_A_DAY
