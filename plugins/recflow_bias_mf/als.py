"""One half of an ALS sweep: a ridge regression for every row, many at a time."""

from __future__ import annotations

from bisect import bisect_right
from operator import neg

import torch
from torch import Tensor

from recflow.ranking.histories import Histories

_CHUNK_BYTES = 2**23  # what a processor's cache holds
_LIKE = 0.8  # of the longest


def ridge_rows(
    rows: Histories,
    factors: Tensor,
    bias: Tensor,
    mean: Tensor,
    reg: float,
    reg_bias: float,
    reg_exponent: float,
) -> tuple[Tensor, Tensor]:
    """Solve each row's ridge regression.

    For a row with n ratings, finds the (p, b) that minimise
    ``Σ_h (rating - mean - bias_h - b - <p, factors_h>)² + n^reg_exponent (reg |p|² + reg_bias b²)``.

    Rows of like length are solved together, padded to the longest, which is at most a quarter longer than the shortest:
    the work is batched matrix products and Cholesky factorisations, and does not depend on the number of threads.

    Args:
        rows: Each row's columns and ratings.
        factors: The other side's factors, float32, ``[num_columns, dim]``.
        bias: The other side's biases, float32, ``[num_columns]``.
        mean: Scalar.
        reg: Penalty on factors.
        reg_bias: Penalty on the bias.
        reg_exponent: Growth of both with n.

    Returns:
        Factors ``[num_rows, dim]`` and biases ``[num_rows]``; zeros where a row has no rating.
    """
    dim = factors.shape[1]
    counts = rows.indptr.diff()
    order = torch.argsort(counts, descending=True, stable=True)
    order = order[counts[order] > 0]
    solution = factors.new_zeros(rows.num_users, dim + 1)
    inputs = torch.cat([factors, torch.ones_like(factors[:, :1])], dim=1)  # [columns, dim + 1], the bias's input is 1
    target = rows.ratings - mean - bias[rows.items]
    ridge = factors.new_full((dim + 1,), reg)
    ridge[dim] = reg_bias
    lengths, start = counts[order].tolist(), 0
    while start < len(order):
        longest = lengths[start]
        size = max(1, _CHUNK_BYTES // (4 * (dim + 1) * max(longest, dim + 1)))
        like = bisect_right(lengths, -_LIKE * longest, lo=start, key=neg)  # lengths fall
        chunk = order[start : min(start + size, like)]
        start += len(chunk)
        position, place = rows.places(chunk)
        slot = torch.arange(len(place), device=place.device) - (counts[chunk].cumsum(0) - counts[chunk])[position]
        padded = inputs.new_zeros(len(chunk), longest, dim + 1)
        padded[position, slot] = inputs[rows.items[place]]
        stars = inputs.new_zeros(len(chunk), longest, 1)
        stars[position, slot, 0] = target[place]
        gram = padded.mT @ padded  # [chunk, dim + 1, dim + 1]
        gram += torch.diag_embed(counts[chunk, None].to(ridge) ** reg_exponent * ridge)
        factor = torch.linalg.cholesky(gram)
        solution[chunk] = torch.cholesky_solve(padded.mT @ stars, factor)[:, :, 0]
    return solution[:, :dim].contiguous(), solution[:, dim].contiguous()
