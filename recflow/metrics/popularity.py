"""What recommended items' popularity says of a list: how popular it is, how novel, and what it finds besides the known.

Popularity  n_i = relevant training rows of item i: what ranking models, the popular one among them, learn from
Lists       item indices, best first, -1 where candidates ran out; a list of no item has no value (nan)
"""

import torch
from torch import Tensor

from recflow.metrics.ranking import wide_float

_UNIT = 2**32  # self-information is summed in whole multiples of 1 / _UNIT bits: no order of adding changes a mean


def average_popularity(items: Tensor, counts: Tensor) -> Tensor:
    """Average recommendation popularity (ARP) of each list: the mean of n_i over its items.

    Yin et al., Challenging the Long Tail Recommendation, VLDB 2012, https://doi.org/10.14778/2311906.2311916

    Args:
        items: Recommended items, int64, -1 where there was none, shape ``[batch, k]``.
        counts: Training rows n_i of each item, int64, shape ``[num_items]``.

    Returns:
        Training rows, in [0, max n_i], float64, shape ``[batch]``; nan for a list without items.

    Example:
        >>> average_popularity(torch.tensor([[0, 2], [1, -1]]), torch.tensor([9, 4, 2]))
        tensor([5.5000, 4.0000], dtype=torch.float64)
    """
    return _mean(counts[items.clamp(min=0)], items >= 0, 1)


def novelty(items: Tensor, counts: Tensor, num_users: int) -> Tensor:
    """Mean self-information of each list: the mean of -log2 p(i) over its items, in bits.

    p(i) = max(n_i, 1) / num_users is the share of training users who have item i: how likely a user drawn at random
    knows it. An item that nobody has counts as if one user had it, or its surprise would be infinite.

    Zhou et al., PNAS 2010, https://doi.org/10.1073/pnas.1000488107; Vargas & Castells, RecSys 2011,
    https://doi.org/10.1145/2043932.2043955

    Args:
        items: Recommended items, int64, -1 where there was none, shape ``[batch, k]``.
        counts: Training rows n_i of each item, at most one of each user, int64, shape ``[num_items]``.
        num_users: Number of users who have a training row.

    Returns:
        Bits, in [0, log2 num_users], float64, shape ``[batch]``; nan for a list without items.

    Example:
        >>> novelty(torch.tensor([[0, 1], [2, -1]]), torch.tensor([8, 4, 0]), num_users=8)  # (0 + 1) / 2, log2 8
        tensor([0.5000, 3.0000], dtype=torch.float64)
    """
    share = counts.clamp(min=1).to(wide_float(counts.device)) / num_users
    bits = (-share.log2() * _UNIT).round().to(torch.int64)  # [num_items]
    return _mean(bits[items.clamp(min=0)], items >= 0, _UNIT)


def more_popular_unseen(
    users: Tensor, items: Tensor, counts: Tensor, seen_indptr: Tensor, seen_items: Tensor
) -> Tensor:
    """How many items that a user has not seen are more popular than each recommended one: its place for the many.

    Items as popular as the recommended one are not counted, so a place depends on no order of the items.

    Args:
        users: User of each list, int64, shape ``[batch]``.
        items: Recommended items, int64, -1 where there was none, shape ``[batch, k]``.
        counts: Training rows n_i of each item, int64, shape ``[num_items]``.
        seen_indptr: Start of each user's seen items, and the end of the last one's, int64, shape ``[num_users + 1]``.
        seen_items: Seen items of all users, int64, shape ``[seen]``.

    Returns:
        Number of items, int64, shape ``[batch, k]``; whatever where there is no item.
    """
    num_items = len(counts)
    descending = counts.sort(descending=True).values.neg()
    above = torch.searchsorted(descending, counts.neg())  # [num_items]: items with more rows than each
    lengths = seen_indptr.diff()
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=users.device), lengths)
    keys = (owner * num_items + above[seen_items]).sort().values  # user by user, the most popular first
    place = above[items.clamp(min=0)]  # [batch, k]
    seen_above = torch.searchsorted(keys, users.unsqueeze(1) * num_items + place) - seen_indptr[users].unsqueeze(1)
    return place - seen_above


def serendipity(hits: Tensor, more_popular: Tensor) -> Tensor:
    """Share of a list's k places that hold an item which is relevant and unexpected.

    serendipity = |{i in the list: i is relevant and not in E}| / k. The expected items E are what the popular list
    would show this user: those for which fewer than k unseen items are more popular. So recommending by popularity
    has a serendipity of exactly 0, and no list has more than its precision.

    Ge et al., Beyond Accuracy, RecSys 2010, https://doi.org/10.1145/1864708.1864761, with popularity for their
    primitive model and relevance for usefulness; Adamopoulos & Tuzhilin, TIST 2014, https://doi.org/10.1145/2559952

    Args:
        hits: Whether each place holds a relevant item, bool, shape ``[batch, k]``.
        more_popular: How many unseen items are more popular, int64, shape ``[batch, k]``: ``more_popular_unseen``.

    Returns:
        Values in [0, 1], float64, shape ``[batch]``.

    Example:
        >>> serendipity(torch.tensor([[True, True, False]]), torch.tensor([[0, 7, 9]]))  # the first is expected
        tensor([0.3333], dtype=torch.float64)
    """
    k = hits.shape[1]
    return (hits & (more_popular >= k)).sum(dim=1).to(wide_float(hits.device)) / k


def _mean(values: Tensor, shown: Tensor, unit: int) -> Tensor:
    """Mean of whole multiples of 1 / unit over the shown places, ``[batch]``; 0 / 0 is nan."""
    wide = wide_float(values.device)
    total = values.masked_fill(~shown, 0).sum(dim=1)
    return total.to(wide) / (shown.sum(dim=1) * unit).to(wide)
