"""Dropout as cheap as it can be had on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_LEVELS = 2**16


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """Set a random share of the entries to 0 in training, and make up for it, as ``F.dropout`` does.

    Args:
        x: Float, of any shape.
        share: From 0 to below 1; see :func:`kept`.
        training: Whether anything is left out at all.

    Returns:
        A tensor of x's shape, or x itself where nothing is left out.
    """
    factors = kept(x.shape, share, x) if training else None
    return x if factors is None else x * factors


def kept(shape: Sequence[int], share: float, like: Tensor) -> Tensor | None:
    """What dropout multiplies each entry by: 0, or what makes up for those that are left out.

    Four entries share one random number of 64 bits: PyTorch's ``bernoulli_`` draws one for each, which on a CPU takes
    longer than the layers around it. The share is rounded to a 65,536th, and the scale is that of what is kept.

    Args:
        shape: How many factors.
        share: From 0 to below 1.
        like: A float tensor whose type and device they take.

    Returns:
        The factors; None where nothing is left out.
    """
    dropped = min(round(share * _LEVELS), _LEVELS - 1)
    if dropped == 0:
        return None
    keep = _random_words(math.prod(shape), like.device).view(*shape) >= dropped - _LEVELS // 2
    return keep.to(like.dtype).mul_(_LEVELS / (_LEVELS - dropped))


def _random_words(count: int, device: torch.device) -> Tensor:
    """Independent int16, each value as likely as any; PyTorch's own random state fixes them."""
    numbers = -(-count // 4)
    if device.type == "cpu":  # SFC64 takes half the time of PyTorch's Mersenne twister
        seed = int(torch.randint(2**63 - 1, ()))
        return torch.from_numpy(np.random.SFC64(seed).random_raw(numbers).view(np.int16)[:count])
    bits = torch.empty(numbers, dtype=torch.int64, device=device).random_(-(2**63), None)
    return bits.view(torch.int16)[:count]
