"""Rows of whole numbers that every process notes while it measures, gathered and put in one order at the end."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class KeptRows(Metric):
    """Keeps int32 rows that begin with a user; whoever noted them and when, they come back in the users' order.

    What is computed from the rows afterwards, in one place, cannot depend on chunks or processes.

    Args:
        width: Numbers in a row.
        **kwargs: Handed to ``torchmetrics.Metric`` (how to synchronise processes).

    Example:
        >>> kept = KeptRows(2)
        >>> kept.update(torch.tensor([[5, 1], [2, 8]]))
        >>> kept.update(torch.tensor([[3, 4]]))
        >>> kept.compute()
        tensor([[2, 8],
                [3, 4],
                [5, 1]], dtype=torch.int32)
    """

    full_state_update = False

    rows: list[Tensor] | Tensor

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, rows: Tensor) -> None:
        """Note some rows.

        Args:
            rows: Whole numbers below 2^31, shape ``[rows, width]``, the user in the first column; all rows of a user
                come in one call.

        Raises:
            ValueError: If the shape is another.
        """
        if rows.dim() != 2 or rows.shape[1] != self.width:
            raise ValueError(f"rows must have shape [rows, {self.width}], got {list(rows.shape)}")
        self.rows = [*self.rows, rows.to(torch.int32)]

    def compute(self) -> Tensor:
        """All rows, by user, those of one user as they came, int32, ``[rows, width]``; each process must call this."""
        rows = dim_zero_cat(self.rows) if len(self.rows) else self._none()
        return rows[rows[:, 0].sort(stable=True).indices]

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all processes, also where one of them has noted none."""
        if len(self.rows) == 0:
            self.rows = [self._none()]  # torchmetrics would send a float vector, which fits no other process's
        super().sync(*args, **kwargs)

    def _none(self) -> Tensor:
        return torch.empty(0, self.width, dtype=torch.int32, device=self.device)
