"""Biased matrix factorisation whose users and items start from what is known of them.

Model      r(u, i) = mean + b_u + b_i + <p_u, q_i>;  (p_u, b_u) = W x_u + δ_u;  (q_i, b_i) = V y_i + ε_i
           x: the user's features, a one and, as implicit feedback, 1 / sqrt(n_u) for each of the n_u items rated;
           y: the item's features, a one and 1 / sqrt(n_i) for each of the n_i users who rated it
Loss       the variational bound of: noise in r, δ and ε are normal, with a variance for each coordinate; that is
           Σ E[(r - r̂)²] / noise + Σ_u E|δ_u|²_precision + Σ_i E|ε_i|²_precision + (reg_features |W, V|² on features,
           reg_implicit on the rest, in units of those precisions) - entropies
Solution   all in closed form, one after the other: each item's normal posterior given the users', V by ridge
           regression, W, each user's posterior; from the sixth sweep on the variances by their expectations
Source     Lim & Teh, KDD Cup 2007 (variational Bayes); Simm et al., MLSP 2017, https://arxiv.org/abs/1509.04610
           (priors from features); Koren, KDD 2008, https://doi.org/10.1145/1401890.1401944 (implicit feedback)
Differs    Simm et al. sample; here covariances are carried along, so that the result is one set of vectors and repeats.
           Koren has implicit feedback of users alone and learns by gradients
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.data.features import FeatureTable
from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.training.modules import ClosedFormModule
from recflow_bias_mf.design import Design, everyone
from recflow_bias_mf.posterior import Side, expected_squares, posterior
from recflow_bias_mf.prior_ranker import PriorRanker

_SWEEPS_BEFORE_VARIANCES = 5  # vectors start at random: what their spread says is worth nothing yet
_FIRST_PRECISION, _FIRST_BIAS_PRECISION = 10.0, 4.0  # in 1 / stars²
_LEAST_NOISE = 1e-2  # in stars²: nobody rates more precisely, and single precision would not bear it
_LEAST_VARIANCE = 1e-6  # in stars²: a coordinate that the data have no use for ends here


class BiasMFFeatures(ClosedFormModule):
    """Biases and factors with priors from features and implicit feedback, by variational Bayes: deterministic.

    Features are ``data.item_features`` and ``data.user_features``; a table that the data lack is left out, and
    :attr:`inputs` says what was there. A user unseen in training is where the features lead, as is an item.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1. Memory grows with its square, for users and items.
        implicit: Whose ratings count as inputs by their mere existence: users' (as in SVD++), both sides', or none.
            Memory grows with the square of the number of items, and for both of users.
        reg_features: Ridge penalty on the weights of features, above 0.
        reg_implicit: Ridge penalty on the weights of implicit feedback, above 0.
        init_std: Standard deviation of the users' first factors, above 0.

    Attributes:
        inputs: Which inputs the model has, of ``"item features"``, ``"user features"`` and ``"implicit feedback"``.
    """

    task = "rating"
    monitor = "val/rmse"
    default_max_epochs = 24

    users: Tensor
    items: Tensor
    user_covariances: Tensor
    item_covariances: Tensor
    user_precision: Tensor
    item_precision: Tensor
    noise: Tensor
    mean: Tensor
    sweeps: Tensor
    _rows: tuple[Histories, Histories] | None
    _designs: tuple[Design, Design] | None

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 16,
        implicit: Literal["both", "users", "none"] = "both",
        reg_features: float = 5.0,
        reg_implicit: float = 4.0,
        init_std: float = 0.1,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if implicit not in ("both", "users", "none"):
            raise ValueError(f"implicit must be both, users or none, got {implicit!r}")
        if min(reg_features, reg_implicit, init_std) <= 0:
            raise ValueError(
                "reg_features, reg_implicit and init_std must be above 0, got "
                f"{reg_features}, {reg_implicit} and {init_std}"
            )
        _require_memory(num_users, num_items, embedding_dim, implicit)
        self.save_hyperparameters()
        size = embedding_dim + 1
        self.register_buffer("users", F.pad(torch.randn(num_users, embedding_dim) * init_std, (0, 1)))
        self.register_buffer("items", torch.zeros(num_items, size))
        self.register_buffer("user_covariances", torch.zeros(num_users, size, size))
        self.register_buffer("item_covariances", torch.zeros(num_items, size, size))
        first = torch.full((size,), _FIRST_PRECISION)
        first[-1] = _FIRST_BIAS_PRECISION
        self.register_buffer("user_precision", first)
        self.register_buffer("item_precision", first.clone())
        self.register_buffer("noise", torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("sweeps", torch.zeros((), dtype=torch.int64))

    @property
    def inputs(self) -> tuple[str, ...]:
        """What priors are built from, on the data that are attached."""
        tables = {"item features": self.data.item_features, "user features": self.data.user_features}
        found = [name for name, table in tables.items() if table is not None]
        return (*found, *(("implicit feedback",) if self.hparams["implicit"] != "none" else ()))

    def attach(self, data: Dataset, *args: Any, **kwargs: Any) -> None:
        """See :meth:`RecModule.attach`; what was computed from other data is forgotten."""
        super().attach(data, *args, **kwargs)
        self._rows, self._designs = None, None

    def notices(self) -> Sequence[str]:
        """Which features the data lack; those inputs are left out."""
        return self.data.missing_features()

    def sweep(self) -> float:
        """Solve all items, then all users; returns the expected squared error of a training rating."""
        by_user, _ = self._histories()
        for_users, for_items = self._both_designs()
        if int(self.sweeps) == 0:
            self.mean = by_user.ratings.double().mean().float()
        if int(self.sweeps) >= _SWEEPS_BEFORE_VARIANCES:
            self.user_precision = _precision(self._users(), for_users)
            self.item_precision = _precision(self._items(), for_items)
            self.noise = self._expected_error().float().clamp(min=_LEAST_NOISE)
        self.items, self.item_covariances = self._solve_items(for_items)
        self.users, self.user_covariances = self._solve_users(for_users)
        self.sweeps += 1
        return float(self._expected_error())

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """New users are solved against the known items, then new items against all users."""
        self.users[users] = self.items[items] = 0
        self.user_covariances[users] = torch.diag(1 / self.user_precision)
        self.item_covariances[items] = torch.diag(1 / self.item_precision)
        for_users, for_items = self._both_designs()
        vectors, covariances = self._solve_users(for_users)
        self.users[users], self.user_covariances[users] = vectors[users], covariances[users]
        vectors, covariances = self._solve_items(for_items)
        self.items[items], self.item_covariances[items] = vectors[items], covariances[items]

    def ranker(self) -> PriorRanker:
        """The vectors, and what folds a history in as the next sweep would solve its user."""
        for_users, for_items = self._both_designs()
        weights, implicit_weights = for_users.regress(self.users)
        item_weights, _ = for_items.regress(self.items)
        features = for_users.table.shape[1]
        return PriorRanker(
            self.users,
            self.items,
            self.item_covariances,
            start=weights[features - 1],
            implicit_weights=implicit_weights,
            precision=self.user_precision,
            item_weights=item_weights,
            item_centre=_centre(self.data.item_features, self.items),
            mean=float(self.mean),
            noise=float(self.noise),
            rating_scale=self.data.rating_scale,
        )

    def _users(self) -> Side:
        return Side(self.users, self.user_covariances)

    def _items(self) -> Side:
        return Side(self.items, self.item_covariances)

    def _solve_users(self, design: Design) -> Side:
        prior, precision = design.expected(*design.regress(self.users)), self.user_precision
        return posterior(design.rows, everyone(design.rows), self._items(), self.mean, prior, precision, self.noise)

    def _solve_items(self, design: Design) -> Side:
        prior, precision = design.expected(*design.regress(self.items)), self.item_precision
        return posterior(design.rows, everyone(design.rows), self._users(), self.mean, prior, precision, self.noise)

    def _expected_error(self) -> Tensor:
        by_user = self._histories()[0]
        return expected_squares(by_user, self._users(), self._items(), self.mean) / len(by_user.items)

    def _histories(self) -> tuple[Histories, Histories]:
        if self._rows is None:
            rows, users, items = self.data.train, self.data.num_users, self.data.num_items
            by_user = Histories.from_pairs(rows.users, rows.items, users, items, rows.ratings)
            self._rows = by_user, Histories.from_pairs(rows.items, rows.users, items, users, rows.ratings)
        return self._rows

    def _both_designs(self) -> tuple[Design, Design]:
        """The users' and the items'."""
        if self._designs is None:
            (by_user, by_item), implicit = self._histories(), self.hparams["implicit"]
            reg = self.hparams["reg_features"], self.hparams["reg_implicit"]
            users, items = _table(self.data.user_features, self.users), _table(self.data.item_features, self.items)
            self._designs = (
                Design(users, by_user, by_item, implicit != "none", *reg),
                Design(items, by_item, by_user, implicit == "both", *reg),
            )
        return self._designs


def _precision(side: Side, design: Design) -> Tensor:
    """One over the mean square of how far vectors are from where they were expected, ``[dim + 1]``."""
    away = side.vectors - design.expected(*design.regress(side.vectors))
    return 1 / (away.square() + side.covariances.diagonal(dim1=1, dim2=2)).mean(0).clamp(min=_LEAST_VARIANCE)


def _centre(table: FeatureTable | None, like: Tensor) -> Tensor:
    return like.new_zeros(0) if table is None else table.values.to(like).mean(0)


def _table(table: FeatureTable | None, like: Tensor) -> Tensor:
    """Features less their means, and a column of ones, ``[rows, features + 1]``."""
    values = like.new_zeros(len(like), 0) if table is None else table.values.to(like)
    return F.pad(values - _centre(table, like), (0, 1), value=1.0)


def _require_memory(num_users: int, num_items: int, dim: int, implicit: str) -> None:
    widths = (num_items if implicit != "none" else 0, num_users if implicit == "both" else 0)
    vectors = 3 * (num_users + num_items) * (dim + 1) ** 2
    needed = 4 * (vectors + sum(width**2 for width in widths) + max(widths) ** 2)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise RecflowError(
            f"bias-mf-features needs about {needed / 2**30:.0f} GiB of memory for {num_users:,} users and "
            f"{num_items:,} items, this machine has {there / 2**30:.0f}: set model.implicit to users or none, lower "
            "model.embedding_dim, or raise data.k_core."
        )
