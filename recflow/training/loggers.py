"""Loggers by name, each set to write beside the run; any other of Lightning's by ``--trainer.logger``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from recflow.errors import RecflowError
from recflow.runs import Run

LoggerName = Literal["tensorboard", "csv", "mlflow", "wandb"]


def make_loggers(names: Sequence[LoggerName], run: Run, runs_dir: str | Path, experiment: str) -> list[Logger]:
    """Make the loggers of a run.

    Args:
        names: Which.
        run: Where TensorBoard's and CSV files go, and W&B's until they are synchronised.
        runs_dir: The folder of all runs: MLflow keeps one database for them, unless ``MLFLOW_TRACKING_URI`` names
            another.
        experiment: What the run is filed under: MLflow's experiment, W&B's project.

    Raises:
        RecflowError: If a logger is named twice, or its package is not installed.
    """
    if len(set(names)) < len(names):
        raise RecflowError(f"loggers must be distinct ones of {', '.join(get_args(LoggerName))}, got {list(names)}.")
    makers: dict[LoggerName, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoardLogger(run.path, name="", version="tensorboard", default_hp_metric=False),
        "csv": lambda: CSVLogger(run.path, name="", version="csv"),
        "mlflow": lambda: _mlflow(run, Path(runs_dir), experiment),
        "wandb": lambda: _wandb(run, experiment),
    }
    loggers = []
    for name in names:
        try:
            loggers.append(makers[name]())
        except ModuleNotFoundError:
            raise RecflowError(f"The logger {name} needs its package: pip install 'recflow[{name}]'.") from None
    return loggers


def _mlflow(run: Run, runs_dir: Path, experiment: str) -> MLFlowLogger:
    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs_dir / 'mlflow.db').resolve()}"
    return MLFlowLogger(experiment_name=experiment, run_name=run.path.name, tracking_uri=store)


def _wandb(run: Run, project: str) -> WandbLogger:
    # Offline unless an account is there: nothing leaves the machine by surprise, `wandb sync` sends it later.
    offline = "WANDB_API_KEY" not in os.environ and os.environ.get("WANDB_MODE", "offline") == "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLogger(project=project, name=run.path.name, save_dir=run.path, offline=offline)
