"""The bases that models stand on: training and validation steps, ranking, metrics and optimizer live here, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from recflow.data.batches import (
    Batches,
    BPRBatch,
    BPRBatches,
    NegativeSampler,
    RatingBatch,
    RatingBatches,
    epoch_generator,
)
from recflow.data.dataset import Dataset, Rows
from recflow.errors import RecflowError
from recflow.metrics.evaluate import Evaluator, MetricsConfig, UserChunks
from recflow.ranking.rankers import Ranker
from recflow.spec import Task
from recflow.training.losses import bpr_loss
from recflow.training.warm_start import neighbour_means

_LOSS_CHUNK = 2**18


class RecModule(pl.LightningModule, ABC):
    """What all models share. Models subclass one of the three bases below, not this class.

    Class attributes:
        task: ``"ranking"`` or ``"rating"``.
        default_max_epochs: Epochs unless ``--trainer.max_epochs`` says otherwise; early stopping may end sooner.
        monitor: The validation metric that picks the best epoch unless ``--monitor`` names another.

    Attributes:
        data: The dataset, from :meth:`attach` on.
        seed: The run's seed.
        folder: The run's folder, where :func:`~recflow.training.fit.fit` trains the model; None elsewhere.
        console: Where progress is shown; nowhere, unless ``fit`` says otherwise.
        metrics_config: What is measured; the usual if None.
        part_seconds: Seconds spent on training models that this one is made of.
    """

    task: ClassVar[Task]
    default_max_epochs: ClassVar[int] = 200
    monitor: ClassVar[str] = "val/ndcg@10"

    data: Dataset
    seed: int
    folder: Path | None = None
    console: Console = Console(quiet=True)
    metrics_config: MetricsConfig | None = None
    part_seconds: float = 0.0

    def attach(self, data: Dataset, seed: int = 0, metrics: MetricsConfig | None = None) -> None:
        """Give the model its data. The trainer does so through :meth:`setup`; tests and baselines call it directly.

        Args:
            data: The prepared dataset; on the device where the model will run.
            seed: With the epoch's number, fixes every random choice.
            metrics: What validation measures.
        """
        self.data, self.seed = data, seed
        self.metrics_config = metrics

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The loss of one batch, a scalar; the base logs it as ``train/loss`` and ``val/loss``."""

    @abstractmethod
    def batches(self, data: Dataset) -> Batches:
        """One epoch's batches."""

    @abstractmethod
    def ranker(self) -> Ranker:
        """The model as it stands, as a ranker on the model's device, detached from the graph of gradients."""

    def notices(self) -> Sequence[str]:
        """What whoever fits this model on these data should be told, one line each; :attr:`data` is there."""
        return ()

    def start_new(self, users: Tensor, items: Tensor) -> None:
        """Give nodes that an earlier run did not know their first vectors; the known ones have theirs.

        By default a new node takes the mean of those who share its interactions, or else its genres: see
        :func:`~recflow.training.warm_start.neighbour_means`. Models with an exact fold-in override this.

        Args:
            users: Indices of the new users, int64, shape ``[new_users]``.
            items: Indices of the new items, int64, shape ``[new_items]``.
        """
        neighbour_means(self, users, items)

    def begin(self, data: Dataset) -> str | None:
        """Called once for a new run, before anything is written, and never when one is resumed.

        A model refuses here what it cannot be fitted on, and takes over what it starts from.

        Args:
            data: What it is to be fitted on; :attr:`data` is not there yet.

        Returns:
            What on the same rows its first vectors come from, for the run's header; None if there is no such thing.

        Raises:
            RecflowError: If it cannot be fitted.
        """
        return None

    def findings(self) -> dict[str, Any]:
        """What else a fitted model has found out, as JSON values, for the run's metrics."""
        return {}

    def feature_rows(self) -> dict[str, tuple[str, ...]]:
        """Which tensors' rows belong to features, by the features' names: a later run finds them again by these."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the features were called."""
        checkpoint["feature_rows"] = self.feature_rows()

    @abstractmethod
    def held_out_batches(self) -> Sequence[Any]:
        """Batches of the validation part for ``val/loss``, the same ones every time."""

    def setup(self, stage: str) -> None:
        """Called by Lightning: moves the data to the trainer's device."""
        self.data.to(self.trainer.strategy.root_device)

    def validation_users(self) -> UserChunks:
        """Users to rank for in validation, in chunks; none if there is no validation part."""
        self._evaluator = Evaluator(self.data, "val", self.task, self.metrics_config)
        self._held_out = self.held_out_batches()
        return self._evaluator.chunks(self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> Any:
        """Adam at ``lr``, unless ``--optimizer`` names any other of ``torch.optim``."""
        if "lr" not in self.hparams:
            raise RecflowError(f"{type(self).__name__} has no lr: give it one, or name an optimizer by --optimizer.")
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"], fused=True)

    def on_train_epoch_start(self) -> None:
        """Make dropout and its like follow (seed, epoch), so that a resumed run repeats an unbroken one."""
        torch.manual_seed(epoch_generator(self.seed, self.current_epoch).initial_seed() + self.global_rank)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """One batch's loss."""
        loss = self.loss(batch)
        several = self.trainer.world_size > 1
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=several)
        return loss

    def on_train_epoch_end(self) -> None:
        """Stop at once if training has diverged."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not bool(loss.isfinite()):
            raise RecflowError(f"The training loss is {float(loss)}: training diverged; try a smaller model.lr.")

    def on_validation_epoch_start(self) -> None:
        """Freeze the model into a ranker, once for all users."""
        self._evaluator.begin(self.ranker())

    def validation_step(self, users: Tensor, batch_idx: int) -> None:
        """Rank for some users."""
        self._evaluator.update(users)

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss`` and the metrics."""
        with torch.no_grad():
            total = sum((float(self.loss(batch)) * len(batch[0]) for batch in self._held_out), 0.0)
        count = sum(len(batch[0]) for batch in self._held_out)
        values = {"loss": total / count if count else float("nan")} | self._evaluator.compute().metrics
        self.log_dict({f"val/{name}": value for name, value in values.items()})


class RankingModule(RecModule):
    """Base of models that learn by gradients from which items a user liked. Default loader: BPR triples."""

    task = "ranking"

    def batches(self, data: Dataset) -> Batches:
        """Triples of user, liked item, and an item the user has not interacted with."""
        negatives = NegativeSampler(data.train.users, data.train.items, data.num_items)
        return BPRBatches(data.positives.users, data.positives.items, negatives, data.batch_size, self.seed)

    def held_out_batches(self) -> Sequence[BPRBatch]:
        """The relevant validation rows, each with one negative, the same ones for every seed."""
        return _held_out_triples(self.data)


class RatingModule(RecModule):
    """Base of models that learn by gradients to predict ratings. Default loader: ratings; default monitor: RMSE."""

    task = "rating"
    monitor = "val/rmse"

    def batches(self, data: Dataset) -> Batches:
        """Training ratings in random order."""
        return RatingBatches(*data.train, data.batch_size, self.seed)

    def held_out_batches(self) -> Sequence[RatingBatch]:
        """The validation ratings."""
        return _held_out_ratings(self.data)


class ClosedFormModule(RecModule):
    """Base of models that are solved, not descended: one :meth:`sweep` is one epoch, on a single device.

    What a sweep finds goes into buffers, so that checkpoints hold it. Lightning runs its automatic optimisation with
    a step that returns None: under manual optimisation its step count would stay at 0 and no checkpoint be saved.
    """

    default_max_epochs = 1

    @abstractmethod
    def sweep(self) -> float | None:
        """Run one sweep over the training data; may return a training loss, which is logged as ``train/loss``."""

    def loss(self, batch: Any) -> Tensor:
        """How well the ranker fits held-out rows: mean squared error, or BPR between liked and sampled items."""
        ranker = self._evaluator.ranker
        if self.task == "rating":
            return F.mse_loss(ranker.predict(batch.users, batch.items), batch.ratings)
        users, row = batch.users.unique(return_inverse=True)
        pos, neg = [], []
        step = max(1, _LOSS_CHUNK * 64 // ranker.num_items)
        for start in range(0, len(users), step):  # a few users' scores at a time
            scores = ranker.score(users[start : start + step])
            inside = ((row >= start) & (row < start + step)).nonzero().flatten()
            local = row[inside] - start
            pos.append(scores[local, batch.items[inside]])
            neg.append(scores[local, batch.negatives[inside]])
        return bpr_loss(torch.cat(pos), torch.cat(neg))

    def batches(self, data: Dataset) -> Batches:
        """One empty batch: the sweep goes over the data itself."""
        return _OneSweep()

    def held_out_batches(self) -> Sequence[Any]:
        """What :meth:`loss` is measured on."""
        return _held_out_ratings(self.data) if self.task == "rating" else _held_out_triples(self.data)

    def configure_optimizers(self) -> None:
        """No optimizer."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One sweep."""
        loss = self.sweep()
        if loss is not None:
            self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=1)


class _OneSweep:
    """A loader of one batch that holds nothing."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        yield ()


def _trained_on(data: Dataset, rows: Rows) -> Rows:
    """The rows of users who have training rows: a loss needs their parameters, the others are only folded in."""
    return rows.where(torch.bincount(data.train.users, minlength=data.num_users)[rows.users] > 0)


def _held_out_triples(data: Dataset) -> Sequence[BPRBatch]:
    rows = _trained_on(data, data.relevant("val"))
    if len(rows.users) == 0:
        return []
    known = [data.rows[part] for part in ("train", "val")]
    users, items = (torch.cat([getattr(part, name) for part in known]) for name in ("users", "items"))
    full = torch.bincount(users, minlength=data.num_users) >= data.num_items  # nothing is left to be their negative
    rows, some = rows.where(~full[rows.users]), ~full[users]
    users, items = users[some], items[some]
    if len(rows.users) == 0:
        return []
    sampler = NegativeSampler(users, items, data.num_items)
    negatives = sampler(rows.users, epoch_generator(0, 0, rows.users.device))
    triples = (rows.users, rows.items, negatives)
    return [BPRBatch(*chunk) for chunk in zip(*(torch.split(tensor, _LOSS_CHUNK) for tensor in triples), strict=True)]


def _held_out_ratings(data: Dataset) -> Sequence[RatingBatch]:
    return [
        RatingBatch(*chunk)
        for chunk in zip(
            *(torch.split(tensor, _LOSS_CHUNK) for tensor in _trained_on(data, data.rows["val"])), strict=True
        )
    ]
