"""The two halves of NeuMF, each with its own embeddings and its own part of the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleList, Parameter, init

from recflow.training.dropout import dropout


class Product(Module):
    """``Σ_d w_d u_d i_d``: generalised matrix factorisation.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        dim: Length of the embeddings.
        init_std: Standard deviation of their first entries.
    """

    def __init__(self, num_users: int, num_items: int, dim: int, init_std: float) -> None:
        super().__init__()
        self.users = Parameter(torch.empty(num_users, dim))
        self.items = Parameter(torch.empty(num_items, dim))
        self.output = Parameter(torch.empty(dim))
        init.normal_(self.users, std=init_std)
        init.normal_(self.items, std=init_std)
        init.uniform_(self.output, -math.sqrt(3 / dim), math.sqrt(3 / dim))  # LeCun's, as the authors have it

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of ``[interactions, items]`` pairs; see :meth:`~recflow.training.sampled.SampledModule.scores`."""
        # index_select's backward adds rows in place; F.embedding's sorts them first and takes five times as long.
        user = self.users.index_select(0, users) * self.output  # [interactions, dim]
        item = self.items.index_select(0, items.flatten()).view(*items.shape, -1)  # [interactions, items, dim]
        return (item * user[:, None]).sum(2)  # matrices as thin as these are slow to multiply


class Tower(Module):
    """``w · ReLU(… ReLU(W_u u + W_i i + b) …)``: a network over both embeddings.

    The first layer is linear in both, so that each half of it is computed once for a node that comes often.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        dim: Length of the embeddings.
        hidden: Sizes of the hidden layers.
        dropout: Share of each hidden layer's entries that are left out in training.
        init_std: Standard deviation of the embeddings' first entries.
    """

    def __init__(
        self, num_users: int, num_items: int, dim: int, hidden: Sequence[int], dropout: float, init_std: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.users = Parameter(torch.empty(num_users, dim))
        self.items = Parameter(torch.empty(num_items, dim))
        self.user_input = Parameter(torch.empty(dim, hidden[0]))
        self.item_input = Linear(dim, hidden[0])
        self.layers = ModuleList(Linear(before, after) for before, after in pairwise(hidden))
        self.output = Parameter(torch.empty(hidden[-1]))
        init.normal_(self.users, std=init_std)
        init.normal_(self.items, std=init_std)
        bound = math.sqrt(6 / (2 * dim + hidden[0]))  # Xavier-uniform, the two inputs as one
        init.uniform_(self.user_input, -bound, bound)
        init.uniform_(self.item_input.weight, -bound, bound)
        init.zeros_(self.item_input.bias)
        for linear in self.linear_layers():
            init.xavier_uniform_(linear.weight)
            init.zeros_(linear.bias)
        init.uniform_(self.output, -math.sqrt(3 / hidden[-1]), math.sqrt(3 / hidden[-1]))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of ``[interactions, items]`` pairs; see :meth:`~recflow.training.sampled.SampledModule.scores`."""
        user = _selected(self.users, users, lambda rows: rows @ self.user_input)  # [interactions, hidden]
        item = _selected(self.items, items.flatten(), self.item_input)
        hidden = item.view(*items.shape, -1) + user[:, None]  # [interactions, items, hidden]
        for layer in self.linear_layers():
            hidden = layer(dropout(hidden.relu(), self.dropout, self.training))
        scores: Tensor = dropout(hidden.relu(), self.dropout, self.training) @ self.output
        return scores

    def linear_layers(self) -> list[Linear]:
        """The layers after the first."""
        return cast("list[Linear]", list(self.layers))


def _selected(table: Tensor, rows: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
    """A linear layer of some rows of a table: of all rows first where more are named than there are."""
    if len(rows) > len(table):
        return layer(table).index_select(0, rows)
    return layer(table.index_select(0, rows))
