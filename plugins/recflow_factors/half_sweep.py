"""One half of a sweep of implicit ALS: every row's vector, given the vectors of all columns.

A row that holds the columns S wants 1 there and, with weight alpha, 0 at every column. Its vector solves

    (Σ over S of q qᵀ + alpha G + λ I) w = Σ over S of q,    G = Σ over all columns of q qᵀ,
    λ = reg (|S| + alpha · columns)^reg_exponent,

either exactly, by batched matrix products and Cholesky factorisations, or nearly, by a few steps of conjugate gradients
that start from the last sweep's vectors and never form the matrix. Both give the same numbers on any number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories

_CHUNK_BYTES = 2**22  # of gathered vectors, and of matrices: they stay in a processor's caches


class Weights(NamedTuple):
    """What an interaction's 1 is weighed against.

    Attributes:
        alpha: Weight of the 0 at every pair.
        reg: Weight of the penalty.
        reg_exponent: How the penalty grows with a row's weight: 0 not at all, 1 in proportion.
    """

    alpha: float
    reg: float
    reg_exponent: float

    def ridge(self, counts: Tensor, num_columns: int) -> Tensor:
        """Each row's λ, float64, for rows of so many interactions each, ``[rows]``."""
        return self.reg * (counts.double() + self.alpha * num_columns) ** self.reg_exponent


class HalfSweep(NamedTuple):
    """What a half sweep finds.

    Attributes:
        vectors: One per row, ``[rows, dim]``; zeros where a row is empty.
        loss: Σ over S of (ŷ - 1)² + alpha Σ over all columns of ŷ² + λ |w|², summed over the rows.
    """

    vectors: Tensor
    loss: float


def by_cholesky(rows: Histories, factors: Tensor, gram: Tensor, weights: Weights) -> HalfSweep:
    """Solve every row exactly.

    Rows of like length go together, padded to the longest: work is 2 interactions · dim² + rows · dim³ / 3 operations
    in batched products, memory two buffers of a few MiB beside the result.

    Args:
        rows: Each row's columns.
        factors: The columns' vectors, float, ``[columns, dim]``; their type is the precision.
        gram: G, ``[dim, dim]``.
        weights: See :class:`Weights`.

    Raises:
        RecflowError: If a matrix is not positive definite in this precision.
    """
    (num_columns, dim), size = factors.shape, factors.element_size()
    counts = rows.indptr.diff()
    ridge = weights.ridge(counts, num_columns).to(factors)
    everywhere = weights.alpha * gram
    table = torch.cat([factors, factors.new_zeros(1, dim)])  # the last row pads: it adds nothing to a sum
    targets = _bag(rows.items, factors, rows.indptr)
    vectors = torch.zeros_like(targets)
    order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
    lengths = counts[order].tolist()
    # Buffers are used again and again: fresh memory costs more than what is written to it.
    slots = max(_CHUNK_BYTES // (size * dim), lengths[0] if lengths else 1)
    most = max(1, _CHUNK_BYTES // (size * dim * dim))
    gathered, systems = factors.new_empty(slots, dim), factors.new_empty(min(most, len(order)), dim, dim)
    failed = torch.zeros((), dtype=torch.int32, device=factors.device)
    threads = torch.get_num_threads() if factors.device.type == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        start = 0
        while start < len(order):
            longest = lengths[start]
            chunk = order[start : start + max(1, min(most, slots // longest))]
            start += len(chunk)
            x = gathered[: len(chunk) * longest]
            torch.index_select(table, 0, _padded(rows, chunk, longest, num_columns), out=x)
            x = x.view(len(chunk), longest, dim)
            system = systems[: len(chunk)]
            torch.baddbmm(everywhere.expand_as(system), x.mT, x, out=system)
            system.diagonal(dim1=1, dim2=2).add_(ridge[chunk, None])
            # LAPACK takes one matrix after another on one core: each thread is given its share.
            shares = pool.map(_solve, system.chunk(threads), targets[chunk, :, None].chunk(threads))
            solved, infos = zip(*shares, strict=True)
            vectors[chunk] = torch.cat(solved)
            failed = torch.stack([failed, *infos]).max()
    if int(failed):
        raise RecflowError(
            f"Implicit ALS cannot solve its equations in {str(factors.dtype).removeprefix('torch.')}: "
            f"model.reg is {weights.reg:g}, too small for these data; raise it."
        )
    return HalfSweep(vectors, int(rows.indptr[-1]) - _dot(vectors, targets))


def by_cg(rows: Histories, factors: Tensor, gram: Tensor, weights: Weights, start: Tensor, steps: int) -> HalfSweep:
    """Improve every row's vector by some steps of conjugate gradients.

    A step is 4 interactions · dim + 2 rows · dim² operations. Rows are taken in their order, some at a time.

    Args:
        rows: Each row's columns.
        factors: The columns' vectors, float, ``[columns, dim]``.
        gram: G, ``[dim, dim]``.
        weights: See :class:`Weights`.
        start: The vectors to improve, ``[rows, dim]``; left as they are.
        steps: How many steps; as many as there are dimensions solve exactly, up to rounding.
    """
    dim, size = factors.shape[1], factors.element_size()
    counts = rows.indptr.diff()
    ridge = weights.ridge(counts, len(factors)).to(factors)
    everywhere = weights.alpha * gram
    vectors = torch.empty_like(start)
    tiny = torch.finfo(factors.dtype).tiny
    loss = float(rows.indptr[-1])
    slots = max(1, _CHUNK_BYTES // (size * dim))
    most = slots + int(counts.max())
    gathered = factors.new_empty(most, dim)
    zeros, places = factors.new_zeros(most), torch.arange(most, device=factors.device)
    for first, last in _blocks(rows.indptr, slots):
        begin, end = int(rows.indptr[first]), int(rows.indptr[last])
        # Every step reads each interaction's vector twice: gathered once, they are read in order and from the cache.
        table = gathered[: end - begin]
        torch.index_select(factors, 0, rows.items[begin:end], out=table)
        indptr, place = rows.indptr[first : last + 1] - begin, places[: end - begin]
        systems = _Systems(table, indptr, place, zeros[: end - begin], everywhere, ridge[first:last, None])
        target = _bag(place, table, indptr)
        x = torch.where(counts[first:last, None] > 0, start[first:last], 0)
        residual = target - systems.times(x)
        direction, square = residual, residual.square().sum(1, keepdim=True)
        for _ in range(steps):
            image = systems.times(direction)
            length = square / (direction * image).sum(1, keepdim=True).clamp_(min=tiny)
            x = torch.addcmul(x, length, direction)
            residual = torch.addcmul(residual, length, image, value=-1)
            before, square = square, residual.square().sum(1, keepdim=True)
            direction = torch.addcmul(residual, square / before.clamp(min=tiny), direction)
        vectors[first:last] = x
        loss -= _dot(x, target + residual)
    return HalfSweep(vectors, loss)


class _Systems(NamedTuple):
    """The matrices of some rows, as what they are made of."""

    table: Tensor  # [interactions, dim]: the columns' vectors, row after row
    indptr: Tensor  # [rows + 1]
    place: Tensor  # [interactions]: 0, 1, 2 and so on
    zeros: Tensor  # [interactions]
    everywhere: Tensor  # [dim, dim]: alpha G
    ridge: Tensor  # [rows, 1]

    def times(self, p: Tensor) -> Tensor:
        """The product of each row's matrix and its vector, ``[rows, dim]``; no matrix is formed."""
        shape = len(p), len(self.table)
        pattern = torch.sparse_csr_tensor(self.indptr, self.place, self.zeros, shape, check_invariants=False)
        seen = torch.sparse.sampled_addmm(pattern, p, self.table.T).values()  # [interactions]: <p, q>
        sums = _bag(self.place, self.table, self.indptr, seen)
        return torch.addmm(sums, p, self.everywhere).addcmul_(self.ridge, p)


def _bag(items: Tensor, table: Tensor, indptr: Tensor, values: Tensor | None = None) -> Tensor:
    """Each row's sum over its columns, weighted or not, ``[rows, dim]``: one pass without a gathered copy."""
    return F.embedding_bag(items, table, indptr, mode="sum", per_sample_weights=values, include_last_offset=True)


def _padded(rows: Histories, chunk: Tensor, longest: int, padding: int) -> Tensor:
    """Some rows' columns, each row filled up to the longest's length, ``[chunk * longest]``."""
    begin, end = rows.indptr[chunk, None], rows.indptr[chunk + 1, None]
    place = begin + torch.arange(longest, device=chunk.device)  # [chunk, longest]
    inside = place < end
    return rows.items[place.clamp_(max=len(rows.items) - 1)].masked_fill_(~inside, padding).flatten()


def _solve(systems: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Solutions, ``[batch, dim]``, and whether any matrix was not positive definite: a number above 0."""
    factor, info = torch.linalg.cholesky_ex(systems)
    return torch.cholesky_solve(targets, factor)[:, :, 0], info.max()


def _blocks(indptr: Tensor, interactions: int) -> list[tuple[int, int]]:
    """Runs of rows of about equal work, as first and last row."""
    work = indptr + torch.arange(len(indptr), device=indptr.device)
    marks = torch.arange(0, int(work[-1]), interactions, device=indptr.device)
    return list(pairwise(sorted({*torch.searchsorted(work, marks).tolist(), len(indptr) - 1})))


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
