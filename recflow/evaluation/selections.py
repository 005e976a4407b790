"""The epoch as a source chose it: on the test part. For comparison with such figures, and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import polars

from recflow.metrics.evaluate import evaluate
from recflow.runs import Run, lower_is_better
from recflow.training.modules import RecModule

BY_EPOCH = "test_by_epoch.csv"


class TestEachEpoch(pl.Callback):
    """Measures the test part after every epoch and keeps the values in the run's folder; training sees none of it.

    Args:
        folder: The run's folder.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the model as it stands."""
        assert isinstance(pl_module, RecModule)
        found = evaluate(pl_module.ranker(), pl_module.data, "test", pl_module.task, pl_module.metrics_config)
        self.epochs.append({"epoch": trainer.current_epoch + 1, **found.metrics})
        Run(self.folder).write_text(BY_EPOCH, polars.DataFrame(self.epochs).write_csv())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint carries: a run that is gone on with has the earlier epochs, too."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.epochs = list(state_dict["epochs"])


def chosen_on_test(run: Run, metric: str) -> Mapping[str, float] | None:
    """A run's test metrics at the epoch that is best there, which is too good to be true.

    Args:
        run: A run that :class:`TestEachEpoch` watched.
        metric: What decides.

    Returns:
        ``epoch`` and the metrics; None if the run was not watched.
    """
    path = run.path / BY_EPOCH
    if not path.is_file():
        return None
    epochs = polars.read_csv(path).sort(metric, descending=not lower_is_better(metric), maintain_order=True)
    return epochs.row(0, named=True)
