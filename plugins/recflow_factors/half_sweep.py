"""One half of a sweep of implicit ALS: every row's vector, given the vectors of all columns.

A row that holds the columns S wants 1 there and, with weight alpha, 0 at every column. Its vector solves

    (Σ over S of q qᵀ + alpha G + λ I) w = Σ over S of q,    G = Σ over all columns of q qᵀ,
    λ = reg (|S| + alpha · columns)^reg_exponent.

In the basis of G's eigenvectors alpha G + λ I is diagonal: there each row is a ridge regression, with a penalty of its
own on each weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.ridge import Solution, Start, ridge_regressions


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


class Everywhere(NamedTuple):
    """What pulls every row to 0: all columns, by their Gramian G.

    Attributes:
        squares: G's eigenvalues, float64, ``[dim]``.
        basis: G's eigenvectors, float64, ``[dim, dim]``, one a column.
        num_columns: How many columns there are.
    """

    squares: Tensor
    basis: Tensor
    num_columns: int

    @classmethod
    def of(cls, factors: Tensor) -> Everywhere:
        """Of all columns' vectors, ``[columns, dim]``."""
        squares, basis = torch.linalg.eigh((factors.T @ factors).double())
        # Below this the eigenvalues are G's rounding, while the vectors' own rounding is not 0 there.
        least = float(squares[-1]) * len(squares) * torch.finfo(factors.dtype).eps
        return cls(squares.clamp_(min=least), basis, len(factors))


def half_sweep(
    rows: Histories, factors: Tensor, everywhere: Everywhere, weights: Weights, start: Start | None = None
) -> Solution:
    """Solve every row, exactly or, from the last sweep's vectors, by some steps of conjugate gradients.

    Args:
        rows: Each row's columns.
        factors: The vectors of the columns that stand in rows, float, ``[columns, dim]``; their type is the precision.
        everywhere: All columns, those that stand in no row among them.
        weights: See :class:`Weights`.
        start: The vectors to improve; see :func:`~recflow.ranking.ridge.ridge_regressions`, which also says what an
            exact solution takes.

    Returns:
        Vectors, ``[rows, dim]``, as weights, and the loss, summed over the rows: Σ over S of (ŷ - 1)² + alpha Σ over
        all columns of ŷ² + λ |w|².

    Raises:
        RecflowError: If a matrix is not positive definite in this precision.
    """
    own = weights.ridge(rows.indptr.diff(), everywhere.num_columns)[:, None]
    ridge = (own + weights.alpha * everywhere.squares).to(factors)  # [rows, dim]
    basis = everywhere.basis.to(factors)
    turned_start = None if start is None else Start(start.weights @ basis, start.steps)
    found = ridge_regressions(rows, factors @ basis, ridge, start=turned_start)
    return found._replace(weights=found.weights @ basis.T)
