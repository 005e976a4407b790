"""One half of an ALS sweep of biased matrix factorisation: a ridge regression for every row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.ridge import ridge_regressions


class HalfSweep(NamedTuple):
    """What half a sweep finds.

    Attributes:
        factors: ``[num_rows, dim]``; zeros where a row has no rating.
        bias: ``[num_rows]``; zeros as well.
        squared_error: Of all ratings together, by these factors and biases.
    """

    factors: Tensor
    bias: Tensor
    squared_error: float


def half_sweep(
    rows: Histories,
    factors: Tensor,
    bias: Tensor,
    mean: Tensor,
    reg: float,
    reg_bias: float,
    reg_exponent: float,
) -> HalfSweep:
    """Solve each row's factors and bias together.

    For a row with n ratings, finds the (p, b) that minimise
    ``Σ_h (rating - mean - bias_h - b - <p, factors_h>)² + n^reg_exponent (reg |p|² + reg_bias b²)``.

    Args:
        rows: Each row's columns and ratings.
        factors: The other side's factors, float32, ``[num_columns, dim]``.
        bias: The other side's biases, float32, ``[num_columns]``.
        mean: Scalar.
        reg: Penalty on factors.
        reg_bias: Penalty on the bias.
        reg_exponent: Growth of both with n.

    Raises:
        RecflowError: If the penalties are too small for single precision.
    """
    dim = factors.shape[1]
    inputs = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)  # [columns, dim + 1], the bias's input is 1
    penalty = factors.new_full((dim + 1,), reg)
    penalty[dim] = reg_bias
    ridge = rows.indptr.diff()[:, None].to(factors) ** reg_exponent * penalty  # [rows, dim + 1]
    found = ridge_regressions(rows, inputs, ridge, rows.ratings - mean - bias[rows.items])
    return HalfSweep(found.weights[:, :dim].contiguous(), found.weights[:, dim].contiguous(), found.squared_error)
