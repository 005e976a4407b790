"""Fold-in for models that have none of their own: users' vectors, regressed on their histories.

What a model has learnt of its users shows what a history stands for. The vectors of the training users are regressed on
their items, once for all; someone new gets what the regression says of theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.data.graph import BipartiteGraph
from recflow.training.propagation import sparse_matmul

_STEPS = 30


@torch.no_grad()
def history_vectors(graph: BipartiteGraph, vectors: Tensor, reg: float) -> Tensor:
    """One vector per item, such that ``Σ_h f_h / sqrt(n)`` over a history's n items is near its user's vector.

    They minimise ``Σ_u |p_u - Σ_h f_h / sqrt(n_u)|² + reg Σ_i d_i |f_i|²``, d counting an item's users: a ridge
    regression, whose matrix is ``ÂᵀÂ + reg`` in the items' half of the normalised graph. Solved by conjugate gradients;
    its eigenvalues lie between reg and 1 + reg, so a fixed number of steps serves graphs of any size.

    Args:
        graph: The training interactions.
        vectors: The users' vectors p, float, shape ``[num_users, dim]``; those without an interaction have no part.
        reg: Penalty, above 0.

    Returns:
        f, float, shape ``[num_items, dim]``; zeros for items without an interaction.
    """
    root = graph.item_user.indptr.diff().to(vectors.dtype).clamp(min=1).sqrt()[:, None]

    def system(x: Tensor) -> Tensor:
        return sparse_matmul(graph.item_user, sparse_matmul(graph.user_item, x)).add_(x, alpha=reg)

    residual = sparse_matmul(graph.item_user, vectors)
    solution, direction = torch.zeros_like(residual), residual.clone()
    squares = residual.square().sum(0)  # [dim]: each column is a system of its own
    least = squares * torch.finfo(vectors.dtype).eps ** 2
    for _ in range(_STEPS):
        product = system(direction)
        step = squares / (direction * product).sum(0).clamp(min=torch.finfo(vectors.dtype).tiny)
        step = step.where(squares > least, 0)
        solution += step * direction
        residual -= step * product
        before, squares = squares, residual.square().sum(0)
        direction = residual + direction * (squares / before.clamp(min=torch.finfo(vectors.dtype).tiny))
    return solution / root
