"""Where a side's vectors are expected before their ratings are read: ridge regression on what is known of each."""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.histories import Histories

_CHUNK_BYTES = 2**26


class Design:
    """Inputs of one side: a dense table and, optionally, which columns a row has ratings in.

    The latter are the implicit feedback of SVD++: input j is ``1 / sqrt(n)`` for each of the n columns that were rated,
    whatever the stars. Inputs never change, so their normal equations are factorised once.

    Args:
        table: Features, centred, and a column of ones, float32, ``[rows, features]``.
        rows: Each row's ratings.
        columns: The same ratings, by column.
        implicit: Whether the rated columns are inputs.
        reg: Ridge penalty on the weights of the table.
        reg_implicit: Ridge penalty on the weights of rated columns.
    """

    def __init__(
        self, table: Tensor, rows: Histories, columns: Histories, implicit: bool, reg: float, reg_implicit: float
    ) -> None:
        self.table, self.rows, self.columns, self.implicit = table, rows, columns, implicit
        width = table.shape[1] + (columns.num_users if implicit else 0)
        gram = table.new_zeros(width, width)
        for part in torch.split(everyone(rows), max(1, _CHUNK_BYTES // (4 * width))):
            inputs = table.new_zeros(len(part), width)
            inputs[:, : table.shape[1]] = table[part]
            if implicit:
                position, item = rows.rows(part)
                inputs[position, table.shape[1] + item] = self._share()[part][position]
            gram += inputs.T @ inputs
        gram.diagonal()[: table.shape[1]] += reg
        gram.diagonal()[table.shape[1] :] += reg_implicit
        self.factor = torch.linalg.cholesky(gram)

    def regress(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Weights that give the vectors best, ``[features, size]`` and ``[columns, size]`` (or no row)."""
        target = self.table.T @ vectors
        if self.implicit:
            shared = vectors * self._share()[:, None]
            target = torch.cat([target, self.columns.sums(everyone(self.columns), shared)])
        weights = torch.cholesky_solve(target, self.factor)
        return weights[: self.table.shape[1]], weights[self.table.shape[1] :]

    def expected(self, weights: Tensor, implicit_weights: Tensor) -> Tensor:
        """What the weights make of the inputs, ``[rows, size]``."""
        expected = self.table @ weights
        if self.implicit:
            expected += self.rows.sums(everyone(self.rows), implicit_weights) * self._share()[:, None]
        return expected

    def _share(self) -> Tensor:
        return self.rows.indptr.diff().clamp(min=1).to(self.table).rsqrt()


def everyone(rows: Histories) -> Tensor:
    """Indices of all rows."""
    return torch.arange(rows.num_users, device=rows.items.device)
