"""NGCF: propagation with weights, and with products of neighbours, over the user–item graph.

Model      score(u, i) = <e_u, e_i>;  e = [e⁰ | e¹/|e¹| | … | e^L/|e^L|];  Â = D^-1/2 A D^-1/2;
           e^(l+1) = dropout(LeakyReLU(W₁ (e^l + m^l) + b₁ + W₂ (m^l ⊙ e^l) + b₂)),  m^l = Â dropped(e^l)
Dropout    message: of the entries of a layer's result;  node: whole nodes send no message, in each layer others
Loss       mean of -log sigmoid(score(u, i) - score(u, j)) + ½ reg (|e⁰_u|² + |e⁰_i|² + |e⁰_j|²), over the batch
Negatives  one item j per positive, uniform over items the user has not interacted with in training
Fold-in    the users' vectors e regressed on their histories, see recflow.training.fold_in
Source     Wang, He et al., SIGIR 2019, https://arxiv.org/abs/1905.08108
Differs    as in the authors' code, what a layer passes on is not normalised but what it adds to e is; their node
           dropout leaves out single edges, ours, as in the paper, all that a node would send. Their penalty is on e,
           whose other parts are of length 1, the paper's on W, too
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import Linear, ModuleList, Parameter, init

from recflow.data.batches import BPRBatch
from recflow.ranking.rankers import FactorRanker
from recflow.training.dropout import dropout
from recflow.training.fold_in import history_vectors
from recflow.training.losses import bpr_loss, squared_norms
from recflow.training.modules import RankingModule
from recflow.training.propagation import propagate
from recflow_ngcf.layer import layer, unit_rows


class NGCF(RankingModule):
    """NGCF, Wang, He et al., SIGIR 2019, https://arxiv.org/abs/1905.08108.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Length of each node's embedding e⁰, at least 1.
        hidden: Sizes of the layers' results, one at least; their number is L.
        message_dropout: Share of the entries of each layer's result that are left out in training, from 0 to below 1.
        node_dropout: Share of the nodes that send no message in training, from 0 to below 1.
        reg: Weight of ½(|e⁰_u|² + |e⁰_i|² + |e⁰_j|²), averaged over the batch, at least 0.
        lr: Adam's learning rate.
    """

    default_max_epochs = 200

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        hidden: Sequence[int] = (64, 64, 64),
        message_dropout: float = 0.0,
        node_dropout: float = 0.0,
        reg: float = 1e-4,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        hidden = list(hidden)
        if embedding_dim < 1 or not hidden or min(hidden) < 1:
            raise ValueError(
                f"embedding_dim and every hidden size must be at least 1, got {embedding_dim} and {hidden}"
            )
        for name, share in (("message_dropout", message_dropout), ("node_dropout", node_dropout)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {share}")
        if reg < 0 or lr <= 0:
            raise ValueError(f"reg must be at least 0 and lr above 0, got reg={reg} and lr={lr}")
        self.save_hyperparameters()
        self.users = Parameter(torch.empty(num_users, embedding_dim))
        self.items = Parameter(torch.empty(num_items, embedding_dim))
        pairs = list(pairwise([embedding_dim, *hidden]))
        self.sums = ModuleList(Linear(before, after) for before, after in pairs)
        self.products = ModuleList(Linear(before, after) for before, after in pairs)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform, the embeddings over all nodes as one table."""
        bound = (6 / (self.hparams["num_users"] + self.hparams["num_items"] + self.hparams["embedding_dim"])) ** 0.5
        init.uniform_(self.users, -bound, bound)
        init.uniform_(self.items, -bound, bound)
        for linear in (*self.sums, *self.products):
            init.xavier_uniform_(linear.weight)
            init.zeros_(linear.bias)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The parts of e, ``[num_users, size]`` and ``[num_items, size]`` each: e⁰ and the normalised layers."""
        user: Tensor = self.users
        item: Tensor = self.items
        parts = [(user, item)]
        user_item, item_user = self.data.graph
        share = self.hparams["message_dropout"] if self.training else 0.0
        for sums, products in zip(self.sums, self.products, strict=True):
            to_users = propagate(user_item, self._sent(item), item_user)
            to_items = propagate(item_user, self._sent(user), user_item)
            linears = cast(Linear, sums), cast(Linear, products)
            user, item = layer(user, to_users, *linears, share), layer(item, to_items, *linears, share)
            parts.append((unit_rows(user), unit_rows(item)))
        return parts

    def loss(self, batch: BPRBatch) -> Tensor:
        """BPR plus the penalty on the batch's own embeddings."""
        both = torch.cat([batch.items, batch.negatives])  # [2 * batch]
        margin = self.users.new_zeros(len(batch.users))
        for users, items in self.layers():  # part by part: the concatenation never exists
            user = users.index_select(0, batch.users)  # [batch, size]
            pos, neg = items.index_select(0, batch.items), items.index_select(0, batch.negatives)
            margin = margin + (user * (pos - neg)).sum(1)
        penalty = squared_norms(self.users, batch.users) + squared_norms(self.items, both)
        loss: Tensor = bpr_loss(margin, torch.zeros_like(margin)) + self.hparams["reg"] * penalty / (
            2 * len(batch.users)
        )
        return loss

    @torch.no_grad()
    def ranker(self) -> FactorRanker:
        """Dot products; a history is folded in by what it says of the known users."""
        training = self.training
        self.eval()  # no dropout
        users, items = (torch.cat(side, dim=1) for side in zip(*self.layers(), strict=True))
        self.train(training)
        return FactorRanker(
            users,
            items,
            fold_in_factors=history_vectors(self.data.graph, users, reg=0.05),
            fold_in="propagate",
        )

    def _sent(self, nodes: Tensor) -> Tensor:
        """What nodes send, ``[nodes, size]``: nothing where one is dropped, the more where it is not."""
        share = self.hparams["node_dropout"]
        if not self.training or share == 0:
            return nodes
        return nodes * dropout(nodes.new_ones(len(nodes), 1), share, self.training)
