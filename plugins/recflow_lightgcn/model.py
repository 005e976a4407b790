"""LightGCN: linear propagation of embeddings over the user–item graph.

Model      score(u, i) = <e_u, e_i>;  e = mean over l = 0..L of Â^l x;  Â = D^-1/2 A D^-1/2;  x learned
Loss       mean of -log sigmoid(score(u, i) - score(u, j)) + reg * (|x_u|² + |x_i|² + |x_j|²) / (2 * batch)
Negatives  one item j per positive, uniform over items the user has not interacted with in training
Source     He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126
Differs    the paper sums reg over all of x; here, as in its authors' code, over the batch's rows with a factor ½
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Embedding, init

from recflow.data.batches import BPRBatch
from recflow.ranking.rankers import FactorRanker
from recflow.training.losses import bpr_loss, squared_norms
from recflow.training.modules import RankingModule
from recflow.training.propagation import mean_of_layers, sparse_matmul


class LightGCN(RankingModule):
    """LightGCN, He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Length of each node's embedding, at least 1.
        num_layers: Propagation steps L, at least 1; the result is the mean of layers 0 to L.
        reg: Weight of ½(|x_u|² + |x_i|² + |x_j|²), averaged over the batch, on the embeddings before propagation.
        lr: Adam's learning rate.
    """

    default_max_epochs = 300

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 3,
        reg: float = 1e-4,
        lr: float = 2e-3,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {num_layers}")
        if reg < 0 or lr <= 0:
            raise ValueError(f"reg must be at least 0 and lr above 0, got reg={reg} and lr={lr}")
        self.save_hyperparameters()
        self.users = Embedding(num_users, embedding_dim)
        self.items = Embedding(num_items, embedding_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform over all nodes as one table, as the authors do."""
        bound = (6 / (self.hparams["num_users"] + self.hparams["num_items"] + self.hparams["embedding_dim"])) ** 0.5
        init.uniform_(self.users.weight, -bound, bound)
        init.uniform_(self.items.weight, -bound, bound)

    @torch.no_grad()
    def start_new(self, users: Tensor, items: Tensor) -> None:
        """Zero: what propagation adds to it is exactly the fold-in of :meth:`ranker`."""
        self.users.weight[users] = 0
        self.items.weight[items] = 0

    def node_embeddings(self) -> tuple[Tensor, Tensor]:
        """Embeddings after propagation, ``[num_users, dim]`` and ``[num_items, dim]``."""
        return mean_of_layers(self.data.graph, self.users.weight, self.items.weight, self.hparams["num_layers"])

    def loss(self, batch: BPRBatch) -> Tensor:
        """BPR plus the penalty on the batch's own embeddings."""
        users, items = self.node_embeddings()
        both = torch.cat([batch.items, batch.negatives])  # [2 * batch]: one gather for positives and negatives
        # index_select's backward adds rows in place; F.embedding's sorts them first and takes five times as long.
        user = users.index_select(0, batch.users)  # [batch, dim]
        pos, neg = items.index_select(0, both).chunk(2)
        bpr = bpr_loss((user * pos).sum(1), (user * neg).sum(1))
        penalty = squared_norms(self.users.weight, batch.users) + squared_norms(self.items.weight, both)
        loss: Tensor = bpr + self.hparams["reg"] * penalty / (2 * len(batch.users))
        return loss

    @torch.no_grad()
    def ranker(self) -> FactorRanker:
        """Dot products; a history is folded in as a new node would be, with no embedding of its own.

        Such a node's layers are ``e^(l) = Σ_h e_h^(l-1) / sqrt(|history| d_h)``, so its mean over layers needs one
        vector an item: ``f_h = Σ over l < L of e_h^(l) / ((L + 1) sqrt(d_h))``.
        """
        users, items = self.node_embeddings()
        graph, layers = self.data.graph, self.hparams["num_layers"]
        degree = graph.item_user.indptr.diff().to(items.dtype).clamp(min=1)
        user_layer, item_layer = self.users.weight, self.items.weight
        total = item_layer.clone()
        for _ in range(layers - 1):
            user_layer, item_layer = (
                sparse_matmul(graph.user_item, item_layer),
                sparse_matmul(graph.item_user, user_layer),
            )
            total += item_layer
        fold_in = total / ((layers + 1) * degree.sqrt())[:, None]
        return FactorRanker(users.clone(), items.clone(), fold_in_factors=fold_in, fold_in="propagate")
