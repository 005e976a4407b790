"""XᵀY of two sparse user–item matrices, a block of columns at a time, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from recflow.data.graph import CSR
from recflow.ranking.histories import Histories
from recflow.training.propagation import sparse_matmul

_BLOCK_BYTES = 32 * 2**20


class ItemUserMatrix:
    """Where the interactions are, item by item; what stands there is given to each product.

    Args:
        by_item: Each item's users, as the rows of a history.
        num_users: Number of users.
    """

    def __init__(self, by_item: Histories, num_users: int) -> None:
        self.num_items, self.num_users = by_item.num_users, num_users
        self.users = by_item.items
        self.starts = by_item.indptr
        self.items = torch.repeat_interleave(
            torch.arange(self.num_items, device=self.users.device), by_item.indptr.diff()
        )  # [num_interactions]

    def blocks(self, width: int) -> Iterator[slice]:
        """Items in blocks, as many as ``width`` dense matrices of users × items may be held of.

        Args:
            width: How many such matrices are held at once, ``[num_users, block]`` or ``[num_items, block]``.
        """
        size = max(1, _BLOCK_BYTES // (4 * width * max(self.num_users, self.num_items)))
        for start in range(0, self.num_items, size):
            yield slice(start, min(start + size, self.num_items))

    def columns(self, values: Tensor, block: slice) -> Tensor:
        """Some items' interactions with their zeros.

        Args:
            values: One value an interaction, float32, ``[num_interactions]``.
            block: The items.

        Returns:
            float32, ``[num_users, block]``.
        """
        table = values.new_zeros(self.num_users, block.stop - block.start)
        inside = slice(int(self.starts[block.start]), int(self.starts[block.stop]))
        table[self.users[inside], self.items[inside] - block.start] = values[inside]
        return table

    def times(self, values: Tensor, columns: Tensor) -> Tensor:
        """``Xᵀ Y`` for X of these values: sums over the users of each item.

        Args:
            values: One value an interaction, float32, ``[num_interactions]``.
            columns: Y, ``[num_users, block]``.

        Returns:
            float32, ``[num_items, block]``.
        """
        return sparse_matmul(CSR(self.starts.int(), self.users.int(), values, self.num_users), columns)


def sums(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Sum values by group, in a fixed order on every device.

    Args:
        values: Float, ``[num_values]``.
        groups: Which group each belongs to, int64, ``[num_values]``.
        num_groups: How many groups there are.

    Returns:
        Of the values' type, ``[num_groups]``.
    """
    return values.new_zeros(num_groups).index_put_((groups,), values, accumulate=True)
