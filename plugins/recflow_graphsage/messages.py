"""Means over neighbours, over all edges or over those that no pair of a batch stands on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recflow.data.graph import CSR, BipartiteGraph
from recflow.data.neighbours import NeighbourBlock, transposed
from recflow.training.propagation import propagate


class Messages(NamedTuple):
    """What nodes of one side hear from the other: for each kind of message, its mean over a node's neighbours.

    Attributes:
        sums: For each kind, the matrix of its sums, ``[targets, sources]``, and that matrix's transpose.
        scale: 1 / neighbours, or 0 for a node that is to hear nothing, float, shape ``[targets]``.
    """

    sums: tuple[tuple[CSR, CSR], ...]
    scale: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        """The means, kinds side by side: ``[sources, dim]`` to ``[targets, kinds * dim]``."""
        heard = [propagate(matrix, states, transpose) for matrix, transpose in self.sums]
        return torch.cat(heard, dim=1) * self.scale.to(states.dtype)[:, None]

    def only(self, heard: Tensor) -> Messages:
        """The same for targets where a mask of shape ``[targets]`` is 1, and nothing for the others."""
        return self._replace(scale=self.scale * heard)


class MessageGraph(NamedTuple):
    """The edges that messages travel on, and what each one multiplies its message by.

    Attributes:
        graph: Who is whose neighbour; its values are not read.
        keys: ``user * num_items + item`` of the edges, ascending, int64, shape ``[edges]``: the order of ``user_item``.
        places: Where these edges are in ``item_user``, int64, shape ``[edges]``.
        weights: For each kind of message its edges' weights, in the order of ``user_item`` and in that of
            ``item_user``, float, shape ``[edges]``.
    """

    graph: BipartiteGraph
    keys: Tensor
    places: Tensor
    weights: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, graph: BipartiteGraph, users: Tensor, items: Tensor, ratings: Tensor | None = None) -> MessageGraph:
        """Messages are what nodes are; beside them, if there are ratings, the same times the rating.

        Args:
            graph: Of the same interactions.
            users: User indices, int64, shape ``[edges]``, no pair twice.
            items: Item indices, int64, shape ``[edges]``.
            ratings: Centred ratings, float32, shape ``[edges]``.
        """
        num_users, num_items = graph.user_item.num_rows, graph.item_user.num_rows
        keys, order = torch.sort(users * num_items + items)
        by_item = torch.argsort(items[order] * num_users + users[order])
        kinds = [torch.ones(len(keys), device=keys.device)] + ([] if ratings is None else [ratings[order]])
        return cls(graph, keys, torch.argsort(by_item), tuple((kind, kind[by_item]) for kind in kinds))

    @property
    def num_items(self) -> int:
        """Number of items."""
        return self.graph.item_user.num_rows

    def to(self, device: torch.device | str) -> MessageGraph:
        """The same graph on another device."""
        weights = tuple((one.to(device), other.to(device)) for one, other in self.weights)
        return MessageGraph(self.graph.to(device), self.keys.to(device), self.places.to(device), weights)

    def degrees(self) -> tuple[Tensor, Tensor]:
        """How many neighbours users and items have, int32, ``[num_users]`` and ``[num_items]``."""
        return self.graph.user_item.indptr.diff(), self.graph.item_user.indptr.diff()

    def all_messages(self, exclude: tuple[Tensor, Tensor] | None = None) -> tuple[Messages, Messages]:
        """The messages of the whole graph.

        Args:
            exclude: Users and items of the pairs being scored, int64, both of one shape: where one is an edge, it
                carries no message in either direction, and the mean is over what is left.

        Returns:
            Those to users, and those to items.
        """
        user_degree, item_degree = self.degrees()
        weights = self.weights
        if exclude is not None:
            dropped = self._edges(torch.unique(exclude[0] * self.num_items + exclude[1]))
            users = torch.div(self.keys[dropped], self.num_items, rounding_mode="floor")
            items = self.keys[dropped] - users * self.num_items
            user_degree = user_degree - torch.bincount(users, minlength=len(user_degree))
            item_degree = item_degree - torch.bincount(items, minlength=len(item_degree))
            # A weight of 0 drops an edge exactly; a message taken off its sum again would leave its rounding behind.
            back = self.places[dropped]
            weights = tuple((one.index_fill(0, dropped, 0), other.index_fill(0, back, 0)) for one, other in weights)
        user_item, item_user = self.graph
        pairs = [(user_item._replace(values=one), item_user._replace(values=other)) for one, other in weights]
        return (
            Messages(tuple(pairs), _reciprocal(user_degree)),
            Messages(tuple((other, one) for one, other in pairs), _reciprocal(item_degree)),
        )

    def block_messages(self, block: NeighbourBlock) -> tuple[Messages, Messages]:
        """The messages of a sampled block: those to its target users, and those to its target items."""
        to_user, to_item = _coordinates(block.user_item), _coordinates(block.item_user)
        users = self._sampled(block.user_item, block.users[to_user[0]], block.items[to_user[1]], 0)
        items = self._sampled(block.item_user, block.users[to_item[1]], block.items[to_item[0]], 1)
        return users, items

    def _sampled(self, matrix: CSR, users: Tensor, items: Tensor, side: int) -> Messages:
        sums = [matrix]  # its values are 1 / neighbours already
        if len(self.weights) > 1:
            edges = torch.searchsorted(self.keys, users * self.num_items + items)
            edges = edges if side == 0 else self.places[edges]
            sums += [matrix._replace(values=matrix.values * kind[side][edges]) for kind in self.weights[1:]]
        scale = matrix.values.new_ones(matrix.num_rows)
        return Messages(tuple((one, transposed(one)) for one in sums), scale)

    def _edges(self, keys: Tensor) -> Tensor:
        """Where some keys are among the edges'; those that are none are left out."""
        if len(self.keys) == 0:
            return keys[:0]
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return place[self.keys[place] == keys]


def _reciprocal(degree: Tensor) -> Tensor:
    return degree.clamp(min=1).float().reciprocal()


def _coordinates(matrix: CSR) -> tuple[Tensor, Tensor]:
    """Row and column of each entry, int64."""
    rows = torch.arange(matrix.num_rows, device=matrix.indptr.device)
    return torch.repeat_interleave(rows, matrix.indptr.diff().long()), matrix.indices.long()
