"""Which items each user has interacted with, in compressed sparse rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Histories(NamedTuple):
    """One row of items per user, items ascending within a row.

    Attributes:
        indptr: Row starts, int64, shape ``[num_users + 1]``.
        items: Item indices, int64, shape ``[num_interactions]``.
        ratings: Stars, float32, shape ``[num_interactions]``; empty if the data has none.
    """

    indptr: Tensor
    items: Tensor
    ratings: Tensor

    @classmethod
    def from_pairs(
        cls, users: Tensor, items: Tensor, num_users: int, num_items: int, ratings: Tensor | None = None
    ) -> Histories:
        """Sort interactions into rows; of repeated pairs the first is kept.

        Args:
            users: User indices, int64, shape ``[num_interactions]``.
            items: Item indices, int64, shape ``[num_interactions]``.
            num_users: Number of rows.
            num_items: Number of items.
            ratings: Stars, float32, shape ``[num_interactions]``.
        """
        key, order = torch.sort(users * num_items + items, stable=True)
        first = torch.ones_like(key, dtype=torch.bool)
        first[1:] = key[1:] != key[:-1]
        key, order = key[first], order[first]
        counts = torch.bincount(key // num_items, minlength=num_users)
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(indptr, key % num_items, torch.empty(0) if ratings is None else ratings[order])

    @classmethod
    def of_one(cls, items: Tensor, ratings: Tensor | None = None) -> Histories:
        """A single user's items, in the order given, as the only row."""
        indptr = torch.tensor([0, len(items)], device=items.device)
        return cls(indptr, items, torch.empty(0, device=items.device) if ratings is None else ratings)

    @property
    def num_users(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    def of(self, user: int) -> tuple[Tensor, Tensor | None]:
        """One user's items and, where the data has them, ratings."""
        row = slice(int(self.indptr[user]), int(self.indptr[user + 1]))
        return self.items[row], self.ratings[row] if len(self.ratings) else None

    def lengths(self, users: Tensor) -> Tensor:
        """How many items some users have, int64, shape ``[batch]``."""
        return self.indptr[users + 1] - self.indptr[users]

    def sums(self, users: Tensor, table: Tensor) -> Tensor:
        """Sum a table's rows over the items of each of some users.

        Args:
            users: User indices, int64, shape ``[batch]``.
            table: One row per item, float, shape ``[num_items, dim]``.

        Returns:
            Sums, of the table's type, shape ``[batch, dim]``; zeros for a user without items.
        """
        counts = self.lengths(users)
        _, items = self.rows(users)
        return F.embedding_bag(items, table, counts.cumsum(0) - counts, mode="sum")

    def places(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Where the interactions of some users are kept.

        Args:
            users: User indices, int64, shape ``[batch]``.

        Returns:
            Position in ``users``, and place in ``items`` and ``ratings``, int64, both of shape ``[interactions]``.
        """
        starts, counts = self.indptr[users], self.lengths(users)
        position = torch.repeat_interleave(torch.arange(len(users), device=users.device), counts)
        offset = torch.arange(len(position), device=users.device) - (counts.cumsum(0) - counts)[position]
        return position, starts[position] + offset

    def rows(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The interactions of some users, as coordinates.

        Args:
            users: User indices, int64, shape ``[batch]``.

        Returns:
            Position in ``users`` and item of each interaction, int64, both of shape ``[interactions]``.
        """
        position, place = self.places(users)
        return position, self.items[place]

    def at_least(self, threshold: float) -> Histories:
        """The interactions rated so or better; all of them if there are no ratings."""
        if len(self.ratings) == 0:
            return self
        keep = self.ratings >= threshold
        before = torch.cat([self.indptr.new_zeros(1), keep.cumsum(0)])
        return Histories(before[self.indptr], self.items[keep], self.ratings[keep])

    def to(self, device: torch.device | str) -> Histories:
        """The same histories on another device."""
        return Histories(*(tensor.to(device) for tensor in self))
