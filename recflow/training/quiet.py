"""Keeps other libraries' advice off the screen, where it does not apply to us."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Lightning's advice on data loaders, checkpoints and GPUs is for others: ours are whole tensors."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*`training_step` returned `None`.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*`LightningModule.configure_optimizers` returned `None`.*",
            ".*Sparse CSR tensor support is in beta.*",
            ".*Trying to infer the `batch_size`.*",
            ".*LightningCLI's args parameter.*",
            ".*smaller than the logging interval.*",
            ".*You defined a `validation_step` but have no `val_dataloader`.*",
            ".*MLFlow only allows.*",
            ".*It is recommended to use `self.log.*sync_dist=True.*",
            ".*Experiment logs directory .* exists and is not empty.*",
            ".*was called before the ``update`` method.*",
            ".*isinstance\\(treespec, LeafSpec\\).*",
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
