"""Means over users of the ranking metrics, exact to the last bit whatever the batches, their order or the processes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from recflow.metrics.beyond import coverage, gini
from recflow.metrics.ranking import RANKING_METRICS, check_items, cutoffs, per_user_metrics, wide_float

_UNIT = 2**36  # sums are whole multiples of 1 / _UNIT: rounding ≤ 7.3e-12 a user, room for 2^27 = 134 million users
_OF_ALL_LISTS = ("coverage", "gini")  # no user has a value of these alone


class RankingMetrics(Metric):
    """Means over users of every metric of ``RANKING_METRICS`` at several cut-offs; coverage, Gini and, if wanted, AUC.

    metric@k = sum of the users' values / users, over users with at least one relevant item; formulas and denominators
    stand with the functions of :mod:`recflow.metrics.ranking`. coverage@k = distinct items in the first k places of
    those same users' lists / ``num_items``: whoever is left out of the means is left out of the coverage. gini@k =
    the Gini index of how often each of the ``num_items`` stood there, see :func:`recflow.metrics.beyond.gini`: the
    only metric here of which less is better. auc = mean over those users who also have a candidate that is not
    relevant.

    A protocol that ranks a user's relevant items among a few given negatives only has names of its own,
    ``hit@10_neg99``, for its values are no match for those of a full ranking (Krichene & Rendle, KDD 2020,
    https://doi.org/10.1145/3394486.3403226); and neither coverage nor Gini, which would say more of the candidates.

    The sums are kept as whole multiples of 2^-36 in int64. Adding integers gives one result in whatever order, so a
    different batch size, or several processes with unpadded shards, change no bit of a mean; and a cast of the model
    to half precision cannot harm them. Each user's value is rounded by at most 7.3e-12; 134 million users fit.

    Args:
        ks: Cut-offs, positive and distinct, in any order.
        num_items: Number of items in the catalogue, the denominator of coverage; must be given.
        auc: Whether ``update`` is given AUC values to average.
        keep_per_user: Whether to keep every user's values, for ``per_user``.
        negatives: How many given negatives a user's relevant items are ranked among; None in a full ranking.
        **kwargs: Handed to ``torchmetrics.Metric`` (how to synchronise processes).

    Attributes:
        users: Users with at least one relevant item, int64 scalar; of this process, where there are several. See
            ``counts`` for all.
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
        negatives: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_items < 1:
            raise ValueError(f"num_items must be at least 1, got {num_items}")
        self.ks = cutoffs(ks)
        self.num_items = num_items
        self.auc = auc
        self.keep_per_user = keep_per_user
        self.negatives = negatives
        none = torch.zeros((), dtype=torch.int64)
        self.add_state("users", none.clone(), dist_reduce_fx="sum")
        self.add_state("skipped", none.clone(), dist_reduce_fx="sum")
        self.add_state("totals", none.new_zeros(len(RANKING_METRICS) * len(self.ks)), dist_reduce_fx="sum")
        if negatives is None:
            # exposure[j]: how often each item stood in places ks[j-1] + 1 .. ks[j]
            self.add_state("exposure", none.new_zeros(len(self.ks), num_items), dist_reduce_fx="sum")
        if auc:
            self.add_state("auc_total", none.clone(), dist_reduce_fx="sum")
            self.add_state("auc_users", none.clone(), dist_reduce_fx="sum")
        if keep_per_user:
            self.add_state("kept", [], dist_reduce_fx="cat")

    @staticmethod
    def names(ks: Sequence[int], auc: bool = False, negatives: int | None = None) -> list[str]:
        """Names of all that ``compute`` returns, in the order they print.

        Args:
            ks: Cut-offs, positive and distinct, in any order.
            auc: Whether AUC is among them.
            negatives: How many given negatives there are; None in a full ranking.

        Returns:
            Metric by metric, each with its cut-offs ascending; coverage, Gini and then AUC come last.

        Raises:
            ValueError: If a cut-off is not positive or given twice, or there is none.

        Example:
            >>> RankingMetrics.names([10], auc=True)
            ['precision@10', 'recall@10', 'ndcg@10', 'hit@10', 'map@10', 'mrr@10', 'coverage@10', 'gini@10', 'auc']
            >>> RankingMetrics.names([10], negatives=99)[:2]
            ['precision@10_neg99', 'recall@10_neg99']
        """
        metrics = [*RANKING_METRICS, *(_OF_ALL_LISTS if negatives is None else ())]
        suffix = "" if negatives is None else f"_neg{negatives}"
        names = [f"{name}@{k}{suffix}" for name in metrics for k in cutoffs(ks)]
        return [*names, f"auc{suffix}"] if auc else names

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
        check_items(top_items, self.num_items)

        kept = num_relevant > 0
        values = per_user_metrics(hits[kept], num_relevant[kept], self.ks)
        matrix = torch.stack(list(values.values()), dim=1)  # [kept, metrics × cut-offs]
        # Nothing in place: a state that `reset` made under inference mode could not be changed outside it.
        self.users = self.users + len(matrix)
        self.skipped = self.skipped + len(users) - len(matrix)
        self.totals = self.totals + _units(matrix).sum(dim=0)
        if self.negatives is None:
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
        """Return the mean over all users counted so far, and what all their lists together show.

        Returns:
            The names of ``RankingMetrics.names`` to float64 scalars in [0, 1]; means over nobody are nan.
        """
        wide = wide_float(self.totals.device)
        values = [*(self.totals.to(wide) / (self.users * _UNIT).to(wide)).unbind()]
        if self.negatives is None:
            exposure = self.exposure.cumsum(dim=0)  # [cut-offs, num_items]
            values += [*coverage(exposure).unbind(), *gini(exposure).unbind()]
        if self.auc:
            values.append(self.auc_total.to(wide) / (self.auc_users * _UNIT).to(wide))
        return dict(zip(self.names(self.ks, self.auc, self.negatives), values, strict=True))

    def counts(self) -> tuple[int, int]:
        """Return how many users were counted and how many skipped, over all processes; each of them must call this."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return int(self.users), int(self.skipped)

    def per_user(self) -> dict[str, Tensor]:
        """Return every counted user's values, which the means were made of; coverage and Gini have none.

        Where there are several processes each must call this, and each gets all users.

        Returns:
            ``"user"``, int64, ascending, and each metric, float64, all of shape ``[users]``. ``"auc"`` is nan for a
            user without a candidate that is not relevant.

        Raises:
            ValueError: If the metric was made without ``keep_per_user=True``.
        """
        if not self.keep_per_user:
            raise ValueError("per-user values were not kept: make RankingMetrics with keep_per_user=True")
        names = [
            name
            for name in self.names(self.ks, self.auc, self.negatives)
            if name.partition("@")[0] not in _OF_ALL_LISTS
        ]
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
        return torch.empty(0, columns, dtype=wide_float(self.totals.device), device=self.totals.device)


def _units(values: Tensor) -> Tensor:
    return (values * _UNIT).round().to(torch.int64)
