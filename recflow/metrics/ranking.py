"""Accuracy of one user's ranked list: precision, recall, nDCG, hit rate, MAP and MRR.

Everything is read off one matrix of hits, best place first, so memory never grows with the catalogue:

Places     places 1 to k of a list; a list shorter than k is padded with item -1, which never hits
Relevant   held-out items of a user that count as good; R = how many of them there are, hit or not
Undefined  a user with R = 0 has no value (nan); means leave such users out (:mod:`recflow.metrics.means`)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RANKING_METRICS = ("precision", "recall", "ndcg", "hit", "map", "mrr")


def precision_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Share of the k places that hold a relevant item, hits in the first k / k.

    The denominator stays k for a list with fewer candidates than k, as in trec_eval.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        One value in [0, 1] per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> precision_at(torch.tensor([[True, False, True, False]]), torch.tensor([2]), k=4)
        tensor([0.5000], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    return _defined(found.sum(dim=1) / k, num_relevant)


def recall_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Share of a user's relevant items among the first k places, hits in the first k / R.

    The denominator is R, not min(k, R): recall@k cannot reach 1 for a user with more than k relevant items.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        One value in [0, 1] per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> recall_at(torch.tensor([[True, False, False]]), torch.tensor([4]), k=3)
        tensor([0.2500], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    return _defined(found.sum(dim=1) / num_relevant, num_relevant)


def ndcg_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Normalised discounted cumulative gain with binary relevance.

    DCG = sum over hit places p ≤ k of 1 / log2(p + 1); the denominator is the DCG of the best possible list,
    the sum over p = 1 .. min(k, R) of 1 / log2(p + 1).

    Järvelin & Kekäläinen, TOIS 2002, https://doi.org/10.1145/582415.582418

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        One value in [0, 1] per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> ndcg_at(torch.tensor([[False, False, True]]), torch.tensor([1]), k=3)  # 1 / log2(4)
        tensor([0.5000], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    discount = _discount(k, hits.device)
    ideal = discount.cumsum(0)[num_relevant.clamp(1, k) - 1]
    return _defined((found * discount).sum(dim=1) / ideal, num_relevant)


def hit_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Hit rate: 1 if any of the first k places holds a relevant item, else 0.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        0 or 1 per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> hit_at(torch.tensor([[False, True], [False, False]]), torch.tensor([1, 1]), k=2)
        tensor([1., 0.], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    return _defined(found.amax(dim=1), num_relevant)


def map_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Average precision, whose mean over users is MAP: sum over hit places p ≤ k of precision@p / min(k, R).

    The denominator min(k, R) lets a perfect list reach 1. Others divide by R (trec_eval's ``map_cut``) or by the
    number of hits in the first k (torchmetrics), which never punishes a relevant item that was not found.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        One value in [0, 1] per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> map_at(torch.tensor([[True, False, False, True]]), torch.tensor([2]), k=4)  # (1/1 + 2/4) / 2
        tensor([0.7500], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    precision = found.cumsum(dim=1) / _places(k, hits.device)
    return _defined((found * precision).sum(dim=1) / num_relevant.clamp(max=k), num_relevant)


def mrr_at(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Reciprocal rank, whose mean over users is MRR: 1 / place of the first hit, 0 if the first k hold none.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= k]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        k: Places read, at least 1.

    Returns:
        One value in [0, 1] per user, float64, shape ``[batch]``; nan for users without a relevant item.

    Raises:
        ValueError: If k is not positive, or the shapes do not fit.

    Example:
        >>> mrr_at(torch.tensor([[False, True, True]]), torch.tensor([2]), k=3)
        tensor([0.5000], dtype=torch.float64)
    """
    found = _first_places(hits, num_relevant, k)
    return _defined((found / _places(k, hits.device)).amax(dim=1), num_relevant)


def per_user_metrics(hits: Tensor, num_relevant: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """Every metric of ``RANKING_METRICS`` at every cut-off, from one cumulative pass over the places.

    Equal to the functions ``precision_at`` … ``mrr_at``, where the formulas and denominators stand.

    Args:
        hits: Whether each place holds a relevant item, bool, best first, shape ``[batch, >= max(ks)]``.
        num_relevant: Number of relevant items R of each user, int, shape ``[batch]``.
        ks: Cut-offs, positive and distinct, in any order.

    Returns:
        ``"recall@10"`` and so on to values in [0, 1], float64, shape ``[batch]``; metric by metric, each with its
        cut-offs ascending. Users without a relevant item have nan everywhere.

    Raises:
        ValueError: If a cut-off is not positive or given twice, or the shapes do not fit.

    Example:
        >>> values = per_user_metrics(torch.tensor([[False, True]]), torch.tensor([1]), ks=[1, 2])
        >>> values["recall@1"].item(), values["recall@2"].item(), values["mrr@2"].item()
        (0.0, 1.0, 0.5)
    """
    ks = cutoffs(ks)
    found = _first_places(hits, num_relevant, ks[-1])
    places, discount = _places(ks[-1], hits.device), _discount(ks[-1], hits.device)
    cut = torch.tensor(ks, device=hits.device)
    at, relevant = cut - 1, num_relevant.unsqueeze(1)  # relevant: [batch, 1]
    reachable = torch.minimum(cut, relevant)  # [batch, cut-offs], and so is all that follows
    running = found.cumsum(dim=1)  # [batch, k]
    count = running[:, at]
    first = (running == 0).sum(dim=1, keepdim=True) + 1  # [batch, 1]: place of the first hit, k + 1 if there is none
    value = {
        "precision": count / cut,
        "recall": count / relevant,
        "ndcg": (found * discount).cumsum(dim=1)[:, at] / discount.cumsum(0)[reachable.clamp(min=1) - 1],
        "hit": count.clamp(max=1),
        "map": (found * running / places).cumsum(dim=1)[:, at] / reachable,
        "mrr": (first <= cut) / first.to(found.dtype),
    }
    return {
        f"{name}@{k}": _defined(value[name][:, column], num_relevant)
        for name in RANKING_METRICS
        for column, k in enumerate(ks)
    }


def relevant_hits(
    top_items: Tensor, relevant_indptr: Tensor, relevant_items: Tensor, users: Tensor, num_items: int
) -> tuple[Tensor, Tensor]:
    """Which recommended items are relevant to their user, found by bisection instead of a users × items matrix.

    Args:
        top_items: Recommended items of each row, int64, best first, -1 where there was none, shape ``[batch, k]``.
        relevant_indptr: Start of each user's relevant items, and the end of the last one's, int64, shape
            ``[num_users + 1]``.
        relevant_items: Relevant items of all users, ascending within each user, int64, shape ``[num_relevant]``.
        users: User of each row of ``top_items``, int64, shape ``[batch]``.
        num_items: Number of items in the catalogue.

    Returns:
        Hits, bool, shape ``[batch, k]``, and the number of relevant items of each row, int64, shape ``[batch]``.

    Raises:
        ValueError: If an item of ``top_items`` is not below ``num_items``.

    Example:
        >>> indptr, items = torch.tensor([0, 2, 2]), torch.tensor([1, 4])  # user 0 likes items 1 and 4, user 1 none
        >>> relevant_hits(torch.tensor([[4, 0], [1, -1]]), indptr, items, torch.tensor([0, 1]), num_items=5)
        (tensor([[ True, False],
                [False, False]]), tensor([2, 0]))
    """
    check_items(top_items, num_items)
    start = relevant_indptr[users]
    num_relevant = relevant_indptr[users + 1] - start  # [batch]
    rows = torch.arange(len(users), device=users.device)
    row = rows.repeat_interleave(num_relevant)  # [entries]: the relevant items of these rows only
    ends = num_relevant.cumsum(0)
    entry = torch.arange(len(row), device=users.device) + (start - ends + num_relevant)[row]
    keys = row * num_items + relevant_items[entry]  # ascending, for rows are and items within a row are
    if len(keys) == 0:
        return torch.zeros_like(top_items, dtype=torch.bool), num_relevant
    wanted = rows.unsqueeze(1) * num_items + top_items  # [batch, k]
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    # A padded place (-1) has the key of the row above and its last item: it must not hit that.
    return (keys[at] == wanted) & (top_items >= 0), num_relevant


def cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    """Sort cut-offs, and refuse what is none."""
    if not ks or any(type(k) is not int or k < 1 for k in ks) or len(set(ks)) < len(ks):
        raise ValueError(f"ks must be distinct positive whole numbers, at least one, got {list(ks)}")
    return tuple(sorted(ks))


def _first_places(hits: Tensor, num_relevant: Tensor, k: int) -> Tensor:
    """Return the first k places as floats, shape ``[batch, k]``, after a look at the shapes."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if hits.dtype != torch.bool:
        raise ValueError(f"hits must be bool, got {hits.dtype}")
    if hits.dim() != 2 or hits.shape[1] < k or num_relevant.shape != hits.shape[:1]:
        raise ValueError(
            f"hits must have shape [batch, at least {k}] and num_relevant [batch], got {list(hits.shape)} and "
            f"{list(num_relevant.shape)}; pad short lists with False"
        )
    return hits[:, :k].to(wide_float(hits.device))


def _defined(values: Tensor, num_relevant: Tensor) -> Tensor:
    return values.masked_fill(num_relevant == 0, torch.nan)


def _places(k: int, device: torch.device) -> Tensor:
    return torch.arange(1, k + 1, device=device, dtype=wide_float(device))


def _discount(k: int, device: torch.device) -> Tensor:
    return 1 / torch.log2(_places(k, device) + 1)


def wide_float(device: torch.device) -> torch.dtype:
    """The widest float that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64


def check_items(top_items: Tensor, num_items: int) -> None:
    """Refuse items that are none: they would pass for the next user's."""
    if top_items.numel() and int(top_items.max()) >= num_items:
        raise ValueError(f"items must be below num_items = {num_items}, got {int(top_items.max())}")
