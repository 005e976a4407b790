"""NeuMF and its halves GMF and MLP: neural collaborative filtering.

Model      GMF: score = Σ_d w_d u_d i_d + c;  MLP: score = v · ReLU(… ReLU(W [u'; i'] + b) …) + c;
           NeuMF: the sum of both, with embeddings of their own
Loss       bce: mean of -log sigmoid(± score) over interactions and negatives;  or bpr: mean of -log sigmoid(score of
           the interaction - score of a negative);  + ½ reg the squares of the embeddings
Negatives  num_negatives items per interaction, uniform over those the user has not interacted with in training
Pre-train  NeuMF may start from a GMF and an MLP run: their embeddings and layers, w times alpha and v times 1 - alpha
Fold-in    the users' embeddings regressed on their histories, see recflow.training.fold_in
Source     He et al., WWW 2017, https://arxiv.org/abs/1708.05031
Differs    the paper starts from Adam even where pre-training is followed by plain SGD; any optimizer by --optimizer.
           BPR, the penalty and dropout are not in the paper
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.ranking.mlp import MLPRanker
from recflow.ranking.rankers import FactorRanker, Ranker
from recflow.training.fold_in import history_vectors
from recflow.training.losses import squared_norms
from recflow.training.sampled import SampledModule, check_sampling
from recflow.training.warm_start import learnt_here
from recflow_ncf.halves import Product, Tower

_FOLD_IN_REG = 0.05


class _NCF(SampledModule):
    """One half, or both."""

    default_max_epochs = 100

    product: Product | None
    tower: Tower | None

    def _build(self, own: Mapping[str, Any]) -> None:
        """Check the hyper-parameters, and make the parts that they speak of."""
        hidden = own.get("hidden", [1])
        sizes = [own.get(name, 1) for name in ("embedding_dim", "mlp_dim")]
        if min(*sizes, *hidden, len(hidden)) < 1:
            raise ValueError(f"dimensions and hidden sizes must be at least 1, got {sizes} and {hidden}")
        if not 0 <= own.get("dropout", 0) < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {own['dropout']}")
        if own["reg"] < 0 or own["lr"] <= 0 or own["init_std"] <= 0:
            raise ValueError(
                f"reg must be at least 0, lr and init_std above 0, got reg={own['reg']}, lr={own['lr']} and "
                f"init_std={own['init_std']}"
            )
        check_sampling(own["loss"], own["num_negatives"])
        nodes = own["num_users"], own["num_items"]
        self.product = self.tower = None
        if "embedding_dim" in own:
            self.product = Product(*nodes, own["embedding_dim"], own["init_std"])
        if "mlp_dim" in own:
            self.tower = Tower(*nodes, own["mlp_dim"], own["hidden"], own["dropout"], own["init_std"])
        self.offset = Parameter(torch.zeros(()))

    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recflow.training.sampled.SampledModule.scores`."""
        total: Tensor = self.offset
        for half in self._halves():
            total = total + half(users, items)
        return total

    def squares(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recflow.training.sampled.SampledModule.squares`."""
        halves = self._halves()
        return torch.stack(
            [squared_norms(half.users, users) + squared_norms(half.items, items) for half in halves]
        ).sum()

    @torch.no_grad()
    def ranker(self) -> Ranker:
        """A product of vectors, or a small network over them; a history is folded in by what it says of known users."""
        product, tower = self.product, self.tower
        if tower is None:
            assert product is not None
            users = product.users * product.output
            return FactorRanker(
                users, product.items.clone(), fold_in_factors=self._history_vectors(users), fold_in="propagate"
            )
        halves = self._halves()
        users, items = (torch.cat([getattr(half, side) for half in halves], dim=1) for side in ("users", "items"))
        weights = users.new_zeros(users.shape[1])
        width = 0 if product is None else len(product.output)  # the product's dimensions come first
        if product is not None:
            weights[:width] = product.output
        user_input = users.new_zeros(users.shape[1], tower.user_input.shape[1])
        user_input[width:] = tower.user_input
        layers: dict[str, Any] = {}
        after = [(layer.weight.T, layer.bias) for layer in tower.linear_layers()]
        for number, (weight, bias) in enumerate([*after, (tower.output[:, None], self.offset[None])], start=1):
            # in rows, as a bundle brings them back: products of other strides round otherwise
            layers[f"weight_{number}"] = weight.clone(memory_format=torch.contiguous_format)[None]
            layers[f"bias_{number}"] = bias.clone()[None]
        return MLPRanker(
            users[None].clone(),
            items[None].clone(),
            user_bias=users.new_zeros(1, len(users)),
            item_bias=items.new_zeros(1, len(items)),
            product=weights,
            user_input=user_input[None],
            item_hidden=tower.item_input(tower.items)[None],
            prior_vector=users.new_zeros(1, users.shape[1]),
            prior_bias=users.new_zeros(1),
            history_vectors=self._history_vectors(users)[None],
            steps=0,
            likes=True,
            **layers,
        )

    def _halves(self) -> list[Product | Tower]:
        return [half for half in (self.product, self.tower) if half is not None]

    def _history_vectors(self, users: Tensor) -> Tensor:
        return history_vectors(self.data.graph, users, _FOLD_IN_REG)


class GMF(_NCF):
    """Generalised matrix factorisation, He et al., WWW 2017, https://arxiv.org/abs/1708.05031.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of factors, at least 1.
        loss: bce (each pair on its own) or bpr (each interaction against its negatives).
        num_negatives: Negatives per interaction, at least 1. data.batch_size counts interactions and negatives
            together, but for bpr with one negative.
        reg: Weight of ½ the squares of the embeddings, at least 0: of a pair under bce, of an interaction and its
            negatives under bpr, averaged over the batch.
        init_std: Standard deviation of the first embeddings, above 0.
        lr: Adam's learning rate.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        loss: Literal["bce", "bpr"] = "bce",
        num_negatives: int = 4,
        reg: float = 0.0,
        init_std: float = 0.01,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self._build(self.hparams)


class MLP(_NCF):
    """A network over the embeddings of user and item, He et al., WWW 2017, https://arxiv.org/abs/1708.05031.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        mlp_dim: Length of each node's embedding, at least 1.
        hidden: Sizes of the hidden layers, one at least.
        dropout: Share of each hidden layer's entries that are left out in training, from 0 to below 1.
        loss: bce (each pair on its own) or bpr (each interaction against its negatives).
        num_negatives: Negatives per interaction, at least 1. data.batch_size counts interactions and negatives
            together, but for bpr with one negative.
        reg: Weight of ½ the squares of the embeddings, at least 0: of a pair under bce, of an interaction and its
            negatives under bpr, averaged over the batch.
        init_std: Standard deviation of the first embeddings, above 0.
        lr: Adam's learning rate.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        mlp_dim: int = 128,
        hidden: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
        loss: Literal["bce", "bpr"] = "bce",
        num_negatives: int = 4,
        reg: float = 0.0,
        init_std: float = 0.01,
        lr: float = 1e-3,
    ) -> None:
        super().__init__()
        hidden = list(hidden)
        self.save_hyperparameters()
        self._build(self.hparams)


class NeuMF(_NCF):
    """NeuMF, He et al., WWW 2017, https://arxiv.org/abs/1708.05031.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Number of the product's factors, at least 1.
        mlp_dim: Length of the embeddings under the network, at least 1.
        hidden: Sizes of the network's hidden layers, one at least.
        dropout: Share of each hidden layer's entries that are left out in training, from 0 to below 1.
        loss: bce (each pair on its own) or bpr (each interaction against its negatives).
        num_negatives: Negatives per interaction, at least 1. data.batch_size counts interactions and negatives
            together, but for bpr with one negative.
        reg: Weight of ½ the squares of the embeddings, at least 0: of a pair under bce, of an interaction and its
            negatives under bpr, averaged over the batch.
        init_std: Standard deviation of the first embeddings, above 0.
        lr: Adam's learning rate.
        gmf_run: A finished run of gmf, on the same data and split, to start from; with mlp_run or not at all.
        mlp_run: A finished run of mlp.
        alpha: What gmf's output weighs at the start where it is pre-trained, mlp's weighing 1 - alpha; from 0 to 1.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        mlp_dim: int = 128,
        hidden: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
        loss: Literal["bce", "bpr"] = "bce",
        num_negatives: int = 4,
        reg: float = 0.0,
        init_std: float = 0.01,
        lr: float = 1e-3,
        gmf_run: str | None = None,
        mlp_run: str | None = None,
        alpha: float = 0.5,
    ) -> None:
        super().__init__()
        if (gmf_run is None) != (mlp_run is None):
            raise ValueError(f"gmf_run and mlp_run go together, got {gmf_run} and {mlp_run}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
        hidden = list(hidden)
        self.save_hyperparameters()
        self._build(self.hparams)

    def notices(self) -> Sequence[str]:
        """Where a pre-trained model starts."""
        start = f"starts from {self.hparams['gmf_run']} and {self.hparams['mlp_run']}, alpha {self.hparams['alpha']:g}"
        return () if self.hparams["gmf_run"] is None else (start,)

    def begin(self, data: Dataset) -> str | None:
        """Take over what the pre-trained halves have learnt."""
        if self.hparams["gmf_run"] is None:
            return None
        gmf, mlp = (learnt_here(self.hparams[f"{name}_run"], name, data) for name in ("gmf", "mlp"))
        self.pretrain(gmf, mlp)
        return f"{self.hparams['gmf_run']} and {self.hparams['mlp_run']}, alpha {self.hparams['alpha']:g}"

    @torch.no_grad()
    def pretrain(self, gmf: Mapping[str, Tensor], mlp: Mapping[str, Tensor]) -> None:
        """Start from a fitted GMF and a fitted MLP.

        Args:
            gmf: State of a :class:`GMF` of the same embedding_dim.
            mlp: State of an :class:`MLP` of the same mlp_dim and hidden sizes.

        Raises:
            RecflowError: If a tensor is of another shape, or missing.
        """
        alpha, own = self.hparams["alpha"], self.state_dict()
        for half, given, share in (("product.", gmf, alpha), ("tower.", mlp, 1 - alpha)):
            here, there = (
                {name: list(tensor.shape) for name, tensor in state.items() if name.startswith(half)}
                for state in (own, given)
            )
            differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
            if differing:
                name = differing[0]
                raise RecflowError(
                    f"The pre-trained run has {name} of shape {there.get(name)}, this model {here.get(name)}: give "
                    "both the same --model.* sizes."
                )
            for name in here:
                own[name].copy_(given[name] * share if name == f"{half}output" else given[name])
        self.offset.copy_(alpha * gmf["offset"] + (1 - alpha) * mlp["offset"])
