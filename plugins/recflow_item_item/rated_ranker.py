"""Scores by how someone rated an item's nearest neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker

_BLOCK_BYTES = 2**21  # what a core's own cache holds
_LEAST = torch.finfo(torch.float32).tiny
_ROUNDS, _STEPS = 4, 5


class RatedNeighboursRanker(Ranker):
    """``r(u, i) = b_ui + Σ_h sim(h, i) (r_uh - b_uh) / Σ_h sim(h, i)``, over the k rated items h most similar to i.

    Only positive similarities count; those equal to the k-th all do. ``b_uh = mean + b_u + b_h``, and the user's bias
    is found from the history itself, ``b_u = Σ_h (r_uh - mean - b_h) / (reg_user + n)``, for known users as for
    others: fold-in is exact. In a history without stars every item counts as rated with the highest.

    Args:
        similarity: Symmetric, zero on the diagonal, ``[num_items, num_items]``.
        item_bias: In stars, ``[num_items]``.
        indptr: Row starts of the known users' histories, int64, ``[num_users + 1]``.
        items: Their items, int64, ``[num_interactions]``.
        ratings: Their stars, float32, ``[num_interactions]``.
        mean: Mean rating.
        num_neighbours: k.
        min_neighbours: With fewer positive neighbours the prediction is b_ui.
        reg_user: Ridge penalty of the user's bias.
        rating_scale: Lowest and highest star.
    """

    holds_histories = True
    similarity: Tensor
    item_bias: Tensor
    indptr: Tensor
    items: Tensor
    ratings: Tensor

    def __init__(
        self,
        similarity: Tensor,
        item_bias: Tensor,
        indptr: Tensor,
        items: Tensor,
        ratings: Tensor,
        mean: float,
        num_neighbours: int,
        min_neighbours: int,
        reg_user: float,
        rating_scale: tuple[float, float],
    ) -> None:
        super().__init__()
        self.num_users, self.num_items = len(indptr) - 1, len(item_bias)
        self.register_buffer("similarity", similarity)
        self.register_buffer("item_bias", item_bias)
        self.register_buffer("indptr", indptr)
        self.register_buffer("items", items)
        self.register_buffer("ratings", ratings)
        self.mean, self.reg_user = mean, reg_user
        self.num_neighbours, self.min_neighbours = num_neighbours, min_neighbours
        self.rating_scale = (float(rating_scale[0]), float(rating_scale[1]))

    def settings(self) -> dict[str, Any]:
        """See :meth:`~recflow.ranking.rankers.Ranker.settings`."""
        names = ("mean", "num_neighbours", "min_neighbours", "reg_user", "rating_scale")
        return {name: getattr(self, name) for name in names}

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score`."""
        return self.score_histories(self._known(), users, candidates)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score_history`."""
        return self._score(items, ratings, candidates)

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score_histories`."""
        width = self.num_items if candidates is None else len(candidates)
        scores = self.item_bias.new_empty(len(users), width)
        for row, user in zip(scores, users.tolist(), strict=True):  # each history has a length of its own
            row.copy_(self._score(*histories.of(user), candidates))
        return scores

    def similar(self, items: Tensor) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.similar`."""
        return self.similarity[items]

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.predict`."""
        known, counts = self._known(), torch.bincount(users, minlength=self.num_users)
        order, some = users.argsort(stable=True), counts.nonzero().flatten()
        parts = torch.split(items[order], counts[some].tolist())  # user by user: all their items share one history
        stars = [self._score(*known.of(user), own) for user, own in zip(some.tolist(), parts, strict=True)]
        predicted = self.item_bias.new_empty(len(users))
        if stars:
            predicted[order] = torch.cat(stars)
        return predicted.clamp_(*self.rating_scale)

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.explain`; every shortened history is a column of one matrix."""
        deviation = self._deviations(items, ratings)
        length, to_item = len(items), self.similarity[items, item]
        whole = self._score(items, ratings, torch.tensor([item], device=items.device))
        bias = (deviation.sum() - deviation) / (self.reg_user + length - 1)  # [history]: without each
        without = torch.empty_like(deviation)
        step = max(1, _BLOCK_BYTES // (4 * max(length, 1)))
        for left_out in torch.split(torch.arange(length, device=items.device), step):
            column = torch.arange(len(left_out), device=items.device)
            similarity = to_item[:, None].repeat(1, len(left_out))
            similarity[left_out, column] = 0
            mean, heard = self._mean_of_nearest(similarity, deviation)
            without[left_out] = torch.where(heard, mean, bias[left_out])
        return whole - (self.mean + self.item_bias[item]) - without

    def _known(self) -> Histories:
        return Histories(self.indptr, self.items, self.ratings)

    def _deviations(self, items: Tensor, ratings: Tensor | None) -> Tensor:
        """What a history's stars are above ``mean + b_h``, ``[history]``."""
        stars = self.rating_scale[1] if ratings is None else ratings
        return stars - self.mean - self.item_bias[items]

    def _score(self, items: Tensor, ratings: Tensor | None, candidates: Tensor | None) -> Tensor:
        """One history's scores, ``[candidates]``."""
        deviation = self._deviations(items, ratings)
        bias = deviation.sum() / (self.reg_user + max(len(items), 1))
        scores = self.mean + (self.item_bias if candidates is None else self.item_bias[candidates])
        step = max(1, _BLOCK_BYTES // (4 * max(len(items), 1)))
        for start in range(0, len(scores), step):
            block = slice(start, start + step)
            if candidates is None:
                similarity = self.similarity[:, block].index_select(0, items)
            else:
                similarity = self.similarity[items[:, None], candidates[block]]
            mean, heard = self._mean_of_nearest(similarity, deviation)
            scores[block] += torch.where(heard, mean, bias)
        return scores

    def _mean_of_nearest(self, similarity: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted means of the deviations of each column's nearest.

        Args:
            similarity: Of the history's items to some others, ``[history, columns]``; it is overwritten.
            deviation: ``[history]``.

        Returns:
            The means, and whether there are neighbours enough, both ``[columns]``.
        """
        counted = torch.empty_like(similarity)
        torch.ge(similarity, _cut(similarity, self.num_neighbours), out=counted)
        nearest = similarity.mul_(counted)
        heard = counted.sum(0) >= self.min_neighbours
        return (deviation @ nearest) / nearest.sum(0), heard


def _cut(similarity: Tensor, k: int) -> Tensor:
    """How similar one must at least be to be among the k nearest of positive similarity, ``[columns]``.

    By bisection: any number above the next one's similarity will do, so few steps are needed, and each is a comparison
    and a sum, which are quick where selecting is slow. It goes on with the columns that are still open; those with
    equals at the k-th place stay so, and are left to ``torch.topk``.
    """
    cut = similarity.new_full((similarity.shape[1],), _LEAST)
    if len(similarity) <= k:
        return cut
    counted = torch.empty_like(similarity)
    column = (torch.ge(similarity, _LEAST, out=counted).sum(0) > k).nonzero().flatten()
    some = similarity.index_select(1, column)
    low, width = cut[column], some.amax(0) * 1.001  # k or more are as near as low, fewer as low + width
    for _ in range(_ROUNDS):
        counted, enough = torch.empty_like(some), torch.empty_like(low)
        for _ in range(_STEPS):
            width *= 0.5
            torch.ge(torch.ge(some, low + width, out=counted).sum(0), k, out=enough)
            low.addcmul_(width, enough)
        cut[column] = low
        is_open = (torch.ge(some, low, out=counted).sum(0) > k).nonzero().flatten()
        if len(is_open) == 0:
            return cut
        column, some, low, width = column[is_open], some.index_select(1, is_open), low[is_open], width[is_open]
    cut[column] = some.topk(k, dim=0).values[-1]
    return cut
