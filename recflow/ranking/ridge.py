"""Ridge regressions, one per row and many at a time: what alternating least squares solves, and what a fold-in is."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import neg
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.threads import on_all_cores

_CHUNK_BYTES = 2**22  # of inputs, and of matrices: they stay in a processor's caches
_LIKE = 0.5  # of the longest: rows as short as that are padded to it


class Start(NamedTuple):
    """Where conjugate gradients begin.

    Attributes:
        weights: ``[rows, dim]``, of the inputs' type; left as they are.
        steps: How many steps; as many as weights have dimensions solve exactly, up to rounding.
    """

    weights: Tensor
    steps: int


class Solution(NamedTuple):
    """What is found.

    Attributes:
        weights: ``[rows, dim]``; zeros where a row is empty.
        loss: The sum over the rows of what each row minimises.
        squared_error: The part of it that is not penalty.
    """

    weights: Tensor
    loss: float
    squared_error: float


def ridge_regressions(
    rows: Histories, inputs: Tensor, ridge: Tensor, wanted: Tensor | None = None, start: Start | None = None
) -> Solution:
    """Solve every row's ridge regression, exactly or nearly.

    A row with the columns S finds the w that minimises ``Σ over h in S of (wanted_h - <w, x_h>)² + Σ_f ridge_f w_f²``,
    where x_h is the column's input.

    Exactly: a row at least as long as w takes the Cholesky factor of ``XᵀX + diag(ridge)``, ``[dim, dim]``, a shorter
    one that of ``1 + X diag(ridge)⁻¹ Xᵀ``, ``[length, length]``, which is less work: ``w = diag(ridge)⁻¹ Xᵀ
    (1 + X diag(ridge)⁻¹ Xᵀ)⁻¹ wanted`` (Woodbury's identity). Nearly: some steps of conjugate gradients, which form no
    matrix.

    Rows of like length go together, padded to the longest, chunk after chunk, and each thread works on chunks of its
    own: the result does not depend on how many threads there are, but for rounding where one chunk is all. Memory: a
    few MiB a thread, or the longest row's inputs where they are more, beside the result and a copy of the inputs.

    Args:
        rows: Each row's columns.
        inputs: x of every column, float, ``[columns, dim]``; the type is the precision.
        ridge: Penalty on each weight, above 0, of the inputs' type, ``[rows, dim]``.
        wanted: What each interaction is to be predicted as, of the inputs' type, ``[interactions]``; 1 if not given.
        start: Where conjugate gradients begin; solves exactly if not given.

    Raises:
        RecflowError: If a matrix is not positive definite in this precision.
    """
    equations = _Equations.of(rows, inputs, ridge, wanted, start)
    with torch.autocast(inputs.device.type, enabled=False):  # there is no Cholesky factor in half precision
        found = on_all_cores(equations.solve, list(equations.chunks()), inputs.device)
    losses, squared_errors = (math.fsum(column) for column in zip((0.0, 0.0), *chain.from_iterable(found), strict=True))
    if not math.isfinite(losses):
        precision = str(inputs.dtype).removeprefix("torch.")
        least = float(ridge[rows.indptr.diff() > 0].min())
        raise RecflowError(
            f"A ridge regression cannot be solved in {precision}: its penalty, {least:g} on a weight, is too small "
            "for these data; raise the model's reg."
        )
    return Solution(equations.weights, losses, squared_errors)


_Losses = tuple[float, float]  # of some rows: the loss, and its part that is not penalty


class _Chunk(NamedTuple):
    """Rows that are solved together."""

    rows: Tensor
    longest: int  # the length of the longest


class _Equations(NamedTuple):
    """What all chunks share."""

    indptr: Tensor  # [rows + 1]
    items: Tensor  # [interactions + 1]: columns, and last the padding's
    table: Tensor  # [columns + 1, dim]: inputs, and last zeros, which add nothing to a sum
    ridge: Tensor  # [rows, dim]
    wanted: Tensor | None  # [interactions + 1]: and last 0
    start: Start | None
    weights: Tensor  # [rows, dim]: filled chunk by chunk

    @classmethod
    def of(
        cls, rows: Histories, inputs: Tensor, ridge: Tensor, wanted: Tensor | None, start: Start | None
    ) -> _Equations:
        items, table = F.pad(rows.items, (0, 1), value=len(inputs)), F.pad(inputs, (0, 0, 0, 1))
        padded = None if wanted is None else F.pad(wanted, (0, 1))
        return cls(rows.indptr, items, table, ridge, padded, start, torch.zeros_like(ridge))

    def chunks(self) -> Iterator[_Chunk]:
        """Rows that are not empty, the longest first."""
        counts, row_bytes = self.indptr.diff(), self.table.element_size() * self.table.shape[1]
        order = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())]
        lengths, start = counts[order].tolist(), 0
        while start < len(lengths):
            size = max(1, _CHUNK_BYTES // (row_bytes * lengths[start]))
            end = bisect_right(lengths, -_LIKE * lengths[start], start, min(start + size, len(lengths)), key=neg)
            yield _Chunk(order[start:end], lengths[start])
            start = end

    def solve(self, chunks: Sequence[_Chunk]) -> list[_Losses]:
        """Leave the weights of the chunks' rows in their place; returns what they lose, NaN if unsolved."""
        losses: list[_Losses] = []
        of_inputs, of_matrices = _Memory(self.table), _Memory(self.table)
        for rows, longest in chunks:
            place = self.indptr[rows, None] + torch.arange(longest, device=rows.device)  # [chunk, longest]
            outside = place >= self.indptr[rows + 1, None]
            place.masked_fill_(outside, len(self.items) - 1)
            x = of_inputs.take(*place.shape, self.table.shape[1])  # [chunk, longest, dim]
            torch.index_select(self.table, 0, self.items[place.flatten()], out=x.view(place.numel(), -1))
            wanted = (~outside).to(x) if self.wanted is None else self.wanted[place]  # [chunk, longest]
            if self.start is not None:
                weights, loss = _by_gradients(x, wanted, self.ridge[rows], self.start.weights[rows], self.start.steps)
            elif longest < x.shape[2]:
                weights, loss = _by_rows(x, wanted, self.ridge[rows], of_matrices)
            else:
                weights, loss = _by_columns(x, wanted, self.ridge[rows], of_matrices)
            self.weights[rows] = weights
            losses.append(loss if weights.isfinite().all() else (math.nan, math.nan))
        return losses


class _Memory:
    """Memory that is used again and again: fresh memory costs more than what is written to it."""

    def __init__(self, like: Tensor) -> None:
        self._flat = like.new_empty(0)

    def take(self, *shape: int) -> Tensor:
        """Some of it, contiguous, with whatever it holds."""
        if (size := math.prod(shape)) > len(self._flat):
            self._flat = self._flat.new_empty(size)
        return self._flat[:size].view(shape)


def _by_columns(x: Tensor, wanted: Tensor, ridge: Tensor, memory: _Memory) -> tuple[Tensor, _Losses]:
    """Weights, ``[chunk, dim]``, and what they lose, from matrices ``[dim, dim]``."""
    system = torch.bmm(x.mT, x, out=memory.take(len(x), x.shape[2], x.shape[2]))
    weights = _cholesky_solve(system, ridge, _sums(wanted, x))
    errors = wanted - _products(weights, x)
    squared_error = _dot(errors, errors)
    return weights, (squared_error + _dot(ridge * weights, weights), squared_error)


def _by_rows(x: Tensor, wanted: Tensor, ridge: Tensor, memory: _Memory) -> tuple[Tensor, _Losses]:
    """The same from matrices ``[longest, longest]``; ``x`` is overwritten."""
    root = ridge.rsqrt()
    x *= root[:, None]
    system = torch.bmm(x, x.mT, out=memory.take(len(x), x.shape[1], x.shape[1]))
    errors = _cholesky_solve(system, x.new_ones(()), wanted)  # wanted - X w, too
    return root * _sums(errors, x), (_dot(errors, wanted), _dot(errors, errors))


def _by_gradients(x: Tensor, wanted: Tensor, ridge: Tensor, weights: Tensor, steps: int) -> tuple[Tensor, _Losses]:
    """The same by steps of conjugate gradients, which form no matrix: 4 longest · dim operations a row and step."""
    tiny, transposed, w, penalty = torch.finfo(x.dtype).tiny, x.mT, weights[:, None], ridge[:, None]
    errors = wanted[:, None] - torch.bmm(w, transposed)  # [chunk, 1, longest]
    before = _dot(errors, errors) + _dot(penalty * w, w)
    residual = direction = torch.bmm(errors, x).addcmul_(penalty, w, value=-1)  # [chunk, 1, dim]
    square = torch.bmm(residual, residual.mT)  # [chunk, 1, 1]
    fall = torch.zeros_like(square)
    for left in reversed(range(steps)):
        image = torch.bmm(torch.bmm(direction, transposed), x).addcmul_(penalty, direction)
        length = square / torch.bmm(direction, image.mT).clamp_(min=tiny)
        fall.addcmul_(length, square)
        w = torch.addcmul(w, length, direction)
        if left:
            residual = torch.addcmul(residual, length, image, value=-1)
            last, square = square, torch.bmm(residual, residual.mT)
            direction = torch.addcmul(residual, square / last.clamp_(min=tiny), direction)
    loss = before - float(fall.sum(dtype=torch.float64))
    return w[:, 0], (loss, loss - _dot(penalty * w, w))


def _products(weights: Tensor, x: Tensor) -> Tensor:
    """``X w`` of each row, ``[chunk, longest]``: as wᵀXᵀ, which is ten times as fast."""
    return torch.bmm(weights[:, None], x.mT)[:, 0]


def _sums(values: Tensor, x: Tensor) -> Tensor:
    """``Xᵀ values`` of each row, ``[chunk, dim]``."""
    return torch.bmm(values[:, None], x)[:, 0]


def _cholesky_solve(systems: Tensor, diagonal: Tensor, targets: Tensor) -> Tensor:
    """Solutions, ``[batch, size]``, of symmetric systems with so much added to their diagonals in place.

    NaN throughout where a system is not positive definite.
    """
    systems.diagonal(dim1=1, dim2=2).add_(diagonal)
    factor, info = torch.linalg.cholesky_ex(systems)
    half = torch.linalg.solve_triangular(factor, targets[:, :, None], upper=False)  # faster than cholesky_solve
    solution: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)[:, :, 0]
    return solution.masked_fill_(info[:, None] > 0, math.nan)


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
