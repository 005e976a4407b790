"""What a row's ratings say of its vector, when the other side's vectors are known only up to a covariance."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.histories import Histories

_CHUNK_BYTES = 2**25


class Side(NamedTuple):
    """Posterior of all users' or all items' vectors: factors and, last, the bias.

    Attributes:
        vectors: Means, float32, shape ``[rows, dim + 1]``.
        covariances: float32, shape ``[rows, dim + 1, dim + 1]``.
    """

    vectors: Tensor
    covariances: Tensor

    def inputs(self) -> Tensor:
        """What the other side's vectors are multiplied by: factors and, for their bias, a one; ``[rows, dim + 1]``."""
        return torch.cat([self.vectors[:, :-1], torch.ones_like(self.vectors[:, -1:])], dim=1)


def posterior(
    rows: Histories, users: Tensor, others: Side, mean: Tensor, prior: Tensor, precision: Tensor, noise: Tensor
) -> Side:
    """Solve the rows of some users, given the items; or the other way round.

    With a rating ``r = mean + c + <z, x> + noise`` for each item h of the row, x its factors and a one, c its bias:

        precision of z   A = diag(precision) + Σ_h E[x xᵀ] / noise
        mean of z        A^-1 (precision · prior + Σ_h (E[(r - mean - c) x]) / noise)

    where ``E[x xᵀ] = x xᵀ + cov(x)`` and ``E[c x] = c x + cov(c, x)``. With covariances of zero this is ridge
    regression towards the prior.

    Args:
        rows: Each user's items and ratings.
        users: Which users, int64, shape ``[batch]``.
        others: The items' posterior.
        mean: The ratings' mean, scalar.
        prior: Expected vector before any rating, ``[batch, dim + 1]``.
        precision: Of that expectation, for each coordinate, ``[dim + 1]``.
        noise: Variance of a rating, scalar.

    Returns:
        The users' posterior, ``[batch, dim + 1]`` and ``[batch, dim + 1, dim + 1]``.
    """
    size = prior.shape[1]
    x, second = others.inputs(), second_moments(others).flatten(1)
    left = rows.ratings - mean - others.vectors[rows.items, -1]
    together = others.covariances[:, :, -1].clone()  # cov(c, x); x's last coordinate, the one, varies with nothing
    together[:, -1] = 0
    vectors, covariances = [], []
    for part, expected in _chunks(users, prior, 4 * size * size):
        _, place = rows.places(part)
        lengths = rows.lengths(part)
        starts = lengths.cumsum(0) - lengths
        gram = rows.sums(part, second).view(-1, size, size)
        weighted = F.embedding_bag(rows.items[place], x, starts, mode="sum", per_sample_weights=left[place])
        factor = torch.linalg.cholesky(gram / noise + torch.diag(precision))
        target = (weighted - rows.sums(part, together)) / noise + precision * expected
        vectors.append(torch.cholesky_solve(target[:, :, None], factor)[:, :, 0])
        covariances.append(torch.cholesky_inverse(factor))
    return Side(torch.cat(vectors), torch.cat(covariances))


def second_moments(side: Side) -> Tensor:
    """``E[x xᵀ]``, ``[rows, dim + 1, dim + 1]``."""
    x = side.inputs()
    moments = x[:, :, None] * x[:, None, :]
    moments[:, :-1, :-1] += side.covariances[:, :-1, :-1]
    return moments


def expected_squares(rows: Histories, users: Side, items: Side, mean: Tensor) -> Tensor:
    """``Σ E[(r - r̂)²]`` over all ratings, the uncertainty of both sides included: a scalar, in double precision."""
    size = users.vectors.shape[1]
    everyone = torch.arange(rows.num_users, device=rows.items.device)
    moments, spread = second_moments(items).flatten(1), items.covariances.flatten(1)
    x, total = items.inputs(), mean.new_zeros((), dtype=torch.float64)
    inputs = users.inputs()
    for part, own in _chunks(everyone, inputs, 8 * size * size):
        position, place = rows.places(part)
        item = rows.items[place]
        predicted = mean + items.vectors[item, -1] + (users.vectors[part][position] * x[item]).sum(1)
        total += (rows.ratings[place] - predicted).double().square().sum()
        total += (rows.sums(part, moments).view(-1, size, size) * users.covariances[part]).double().sum()
        summed = rows.sums(part, spread).view(-1, size, size)
        total += ((summed @ own[:, :, None])[:, :, 0] * own).double().sum()
    return total


def _chunks(users: Tensor, columns: Tensor, row_bytes: int) -> list[tuple[Tensor, Tensor]]:
    size = max(1, _CHUNK_BYTES // row_bytes)
    return list(zip(torch.split(users, size), torch.split(columns, size), strict=True))
