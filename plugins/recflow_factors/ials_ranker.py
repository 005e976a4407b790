"""Ranks by implicit ALS: dot products, and an exact fold-in that knows of every item's pull to zero."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow_factors.half_sweep import Everywhere, Weights, half_sweep


class IALSRanker(Ranker):
    """``score(u, i) = <p_u, q_i>``; someone new is one more row of the regression, solved in double precision.

    A history S is folded in as ``p = (Σ over S of q qᵀ + alpha QᵀQ + λ I)^-1 Σ over S of q`` with
    ``λ = reg (|S| + alpha · num_items)^reg_exponent``: what a half sweep would give a user with these items.

    Args:
        user_factors: ``[num_users, dim]``.
        item_factors: ``[num_items, dim]``.
        alpha: Weight of the 0 at every pair.
        reg: Weight of the penalty.
        reg_exponent: How the penalty grows with a row's weight.
    """

    user_factors: Tensor
    item_factors: Tensor
    squares: Tensor
    basis: Tensor

    def __init__(
        self, user_factors: Tensor, item_factors: Tensor, alpha: float, reg: float, reg_exponent: float
    ) -> None:
        super().__init__()
        self.num_users, self.num_items = len(user_factors), len(item_factors)
        self.weights = Weights(alpha, reg, reg_exponent)
        self.register_buffer("user_factors", user_factors)
        self.register_buffer("item_factors", item_factors)
        everywhere = Everywhere.of(item_factors.double())
        self.register_buffer("squares", everywhere.squares, persistent=False)
        self.register_buffer("basis", everywhere.basis, persistent=False)

    def settings(self) -> dict[str, Any]:
        """See :meth:`~recflow.ranking.rankers.Ranker.settings`."""
        return self.weights._asdict()

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score`."""
        return self.user_factors[users] @ self._items(candidates).T

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score_history`."""
        only = torch.zeros(1, dtype=torch.int64, device=items.device)
        return self.score_histories(Histories.of_one(items), only, candidates)[0]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """All histories in one half sweep; see :meth:`~recflow.ranking.rankers.Ranker.score_histories`."""
        return self.fold_in(histories, users) @ self._items(candidates).T

    def fold_in(self, histories: Histories, users: Tensor) -> Tensor:
        """The vectors of some histories, float32, ``[batch, dim]``; zeros where one is empty."""
        lengths, (_, items) = histories.lengths(users), histories.rows(users)
        named, places = torch.unique(items, return_inverse=True)
        rows = Histories(F.pad(lengths.cumsum(0), (1, 0)), places, histories.ratings[:0])
        everywhere = Everywhere(self.squares, self.basis, self.num_items)
        return half_sweep(rows, self.item_factors[named].double(), everywhere, self.weights).weights.float()

    def similar(self, items: Tensor) -> Tensor:
        """Cosine between item vectors; see :meth:`~recflow.ranking.rankers.Ranker.similar`."""
        unit = F.normalize(self.item_factors, dim=1)
        return unit[items] @ unit.T

    def item_embeddings(self) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.item_embeddings`."""
        return self.item_factors

    def points(self) -> Tensor:
        """See :class:`~recflow.ranking.questions.InnerProducts`."""
        return self.item_factors

    def queries(self, users: Tensor) -> Tensor:
        """See :class:`~recflow.ranking.questions.InnerProducts`."""
        return self.user_factors[users]

    def queries_of_histories(self, histories: Histories, users: Tensor) -> Tensor:
        """See :class:`~recflow.ranking.questions.InnerProducts`."""
        return self.fold_in(histories, users)

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """See :meth:`explain_many`."""
        return self.explain_many(items, ratings, torch.tensor([item], device=items.device))[0]

    def explain_many(self, items: Tensor, ratings: Tensor | None, wanted: Tensor) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.explain_many`; exact, by two factorisations for the whole history.

        All shortened histories share one penalty, so one solution serves them all: Sherman and Morrison's formula
        takes a single item out of it.
        """
        factors = self.item_factors[items].double()  # [history, dim]
        asked, target = self.item_factors[wanted].double(), factors.sum(0)
        system = factors.T @ factors + self.weights.alpha * (self.basis * self.squares) @ self.basis.T
        ridges = self.weights.ridge(torch.tensor([len(items), max(len(items) - 1, 0)]), self.num_items).tolist()
        unit = torch.eye(len(system), dtype=system.dtype, device=system.device)
        whole = torch.linalg.solve(system + ridges[0] * unit, target)
        inverse = torch.linalg.solve(system + ridges[1] * unit, factors.T)  # [dim, history]
        solution = inverse.sum(1)
        residual = 1 - factors @ solution  # [history]
        leverage = (factors.T * inverse).sum(0)
        without = (asked @ solution)[:, None] - (asked @ inverse) * residual / (1 - leverage)
        falls: Tensor = (asked @ whole)[:, None] - without
        return falls.float()

    def _items(self, candidates: Tensor | None) -> Tensor:
        return self.item_factors if candidates is None else self.item_factors[candidates]
