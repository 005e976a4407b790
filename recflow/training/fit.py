"""The one fit: the command line, tuning and comparison all train through it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import polars
import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from torch import Tensor

from recflow.data.dataset import Dataset
from recflow.data.frames import keep_frame
from recflow.errors import RecflowError
from recflow.pictures import draw
from recflow.plots.curves import plot_curves
from recflow.ranking.rankers import Ranker
from recflow.runs import (
    CONFIG,
    CURVES,
    HEADER,
    HISTORY,
    METRICS,
    Run,
    create_run,
    load_run,
    lower_is_better,
)
from recflow.training.baselines import training_errors
from recflow.training.callbacks import BestCheckpoint, EpochProgress, History, LastCheckpoint, Patience
from recflow.training.checked import CheckedFit
from recflow.training.configuration import FitConfiguration, flatten, parse, resume_arguments, take_resume
from recflow.training.interrupts import StopIfInterrupted, noticed_interrupts
from recflow.training.loggers import make_loggers
from recflow.training.measure import as_json, measure_test, numbers
from recflow.training.quiet import quiet_libraries
from recflow.training.record import bundle_run, circumstances, log_finals
from recflow.training.warm_start import start_from


def fit(
    plugin: str | None = None,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    folder: Path | None = None,
    console: Console | None = None,
    callbacks: Sequence[pl.Callback] = (),
    **settings: Any,
) -> Run:
    """Fit a model and leave a run folder behind.

    Args:
        plugin: The model's name; may come from ``config``.
        data: A dataset's name, a file of your own, a pandas or Polars frame, or settings such as ``{"name": "ml-1m",
            "drop_below": 3}`` or ``{"path": frame, "user": "member", "item": "film"}``; or a dataset that has been
            prepared already, which is not announced again.
        config: A YAML file, as under ``experiments/``.
        resume: A run folder to go on with, instead of starting a new one.
        folder: Where the run goes; by default a new folder under ``runs_dir``, named by plugin, dataset and time.
        console: Where progress is shown; nowhere if None.
        callbacks: Lightning callbacks to be called beside our own; what one raises breaks the fit off.
        settings: Anything else that the command line takes, nested where it has dots:
            ``model={"num_layers": 2}, trainer={"max_epochs": 5}, seed=1``.

    Returns:
        The run.

    Raises:
        RecflowError: If something given cannot be used.

    Example::

        run = recflow.fit("lightgcn", data="ml-latest-small")
        run.recommend(user=42, k=10)
    """
    prepared = data if isinstance(data, Dataset) else None
    if prepared is not None:
        data = None if resume else vars(prepared.config)
    given = {"config": config, "resume": resume, "plugin": plugin, "data": without_frames(data), **settings}
    configuration, resumed = configure(list(flatten(given)), prepared)
    if configuration.cross_validates:
        raise RecflowError("data.folds asks for several fits: use recflow.cross_validate, or choose one by data.fold.")
    return run_fit(configuration, resumed, console or Console(quiet=True), folder, callbacks)


def without_frames(data: Any) -> Any:
    """Data settings in which a frame has become a file: a run's configuration can name nothing else."""
    if data is None or isinstance(data, str | Path):
        return data
    if isinstance(data, Mapping):
        return {name: keep_frame(value) if hasattr(value, "columns") else value for name, value in data.items()}
    return keep_frame(data)


def configure(args: Sequence[str], prepared: Dataset | None = None) -> tuple[FitConfiguration, Run | None]:
    """Read command-line arguments; see :class:`~recflow.training.configuration.FitConfiguration`.

    Returns:
        The configuration, and the run to go on with if there is one.

    Raises:
        RecflowError: If something given cannot be used.
    """
    args, folder = take_resume(args)
    resumed = None if folder is None else load_run(folder)
    with quiet_libraries():
        if resumed is None:
            return parse(args, prepared), None
        if resumed.finished and not args:
            raise RecflowError(f"{resumed.path} has finished; to train longer, add --trainer.max_epochs N.")
        return parse(resume_arguments(resumed.path / CONFIG, args), prepared), resumed


def run_fit(
    configuration: FitConfiguration,
    resumed: Run | None,
    console: Console,
    folder: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    *,
    curves: bool = True,
) -> Run:
    """Carry a configured fit out.

    Args:
        configuration: What to fit.
        resumed: The run to go on with.
        console: Where progress is shown.
        folder: Where a new run goes; by default a folder named by plugin, dataset and time.
        callbacks: See :func:`fit`.
        curves: Whether to draw them, which takes longer than some models' fits.
    """
    with quiet_libraries(), noticed_interrupts():
        console = console if is_first_process() else Console(quiet=True)
        return _Fit(configuration, resumed, console, callbacks, curves=curves).run_all(folder)


def check_fit(plugin: str, data: Dataset, **settings: Any) -> None:
    """Refuse what :func:`fit` would refuse before it writes anything, for a model that is to be fitted later.

    Args:
        plugin: The model's name.
        data: The prepared dataset.
        settings: As :func:`fit` takes them.

    Raises:
        RecflowError: If something given cannot be used.
    """
    given = {"plugin": plugin, "data": vars(data.config), **settings}
    with isolate_rng():
        check_configuration(configure(list(flatten(given)), data)[0])


def check_configuration(configuration: FitConfiguration) -> tuple[str, list[str]]:
    """Refuse what :func:`run_fit` would refuse before it writes anything.

    Returns:
        The validation metric that picks the best epoch, and all that there are.

    Raises:
        RecflowError: If something configured cannot be used.
    """
    with quiet_libraries():
        checked = CheckedFit(configuration, None)
        return checked.monitor, checked.validation_metrics()


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of several that train together."""
    return bool(getattr(rank_zero_only, "rank", 0) == 0)


class _Fit(CheckedFit):
    """One fit on its way through the stages."""

    run: Run

    def __init__(
        self,
        configuration: FitConfiguration,
        resumed: Run | None,
        console: Console,
        callbacks: Sequence[pl.Callback] = (),
        *,
        curves: bool = True,
    ) -> None:
        super().__init__(configuration, resumed)
        self.console, self.callbacks, self.curves = console, callbacks, curves
        self.first = is_first_process()  # of several: it makes the run folder and writes everything in it

    def run_all(self, folder: Path | None) -> Run:
        """Train, choose the best epoch, test, and write the run folder; see :func:`run_fit`."""
        self.run = self.resumed or self._new_run(folder)
        if self.config["threads"] is not None:
            torch.set_num_threads(self.config["threads"])
        if self.first:
            self.run.write_text(CONFIG, self.configuration.dump())
            self.run.write_text(HEADER, as_json(self.header))
            (self.run.path / METRICS).unlink(missing_ok=True)  # a finished run that is to go further
        self._announce()
        try:
            trainer, history, best_checkpoint = self._train()
        except BaseException as error:
            self._break_off(error)
            if isinstance(error, SystemExit):  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
            raise
        best_epoch = self._load_best(best_checkpoint)
        device = trainer.strategy.root_device
        self.data.to(device)
        ranker = self.model.to(device).ranker().eval()
        tested = self.config["test"] and len(self.data.rows["test"].users) > 0
        keep = self.run if self.first else None
        measured = measure_test(ranker, self.data, self.spec, self.metrics, self.config["seed"], keep) if tested else {}
        if self.first:
            self._write(trainer, history, ranker, best_epoch, measured)
        return self.run

    def _new_run(self, folder: Path | None) -> Run:
        if not self.first:
            return Run(self.config["runs_dir"])  # until the first process tells which folder it has made
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            return Run(folder)
        return create_run(self.config["runs_dir"], self.spec.name, self.data.name, self.config["name"])

    def _break_off(self, error: BaseException) -> None:
        if not self.first:
            return
        done = any(self.run.path.glob("**/checkpoints/last.ckpt"))  # of this run, or of a model that is a part of it
        if not done:
            advice = "before the end of the first epoch"
        elif isinstance(error, RecflowError):  # it would come again
            advice = f"what is done stays in {self.run.path}"
        else:
            advice = f"go on by: recflow fit --resume {self.run.path}"
        if not done and self.resumed is None:
            shutil.rmtree(self.run.path)  # nothing to go on with
            advice += ": nothing was kept"
        if self.configuration.prepared is None:  # or whoever has prepared the data tells how to go on
            self.console.print(f"\nbroken off{';' if done else ''} {advice}", highlight=False)

    def _announce(self) -> None:
        if self.configuration.prepared is not None:
            return
        header = self.data.header()
        for notice in self.data.interactions.notices:
            self.console.print(notice, style="yellow", markup=False, highlight=False)
        size = f"{header['users']:,} users, {header['items']:,} items, {len(self.data.interactions.table):,} ratings"
        default = " (the embedded sample: synthetic; choose other data by --data)" if self.data.name == "sample" else ""
        self.console.print(f"[bold]{self.spec.name}[/] on [bold]{self.data.name}[/]{default}: {size}")
        self.console.print(f"[dim]filter {header['filter']}; {header['split']}; relevant: {header['relevance']}[/]")
        cold = header["cold"]["test"]
        if cold["users"] or cold["items"]:
            counts = f"{cold['users']:,} users and {cold['items']:,} items"
            self.console.print(f"[dim]cold: {counts} of the test part have no training row[/]")
        if header["split"].startswith("ratio") and self.data.interactions.has_times:
            self.console.print(
                "[dim]a random split lets a model see the future: --data.split temporal is nearer to deployment[/]"
            )
        self.console.print(f"[dim]run {self.run.path}[/]")

    def _train(self) -> tuple[pl.Trainer, History, Path]:
        history = History()
        folder = self.run.path / "checkpoints"
        mode = "min" if lower_is_better(self.monitor) else "max"
        last = folder / "last.ckpt"
        callbacks: list[pl.Callback] = [
            history,
            EpochProgress(self.console, self.monitor),
            StopIfInterrupted(),
            *self.callbacks,
        ]
        if self.validated:
            best = BestCheckpoint(
                folder, filename="best", monitor=self.monitor, mode=mode, enable_version_counter=False
            )
            callbacks += [Patience(self.monitor, mode, self.config["patience"]), best]
        callbacks.append(LastCheckpoint(last))
        trainer = self.configuration.build_trainer(
            default_root_dir=self.run.path,
            logger=make_loggers(self.config["loggers"], self.run, self.config["runs_dir"], self.spec.name),
            callbacks=callbacks,
            **({} if self.validated else {"limit_val_batches": 0}),
        )
        if trainer.world_size > 1:
            self.console.print(f"in {trainer.world_size} processes, each with its share of every step", style="dim")
        self.model.attach(self.data, self.config["seed"], self.metrics)
        self.model.folder, self.model.console = self.run.path, self.console
        notices = [*self.model.notices()]
        if self.config.get("optimizer") and "lr" in self.model.hparams:
            notices.append("--optimizer stands in for the model's own steps: its lr counts, model.lr does not")
        for notice in notices:
            self.console.print(notice, style="yellow", markup=False, highlight=False)
        checkpoint = str(last) if self.resumed and last.is_file() else None
        if self.earlier is not None and checkpoint is None:
            self.console.print(start_from(self.model, self.earlier, self.spec.name), highlight=False, markup=False)
            if "test rows" in self.header["start"]:
                seen = self.header["start"].rpartition("; ")[2]
                advice = "these numbers are no test of it (split both in time, at one point)"
                self.console.print(f"{seen}: {advice}", style="yellow", highlight=False, markup=False)
        trainer.fit(self.model, datamodule=self.configuration.datamodule, ckpt_path=checkpoint, weights_only=True)
        self.run = Run(trainer.strategy.broadcast(str(self.run.path)))
        best_checkpoint = self.run.path / "checkpoints" / ("best.ckpt" if self.validated else "last.ckpt")
        if not best_checkpoint.is_file():
            epochs = self.config["trainer"]["max_epochs"]
            raise RecflowError(f"No epoch was trained: trainer.max_epochs must be at least 1, got {epochs}.")
        return trainer, history, best_checkpoint

    def _load_best(self, checkpoint: Path) -> int:
        loaded = torch.load(checkpoint, map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(loaded["state_dict"])
        return int(loaded["epoch"]) + 1

    def _write(
        self, trainer: pl.Trainer, history: History, ranker: Ranker, best_epoch: int, measured: dict[str, Any]
    ) -> None:
        data, run = self.data, self.run
        chosen: dict[str, float] = next((row for row in history.epochs if row["epoch"] == best_epoch), {})
        val = numbers({name.removeprefix("val/"): value for name, value in chosen.items() if name.startswith("val/")})
        header = {**self.header, **circumstances(self.config["seed"], self.model.device)}
        content: dict[str, Any] = {
            "plugin": self.spec.name,
            "task": self.spec.task,
            "monitor": self.monitor,
            "best_epoch": best_epoch,
            "epochs": len(history.epochs),
            "train_seconds": self.model.part_seconds + sum(row["seconds"] for row in history.epochs),
            "parameters": sum(value.numel() for value in self.model.state_dict().values() if isinstance(value, Tensor)),
            "header": header,
            **self.model.findings(),
            "train": training_errors(ranker, self.data) if self.spec.task == "rating" else {},
            "val": val,
            **measured,
        }
        polars.DataFrame(history.epochs, infer_schema_length=None).write_csv(run.path / HISTORY)
        if self.curves:
            title, best = f"{self.spec.name} on {data.name}: learning curves", best_epoch if self.validated else None
            plot_curves(run.path / CURVES, history.epochs, self.monitor, title, best)
        bundle_run(run, data, ranker, content)
        pictures = [run.path / CURVES] if self.curves else []
        if self.config["plots"] and "test" in content:
            pictures += draw(run, content)
        hyper_parameters = {"seed": self.config["seed"], "data": self.config["data"], **self.config.get("model", {})}
        log_finals(trainer.loggers, data, ranker, hyper_parameters, content.get("test", {}), pictures)
        run.write_text(METRICS, as_json(content))
