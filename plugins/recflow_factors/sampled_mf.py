"""Matrix factorisation by sampled pairs: the field's yardstick.

Model      score(u, i) = <p_u, q_i> + b_i (+ b_u + c under BCE, which change no ranking but the loss)
Loss       bpr: mean over interactions of -log sigmoid(score(u, i) - score(u, j)) + ½ reg the squares of u, i, j;
           bce: mean over pairs of -log sigmoid(± score) + ½ reg the squares of u and i; biases count like vectors
Negatives  num_negatives items per interaction, uniform over those the user has not interacted with in training
Fold-in    the users' vectors regressed on their histories, see recflow.training.fold_in
Source     Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618; under BCE the matrix factorisation of Rendle,
           Krichene, Zhang & Anderson, RecSys 2020, https://arxiv.org/abs/2005.09683
Differs    both take single interactions and plain SGD; here batches and Adam
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter, init

from recflow.ranking.rankers import FactorRanker
from recflow.training.fold_in import history_vectors
from recflow.training.losses import squared_norms
from recflow.training.sampled import SampledModule, check_sampling


class BPRMF(SampledModule):
    """Matrix factorisation, Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        loss: bpr (each interaction against its negatives) or bce (each pair on its own).
        num_negatives: Negatives per interaction, at least 1. With more than one, or under bce, data.batch_size counts
            interactions and negatives together.
        reg: Weight of ½ the squares of the vectors and biases, at least 0: of u, i and the j's of an interaction under
            bpr, of u and i of a pair under bce, averaged over the batch.
        bias: Whether items have a bias (and, under bce, users, and all pairs one).
        init_std: Standard deviation of the first vectors, above 0.
        lr: Adam's learning rate.
    """

    default_max_epochs = 200

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        loss: Literal["bpr", "bce"] = "bpr",
        num_negatives: int = 1,
        reg: float = 1e-2,
        bias: bool = True,
        init_std: float = 0.1,
        lr: float = 2e-3,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if reg < 0 or lr <= 0 or init_std <= 0:
            raise ValueError(
                f"reg must be at least 0, lr and init_std above 0, got reg={reg}, lr={lr} and init_std={init_std}"
            )
        check_sampling(loss, num_negatives)
        self.save_hyperparameters()
        self.users = Parameter(torch.empty(num_users, embedding_dim))
        self.items = Parameter(torch.empty(num_items, embedding_dim))
        if bias:
            self.item_bias = Parameter(torch.empty(num_items))
            if loss == "bce":
                self.user_bias = Parameter(torch.empty(num_users))
                self.mean = Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal vectors, biases of 0."""
        for name, parameter in self.named_parameters():
            if name in ("users", "items"):
                init.normal_(parameter, std=self.hparams["init_std"])
            else:
                init.zeros_(parameter)

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recflow.training.sampled.SampledModule.scores`."""
        flat = items.flatten()
        # index_select's backward adds rows in place; F.embedding's sorts them first and takes five times as long.
        user = self.users.index_select(0, users)[:, None]  # [interactions, 1, dim]
        item = self.items.index_select(0, flat).view(*items.shape, -1)  # [interactions, items, dim]
        scores = (item * user).sum(2)  # matrices as thin as these are slow to multiply
        if self.hparams["bias"]:
            scores = scores + self.item_bias.index_select(0, flat).view(items.shape)
            if self.hparams["loss"] == "bce":
                scores = scores + self.user_bias.index_select(0, users)[:, None] + self.mean
        return scores

    def squares(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recflow.training.sampled.SampledModule.squares`."""
        total = squared_norms(self.users, users) + squared_norms(self.items, items)
        if self.hparams["bias"]:
            total = total + squared_norms(self.item_bias[:, None], items)
            if self.hparams["loss"] == "bce":
                total = total + squared_norms(self.user_bias[:, None], users)
        return total

    @torch.no_grad()
    def ranker(self) -> FactorRanker:
        """Dot products and the items' biases; a history is folded in by what it says of the known users."""
        users = self.users.clone()
        return FactorRanker(
            users,
            self.items.clone(),
            item_bias=self.item_bias.clone() if self.hparams["bias"] else None,
            fold_in_factors=history_vectors(self.data.graph, users, reg=0.05),
            fold_in="propagate",
        )
