"""Item weights as a sparse matrix, for catalogues whose square does not fit."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker

_CHUNK = 2**22


class SparseItemItemRanker(Ranker):
    """``score(u, i) = Σ over u's items h of weights[h, i]``, of which few are not zero. Fold-in is exact.

    Args:
        starts: Where each item's weights start, int64, ``[num_items + 1]``.
        targets: The items that they go to, int64, ``[num_weights]``.
        weights: What one item in a history adds to the target's score, float32, ``[num_weights]``.
        indptr: Row starts of the known users' histories, int64, ``[num_users + 1]``.
        items: Their items, int64, ``[num_interactions]``.
    """

    holds_histories = True
    starts: Tensor
    targets: Tensor
    weights: Tensor
    indptr: Tensor
    items: Tensor

    def __init__(self, starts: Tensor, targets: Tensor, weights: Tensor, indptr: Tensor, items: Tensor) -> None:
        super().__init__()
        if len(targets) != len(weights):
            raise ValueError(f"targets and weights must be of one length, got {len(targets)} and {len(weights)}")
        self.num_users, self.num_items = len(indptr) - 1, len(starts) - 1
        self.register_buffer("starts", starts)
        self.register_buffer("targets", targets)
        self.register_buffer("weights", weights)
        self.register_buffer("indptr", indptr)
        self.register_buffer("items", items)

    @classmethod
    def of_neighbours(cls, neighbours: Tensor, weights: Tensor, indptr: Tensor, items: Tensor) -> Self:
        """Turn lists of neighbours round, from who speaks for an item to what an item speaks for.

        Args:
            neighbours: Each item's neighbours, int64, ``[num_items, num_neighbours]``.
            weights: What each adds to the item's score, float32, of the same shape; zeros are left out.
            indptr: See the class.
            items: See the class.
        """
        target, slot = weights.nonzero().unbind(1)
        source = neighbours[target, slot]
        order = source.argsort(stable=True)
        counts = torch.bincount(source, minlength=len(neighbours))
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(starts, target[order], weights[target, slot][order], indptr, items)

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score`."""
        return self.score_histories(Histories(self.indptr, self.items, torch.empty(0)), users, candidates)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score_history`."""
        scores = self._sums(torch.zeros_like(items), items, 1)[0]
        return scores if candidates is None else scores[candidates]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score_histories`."""
        scores = self._sums(*histories.rows(users), len(users))
        return scores if candidates is None else scores[:, candidates]

    def similar(self, items: Tensor) -> Tensor:
        """Weights from each given item to all; see :meth:`~recflow.ranking.rankers.Ranker.similar`."""
        return self._sums(torch.arange(len(items), device=items.device), items, len(items))

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """The weight from each history item to the item, which is exactly what the score would fall by."""
        position, place = self._table().places(items)
        to_item = self.targets[place] == item
        parts = self.weights.new_zeros(len(items))
        parts[position[to_item]] = self.weights[place[to_item]]
        return parts

    def _table(self) -> Histories:
        return Histories(self.starts, self.targets, self.weights)

    def _sums(self, position: Tensor, items: Tensor, num_rows: int) -> Tensor:
        """Add items' weights up in the rows at ``position``; ``[num_rows, num_items]``."""
        table = self._table()
        scores = self.weights.new_zeros(num_rows * self.num_items)
        ends = table.lengths(items).cumsum(0)
        start = 0
        while start < len(items):  # as many at a time as have a bounded number of weights
            before = ends[start - 1] if start else ends.new_zeros(())
            stop = max(start + 1, int(torch.searchsorted(ends, before + _CHUNK, right=True)))
            of_item, place = table.places(items[start:stop])
            where = position[start:stop][of_item] * self.num_items + self.targets[place]
            scores.index_put_((where,), self.weights[place], accumulate=True)  # in a fixed order, on a GPU too
            start = stop
        return scores.view(num_rows, self.num_items)
