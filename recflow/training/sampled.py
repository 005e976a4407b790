"""The base of models that score single pairs and learn from interactions beside sampled items."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from recflow.data.batches import Batches, BPRBatch, NegativeSampler, PointwiseBatch, PointwiseBatches
from recflow.data.dataset import Dataset
from recflow.training.losses import sampled_loss
from recflow.training.modules import RankingModule


class SampledModule(RankingModule):
    """A model that gives any pair a score: it writes :meth:`scores` and :meth:`squares`.

    Its hyper-parameters ``loss`` (see :func:`~recflow.training.losses.sampled_loss`), ``num_negatives`` and ``reg`` say
    how it learns; every negative is an item that the user has not interacted with in training.
    """

    @abstractmethod
    def scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Score some items for each of some users.

        Args:
            users: User indices, int64, shape ``[interactions]``.
            items: Item indices, int64, shape ``[interactions, items]``.

        Returns:
            Raw scores, float, shape of ``items``.
        """

    @abstractmethod
    def squares(self, users: Tensor, items: Tensor) -> Tensor:
        """Sum of the squares of what belongs to some users and items; whoever is named twice counts twice.

        Args:
            users: User indices, int64, of any shape.
            items: Item indices, int64, of any shape.

        Returns:
            Scalar.
        """

    def batches(self, data: Dataset) -> Batches:
        """Each interaction beside its negatives; a batch counts interactions and negatives together, unless by BPR."""
        wanted: int = self.hparams["num_negatives"]
        if self.hparams["loss"] == "bpr" and wanted == 1:
            return super().batches(data)
        sampler = NegativeSampler(data.train.users, data.train.items, data.num_items)
        users, items = data.positives.users, data.positives.items
        return PointwiseBatches(users, items, sampler, data.batch_size, self.seed, wanted)

    def loss(self, batch: BPRBatch | PointwiseBatch) -> Tensor:
        """The sampled loss, and ½ reg the squares: of a pair under bce, of an interaction with its negatives by bpr."""
        users, items = _grouped(batch, self.hparams["num_negatives"])
        loss = sampled_loss(self.scores(users, items), self.hparams["loss"])
        if self.hparams["reg"] == 0:
            return loss
        owners = users[:, None].expand_as(items) if self.hparams["loss"] == "bce" else users
        penalty: Tensor = self.hparams["reg"] * self.squares(owners, items) / (2 * owners.numel())
        return loss + penalty


def check_sampling(loss: str, num_negatives: int) -> None:
    """Refuse what :class:`SampledModule` does not know.

    Raises:
        ValueError: If ``loss`` is unknown or ``num_negatives`` below 1.
    """
    if loss not in ("bce", "bpr"):
        raise ValueError(f"loss must be bce or bpr, got {loss!r}")
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")


def _grouped(batch: BPRBatch | PointwiseBatch, num_negatives: int) -> tuple[Tensor, Tensor]:
    """Users, ``[interactions]``, and the items of each, its own first, ``[interactions, 1 + negatives]``."""
    if isinstance(batch, BPRBatch):
        return batch.users, torch.stack([batch.items, batch.negatives], dim=1)
    shape = -1, 1 + num_negatives
    return batch.users.view(shape)[:, 0], batch.items.view(shape)
