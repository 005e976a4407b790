"""What happens beside training: the history of metrics, and progress on the screen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recflow.errors import RecflowError
from recflow.runs import lower_is_better


class History(pl.Callback):
    """Keeps every epoch's losses, metrics and seconds; checkpoints carry it, so a resumed run has it all.

    Attributes:
        epochs: One dictionary an epoch: ``epoch`` from 1, ``seconds`` of training alone, ``train/…`` and ``val/…``.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._seconds = 0.0
        self._started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Read the clock after each batch, so that validation is not counted."""
        self._seconds = time.perf_counter() - self._started

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what was logged."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch + 1, "seconds": self._seconds, **values})

    def state_dict(self) -> dict[str, Any]:
        """See Lightning."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Lightning."""
        self.epochs = list(state_dict["epochs"])


class EpochProgress(pl.Callback):
    """One line for the whole training: epochs done and left, the loss, the monitored metric and its best.

    On a terminal it is a live bar; elsewhere a line is printed now and then, so that a log stays readable.

    Args:
        console: Where to write.
        monitor: The metric to show.
    """

    def __init__(self, console: Console, monitor: str) -> None:
        self.console, self.monitor = console, monitor
        self.best: tuple[float, int] | None = None
        self._progress: Progress | None = None
        self._printed = float("-inf")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the bar."""
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(
                "training", total=trainer.max_epochs, completed=trainer.current_epoch, values=""
            )
            self._progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the bar on."""
        metrics = trainer.callback_metrics
        parts = []
        if "train/loss" in metrics:
            parts.append(f"loss {float(metrics['train/loss']):.4f}")
        if self.monitor in metrics:
            value = float(metrics[self.monitor])
            if self.best is None or (value < self.best[0] if lower_is_better(self.monitor) else value > self.best[0]):
                self.best = (value, trainer.current_epoch + 1)
            parts.append(f"{self.monitor} {value:.4f} (best {self.best[0]:.4f} at {self.best[1]})")
        if self._progress is not None:
            self._progress.update(self._task, advance=1, values="  ".join(parts))
        elif time.monotonic() - self._printed > 10:
            self._printed = time.monotonic()
            self.console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {'  '.join(parts)}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the bar as it stands."""
        self._stop()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the bar as it stands."""
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def state_dict(self) -> dict[str, Any]:
        """See Lightning."""
        return {"best": list(self.best) if self.best else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Lightning."""
        self.best = tuple(state_dict["best"]) if state_dict["best"] else None


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best epoch, and knows it again where the run folder has been moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Lightning, which forgets the best score in another folder."""
        here = Path(str(self.dirpath))

        def moved(path: str) -> str:
            return str(here / Path(path).name) if path else path

        paths = {name: moved(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keeps the last epoch, better or not: Lightning writes its own last checkpoint beside a new best one only.

    A process killed while it writes leaves the epoch before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, then take the old one's place; Lightning runs checkpoints after all other callbacks."""
        begun = self.path.with_suffix(".part")
        trainer.save_checkpoint(begun)
        if trainer.is_global_zero:
            begun.replace(self.path)


class Patience(EarlyStopping):
    """Early stopping that, resumed where it had already stopped, does not train another epoch."""

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_finite=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See Lightning; a resumed run may be given more patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See above."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to choose by what is not a number."""
        if bool(trainer.callback_metrics[self.monitor].isnan()):
            raise RecflowError(
                f"{self.monitor} is not a number: training has diverged, which a smaller learning rate may mend, or "
                "nobody in the validation part can be measured by it; then choose another --monitor, or a split or "
                "relevance that leaves something to measure."
            )
        super().on_validation_end(trainer, pl_module)
