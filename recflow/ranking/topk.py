"""From scores to the best k: masks, candidates, and chunks that bound memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker

CHUNK_BYTES = 128 * 2**20


class TopK(NamedTuple):
    """The best items, best first; ties go to the lower item index.

    Attributes:
        items: Item indices, int64, shape ``[batch, k]``; -1 where fewer than k candidates are left.
        scores: Their scores, float32, shape ``[batch, k]``; -inf beside a -1.
    """

    items: Tensor
    scores: Tensor


def top_k(scores: Tensor, k: int) -> TopK:
    """Select the k highest scores of each row.

    Equal scores are ordered by item index, so that a ranking never depends on how it was chunked.

    Args:
        scores: Scores with -inf for what may not be recommended, shape ``[batch, num_items]``.
        k: How many to select, at least 1; more than there are items is filled up with -1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    width = min(k, scores.shape[1])
    best, items = torch.topk(scores, width)
    # torch.topk leaves the order among equals, and which of them make the cut, to chance.
    cut = best[:, -1:]
    tied = (best[:, 1:] == best[:, :-1]).any(1) | (((scores == cut).sum(1) > 1) & (cut[:, 0] > -torch.inf))
    rows = tied.nonzero().flatten()
    if len(rows):
        items[rows] = torch.topk(_by_score_then_index(scores[rows]), width).indices
        best[rows] = scores[rows].gather(1, items[rows])
    items = torch.where(best == -torch.inf, -1, items)
    if width < k:
        items = torch.nn.functional.pad(items, (0, k - width), value=-1)
        best = torch.nn.functional.pad(best, (0, k - width), value=-torch.inf)
    return TopK(items, best)


def _by_score_then_index(scores: Tensor) -> Tensor:
    """Whole numbers in the order of the scores, and among equal scores of falling index, int64."""
    bits = (scores.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 and 0.0 one
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)


def mask_(scores: Tensor, users: Tensor, seen: Histories | None = None, allowed: Tensor | None = None) -> Tensor:
    """Set what may not be recommended to -inf, in place.

    Args:
        scores: Shape ``[batch, num_items]``.
        users: User indices, int64, shape ``[batch]``.
        seen: Interactions that each user already has.
        allowed: Items that may be recommended at all, bool, shape ``[num_items]``.
    """
    if seen is not None:
        scores[seen.rows(users)] = -torch.inf
    if allowed is not None:
        scores.masked_fill_(~allowed, -torch.inf)
    return scores


def score_chunks(
    ranker: Ranker, users: Tensor, seen: Histories | None = None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[Tensor, Tensor]]:
    """Score users a few at a time, so that memory is bounded by bytes and not by users × items.

    Yields:
        Some users, shape ``[chunk]``, and their masked scores, shape ``[chunk, num_items]``.
    """
    size = max(1, chunk_bytes // (4 * ranker.num_items))
    for chunk in torch.split(users, size):
        yield chunk, mask_(ranker.score(chunk), chunk, seen)
