"""Beyond accuracy: how widely the recommendations spread over the catalogue, whoever they are for."""

import torch
from torch import Tensor

from recflow.metrics.ranking import wide_float


def coverage(exposure: Tensor) -> Tensor:
    """Share of the catalogue's items that were recommended at least once.

    Args:
        exposure: How often each item was recommended, int64, not negative, shape ``[..., num_items]``.

    Returns:
        Values in [0, 1], float64, shape ``[...]``.

    Example:
        >>> coverage(torch.tensor([3, 0, 1, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return (exposure > 0).sum(dim=-1).to(wide_float(exposure.device)) / exposure.shape[-1]


def gini(exposure: Tensor) -> Tensor:
    """Gini index of exposure: 0 if every item was recommended equally often, 1 if a single one always was.

    With exposures x in ascending order, x_1 ≤ … ≤ x_n over all n items of the catalogue, those that were never
    recommended included, gini = Σ_i (2 i - n - 1) x_i / ((n - 1) Σ_i x_i). The denominator has n - 1, so that 1 is
    reached; the index of economics, with n, ends at 1 - 1/n. Equal to Σ_i Σ_j |x_i - x_j| / (2 (n - 1) Σ_i x_i).
    Lists of k different items reach 1 - (k - 1)/(n - 1) at most. Some programs report 1 - gini under this name.

    Shani & Gunawardana, Evaluating Recommendation Systems, 2011, https://doi.org/10.1007/978-0-387-85820-3_8

    Args:
        exposure: How often each item was recommended, int64, not negative, shape ``[..., num_items]``.

    Returns:
        Values in [0, 1], float64, shape ``[...]``; nan if nothing was recommended or the catalogue has one item.

    Example:
        >>> gini(torch.tensor([[2, 2, 2], [6, 0, 0], [4, 2, 0]]))
        tensor([0.0000, 1.0000, 0.6667], dtype=torch.float64)
    """
    ascending = exposure.sort(dim=-1).values
    num_items = ascending.shape[-1]
    weight = 2 * torch.arange(1, num_items + 1, device=exposure.device) - num_items - 1
    wide = wide_float(exposure.device)  # whole numbers until the one division: no order of adding changes a bit
    return (weight * ascending).sum(dim=-1).to(wide) / ((num_items - 1) * ascending.sum(dim=-1)).to(wide)
