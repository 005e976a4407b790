"""Ratings dealt into batches once, each sorted both by user and by item, so that gradients are sums over runs of rows.

A batch's gradient for a user is a sum over the user's rows in it. Where those lie side by side the sum is one pass
over them (an embedding bag) instead of a scatter of one vector a rating, which takes many times as long. Sorting every
batch anew in each epoch would cost more than the gradients; so batches keep their rows, and only their order changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor

from recflow.data.batches import epoch_generator
from recflow.data.dataset import Rows

_ALL_FROM = 0.25  # share of a table's rows


class DealtBatch(NamedTuple):
    """Ratings sorted by user, and where the runs of equal users and equal items begin.

    Attributes:
        users: User indices, ascending, int64, shape ``[batch]``.
        items: Item indices, int64, shape ``[batch]``.
        ratings: Stars, float32, shape ``[batch]``.
        by_item: Places of the batch in the order of items, int64, shape ``[batch]``.
        run_users: The users of the batch, each once, int64; all users where the batch has a quarter of them or more.
        user_starts: Where each one's rows begin.
        run_items: The items of the batch, in the same way.
        item_starts: Where each one's rows begin in ``by_item``.
    """

    users: Tensor
    items: Tensor
    ratings: Tensor
    by_item: Tensor
    run_users: Tensor
    user_starts: Tensor
    run_items: Tensor
    item_starts: Tensor


class DealtBatches:
    """One epoch: the same batches every time, as equal in size as can be, in an order that follows (seed, epoch).

    Args:
        rows: The training ratings.
        num_users: Number of users.
        num_items: Number of items.
        batch_size: Ratings in a batch, at most.
        seed: Fixes who is dealt to which batch and, with the epoch's number, the batches' order.
    """

    def __init__(self, rows: Rows, num_users: int, num_items: int, batch_size: int, seed: int) -> None:
        self.seed, self.epoch = seed, 0
        number, device = len(rows.users), rows.users.device
        count = -(-number // batch_size)
        deal = torch.randperm(number, generator=epoch_generator(seed, 0, device), device=device) % count
        order = _sorted_by(deal, rows.users)
        users, items, deal = rows.users[order], rows.items[order], deal[order]
        sizes = torch.bincount(deal, minlength=count)
        first = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)  # where each row's batch begins
        by_item = _sorted_by(deal, items) - first
        columns = (torch.split(column, sizes.tolist()) for column in (users, items, rows.ratings[order], by_item))
        self.batches = []
        for user, item, rating, place in zip(*columns, strict=True):
            runs = *_runs(user, num_users), *_runs(item[place], num_items)
            self.batches.append(DealtBatch(user, item, rating, place, *runs))

    @property
    def sampler(self) -> Self:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[DealtBatch]:
        for place in torch.randperm(len(self.batches), generator=epoch_generator(self.seed, self.epoch)).tolist():
            yield self.batches[place]


def _sorted_by(deal: Tensor, column: Tensor) -> Tensor:
    return torch.sort(deal * (int(column.max()) + 1) + column, stable=True).indices


def _runs(column: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Whose runs a sorted column holds, and where they start; empty runs included where that makes all rows' runs."""
    values, counts = torch.unique_consecutive(column, return_counts=True)
    if len(values) >= _ALL_FROM * num_rows:
        counts = torch.bincount(column, minlength=num_rows)
        values = torch.arange(num_rows, device=column.device)
    return values, counts.cumsum(0) - counts
