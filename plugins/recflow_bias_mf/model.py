"""Biased matrix factorisation by alternating least squares.

Model      r(u, i) = mean + b_u + b_i + <p_u, q_i>
Loss       Σ (r - r̂)² + Σ_u n_u^reg_exponent (reg |p_u|² + reg_bias b_u²) + the same over items; n counts ratings
Solution   users fixed, each item's (q_i, b_i) is one ridge regression, and the other way round; one sweep does both.
           Over-relaxation goes relaxation times as far as each regression says, from where its side stood
Source     Koren, Bell & Volinsky, IEEE Computer 2009, https://doi.org/10.1109/MC.2009.263; the penalty's growth by
           counts: Zhou et al., AAIM 2008 (exponent 1); between: Rendle et al., RecSys 2022, https://arxiv.org/abs/2110.14037;
           over-relaxation: Young, Iterative Solution of Large Linear Systems, 1971, here on a bilinear problem
Differs    a bias is solved together with its factors, not before them. Items meet the relaxed users, yet the users kept
           are exact solutions: a user's vector is the fold-in of the user's own ratings
"""

from __future__ import annotations

import torch
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.metrics.evaluate import MetricsConfig
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker
from recflow.training.modules import ClosedFormModule
from recflow_bias_mf.als import HalfSweep, half_sweep


class BiasMF(ClosedFormModule):
    """Biased matrix factorisation, solved by ALS: deterministic, on all cores, no learning rate.

    A user unseen in training gets bias 0 and factors 0, as does an item: the prediction falls back on what is known.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        reg: Ridge penalty on factors, above 0.
        reg_bias: Ridge penalty on biases, above 0.
        reg_exponent: How penalties grow with the number of ratings, at least 0: 0 not at all, 1 in proportion.
        init_std: Standard deviation of the users' first factors, above 0.
        relaxation: How far a sweep goes, as a multiple of the way to the regressions' solutions, above 0 and below 2.
            1 is plain ALS, whose loss never rises; 1.5 needs a third as many sweeps on MovieLens.
    """

    task = "rating"
    monitor = "val/rmse"
    default_max_epochs = 12

    user_factors: Tensor
    item_factors: Tensor
    user_bias: Tensor
    item_bias: Tensor
    relaxed_factors: Tensor
    relaxed_bias: Tensor
    mean: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 24,
        reg: float = 1.3,
        reg_bias: float = 0.5,
        reg_exponent: float = 0.5,
        init_std: float = 0.1,
        relaxation: float = 1.5,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if min(reg, reg_bias, init_std) <= 0:
            raise ValueError(f"reg, reg_bias and init_std must be above 0, got {reg}, {reg_bias} and {init_std}")
        if reg_exponent < 0:
            raise ValueError(f"reg_exponent must be at least 0, got {reg_exponent}")
        if not 0 < relaxation < 2:
            raise ValueError(f"relaxation must be above 0 and below 2, got {relaxation}")
        self.save_hyperparameters()
        self.register_buffer("user_factors", torch.randn(num_users, embedding_dim) * init_std)
        self.register_buffer("item_factors", torch.zeros(num_items, embedding_dim))
        self.register_buffer("user_bias", torch.zeros(num_users))
        self.register_buffer("item_bias", torch.zeros(num_items))
        # The users that items are solved against.
        self.register_buffer("relaxed_factors", self.user_factors.clone())
        self.register_buffer("relaxed_bias", torch.zeros(num_users))
        self.register_buffer("mean", torch.zeros(()))

    def attach(self, data: Dataset, seed: int = 0, metrics: MetricsConfig | None = None) -> None:
        """See :meth:`~recflow.training.modules.RecModule.attach`."""
        super().attach(data, seed, metrics)
        self._rows: tuple[Histories, Histories] | None = None

    def sweep(self) -> float:
        """Solve all items, then all users; returns the mean squared error on the training ratings."""
        self.mean = self.data.train.ratings.mean()
        by_user, by_item = (rows.indptr.diff() for rows in self._sides())
        items = self._solve_items()
        self.item_factors = self._relax(self.item_factors, items.factors, by_item)
        self.item_bias = self._relax(self.item_bias, items.bias, by_item)
        users = self._solve_users()
        self.user_factors, self.user_bias = users.factors, users.bias
        self.relaxed_factors = self._relax(self.relaxed_factors, users.factors, by_user)
        self.relaxed_bias = self._relax(self.relaxed_bias, users.bias, by_user)
        return users.squared_error / len(self.data.train.ratings)

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """New users are solved against the known items, then new items against all users."""
        self.item_factors[items] = self.item_bias[items] = 0
        of_users = self._solve_users()
        self.user_factors[users] = self.relaxed_factors[users] = of_users.factors[users]
        self.user_bias[users] = self.relaxed_bias[users] = of_users.bias[users]
        of_items = self._solve_items()
        self.item_factors[items], self.item_bias[items] = of_items.factors[items], of_items.bias[items]

    def _relax(self, before: Tensor, solved: Tensor, counts: Tensor) -> Tensor:
        """Past the solution by the same rule for all, but 0 where nothing was rated: there is nothing to go on to."""
        relaxed = before.lerp(solved, self.hparams["relaxation"])
        relaxed[counts == 0] = 0
        return relaxed

    def _solve_items(self) -> HalfSweep:
        return half_sweep(self._sides()[1], self.relaxed_factors, self.relaxed_bias, self.mean, *self._penalties())

    def _solve_users(self) -> HalfSweep:
        return half_sweep(self._sides()[0], self.item_factors, self.item_bias, self.mean, *self._penalties())

    def _sides(self) -> tuple[Histories, Histories]:
        """Each user's ratings and each item's: sorted once, not at every sweep."""
        if self._rows is None:
            (users, items, ratings), sizes = self.data.train, (self.data.num_users, self.data.num_items)
            by_item = Histories.from_pairs(items, users, *sizes[::-1], ratings)
            self._rows = Histories.from_pairs(users, items, *sizes, ratings), by_item
        return self._rows

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
