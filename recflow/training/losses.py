"""Loss functions that several models share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
