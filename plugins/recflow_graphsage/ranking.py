"""GraphSAGE for ranking.

Loss       mean of -log sigmoid(score(u, i) - score(u, j)); Adam's weight decay; see body.py for the model
Negatives  one item j per positive, uniform over items with an edge that the user has not interacted with: an item
           without one would come as a negative alone, and the layers learn that who is new is bad
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.data.batches import Batches, BPRBatch, BPRBatches, NegativeSampler
from recflow.data.dataset import Dataset, Rows
from recflow.training.losses import bpr_loss
from recflow.training.modules import RankingModule
from recflow_graphsage.body import GraphSAGE


class GraphSAGEBPR(GraphSAGE, RankingModule):
    """GraphSAGE trained by BPR; its hyper-parameters are :class:`~recflow_graphsage.body.GraphSAGE`'s."""

    default_max_epochs = 200
    first_std = 1.0  # from smaller ones the first epochs find little more than popularity

    def edges(self, data: Dataset) -> tuple[Rows, Tensor | None]:
        """What users have liked."""
        return data.positives, None

    def batches(self, data: Dataset) -> Batches:
        """Triples of user, liked item, and another item that has an edge."""
        liked = data.positives
        has_edge = torch.bincount(liked.items, minlength=data.num_items) > 0
        negatives = NegativeSampler(data.train.users, data.train.items, data.num_items, drawable=has_edge)
        return BPRBatches(liked.users, liked.items, negatives, data.batch_size, self.seed)

    def loss(self, batch: BPRBatch) -> Tensor:
        """BPR, without messages over the batch's own edges."""
        both = torch.cat([batch.items, batch.negatives])  # [2 * batch]
        user, items = self.vectors(batch.users, both, exclude=(batch.users, batch.items))
        pos, neg = items.chunk(2)
        return bpr_loss(self.pair_scores(user, pos), self.pair_scores(user, neg))
