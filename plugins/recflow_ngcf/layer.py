"""One layer of NGCF and the length of its rows, with gradients by hand: autograd's own makes twice as many passes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear

from recflow.training.dropout import kept

_SLOPE = 0.2
_EPS = 1e-12  # as F.normalize has it


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, own: Tensor, message: Tensor, sums: Tensor, products: Tensor, bias: Tensor, factors: Tensor | None
    ) -> Tensor:
        total, product = own + message, own * message
        out = torch.addmm(bias, total, sums.T).addmm_(product, products.T)
        F.leaky_relu_(out, _SLOPE)
        if factors is not None:
            out.mul_(factors)
        ctx.save_for_backward(own, message, sums, products, total, product, out, factors)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        own, message, sums, products, total, product, out, factors = ctx.saved_tensors
        gradient = gradients[0] if factors is None else gradients[0] * factors
        gradient = torch.ops.aten.leaky_relu_backward(gradient, out, _SLOPE, True)  # the result has its input's signs
        to_total, to_product = gradient @ sums, gradient @ products
        to_own = torch.addcmul(to_total, to_product, message)
        to_message = to_total.addcmul_(to_product, own)
        return to_own, to_message, gradient.T @ total, gradient.T @ product, gradient.sum(0), None


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min_(_EPS)
        unit: Tensor = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, length = ctx.saved_tensors
        gradient: Tensor = gradients[0]
        along = (gradient * unit).sum(1, keepdim=True).neg_()
        return torch.addcmul(gradient, unit, along).div_(length)


def layer(own: Tensor, message: Tensor, sums: Linear, products: Linear, dropped: float) -> Tensor:
    """``dropout(LeakyReLU(W₁ (e + m) + b₁ + W₂ (e ⊙ m) + b₂))``.

    Args:
        own: e, what the nodes have, float, shape ``[nodes, before]``.
        message: m, what their neighbours send, of the same shape.
        sums: W₁ and b₁, from ``before`` to ``after``.
        products: W₂ and b₂, likewise.
        dropped: Share of the entries that are left out.

    Returns:
        Float, shape ``[nodes, after]``.
    """
    factors = kept((len(own), sums.out_features), dropped, own)
    return _Layer.apply(own, message, sums.weight, products.weight, sums.bias + products.bias, factors)  # type: ignore[no-untyped-call, no-any-return]


def unit_rows(x: Tensor) -> Tensor:
    """Each row divided by its length, as ``F.normalize`` does; shape ``[rows, dim]``."""
    return _UnitRows.apply(x)  # type: ignore[no-untyped-call, no-any-return]
