"""Top lists kept whole, and what is computed from them afterwards: the metrics beyond accuracy, curves, exposure.

All of it follows from who was recommended what, so it is computed in one place, users ascending and a fixed number at a
time: neither the chunks in which users were ranked nor the number of processes can change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from recflow.data.dataset import Dataset, Part, Rows
from recflow.metrics.genres import diversity, genre_indicators, genre_parts, miscalibration
from recflow.metrics.popularity import average_popularity, more_popular_unseen, novelty, serendipity
from recflow.metrics.ranking import cutoffs, relevant_hits
from recflow.ranking.histories import Histories

LIST_METRICS = ("arp", "novelty", "diversity", "miscalibration", "serendipity")

_AT_ONCE = 2**22  # numbers in the largest tensor of a step


class TopLists(NamedTuple):
    """What each user was recommended, on the CPU.

    Attributes:
        users: User indices, ascending, int64, shape ``[users]``; only those with a relevant item.
        items: Recommended items, best first, -1 where candidates ran out, int64, shape ``[users, kmax]``.
        hits: Whether each of them is relevant, bool, shape ``[users, kmax]``.
        num_relevant: Number of relevant items of each user, int64, shape ``[users]``.
    """

    users: Tensor
    items: Tensor
    hits: Tensor
    num_relevant: Tensor

    @classmethod
    def of(cls, rows: Tensor, relevant: Histories, num_items: int) -> TopLists:
        """Look up which of the recommended items are relevant.

        Args:
            rows: A user and that user's items a row, sorted by user, int, shape ``[users, 1 + kmax]``.
            relevant: Each user's relevant items.
            num_items: Number of items in the catalogue.
        """
        relevant = relevant.to("cpu")
        rows = rows.cpu().to(torch.int64)
        rows = rows[relevant.lengths(rows[:, 0]) > 0]
        users, items = rows[:, 0], rows[:, 1:]
        hits, num_relevant = relevant_hits(items, relevant.indptr, relevant.items, users, num_items)
        return cls(users, items, hits, num_relevant)


class Surroundings:
    """What the metrics of lists need to know of the data: popularity, genres, and what users knew and liked before.

    Args:
        data: The dataset.
        part: The part that was ranked.

    Attributes:
        counts: Relevant training rows of each item, int64, shape ``[num_items]``.
    """

    def __init__(self, data: Dataset, part: Part) -> None:
        positives = data.positives.to("cpu")
        self.counts = torch.bincount(positives.items, minlength=data.num_items)
        self.num_users = int((torch.bincount(positives.users) > 0).sum())
        self.genres = genre_indicators(data.interactions.items)
        seen = data.seen(part).to("cpu")
        liked = seen if data.liked_from is None else seen.where(seen.ratings >= data.liked_from)
        self.seen, self.liked = (_histories(rows, data) for rows in (seen, liked))


def list_metrics(lists: TopLists, around: Surroundings, ks: Sequence[int]) -> dict[str, Tensor]:
    """Every metric of ``LIST_METRICS`` at every cut-off.

    Formulas stand with the functions of :mod:`recflow.metrics.popularity` and :mod:`recflow.metrics.genres`.

    Args:
        lists: Who was recommended what.
        around: What is known of items and users.
        ks: Cut-offs, at most the width of the lists.

    Returns:
        ``"novelty@10"`` and so on to float64 values, shape ``[users]``, nan for users who have none; metric by metric,
        each with its cut-offs ascending. A metric that no user has a value of is left out.
    """
    ks = cutoffs(ks)
    parts = None if around.genres is None else genre_parts(around.genres)
    step = max(1, _AT_ONCE // (lists.items.shape[1] * (1 if parts is None else parts.shape[1] + lists.items.shape[1])))
    found: dict[str, list[Tensor]] = {f"{name}@{k}": [] for name in LIST_METRICS for k in ks}
    for start in range(0, len(lists.users), step):
        rows = slice(start, start + step)
        users, items, hits = lists.users[rows], lists.items[rows], lists.hits[rows]
        place = more_popular_unseen(users, items, around.counts, around.seen.indptr, around.seen.items)
        past = None if parts is None else torch.cat([*_sums(around.liked, users, parts)])
        for k in ks:
            top = items[:, :k]
            found[f"arp@{k}"].append(average_popularity(top, around.counts))
            found[f"novelty@{k}"].append(novelty(top, around.counts, around.num_users))
            found[f"serendipity@{k}"].append(serendipity(hits[:, :k], place[:, :k]))
            if around.genres is None or parts is None or past is None:
                continue
            found[f"diversity@{k}"].append(diversity(top, around.genres))
            shown = parts[top.clamp(min=0)].masked_fill((top < 0).unsqueeze(-1), 0).sum(dim=1)  # [step, genres]
            found[f"miscalibration@{k}"].append(miscalibration(shown, past))
    values = {name: torch.cat(pieces) for name, pieces in found.items() if pieces}
    return {name: column for name, column in values.items() if not bool(column.isnan().all())}


def mean_of_known(values: Tensor) -> float:
    """Mean over the users who have a value, rounded once, so in whatever order they come.

    Args:
        values: Float64, nan where there is none; one at least must be known.
    """
    known = values[~values.isnan()].tolist()
    return math.fsum(known) / len(known)


def precision_recall(lists: TopLists) -> pl.DataFrame:
    """Precision and recall at every k, means over users: the curve that each further place moves along.

    precision@k falls and recall@k rises with k, as in :mod:`recflow.metrics.ranking`.

    Args:
        lists: Who was recommended what.

    Returns:
        ``k`` from 1 to the lists' width, ``precision`` and ``recall`` in [0, 1]; no rows if there is no user.
    """
    width = lists.items.shape[1] if len(lists.users) else 0
    found = lists.hits.cumsum(dim=1)  # [users, kmax]
    places = range(1, width + 1)
    recall = [mean_of_known(column) for column in (found.double() / lists.num_relevant.unsqueeze(1)).T[:width]]
    precision = [int(found[:, k - 1].sum()) / (len(lists.users) * k) for k in places]
    return pl.DataFrame(
        {"k": list(places), "precision": precision, "recall": recall},
        schema={"k": pl.Int64, "precision": pl.Float64, "recall": pl.Float64},
    )


def exposure(lists: TopLists, num_items: int, ks: Sequence[int]) -> dict[int, Tensor]:
    """How often each item was recommended in the first k places of all lists.

    Args:
        lists: Who was recommended what.
        num_items: Number of items in the catalogue.
        ks: Cut-offs.

    Returns:
        By cut-off, ascending, counts, int64, shape ``[num_items]``.
    """
    shown = {k: lists.items[:, :k] for k in cutoffs(ks)}
    return {k: torch.bincount(items[items >= 0], minlength=num_items) for k, items in shown.items()}


def _histories(rows: Rows, data: Dataset) -> Histories:
    return Histories.from_pairs(rows.users, rows.items, data.num_users, data.num_items)


def _sums(histories: Histories, users: Tensor, table: Tensor) -> Iterator[Tensor]:
    """Sums of a table of whole numbers over the items of some users, in pieces that bound memory."""
    wide = max(1, _AT_ONCE // table.shape[1])  # interactions at once, as long as a single user has no more
    ends = histories.lengths(users).cumsum(0) // wide
    for some in torch.split(users, torch.unique_consecutive(ends, return_counts=True)[1].tolist()):
        position, items = histories.rows(some)
        yield table.new_zeros(len(some), table.shape[1]).index_add_(0, position, table[items])
