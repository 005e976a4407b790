"""Biased matrix factorisation by alternating least squares.

Model      r(u, i) = mean + b_u + b_i + <p_u, q_i>
Loss       Σ (r - r̂)² + Σ_u n_u^reg_exponent (reg |p_u|² + reg_bias b_u²) + the same over items; n counts ratings
Solution   users fixed, each item's (q_i, b_i) is one ridge regression, and the other way round; one sweep does both
Source     Koren, Bell & Volinsky, IEEE Computer 2009, https://doi.org/10.1109/MC.2009.263; the penalty's growth by
           counts: Zhou et al., AAIM 2008 (exponent 1); between: Rendle et al., RecSys 2022, https://arxiv.org/abs/2110.14037
Differs    a bias is solved together with its factors, not before them
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import ClosedFormModule
from recflow_bias_mf.als import ridge_rows


class BiasMF(ClosedFormModule):
    """Biased matrix factorisation, solved by ALS: deterministic, on all cores, no learning rate.

    A user unseen in training gets bias 0 and factors 0, as does an item: the prediction falls back on what is known.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        reg: Ridge penalty on factors, above 0.
        reg_bias: Ridge penalty on biases, above 0.
        reg_exponent: How penalties grow with the number of ratings: 0 not at all, 1 in proportion.
        init_std: Standard deviation of the users' first factors.
    """

    task = "rating"
    monitor = "val/rmse"
    default_max_epochs = 30

    user_factors: Tensor
    item_factors: Tensor
    user_bias: Tensor
    item_bias: Tensor
    mean: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        reg: float = 4.0,
        reg_bias: float = 4.0,
        reg_exponent: float = 0.3,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if reg <= 0 or reg_bias <= 0:
            raise ValueError(f"reg and reg_bias must be above 0, got {reg} and {reg_bias}")
        self.save_hyperparameters()
        self.register_buffer("user_factors", torch.randn(num_users, embedding_dim) * init_std)
        self.register_buffer("item_factors", torch.zeros(num_items, embedding_dim))
        self.register_buffer("user_bias", torch.zeros(num_users))
        self.register_buffer("item_bias", torch.zeros(num_items))
        self.register_buffer("mean", torch.zeros(()))

    def sweep(self) -> float:
        """Solve all items, then all users; returns the mean squared error on the training ratings."""
        train = self.data.train
        self.mean = train.ratings.mean()
        self.item_factors, self.item_bias = self._solve_items()
        self.user_factors, self.user_bias = self._solve_users()
        return float((self.ranker().predict(train.users, train.items) - train.ratings).square().mean())

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """New users are solved against the known items, then new items against all users."""
        self.item_factors[items] = self.item_bias[items] = 0
        factors, bias = self._solve_users()
        self.user_factors[users], self.user_bias[users] = factors[users], bias[users]
        factors, bias = self._solve_items()
        self.item_factors[items], self.item_bias[items] = factors[items], bias[items]

    def _solve_items(self) -> tuple[Tensor, Tensor]:
        rows, sizes = self.data.train, (self.data.num_items, self.data.num_users)
        by_item = Histories.from_pairs(rows.items, rows.users, *sizes, rows.ratings)
        return ridge_rows(by_item, self.user_factors, self.user_bias, self.mean, *self._penalties())

    def _solve_users(self) -> tuple[Tensor, Tensor]:
        rows, sizes = self.data.train, (self.data.num_users, self.data.num_items)
        by_user = Histories.from_pairs(rows.users, rows.items, *sizes, rows.ratings)
        return ridge_rows(by_user, self.item_factors, self.item_bias, self.mean, *self._penalties())

    def _penalties(self) -> tuple[float, float, float]:
        return self.hparams["reg"], self.hparams["reg_bias"], self.hparams["reg_exponent"]

    def ranker(self) -> FactorRanker:
        """Factors and biases; a new user is one more row of the same regression."""
        return FactorRanker(
            self.user_factors,
            self.item_factors,
            self.user_bias,
            self.item_bias,
            mean=float(self.mean),
            reg=self.hparams["reg"],
            reg_bias=self.hparams["reg_bias"],
            reg_exponent=self.hparams["reg_exponent"],
            rating_scale=self.data.rating_scale,
        )
