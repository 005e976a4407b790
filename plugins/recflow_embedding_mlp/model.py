"""Embeddings of users and items, made of features as far as features go, under a small network.

Model      r(u, i) = mean + b_u + b_i + <x_u, x_i> + network([x_u; x_i]), averaged over the ensemble's members, where
           x_u = e_u + W F_u + Σ over u's items j of y_j / sqrt(n_u);  b_u = a_u + <w, F_u>;  and items the same, from
           their own features and users;  F has one more column of ones in x, so that e is a node's deviation;
           network = (Linear → BatchNorm → ReLU → Dropout) for each hidden layer, then Linear;  dropout of inputs, too
Loss       (r - r̂)² + Σ over the pair's two nodes of n^(reg_exponent - 1) (reg |e|² + reg_bias a²) + reg_history times
           the same of |y|², averaged over the batch, n counting a node's ratings: over all ratings that is ALS's
           penalty; + reg_features |W, w|² + reg_network |network's weights|²; of each member alone, and their mean
Source     embeddings and features under a network: Cheng et al., DLRS 2016, https://doi.org/10.1145/2988450.2988454;
           biases and Σ y: Koren, KDD 2008, https://doi.org/10.1145/1401890.1401944
Differs    Cheng et al. have no inner product and a wide part of crossed features; Koren has Σ y for users alone; here
           each member has parameters of its own and is trained on its own error, all on the same batches
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import BatchNorm1d, ModuleList, Parameter, ParameterList, init

from recflow.data.batches import RatingBatch
from recflow.data.dataset import Dataset
from recflow.data.features import FeatureTable
from recflow.data.graph import BipartiteGraph, bipartite_graph
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig
from recflow.ranking.mlp import MLPRanker
from recflow.training.modules import RatingModule
from recflow.training.propagation import propagate

_MOST_BYTES = 2**35
_FIRST_STD = 0.1
_MOMENTUM = 0.1


class EmbeddingMLP(RatingModule):
    """Embeddings, features, a small network; see the module's header for the formulas.

    Features come from the data: genres, year and month of release, age, gender, occupation, whatever the tables hold.
    Where there is no table, its part is left out. A new item has the embedding 0, so it is its features and the mean.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Length of each member's embeddings, at least 1.
        hidden: Sizes of the network's hidden layers, one at least.
        members: How many models of different beginnings are trained side by side and averaged, at least 1.
        features: Whether the tables of users and items are made use of.
        history: Whether the items that a user has rated, and an item's users, are: Σ y. A training step's time then
            grows with the number of all ratings.
        dropout: Share of the network's inputs and hidden units that are left out in training, from 0 to below 1.
        reg: Weight of |e|², above 0, in units of ratings, as bias-mf's.
        reg_bias: Weight of a², above 0.
        reg_history: Weight of |y|², at least 0.
        reg_exponent: How these penalties grow with a node's number of ratings: 0 not at all, 1 in proportion.
        reg_features: Weight of the squares of the features' weights, at least 0.
        reg_network: Weight of the squares of the network's weights, at least 0.
        lr: Adam's learning rate.
    """

    default_max_epochs = 60

    mean: Tensor
    _tables: tuple[Tensor, Tensor]
    _counts: tuple[Tensor, Tensor]
    _graph: BipartiteGraph

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 16,
        hidden: Sequence[int] = (32,),
        members: int = 4,
        features: bool = True,
        history: bool = True,
        dropout: float = 0.3,
        reg: float = 2.0,
        reg_bias: float = 1.0,
        reg_history: float = 5.0,
        reg_exponent: float = 0.5,
        reg_features: float = 0.01,
        reg_network: float = 0.01,
        lr: float = 2e-3,
    ) -> None:
        super().__init__()
        hidden = list(hidden)
        if embedding_dim < 1 or members < 1 or not hidden or min(hidden) < 1:
            raise ValueError(
                f"embedding_dim, members and every hidden size must be at least 1, got {embedding_dim}, {members} and "
                f"{hidden}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if reg <= 0 or reg_bias <= 0 or lr <= 0:
            raise ValueError(f"reg, reg_bias and lr must be above 0, got {reg}, {reg_bias} and {lr}")
        if min(reg_history, reg_features, reg_network) < 0:
            raise ValueError(
                f"reg_history, reg_features and reg_network must be at least 0, got {reg_history}, {reg_features} and "
                f"{reg_network}"
            )
        width = members * embedding_dim
        each = width * (2 if history else 1) + members
        needed = 24 * (num_users + num_items) * each  # parameters, two moments, x, and the gradients of both
        if needed > _MOST_BYTES:
            raise RecflowError(
                f"{num_users:,} users and {num_items:,} items with {members} members of {embedding_dim} dimensions "
                f"need {needed / 2**30:.0f} GiB, the most is {_MOST_BYTES / 2**30:.0f}: lower model.members or "
                "model.embedding_dim, or set model.history false."
            )
        self.save_hyperparameters()
        self.users = Parameter(torch.empty(num_users, width))
        self.items = Parameter(torch.empty(num_items, width))
        self.user_bias = Parameter(torch.empty(num_users, members))
        self.item_bias = Parameter(torch.empty(num_items, members))
        if history:
            self.user_history = Parameter(torch.empty(num_items, width))  # y of the items, for their users
            self.item_history = Parameter(torch.empty(num_users, width))
        self.user_features = Parameter(torch.empty(1, width + members))  # as many rows as features, from attach() on
        self.item_features = Parameter(torch.empty(1, width + members))
        sizes = [2 * embedding_dim, *hidden]
        pairs = list(itertools.pairwise(sizes))
        self.weights = ParameterList(torch.empty(members, before, after) for before, after in pairs)
        self.norms = ModuleList(BatchNorm1d(members * after, momentum=_MOMENTUM) for after in hidden)
        self.output = Parameter(torch.empty(members, hidden[-1], 1))
        self.register_buffer("mean", torch.zeros(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small normal embeddings, He's weights, and zeros where the symmetry is broken already."""
        init.normal_(self.users, std=_FIRST_STD)
        init.normal_(self.items, std=_FIRST_STD)
        for zeros in (self.user_bias, self.item_bias, self.user_features, self.item_features, self.output):
            init.zeros_(zeros)
        if self.hparams["history"]:
            init.normal_(self.user_history, std=_FIRST_STD / 10)
            init.normal_(self.item_history, std=_FIRST_STD / 10)
        for weight in self.weights:
            init.normal_(weight, std=math.sqrt(2 / weight.shape[1]))

    def attach(self, data: Dataset, seed: int = 0, metrics: MetricsConfig | None = None) -> None:
        """Take the data, and make room for one weight for each of its features; see :meth:`RecModule.attach`."""
        super().attach(data, seed, metrics)
        rows, sizes = data.train, (data.num_users, data.num_items)
        self.mean.fill_(rows.ratings.mean())
        tables = (data.user_features, data.item_features) if self.hparams["features"] else (None, None)
        self._tables = _with_ones(tables[0], sizes[0]), _with_ones(tables[1], sizes[1])
        width = self.users.shape[1] + self.hparams["members"]
        for name, table in zip(("user_features", "item_features"), self._tables, strict=True):
            if getattr(self, name).shape[0] != table.shape[1]:
                setattr(self, name, Parameter(torch.zeros(table.shape[1], width, device=self.users.device)))
        self._counts = _counts(rows.users, sizes[0]), _counts(rows.items, sizes[1])
        self._graph = bipartite_graph(rows.users, rows.items, *sizes)

    def feature_rows(self) -> dict[str, tuple[str, ...]]:
        """See :meth:`RecModule.feature_rows`."""
        tables = {"user_features": self.data.user_features, "item_features": self.data.item_features}
        known = tables if self.hparams["features"] else dict.fromkeys(tables)
        return {name: (*(() if table is None else table.names), "one") for name, table in known.items()}

    def setup(self, stage: str) -> None:
        """See :meth:`RecModule.setup`."""
        super().setup(stage)
        self._to(self.trainer.strategy.root_device)

    def _to(self, device: torch.device) -> None:
        self._tables = self._tables[0].to(device), self._tables[1].to(device)
        self._counts = self._counts[0].to(device), self._counts[1].to(device)
        self._graph = self._graph.to(device)

    def nodes(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the network sees of all nodes.

        Returns:
            x of users, ``[num_users, members * dim]``, and of items; b of users, ``[num_users, members]``, and items.
        """
        width = self.users.shape[1]
        user_part, item_part = self._tables[0] @ self.user_features, self._tables[1] @ self.item_features
        users, items = self.users + user_part[:, :width], self.items + item_part[:, :width]
        if self.hparams["history"]:
            # The graph's weights are 1 / sqrt(n_u n_i): times sqrt(n) of the other side, 1 / sqrt of one's own is left.
            user_root, item_root = (count.sqrt()[:, None] for count in self._counts)
            user_item, item_user = self._graph
            users = users + propagate(user_item, self.user_history * item_root, item_user)
            items = items + propagate(item_user, self.item_history * user_root, user_item)
        return users, items, self.user_bias + user_part[:, width:], self.item_bias + item_part[:, width:]

    def notices(self) -> Sequence[str]:
        """Which features the data lack; those inputs are left out."""
        return self.data.missing_features()

    def loss(self, batch: RatingBatch) -> Tensor:
        """Each member's own mean squared error and penalties, as the members' mean."""
        predicted = self._predict(self.nodes(), batch.users, batch.items)  # [batch, members]
        error = F.mse_loss(predicted, batch.ratings[:, None].expand_as(predicted))
        members: int = self.hparams["members"]
        return error + self._penalty(batch.users, batch.items) / members

    def _predict(self, nodes: tuple[Tensor, Tensor, Tensor, Tensor], users: Tensor, items: Tensor) -> Tensor:
        members = self.hparams["members"]
        if len(users) == 0:
            return self.mean.new_zeros(0, members)
        # index_select's backward adds rows in place, which is faster than indexing's
        user, item = (table.index_select(0, rows) for table, rows in zip(nodes[:2], (users, items), strict=True))
        user, item = (side.view(len(users), members, -1).transpose(0, 1) for side in (user, item))
        total = self.mean + nodes[2].index_select(0, users) + nodes[3].index_select(0, items)  # [batch, members]
        total = total + (user * item).sum(2).T
        hidden = torch.cat([user, item], dim=2)  # [members, batch, 2 * dim]
        for weight, norm in self._layers():
            summed = (self._dropped(hidden) @ weight).transpose(0, 1).flatten(1)  # [batch, members * hidden]
            several = self.training and len(users) > 1  # a batch of one has no variance
            normed = F.batch_norm(
                summed, norm.running_mean, norm.running_var, norm.weight, norm.bias, several, _MOMENTUM, norm.eps
            )
            hidden = normed.relu().view(len(users), members, -1).transpose(0, 1)
        return total + (self._dropped(hidden) @ self.output)[:, :, 0].T

    def _layers(self) -> Iterator[tuple[Tensor, BatchNorm1d]]:
        return zip(self.weights, cast("Iterable[BatchNorm1d]", self.norms), strict=True)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.hparams["dropout"], self.training)

    def _penalty(self, users: Tensor, items: Tensor) -> Tensor:
        """The penalties of the header, a batch's mean, all members' together."""
        own = self.hparams
        tables = [(own["reg"], self.users, self.items), (own["reg_bias"], self.user_bias, self.item_bias)]
        if own["history"]:
            tables.append((own["reg_history"], self.item_history, self.user_history))
        total: Tensor = self.mean.new_zeros(())
        for side, rows in enumerate((users, items)):
            count = self._counts[side]
            share = torch.bincount(rows, minlength=len(count)) * count ** (own["reg_exponent"] - 1) / len(rows)
            for weight, *both in tables:
                total = total + weight * (share @ both[side].square().sum(1))
        features = self.user_features.square().sum() + self.item_features.square().sum()
        network = self.output.square().sum() + torch.stack([weight.square().sum() for weight in self.weights]).sum()
        total += own["reg_features"] * features + own["reg_network"] * network
        return total

    @torch.no_grad()
    def start_new(self, users: Tensor, items: Tensor) -> None:
        """Zero: a new node is the mean and its features, and whatever its interactions say through Σ y."""
        for side, new in ((self.users, users), (self.user_bias, users), (self.items, items), (self.item_bias, items)):
            side[new] = 0
        if self.hparams["history"]:
            self.item_history[users] = 0
            self.user_history[items] = 0

    @torch.no_grad()
    def ranker(self) -> MLPRanker:
        """The network with its normalisation folded into its weights; a new user has mean features."""
        members, dim = self.hparams["members"], self.hparams["embedding_dim"]
        self._to(self.users.device)

        def apart(table: Tensor) -> Tensor:
            """``[nodes, members * n]`` to ``[members, nodes, n]``."""
            return (
                table.detach()
                .reshape(len(table), members, -1)
                .transpose(0, 1)
                .clone(memory_format=torch.contiguous_format)
            )

        users, items, user_bias, item_bias = map(apart, self.nodes())
        folded = [_folded(weight, norm) for weight, norm in self._layers()]
        layers = [*folded[1:], (self.output, self.output.new_zeros(members, 1))]
        named: dict[str, Any] = {}
        for number, (weight, bias) in enumerate(layers, start=1):
            named[f"weight_{number}"], named[f"bias_{number}"] = weight.clone(), bias.clone()
        first, first_bias = folded[0]
        average = self._tables[0].mean(0) @ self.user_features  # a new user's features are unknown
        return MLPRanker(
            users,
            items,
            user_bias[:, :, 0],
            item_bias[:, :, 0],
            product=items.new_ones(dim),
            user_input=first[:, :dim].contiguous(),
            item_hidden=items @ first[:, dim:] + first_bias[:, None],
            prior_vector=average[: members * dim].view(members, dim).clone(),
            prior_bias=average[members * dim :].clone(),
            history_vectors=apart(self.user_history) if self.hparams["history"] else None,
            mean=float(self.mean),
            reg=self.hparams["reg"],
            reg_bias=self.hparams["reg_bias"],
            reg_exponent=self.hparams["reg_exponent"],
            rating_scale=self.data.rating_scale,
            **named,
        )


def _with_ones(table: FeatureTable | None, num_nodes: int) -> Tensor:
    """The features and a last column of ones, ``[nodes, columns + 1]``."""
    ones = torch.ones(num_nodes, 1)
    return ones if table is None else torch.cat([table.values, ones.to(table.values.device)], dim=1)


def _counts(nodes: Tensor, num_nodes: int) -> Tensor:
    """How many ratings each node has, or 1 where there is none."""
    return torch.bincount(nodes, minlength=num_nodes).clamp(min=1).float()


def _folded(weight: Tensor, norm: BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A layer and the normalisation after it as one: weights ``[members, in, out]`` and bias ``[members, out]``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * scale
    members, out = len(weight), weight.shape[2]
    return weight * scale.view(members, 1, out), bias.view(members, out)
