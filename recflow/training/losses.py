"""Loss functions that several models share."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SampledLoss = Literal["bce", "bpr"]


def bpr_loss(pos_score: Tensor, neg_score: Tensor) -> Tensor:
    """Bayesian personalised ranking loss, -log sigmoid(pos - neg), averaged over the batch.

    Rendle et al., UAI 2009, https://arxiv.org/abs/1205.2618

    Args:
        pos_score: Scores of interacted items, float, shape ``[batch]``.
        neg_score: Scores of sampled items of the same users, float, shape ``[batch]``.

    Returns:
        Scalar, in nats; log 2 when the model cannot tell the two apart.

    Raises:
        ValueError: If the two shapes differ.

    Example:
        >>> import torch
        >>> bpr_loss(torch.zeros(3), torch.zeros(3))
        tensor(0.6931)
    """
    if pos_score.shape != neg_score.shape:
        raise ValueError(f"scores must be of one shape, got {tuple(pos_score.shape)} and {tuple(neg_score.shape)}")
    return F.softplus(neg_score - pos_score).mean()


def sampled_loss(scores: Tensor, kind: SampledLoss) -> Tensor:
    """The loss of interactions, each beside the items drawn as its negatives.

    - ``"bce"``: binary cross-entropy, ``-log sigmoid(s)`` of interactions and ``-log sigmoid(-s)`` of negatives, the
      mean over all pairs: He et al., WWW 2017, https://arxiv.org/abs/1708.05031
    - ``"bpr"``: :func:`bpr_loss` between an interaction and each of its negatives, the mean over them.

    Args:
        scores: Raw scores, float, shape ``[interactions, 1 + negatives]``, the interaction's own first.
        kind: Which loss.

    Returns:
        Scalar, in nats; log 2 when all scores are 0.

    Example:
        >>> sampled_loss(torch.zeros(2, 5), "bce")
        tensor(0.6931)
    """
    pos, neg = scores[:, :1], scores[:, 1:]
    if kind == "bpr":
        return F.softplus(neg - pos).mean()
    return (F.softplus(-pos).sum() + F.softplus(neg).sum()) / scores.numel()


def squared_norms(table: Tensor, rows: Tensor) -> Tensor:
    """Sum of the squared norms of some rows of a table, by counts: a row named twice counts twice, none is gathered.

    Args:
        table: Float, shape ``[nodes, dim]``.
        rows: Indices, int64, of any shape.

    Returns:
        Scalar.
    """
    return torch.bincount(rows.flatten(), minlength=len(table)).to(table.dtype) @ table.square().sum(1)
