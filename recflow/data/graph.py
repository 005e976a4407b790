"""The user–item graph, normalised, in compressed sparse rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CSR(NamedTuple):
    """A sparse matrix in compressed rows. Indices are int32: the products are bound by memory traffic.

    Attributes:
        indptr: Row starts, int32, shape ``[rows + 1]``.
        indices: Columns, int32, shape ``[nnz]``.
        values: Entries, float, shape ``[nnz]``.
        num_columns: Width of the matrix.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor
    num_columns: int

    @property
    def num_rows(self) -> int:
        """Height of the matrix."""
        return len(self.indptr) - 1

    def to(self, device: torch.device | str) -> CSR:
        """The same matrix on another device."""
        return CSR(self.indptr.to(device), self.indices.to(device), self.values.to(device), self.num_columns)

    def to_dense(self) -> Tensor:
        """The same matrix with its zeros, for tests; shape ``[rows, num_columns]``."""
        counts = (self.indptr[1:] - self.indptr[:-1]).long()
        rows = torch.repeat_interleave(torch.arange(self.num_rows, device=counts.device), counts)
        dense = self.values.new_zeros(self.num_rows, self.num_columns)
        return dense.index_put_((rows, self.indices.long()), self.values, accumulate=True)


class BipartiteGraph(NamedTuple):
    """``Â = D^-1/2 A D^-1/2`` of the user–item graph, as its two halves; each is the other's transpose.

    Attributes:
        user_item: From items to users, ``[num_users, num_items]``.
        item_user: From users to items, ``[num_items, num_users]``.
    """

    user_item: CSR
    item_user: CSR

    def to(self, device: torch.device | str) -> BipartiteGraph:
        """The same graph on another device."""
        return BipartiteGraph(self.user_item.to(device), self.item_user.to(device))


def bipartite_graph(users: Tensor, items: Tensor, num_users: int, num_items: int) -> BipartiteGraph:
    """Build the symmetrically normalised graph of some interactions.

    An edge weighs ``1 / sqrt(degree of its user * degree of its item)``; nodes without an edge have an empty row.

    Args:
        users: User indices, int64, shape ``[num_interactions]``, no pair twice.
        items: Item indices, int64, shape ``[num_interactions]``.
        num_users: Number of users.
        num_items: Number of items.
    """
    user_degree = torch.bincount(users, minlength=num_users)
    item_degree = torch.bincount(items, minlength=num_items)
    weights = (user_degree[users].double() * item_degree[items].double()).rsqrt().float()

    def half(rows: Tensor, columns: Tensor, degree: Tensor, num_columns: int) -> CSR:
        order = torch.argsort(rows * num_columns + columns)
        indptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        return CSR(indptr.int(), columns[order].int(), weights[order].contiguous(), num_columns)

    return BipartiteGraph(half(users, items, user_degree, num_items), half(items, users, item_degree, num_users))
