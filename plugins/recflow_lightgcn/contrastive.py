"""XSimGCL: LightGCN with noise in every layer, and a contrastive loss between two of them.

Model      score(u, i) = <e_u, e_i>;  e = mean over l = 1..L of e^l;  e^l = Â e^(l-1), e⁰ learned;  in training
           e^l = Â e^(l-1) + eps · sign(Â e^(l-1)) ⊙ n/|n|, n uniform in [0, 1), drawn for each node, layer and step
Loss       mean of -log sigmoid(score(u, i) - score(u, j)) + reg * (|e⁰_u|² + |e⁰_i|² + |e⁰_j|²) / (2 * batch)
           + contrast * (InfoNCE over the batch's users + the same over its liked items, each node once)
InfoNCE    mean over v of -log(exp(<z_v, y_v>/t) / Σ_w exp(<z_v, y_w>/t)), z = e/|e|, y = e^c/|e^c|, c = contrast_layer
Negatives  one item j per positive, uniform over items the user has not interacted with in training
Source     Yu et al., TKDE 2023, https://arxiv.org/abs/2209.02544
Differs    the authors begin with Xavier's small embeddings: the noise is longer than they are, and for some hundreds of
           steps the contrast only spreads them while validation falls. Longer ones rank sooner, and no worse in the end
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter, init

from recflow.data.batches import BPRBatch
from recflow.ranking.rankers import FactorRanker
from recflow.training.losses import bpr_loss, squared_norms
from recflow.training.modules import RankingModule
from recflow.training.propagation import propagate, sparse_matmul


class XSimGCL(RankingModule):
    """XSimGCL, Yu et al., TKDE 2023, https://arxiv.org/abs/2209.02544.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Length of each node's embedding, at least 1.
        num_layers: Propagation steps L, at least 1.
        contrast_layer: The layer whose vectors are contrasted with the mean of all, from 1 to num_layers.
        contrast: Weight of the contrastive loss, at least 0.
        temperature: What similarities are divided by in the contrast, above 0; the smaller, the harder the nearest
            nodes are pushed apart.
        eps: Length of the noise, at least 0.
        reg: Weight of ½(|e⁰_u|² + |e⁰_i|² + |e⁰_j|²), averaged over the batch.
        init_std: Standard deviation of the first embeddings' entries, above 0.
        lr: Adam's learning rate.
    """

    default_max_epochs = 200

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 64,
        num_layers: int = 2,
        contrast_layer: int = 1,
        contrast: float = 0.1,
        temperature: float = 0.2,
        eps: float = 0.2,
        reg: float = 1e-4,
        init_std: float = 0.3,
        lr: float = 1e-2,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise ValueError(f"embedding_dim must be at least 1, got {embedding_dim}")
        if not 1 <= contrast_layer <= num_layers:
            raise ValueError(
                f"num_layers must be at least 1, and contrast_layer from 1 to it, got {num_layers} and {contrast_layer}"
            )
        if min(contrast, eps, reg) < 0 or min(temperature, init_std, lr) <= 0:
            raise ValueError(
                f"contrast, eps and reg must be at least 0, temperature, init_std and lr above 0, got {contrast}, "
                f"{eps}, {reg}, {temperature}, {init_std} and {lr}"
            )
        self.save_hyperparameters()
        self.users = Parameter(torch.empty(num_users, embedding_dim))
        self.items = Parameter(torch.empty(num_items, embedding_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal embeddings."""
        init.normal_(self.users, std=self.hparams["init_std"])
        init.normal_(self.items, std=self.hparams["init_std"])

    @torch.no_grad()
    def start_new(self, users: Tensor, items: Tensor) -> None:
        """Zero: what propagation adds to it is exactly the fold-in of :meth:`ranker`."""
        self.users[users] = 0
        self.items[items] = 0

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Layers 1 to L of users, ``[num_users, dim]``, and items, ``[num_items, dim]``; with noise in training."""
        user: Tensor = self.users
        item: Tensor = self.items
        user_item, item_user = self.data.graph
        found = []
        for _ in range(self.hparams["num_layers"]):
            user, item = (
                self._noisy(propagate(user_item, item, item_user)),
                self._noisy(propagate(item_user, user, user_item)),
            )
            found.append((user, item))
        return found

    def loss(self, batch: BPRBatch) -> Tensor:
        """BPR, the contrast and the penalty."""
        layers = self.layers()
        users, items = (torch.stack(side).mean(0) for side in zip(*layers, strict=True))
        both = torch.cat([batch.items, batch.negatives])  # [2 * batch]
        user = users.index_select(0, batch.users)  # [batch, dim]
        pos, neg = items.index_select(0, both).chunk(2)
        loss: Tensor = bpr_loss((user * pos).sum(1), (user * neg).sum(1))
        if self.hparams["contrast"] > 0:
            other_users, other_items = layers[self.hparams["contrast_layer"] - 1]
            contrast = self._contrast(users, other_users, batch.users) + self._contrast(items, other_items, batch.items)
            loss = loss + self.hparams["contrast"] * contrast
        penalty = squared_norms(self.users, batch.users) + squared_norms(self.items, both)
        loss += self.hparams["reg"] * penalty / (2 * len(batch.users))
        return loss

    @torch.no_grad()
    def ranker(self) -> FactorRanker:
        """Dot products; a history is folded in as a new node would be, with no embedding of its own.

        Such a node's layers are ``e^l = Σ_h e_h^(l-1) / sqrt(|history| d_h)``, so its mean over layers needs one vector
        an item: ``f_h = Σ over l < L of e_h^l / (L sqrt(d_h))``.
        """
        layers, (user_item, item_user) = self.hparams["num_layers"], self.data.graph
        user, item = self.users.detach(), self.items.detach()
        total = item.clone()
        users, items = torch.zeros_like(user), torch.zeros_like(item)
        for layer in range(layers):
            user, item = sparse_matmul(user_item, item), sparse_matmul(item_user, user)
            users += user
            items += item
            if layer < layers - 1:
                total += item
        degree = item_user.indptr.diff().to(items.dtype).clamp(min=1)
        fold_in = total / (layers * degree.sqrt())[:, None]
        return FactorRanker(users / layers, items / layers, fold_in_factors=fold_in, fold_in="propagate")

    def _noisy(self, layer: Tensor) -> Tensor:
        if not self.training or self.hparams["eps"] == 0:
            return layer
        noise = F.normalize(torch.rand_like(layer)).mul_(self.hparams["eps"])
        return layer + noise.mul_(layer.detach().sign())

    def _contrast(self, whole: Tensor, one: Tensor, nodes: Tensor) -> Tensor:
        """InfoNCE of some nodes, each once."""
        nodes = torch.unique(nodes)
        z, y = (F.normalize(side.index_select(0, nodes)) for side in (whole, one))  # [nodes, dim]
        with torch.autocast(z.device.type, enabled=False):  # in mixed precision, too, as precise as the parameters
            return info_nce(z.to(self.users.dtype), y.to(self.users.dtype), self.hparams["temperature"])


def info_nce(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """How well each row of z tells its own row of y from the others, as a cross-entropy.

    Van den Oord et al., 2018, https://arxiv.org/abs/1807.03748

    Args:
        z: Unit vectors, float, shape ``[nodes, dim]``.
        y: Unit vectors of the same nodes, of that shape.
        temperature: What similarities are divided by, above 0.

    Returns:
        Scalar, in nats; log nodes when all are alike.
    """
    return _InfoNCE.apply(z, y, temperature)  # type: ignore[no-untyped-call, no-any-return]


class _InfoNCE(torch.autograd.Function):
    # One matrix is worked on in place: of torch's own logsumexp and its backward pass this takes half the time.
    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, temperature: float) -> Tensor:
        weights = torch.mm(z, y.T).div_(temperature)  # [nodes, nodes]
        own, highest = weights.diagonal().clone(), weights.amax(1)
        total = weights.sub_(highest[:, None]).exp_().sum(1)
        ctx.save_for_backward(z, y, weights.div_(total[:, None]))
        ctx.temperature = temperature
        return (total.log() + highest - own).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        z, y, share = ctx.saved_tensors
        scale = gradients[0] / (ctx.temperature * len(z))
        return (share @ y - y) * scale, (share.T @ z - z) * scale, None
