"""Lists of which not every item is like the last: maximal marginal relevance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_size(k: int) -> int:
    """From how many of the best items k are chosen: five times as many, and never more than a thousand beyond k."""
    return min(max(50, 5 * k), k + 1000)


def diversify(scores: Tensor, vectors: Tensor, k: int, diversity: float) -> Tensor:
    """Choose k of a pool, each by its score and by how unlike those already chosen it is.

    ``argmax over i of (1 - diversity) relevance_i - diversity max over chosen j of cos(v_i, v_j)``, where relevance is
    the score, scaled to 0 to 1 within the pool (Carbonell & Goldstein, SIGIR 1998). A cosine below 0 counts as 0: being
    the opposite of what was chosen is no merit.

    Args:
        scores: Of the pool, best first, all finite, float, shape ``[pool]``.
        vectors: What its items are like, float, shape ``[pool, dim]``.
        k: How many; at most the pool.
        diversity: From 0, by score alone, to 1.

    Returns:
        Places in the pool, in the order chosen, int64, shape ``[k]``.

    Example:
        >>> likes = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> diversify(torch.tensor([3.0, 2.9, 1.0]), likes, 2, 0.5).tolist()
        [0, 2]
    """
    unit = F.normalize(vectors.float(), dim=1)
    low, high = scores.min(), scores.max()
    relevance = (scores - low) / (high - low) if high > low else torch.zeros_like(scores)
    gain = (1 - diversity) * relevance
    nearest = torch.zeros_like(gain)  # the first is the best one
    chosen = []
    for place in range(min(k, len(scores))):
        best = int((gain - diversity * nearest).argmax())
        chosen.append(best)
        gain[best] = -torch.inf
        near = (unit @ unit[best]).clamp_(min=0)
        nearest = near if place == 0 else torch.maximum(nearest, near)
    return torch.tensor(chosen, dtype=torch.int64)
