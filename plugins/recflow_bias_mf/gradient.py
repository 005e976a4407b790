"""Biased matrix factorisation by stochastic gradient descent: what recommender libraries call SVD.

Model      r(u, i) = mean + b_u + b_i + <p_u, q_i>; unbiased: <p_u, q_i>
Loss       ½ Σ [(r - r̂)² + reg (|p_u|² + |q_i|² + b_u² + b_i²)], the sum over ratings: who has more is shrunk more
Source     Funk, https://sifter.org/~simon/journal/20061211.html; defaults as in Surprise's SVD, Hug, JOSS 2020,
           https://doi.org/10.21105/joss.02174
Differs    Surprise steps after every rating; here a batch's gradients are added up and taken in one step, which is the
           same to first order in lr. A batch may therefore hold so many ratings of one user or item that lr times
           their number stays below about 1; beyond that training diverges, and a smaller data.batch_size mends it.
           bias-mf has the same model in closed form.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from recflow.data.dataset import Dataset
from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import RatingModule
from recflow_bias_mf.dealt import DealtBatch, DealtBatches

_CHUNK = 1024


class SVD(RatingModule):
    """Funk's matrix factorisation by plain SGD, with Surprise's defaults and steps of its size.

    A user unseen in training gets bias 0 and factors 0, as does an item.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        biased: Whether there are a mean and biases.
        reg: Ridge penalty for each rating on what it touches, at least 0.
        lr: Step for each rating, above 0.
        init_std: Standard deviation of the first factors, above 0; biases start at 0.
    """

    default_max_epochs = 20

    mean: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 100,
        biased: bool = True,
        reg: float = 0.02,
        lr: float = 0.005,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if reg < 0 or min(lr, init_std) <= 0:
            raise ValueError(
                f"reg must be at least 0, lr and init_std above 0, got reg={reg}, lr={lr} and init_std={init_std}"
            )
        self.save_hyperparameters()
        self.user_factors = Parameter(torch.randn(num_users, embedding_dim) * init_std)
        self.item_factors = Parameter(torch.randn(num_items, embedding_dim) * init_std)
        self.user_bias = Parameter(torch.zeros(num_users)) if biased else None
        self.item_bias = Parameter(torch.zeros(num_items)) if biased else None
        self.register_buffer("mean", torch.zeros(()))

    def batches(self, data: Dataset) -> DealtBatches:
        """The training ratings, dealt into batches."""
        if self.hparams["biased"]:
            self.mean = data.train.ratings.double().mean().float()
        return DealtBatches(data.train, data.num_users, data.num_items, data.batch_size, self.seed)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    def training_step(self, batch: DealtBatch, batch_idx: int) -> Tensor:
        """One batch's loss, summed: steps stay those of single ratings, whatever the batch's size."""
        mean = super().training_step(batch, batch_idx)
        assert mean is not None
        return mean * len(batch.users)

    def loss(self, batch: Any) -> Tensor:
        """The loss for each rating, ``½ [(r - r̂)² + reg (…)]``, averaged over the batch."""
        if isinstance(batch, DealtBatch):
            dot, penalty = _PairDots.apply(self.user_factors, self.item_factors, batch)  # type: ignore[no-untyped-call]
        else:
            users, items = self.user_factors[batch.users], self.item_factors[batch.items]
            dot, penalty = (users * items).sum(1), users.square().sum() + items.square().sum()
        predicted = self.mean + dot
        if self.user_bias is not None and self.item_bias is not None:
            user_bias = self.user_bias.index_select(0, batch.users)
            item_bias = self.item_bias.index_select(0, batch.items)
            predicted = predicted + user_bias + item_bias
            penalty = penalty + user_bias.square().sum() + item_bias.square().sum()
        squares = (batch.ratings - predicted).square().sum()
        loss: Tensor = (squares + self.hparams["reg"] * penalty) / (2 * len(batch.users))
        return loss

    @torch.no_grad()
    def ranker(self) -> FactorRanker:
        """Factors and biases; a history is folded in by the exact solution of the same loss."""
        train, reg = self.data.train, self.hparams["reg"]
        known_users = torch.bincount(train.users, minlength=self.data.num_users) > 0
        known_items = torch.bincount(train.items, minlength=self.data.num_items) > 0
        return FactorRanker(
            self.user_factors * known_users[:, None],
            self.item_factors * known_items[:, None],
            None if self.user_bias is None else self.user_bias * known_users,
            None if self.item_bias is None else self.item_bias * known_items,
            mean=float(self.mean),
            reg=reg,
            reg_bias=reg if self.hparams["biased"] else None,
            reg_exponent=1.0,
            rating_scale=self.data.rating_scale,
        )


class _PairDots(torch.autograd.Function):
    """``<p_u, q_i>`` of each pair of a batch, and ``Σ |p_u|² + |q_i|²`` over its pairs.

    Where a batch touches few rows of a table the gradient is sparse, so that a step costs what the batch does, not what
    the table does.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, batch: DealtBatch) -> tuple[Tensor, Tensor]:
        ctx.batch = batch
        ctx.save_for_backward(users, items)
        dots = users.new_empty(len(batch.users))
        # A chunk at a time and in the same memory: what is gathered stays in the cache, and no page is asked for twice.
        left, right = (table.new_empty(min(_CHUNK, len(dots)), table.shape[1]) for table in (users, items))
        for start in range(0, len(dots), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(dots)))
            p, q = left[: part.stop - start], right[: part.stop - start]
            torch.index_select(users, 0, batch.users[part], out=p)
            torch.index_select(items, 0, batch.items[part], out=q)
            torch.sum(p.mul_(q), 1, out=dots[part])
        penalty = users.new_zeros(())
        for table, rows, starts in _sides(users, items, batch):
            norms = torch.linalg.vector_norm(_touched(table, rows), dim=1)
            penalty += _lengths(starts, len(batch.users)).to(table) @ norms.square_()
        return dots, penalty

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (users, items), batch = ctx.saved_tensors, ctx.batch
        of_dots, of_penalty = gradients
        neighbours = (items, batch.items, of_dots), (users, batch.users[batch.by_item], of_dots[batch.by_item])
        results = []
        for (table, rows, starts), (others, who, weights) in zip(_sides(users, items, batch), neighbours, strict=True):
            values = F.embedding_bag(who, others, starts, mode="sum", per_sample_weights=weights)
            counts = _lengths(starts, len(batch.users)).to(table)
            values.addcmul_(_touched(table, rows), (2 * of_penalty * counts)[:, None])
            if len(rows) < len(table):
                values = torch.sparse_coo_tensor(
                    rows[None], values, table.shape, is_coalesced=True, check_invariants=False
                )
            results.append(values)
        return results[0], results[1], None


def _sides(users: Tensor, items: Tensor, batch: DealtBatch) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    return (users, batch.run_users, batch.user_starts), (items, batch.run_items, batch.item_starts)


def _touched(table: Tensor, rows: Tensor) -> Tensor:
    """A table's rows; where they are all of them, the table and no copy."""
    return table if len(rows) == len(table) else table.index_select(0, rows)


def _lengths(starts: Tensor, end: int) -> Tensor:
    return torch.diff(starts, append=starts.new_tensor([end]))
