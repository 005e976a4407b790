"""The dataset as Lightning wants it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
from torch import Tensor

from recflow.data.batches import Batches
from recflow.data.dataset import DataConfig, Dataset, prepare
from recflow.errors import RecflowError

if TYPE_CHECKING:
    from collections.abc import Iterable


class RecDataModule(pl.LightningDataModule):
    """Hands a prepared dataset to the trainer; the model says which batches it learns from.

    The arguments are those of :class:`~recflow.data.dataset.DataConfig`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.config = DataConfig(**kwargs)

    @cached_property
    def dataset(self) -> Dataset:
        """The data, loaded on first use and once."""
        return prepare(self.config)

    @property
    def num_users(self) -> int:
        """Users left after filtering."""
        return self.dataset.num_users

    @property
    def num_items(self) -> int:
        """Items left after filtering."""
        return self.dataset.num_items

    def train_dataloader(self) -> Batches:
        """The batches that the model asks for; where there are several processes, this one's share of each."""
        batches = self._module().batches(self.dataset)
        if self.trainer is not None and self.trainer.world_size > 1:
            if not hasattr(batches, "shard"):
                raise RecflowError(
                    f"{type(batches).__name__} cannot be shared by {self.trainer.world_size} processes, for it has no "
                    "shard(rank, world_size): leave out --trainer.devices."
                )
            batches = batches.shard(self.trainer.global_rank, self.trainer.world_size)
        return cast("Batches", batches)

    def val_dataloader(self) -> Iterable[Tensor]:
        """Validation users, as many at a time as bounded memory allows."""
        return cast("Iterable[Tensor]", self._module().validation_users())

    def _module(self) -> Any:
        assert self.trainer is not None
        return self.trainer.lightning_module
