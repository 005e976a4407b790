"""Neighbour sampling on the user–item graph: the few nodes and edges that a batch needs, instead of the whole graph.

Everything is whole tensors on the graph's device; no step goes over rows or edges in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recflow.data.graph import CSR, BipartiteGraph
from recflow.errors import RecflowError


class NeighbourBlock(NamedTuple):
    """One layer's messages: from source nodes to target nodes, both numbered from 0 within the block.

    The targets are the first of the sources: row r of a matrix belongs to ``users[r]`` (or ``items[r]``), and the
    targets' own features are ``x[: matrix.num_rows]``. A product with either matrix is the mean over the sampled
    neighbours, and 0 for a target without one.

    Attributes:
        users: Source users by their index in the graph, int64, shape ``[source_users]``, none twice.
        items: Source items by their index in the graph, int64, shape ``[source_items]``, none twice.
        user_item: From items to users, ``[target_users, source_items]``, values 1 / neighbours in the row.
        item_user: From users to items, ``[target_items, source_users]``, likewise.
    """

    users: Tensor
    items: Tensor
    user_item: CSR
    item_user: CSR


def sample_neighbours(matrix: CSR, rows: Tensor, fanout: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sample neighbours of some rows, uniformly and without replacement.

    Floyd's algorithm (Bentley & Floyd, Communications of the ACM 30(9), 1987) takes k of the numbers 0..n-1 in k draws:
    for last = n-k .. n-1 it draws one of 0..last, and takes ``last`` itself if that one has been taken before. All rows
    go through its k steps together, so that time and memory do not depend on degrees.

    Args:
        matrix: Whose stored entries are the neighbours.
        rows: Row indices, int64, shape ``[num_rows]``; one given twice is sampled twice, independently.
        fanout: Neighbours per row; rows that have no more give all they have. -1 takes all of every row. Costs
            memory ``num_rows * fanout`` and time ``num_rows * fanout²``: meant for tens.
        generator: On the matrix's device; left alone where nothing is left to chance.

    Returns:
        Positions in ``rows``, ascending, and column indices: both int64, shape ``[num_sampled]``.

    Raises:
        RecflowError: If ``fanout`` is neither -1 nor at least 1.

    Example:
        >>> row = CSR(torch.tensor([0, 3]), torch.tensor([2, 5, 7]), torch.ones(3), num_columns=8)
        >>> sample_neighbours(row, torch.tensor([0]), -1, torch.Generator())
        (tensor([0, 0, 0]), tensor([2, 5, 7]))
    """
    if fanout != -1 and fanout < 1:
        raise RecflowError(f"A fan-out is a number of neighbours, at least 1, or -1 for all of them; got {fanout}.")
    start = matrix.indptr[rows].long()
    degree = matrix.indptr[rows + 1].long() - start
    count = degree if fanout == -1 else degree.clamp(max=fanout)
    first = count.cumsum(0) - count  # where a row's neighbours begin in the result
    position = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
    place = torch.arange(len(position), device=rows.device) - first[position]  # within the row: 0, 1, …
    if fanout != -1:
        large = (degree > fanout).nonzero().flatten()
        step = torch.arange(fanout, device=rows.device)[:, None]
        place[first[large] + step] = _floyd(degree[large], fanout, generator)  # [fanout, large]
    return position, matrix.indices[start[position] + place].long()


def sample_subgraph(
    graph: BipartiteGraph,
    users: Tensor,
    items: Tensor,
    fanouts: Sequence[int],
    generator: torch.Generator,
    exclude: tuple[Tensor, Tensor] | None = None,
) -> list[NeighbourBlock]:
    """Sample what ``len(fanouts)`` layers need to compute the features of some users and items.

    Blocks come in the order of computation, outermost first, and each one's targets are the next one's sources::

        x_users, x_items = features_of(blocks[0].users), features_of(blocks[0].items)
        for block in blocks:
            own_users, own_items = x_users[: block.user_item.num_rows], x_items[: block.item_user.num_rows]
            x_users, x_items = (
                layer(own_users, propagate(block.user_item, x_items, transposed(block.user_item))),
                layer(own_items, propagate(block.item_user, x_users, transposed(block.item_user))),
            )

    after which ``x_users[r]`` belongs to ``users[r]``, and ``x_items[r]`` to ``items[r]``. Every layer samples all of
    its targets anew, as in Hamilton et al., NeurIPS 2017 (https://arxiv.org/abs/1706.02216), algorithm 2.

    Args:
        graph: Who is whose neighbour; its values are not read.
        users: Users to compute, int64, shape ``[num_seed_users]``, none twice; may be empty.
        items: Items to compute, int64, shape ``[num_seed_items]``, none twice; may be empty.
        fanouts: Neighbours per node, one number a layer, from the given nodes outward; -1 takes all.
        generator: On the graph's device.
        exclude: Users and items of the pairs being scored, int64, both of one shape: they carry no message in either
            direction, or the model would read off what it is to predict. A sampled edge among them is dropped, not
            replaced: the rest is still uniform, and the mean is over what is left.

    Returns:
        One block a layer. The last one's targets are ``users`` and ``items``; the first one's sources are all nodes.

    Raises:
        RecflowError: If ``fanouts`` is empty, or one of them is neither -1 nor at least 1.
        ValueError: If ``users`` or ``items`` hold a node twice; ``users.unique(return_inverse=True)`` mends it.
    """
    if len(fanouts) == 0:
        raise RecflowError("Neighbour sampling takes one fan-out a layer, at least one; got none.")
    num_users, num_items = graph.user_item.num_rows, graph.item_user.num_rows
    for name, nodes in (("users", users), ("items", items)):
        if len(torch.unique(nodes)) < len(nodes):
            raise ValueError(f"{name} hold a node twice: give each once, as unique(return_inverse=True) does")
    dropped = None if exclude is None else torch.unique(exclude[0] * num_items + exclude[1])  # sorted
    blocks: list[NeighbourBlock] = []
    for fanout in fanouts:
        to_user, from_item = sample_neighbours(graph.user_item, users, fanout, generator)
        to_item, from_user = sample_neighbours(graph.item_user, items, fanout, generator)
        if dropped is not None and len(dropped):
            keep = _absent(users[to_user] * num_items + from_item, dropped)
            to_user, from_item = to_user[keep], from_item[keep]
            keep = _absent(from_user * num_items + items[to_item], dropped)
            to_item, from_user = to_item[keep], from_user[keep]
        source_users, from_user = _number(users, from_user, num_users)
        source_items, from_item = _number(items, from_item, num_items)
        user_item = _mean(to_user, from_item, len(users), len(source_items))
        item_user = _mean(to_item, from_user, len(items), len(source_users))
        blocks.append(NeighbourBlock(source_users, source_items, user_item, item_user))
        users, items = source_users, source_items
    return blocks[::-1]


def transposed(matrix: CSR) -> CSR:
    """``Aᵀ``, which the gradient of a product with A needs.

    Args:
        matrix: A, ``[rows, columns]``.

    Returns:
        ``[columns, rows]``, on the same device.
    """
    lengths = (matrix.indptr[1:] - matrix.indptr[:-1]).long()
    rows = torch.repeat_interleave(torch.arange(matrix.num_rows, device=lengths.device), lengths)  # [nnz]
    order = torch.argsort(matrix.indices, stable=True)  # stable: rows stay ascending within a column
    counts = torch.bincount(matrix.indices, minlength=matrix.num_columns)
    return CSR(_indptr(counts), rows[order].int(), matrix.values[order], matrix.num_rows)


def _floyd(degree: Tensor, fanout: int, generator: torch.Generator) -> Tensor:
    """For each n of ``degree``, n > fanout, as many of 0..n-1 as ``fanout``: int64, shape ``[fanout, rows]``."""
    taken = degree.new_empty(fanout, len(degree))
    for step in range(fanout):
        last = degree - fanout + step
        # Double precision keeps rand * n below n: rand is at most 1 - 2^-53.
        share = torch.rand(len(degree), dtype=torch.float64, generator=generator, device=degree.device)
        drawn = (share * (last + 1)).long()
        taken[step] = torch.where((taken[:step] == drawn).any(0), last, drawn)
    return taken


def _absent(keys: Tensor, dropped: Tensor) -> Tensor:
    place = torch.searchsorted(dropped, keys).clamp_(max=len(dropped) - 1)
    return dropped[place] != keys


def _number(targets: Tensor, found: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Sources, ``targets`` first, then what else was found, ascending; and where each of ``found`` is among them."""
    new = torch.zeros(num_nodes, dtype=torch.bool, device=targets.device)
    new[found] = True
    new[targets] = False
    sources = torch.cat([targets, new.nonzero().flatten()])
    number = sources.new_empty(num_nodes)
    number[sources] = torch.arange(len(sources), device=sources.device)
    return sources, number[found]


def _mean(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> CSR:
    """The matrix of means over each row's columns; ``rows`` ascending."""
    counts = torch.bincount(rows, minlength=num_rows)
    return CSR(_indptr(counts), columns.int(), counts[rows].float().reciprocal(), num_columns)


def _indptr(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()
