"""GraphSAGE that predicts ratings.

Model      r(u, i) = mean + score(u, i), and beside h_w a second message, ((r_vw - mean) / spread) h_w, averaged
           likewise: so ratings reach the layers, a new user's too; see body.py for the rest
Loss       mean of (r - r(u, i))²; Adam's weight decay
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from recflow.data.batches import RatingBatch
from recflow.data.dataset import Dataset, Rows
from recflow.training.modules import RatingModule
from recflow_graphsage.body import GraphSAGE


class GraphSAGERating(GraphSAGE, RatingModule):
    """GraphSAGE for ratings; its hyper-parameters are :class:`~recflow_graphsage.body.GraphSAGE`'s."""

    default_max_epochs = 100
    kinds = 2
    first_std = 0.1

    def edges(self, data: Dataset) -> tuple[Rows, Tensor | None]:
        """All ratings, and by how many standard deviations each is above the mean."""
        rows = data.train
        self._mean = float(rows.ratings.mean())
        self._spread = float(rows.ratings.std(correction=0)) or 1.0
        return rows, (rows.ratings - self._mean) / self._spread

    def loss(self, batch: RatingBatch) -> Tensor:
        """Mean squared error, without messages over the batch's own edges."""
        users, items = self.vectors(batch.users, batch.items, exclude=(batch.users, batch.items))
        return F.mse_loss(self._mean + self.pair_scores(users, items), batch.ratings)

    def ranker_settings(self) -> dict[str, Any]:
        """The ratings' mean, spread and scale."""
        return {"mean": self._mean, "spread": self._spread, "rating_scale": self.data.rating_scale}
