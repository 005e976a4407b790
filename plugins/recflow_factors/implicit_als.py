"""Implicit ALS: factors fitted to ones at the interactions and, weakly, to zeros everywhere, in closed form.

Model      score(u, i) = <p_u, q_i>
Loss       Σ over interactions of (ŷ - 1)² + alpha Σ over all pairs of ŷ² + Σ_u λ_u |p_u|² + Σ_i λ_i |q_i|²;
           λ_u = reg (n_u + alpha · num_items)^reg_exponent, λ_i = reg (n_i + alpha · num_users)^reg_exponent,
           n counts interactions
Negatives  none are drawn: every pair counts, by way of the other side's Gramian
Solution   users fixed, each item's q_i is one ridge regression, and the other way round; one sweep does both
Source     Hu, Koren & Volinsky, ICDM 2008, https://doi.org/10.1109/ICDM.2008.22; this loss and penalty: Rendle,
           Krichene, Zhang & Koren, RecSys 2022, https://arxiv.org/abs/2110.14037; conjugate gradients: Takács,
           Pilászy & Tikk, RecSys 2011, https://doi.org/10.1145/2043932.2043987
Differs    items are solved before users, so that a user's vector is the fold-in of the user's own history
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import MetricsConfig
from recflow.ranking.histories import Histories
from recflow.ranking.ridge import Solution, Start
from recflow.training.modules import ClosedFormModule
from recflow_factors.half_sweep import Everywhere, Weights, half_sweep
from recflow_factors.ials_ranker import IALSRanker

_CG_STEPS = 3


class IALS(ClosedFormModule):
    """Implicit ALS, Rendle et al., RecSys 2022, https://arxiv.org/abs/2110.14037.

    A user or an item unseen in training gets the vector 0.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        reg: Ridge penalty, above 0; multiplies λ's (n + alpha · columns)^reg_exponent.
        alpha: Weight of the 0 at every pair, above 0; an interaction's 1 weighs 1.
        reg_exponent: How the penalty grows with a row's interactions: 0 not at all, 1 in proportion.
        init_std: Standard deviation of the norm of the users' first vectors, above 0: of each entry, it is
            init_std / sqrt(embedding_dim).
        solver: cholesky solves each row exactly; cg takes three steps of conjugate gradients from the last sweep's
            vector, which is faster for many factors and nearly as good.
    """

    task = "ranking"
    default_max_epochs = 16

    user_factors: Tensor
    item_factors: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        reg: float = 0.007,
        alpha: float = 0.3,
        reg_exponent: float = 1.0,
        init_std: float = 0.1,
        solver: Literal["cholesky", "cg"] = "cholesky",
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if min(reg, alpha, init_std) <= 0:
            raise ValueError(f"reg, alpha and init_std must be above 0, got {reg}, {alpha} and {init_std}")
        if solver not in ("cholesky", "cg"):
            raise ValueError(f"solver must be cholesky or cg, got {solver!r}")
        self.save_hyperparameters()
        self.register_buffer("user_factors", torch.randn(num_users, embedding_dim) * init_std / embedding_dim**0.5)
        self.register_buffer("item_factors", torch.zeros(num_items, embedding_dim))

    def attach(self, data: Dataset, seed: int = 0, metrics: MetricsConfig | None = None) -> None:
        """See :meth:`~recflow.training.modules.RecModule.attach`."""
        super().attach(data, seed, metrics)
        self._rows: tuple[Histories, Histories] | None = None

    def sweep(self) -> float:
        """Solve all items, then all users; returns the loss per interaction."""
        by_user, by_item = self._sides()
        self.item_factors = self._half(by_item, self.user_factors, self.item_factors).weights
        users = self._half(by_user, self.item_factors, self.user_factors)
        self.user_factors = users.weights
        penalty = self._weights().ridge(by_item.indptr.diff(), self.data.num_users)
        norms = self.item_factors.square().sum(1, dtype=torch.float64)
        return (users.loss + float(penalty @ norms)) / len(by_user.items)

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """New users are solved against the known items, then new items against all users."""
        self.item_factors[items] = 0
        by_user, by_item = self._sides()
        self.user_factors[users] = self._half(by_user, self.item_factors).weights[users]
        self.item_factors[items] = self._half(by_item, self.user_factors).weights[items]

    def ranker(self) -> IALSRanker:
        """Dot products; a new user is one more row of the regression."""
        return IALSRanker(self.user_factors, self.item_factors, **self._weights()._asdict())

    def _half(self, rows: Histories, columns: Tensor, start: Tensor | None = None) -> Solution:
        """Exact, unless the solver is cg and there are vectors to start from."""
        steps = None if start is None or self.hparams["solver"] == "cholesky" else Start(start, _CG_STEPS)
        return half_sweep(rows, columns, Everywhere.of(columns), self._weights(), steps)

    def _weights(self) -> Weights:
        return Weights(self.hparams["alpha"], self.hparams["reg"], self.hparams["reg_exponent"])

    def _sides(self) -> tuple[Histories, Histories]:
        """Each user's items and each item's users: sorted once, not at every sweep."""
        users, items, _ = self.data.positives
        if self._rows is None:
            sizes = self.data.num_users, self.data.num_items
            self._rows = Histories.from_pairs(users, items, *sizes), Histories.from_pairs(items, users, *sizes[::-1])
        return self._rows
