"""Accuracy of ranked lists: precision, recall, nDCG, hit rate, MAP, MRR, coverage and AUC.

Everything but AUC is read off one matrix of hits, best place first, so memory never grows with the catalogue:

Places     places 1 to k of a list; a list shorter than k is padded with item -1, which never hits
Relevant   held-out items of a user that count as good; R = how many of them there are, hit or not
Undefined  a user with R = 0 has no value (nan); means leave such users out, and the metric counts them
Exact      means do not depend, to the last bit, on batch size, order or number of processes (see ``RankingMetrics``)
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

RANKING_METRICS = ("precision", "recall", "ndcg", "hit", "map", "mrr")

_UNIT = 2**36  # sums are whole multiples of 1 / _UNIT: rounding ≤ 7.3e-12 a user, room for 2^27 = 134 million users
_AUC_CHUNK_BYTES = 2**26


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
    ks = _cutoffs(ks)
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
    _check_items(top_items, num_items)
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
    rows_at_once = max(1, _AUC_CHUNK_BYTES // (scores.element_size() + 8) // max(items, 1))
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
    wide = _wide(scores.device)
    return won.to(wide) / (2 * pairs).to(wide)


class RankingMetrics(Metric):
    """Means over users of every metric of ``RANKING_METRICS`` at several cut-offs, with coverage and, if wanted, AUC.

    metric@k = sum of the users' values / users, over users with at least one relevant item; formulas and denominators
    stand with the functions of this module. coverage@k = distinct items in the first k places of those same users'
    lists / ``num_items``: whoever is left out of the means is left out of the coverage. auc = mean over those users
    who also have a candidate that is not relevant.

    The sums are kept as whole multiples of 2^-36 in int64. Adding integers gives one result in whatever order, so a
    different batch size, or several processes with unpadded shards, change no bit of a mean; and a cast of the model
    to half precision cannot harm them. Each user's value is rounded by at most 7.3e-12; 134 million users fit.

    Args:
        ks: Cut-offs, positive and distinct, in any order.
        num_items: Number of items in the catalogue, the denominator of coverage; must be given.
        auc: Whether ``update`` is given AUC values to average.
        keep_per_user: Whether to keep every user's values, for ``per_user``.
        **kwargs: Handed to ``torchmetrics.Metric`` (how to synchronise processes).

    Attributes:
        users: Users with at least one relevant item, int64 scalar; of this process, where there are several.
        skipped: Users without one, left out of everything, int64 scalar; of this process too.

    Raises:
        ValueError: If a cut-off is not positive or given twice, there is none, or ``num_items`` is not positive.

    Example:
        >>> metrics = RankingMetrics(ks=[2], num_items=4)
        >>> top_items = torch.tensor([[3, 0], [0, 1], [2, 1]])
        >>> hits = torch.tensor([[True, False], [False, True], [False, False]])
        >>> metrics.update(torch.arange(3), top_items, hits, num_relevant=torch.tensor([1, 2, 0]))
        >>> values = metrics.compute()
        >>> values["recall@2"].item(), values["coverage@2"].item(), metrics.users.item(), metrics.skipped.item()
        (0.75, 0.75, 2, 1)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    users: Tensor
    skipped: Tensor
    totals: Tensor
    exposure: Tensor
    auc_total: Tensor
    auc_users: Tensor
    kept: list[Tensor] | Tensor

    def __init__(
        self,
        ks: Sequence[int] = (5, 10, 20),
        num_items: int = 0,
        auc: bool = False,
        keep_per_user: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        self.ks = _cutoffs(ks)
        self.num_items = num_items
        self.auc = auc
        self.keep_per_user = keep_per_user
        none = torch.zeros((), dtype=torch.int64)
        self.add_state("users", none.clone(), dist_reduce_fx="sum")
        self.add_state("skipped", none.clone(), dist_reduce_fx="sum")
        self.add_state("totals", none.new_zeros(len(RANKING_METRICS) * len(self.ks)), dist_reduce_fx="sum")
        # exposure[j]: how often each item stood in places ks[j-1] + 1 .. ks[j]
        self.add_state("exposure", none.new_zeros(len(self.ks), num_items), dist_reduce_fx="sum")
        if auc:
            self.add_state("auc_total", none.clone(), dist_reduce_fx="sum")
            self.add_state("auc_users", none.clone(), dist_reduce_fx="sum")
        if keep_per_user:
            self.add_state("kept", [], dist_reduce_fx="cat")

    @staticmethod
    def names(ks: Sequence[int], auc: bool = False) -> list[str]:
        """Names of all that ``compute`` returns, in the order they print.

        Args:
            ks: Cut-offs, positive and distinct, in any order.
            auc: Whether AUC is among them.

        Returns:
            Metric by metric, each with its cut-offs ascending; coverage and then AUC come last.

        Raises:
            ValueError: If a cut-off is not positive or given twice, or there is none.

        Example:
            >>> RankingMetrics.names([10], auc=True)
            ['precision@10', 'recall@10', 'ndcg@10', 'hit@10', 'map@10', 'mrr@10', 'coverage@10', 'auc']
        """
        names = [f"{name}@{k}" for name in (*RANKING_METRICS, "coverage") for k in _cutoffs(ks)]
        return [*names, "auc"] if auc else names

    def update(
        self, users: Tensor, top_items: Tensor, hits: Tensor, num_relevant: Tensor, auc: Tensor | None = None
    ) -> None:
        """Count a batch of users, each of whom must come once in the whole evaluation.

        Args:
            users: User indices, int64, shape ``[batch]``; read only for ``per_user``.
            top_items: Recommended items, best first, -1 where candidates ran out, int64, shape ``[batch, kmax]`` with
                kmax at least the largest cut-off.
            hits: Whether each of them is relevant, bool, shape ``[batch, kmax]``; see ``relevant_hits``.
            num_relevant: Number of relevant items of each user, int64, shape ``[batch]``.
            auc: Values of ``auc_per_user``, float, shape ``[batch]``, just when ``auc`` was asked for; nan where it is
                not defined.

        Raises:
            ValueError: If shapes do not fit, an item is not below ``num_items``, or ``auc`` is missing or unasked for.
        """
        if top_items.shape != hits.shape or users.shape != num_relevant.shape:
            raise ValueError(
                f"top_items and hits must have one shape, users and num_relevant another, got {list(top_items.shape)} "
                f"and {list(hits.shape)}, {list(users.shape)} and {list(num_relevant.shape)}"
            )
        if (auc is not None) != self.auc:
            raise ValueError(f"auc values must be given just when auc=True, got {type(auc).__name__} and {self.auc}")
        if auc is not None and auc.shape != users.shape:
            raise ValueError(f"auc must have the shape of users, {list(users.shape)}, got {list(auc.shape)}")
        _check_items(top_items, self.num_items)

        kept = num_relevant > 0
        values = per_user_metrics(hits[kept], num_relevant[kept], self.ks)
        matrix = torch.stack(list(values.values()), dim=1)  # [kept, metrics × cut-offs]
        # Nothing in place: a state that `reset` made under inference mode could not be changed outside it.
        self.users = self.users + len(matrix)
        self.skipped = self.skipped + len(users) - len(matrix)
        self.totals = self.totals + _units(matrix).sum(dim=0)
        shown = top_items[kept]
        bands = [shown[:, low:high] for low, high in pairwise((0, *self.ks))]
        counts = [torch.bincount(items[items >= 0], minlength=self.num_items) for items in bands]
        self.exposure = self.exposure + torch.stack(counts)
        if auc is not None:
            area = auc[kept].to(matrix.dtype)
            defined = area.isfinite()
            self.auc_total = self.auc_total + _units(area[defined]).sum()
            self.auc_users = self.auc_users + defined.sum()
            matrix = torch.cat([matrix, area.unsqueeze(1)], dim=1)
        if self.keep_per_user:
            # The user goes along as a float64, which is exact up to 2^53: one state, one gathering of processes.
            rows = torch.cat([users[kept].unsqueeze(1).to(matrix.dtype), matrix], dim=1)
            self.kept = [*self.kept, rows]

    def compute(self) -> dict[str, Tensor]:
        """Return the mean over all users counted so far, and the coverage.

        Returns:
            The names of ``RankingMetrics.names`` to float64 scalars in [0, 1]; means over nobody are nan.
        """
        wide = _wide(self.totals.device)
        means = self.totals.to(wide) / (self.users * _UNIT).to(wide)
        coverage = (self.exposure.cumsum(dim=0) > 0).sum(dim=1).to(wide) / self.num_items  # [cut-offs]
        values = [*means.unbind(), *coverage.unbind()]
        if self.auc:
            values.append(self.auc_total.to(wide) / (self.auc_users * _UNIT).to(wide))
        return dict(zip(self.names(self.ks, self.auc), values, strict=True))

    def per_user(self) -> dict[str, Tensor]:
        """Return every counted user's values, which the means were made of; coverage has none.

        Where there are several processes each must call this, and each gets all users.

        Returns:
            ``"user"``, int64, ascending, and each metric, float64, all of shape ``[users]``. ``"auc"`` is nan for a
            user without a candidate that is not relevant.

        Raises:
            ValueError: If the metric was made without ``keep_per_user=True``.
        """
        if not self.keep_per_user:
            raise ValueError("per-user values were not kept: make RankingMetrics with keep_per_user=True")
        names = [name for name in self.names(self.ks, self.auc) if not name.startswith("coverage")]
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            rows = dim_zero_cat(self.kept) if len(self.kept) else self._no_rows()
        user, order = rows[:, 0].to(torch.int64).sort(stable=True)
        return {"user": user, **{name: rows[order, column] for column, name in enumerate(names, start=1)}}

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes, also where one of them has seen nobody."""
        if self.keep_per_user and len(self.kept) == 0:
            self.kept = [self._no_rows()]  # torchmetrics would send a float32 vector, which fits no other process's
        super().sync(*args, **kwargs)

    def _no_rows(self) -> Tensor:
        columns = 1 + len(self.totals) + self.auc
        return torch.empty(0, columns, dtype=_wide(self.totals.device), device=self.totals.device)


def _cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
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
    return hits[:, :k].to(_wide(hits.device))


def _defined(values: Tensor, num_relevant: Tensor) -> Tensor:
    return values.masked_fill(num_relevant == 0, torch.nan)


def _places(k: int, device: torch.device) -> Tensor:
    return torch.arange(1, k + 1, device=device, dtype=_wide(device))


def _discount(k: int, device: torch.device) -> Tensor:
    return 1 / torch.log2(_places(k, device) + 1)


def _units(values: Tensor) -> Tensor:
    return (values * _UNIT).round().to(torch.int64)


def _wide(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64


def _check_items(top_items: Tensor, num_items: int) -> None:
    if top_items.numel() and int(top_items.max()) >= num_items:
        raise ValueError(f"items must be below num_items = {num_items}, got {int(top_items.max())}")
