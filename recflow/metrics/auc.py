"""The exact area under the ROC curve of whole rankings, the one metric that needs every score."""

import torch
from torch import Tensor

from recflow.metrics.ranking import wide_float

_CHUNK_BYTES = 2**26


def auc_per_user(scores: Tensor, relevant: Tensor) -> Tensor:
    """Exact area under the ROC curve of each user's candidates, P(positive > negative) + ½ P(positive = negative).

    The probability is over pairs of one relevant and one other candidate, R' · N of them (the denominator), R' being
    the relevant items that are candidates. Counted in integers after one sort of each row, ties included.

    Fawcett, Pattern Recognition Letters 2006, https://doi.org/10.1016/j.patrec.2005.10.010

    Args:
        scores: Score of every item, float, -inf for items that are no candidates, shape ``[batch, items]``.
        relevant: Row and item of every relevant pair, each pair once, any order, int64, shape ``[2, pairs]``. A
            relevant item that is no candidate is left out.

    Returns:
        One value in [0, 1] per row, float64, shape ``[batch]``; ½ for constant scores, nan for rows without a relevant
        or without any other candidate.

    Raises:
        ValueError: If a score is nan.

    Example:
        >>> scores = torch.tensor([[0.9, 0.5, 0.5, 0.1, -torch.inf]])
        >>> auc_per_user(scores, torch.tensor([[0, 0], [0, 2]]))  # 3 of 4 pairs won, 1 tied: 3.5 / 4
        tensor([0.8750], dtype=torch.float64)
    """
    batch, items = scores.shape
    positive = scores[relevant[0], relevant[1]]  # [pairs]
    candidate = positive > -torch.inf
    row, order = relevant[0][candidate].sort()
    positive = positive[candidate][order]
    num_positive = torch.bincount(row, minlength=batch)  # [batch]
    ends = num_positive.cumsum(0)
    place = torch.arange(len(row), device=row.device) - (ends - num_positive)[row]
    width = int(num_positive.max()) if batch else 0
    padded = scores.new_full((batch, width), -torch.inf)
    padded[row, place] = positive

    masked = torch.empty_like(num_positive)
    below = torch.empty_like(num_positive)  # Σ over positives of #{items < it} + #{items ≤ it}, masked items included
    rows_at_once = max(1, _CHUNK_BYTES // (scores.element_size() + 8) // max(items, 1))
    for low in range(0, batch, rows_at_once):
        part = slice(low, low + rows_at_once)
        ascending = scores[part].sort(dim=1).values
        if bool(ascending[:, -1:].isnan().any()):  # nan sorts last
            broken = int(scores.isnan().any(dim=1).sum())
            raise ValueError(f"scores must be numbers, got nan in {broken} of {batch} rows")
        query = padded[part]
        is_positive = query > -torch.inf
        lower = torch.searchsorted(ascending, query)
        upper = torch.searchsorted(ascending, query, right=True)
        below[part] = ((lower + upper) * is_positive).sum(dim=1)
        masked[part] = (scores[part] == -torch.inf).sum(dim=1)

    # Twice the pairs won, ties once. Masked items lie below every positive; positives among themselves give P².
    won = below - 2 * num_positive * masked - num_positive**2
    pairs = num_positive * (items - masked - num_positive)
    wide = wide_float(scores.device)
    return won.to(wide) / (2 * pairs).to(wide)
