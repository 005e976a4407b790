"""The index: a small copy of all items' vectors, read through in a fraction of the time that scoring takes.

Each number of a vector becomes 4 bits, which ``faiss`` (the extra ``index``) sums 32 items at a time by table look-ups.
All items are read, as in scoring: so nothing depends on where queries lie, as it does for graphs and clusters, building
takes seconds, and the copy an eighth of the vectors' memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.errors import RecflowError

_SAMPLE = 65_536  # vectors that the 16 values of each number are learnt from
_CHUNK = 65_536  # vectors encoded at a time


class Index:
    """Finds the items whose vectors have the greatest inner products with a query, nearly.

    The vectors are turned first, by one random rotation, which leaves inner products as they are and shares the
    variance out among the numbers. Long vectors, which are at the top of most lists, count for more where the 16
    values are learnt. The same vectors give the same index.

    Args:
        points: Vectors, float32, shape ``[num_items, dim]``.

    Raises:
        RecflowError: If faiss is not installed.
    """

    def __init__(self, points: Tensor) -> None:
        try:
            import faiss
        except ImportError:
            raise RecflowError("An index needs its package: pip install 'recflow[index]'.") from None
        faiss.omp_set_num_threads(1)  # of this thread; two waited for each other, and took five times as long
        self.num_items, dim = points.shape
        generator = torch.Generator().manual_seed(0)
        self._rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
        self._codes = faiss.IndexPQFastScan(dim, dim, 4, faiss.METRIC_INNER_PRODUCT)
        weight = points.square().sum(1).double().cumsum(0)
        drawn = torch.rand(_SAMPLE, dtype=torch.float64, generator=generator) * weight[-1]
        sample = torch.searchsorted(weight, drawn).clamp_(max=self.num_items - 1)
        self._codes.train((points[sample] @ self._rotation).numpy())
        for some in torch.split(points, _CHUNK):
            self._codes.add((some @ self._rotation).numpy())

    def nearest(self, query: Tensor, n: int) -> Tensor:
        """Nearly the n items of the greatest inner products, in ascending order of index; safe in several threads.

        Args:
            query: Float32, shape ``[dim]``.
            n: How many.

        Returns:
            Indices, int64, shape ``[n]``, or fewer where there are not so many.
        """
        _, found = self._codes.search((query @ self._rotation)[None].numpy(), min(n, self.num_items))
        items = torch.from_numpy(found[0])
        return items[items >= 0].sort().values
