"""EASE: a linear autoencoder whose weights have a closed form.

Model      score(u, i) = Σ over u's items h of B[h, i];  B has a zero diagonal
Loss       |X - XB|² + reg |B|², X the binary interactions
Solution   P = (XᵀX + reg I)^-1;  B = -P / diag(P) off the diagonal
Source     Steck, WWW 2019, https://arxiv.org/abs/1905.03375
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import ItemItemRanker
from recflow.training.modules import ClosedFormModule
from recflow_item_item.memory import refuse_beyond_memory

_CHUNK = 4096


class EASE(ClosedFormModule):
    """EASE, Steck, WWW 2019, https://arxiv.org/abs/1905.03375.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data. Memory grows with its square.
        reg: Ridge penalty on the weights, above 0, in units of interactions.
    """

    task = "ranking"
    weights: Tensor

    def __init__(self, num_users: int, num_items: int, reg: float = 250.0) -> None:
        super().__init__()
        if reg <= 0:
            raise ValueError(f"reg must be above 0, got {reg}")
        refuse_beyond_memory(
            f"ease on {num_items:,} items",
            5 * 8 * num_items**2,
            "raise data.k_core, or use a model whose memory does not grow with items²",
        )
        self.save_hyperparameters()
        self.register_buffer("weights", torch.zeros(num_items, num_items))

    def sweep(self) -> None:
        """Solve, in double precision."""
        rows, num_items = self._histories(), self.data.num_items
        gram = torch.zeros(num_items, num_items, dtype=torch.float64, device=rows.items.device)
        for users in torch.split(torch.arange(self.data.num_users, device=rows.items.device), _CHUNK):
            x = torch.zeros(len(users), num_items, device=rows.items.device)  # [chunk, num_items]
            x[rows.rows(users)] = 1
            gram += x.T @ x  # counts: exact in single precision up to 2^24 users
        gram.diagonal().add_(self.hparams["reg"])
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        weights = inverse.div_(-inverse.diagonal())  # column i by P[i, i]
        weights.fill_diagonal_(0)
        self.weights = weights.float()

    def ranker(self) -> ItemItemRanker:
        """The weights, and the training histories that they are applied to."""
        rows = self._histories()
        return ItemItemRanker(self.weights, rows.indptr, rows.items)

    def _histories(self) -> Histories:
        positives = self.data.positives
        return Histories.from_pairs(positives.users, positives.items, self.data.num_users, self.data.num_items)
