"""The one fit: the command line, tuning and comparison all train through it."""

from __future__ import annotations

import difflib
import json
import logging
import os
import platform
import shutil
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import polars
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from recflow import registry
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.metrics.evaluate import Evaluation, MetricsConfig, evaluate
from recflow.plots import plot_curves
from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, Ranker
from recflow.runs import CONFIG, CURVES, HISTORY, PER_USER, Run, create_run, load_run
from recflow.training.callbacks import EpochProgress, History, is_better_low
from recflow.training.configuration import FitConfiguration, parse, resume_arguments
from recflow.training.modules import RecModule

if TYPE_CHECKING:
    from collections.abc import Iterator

BASELINES = ("popularity", "random")


def fit(
    plugin: str | None = None,
    data: str | Mapping[str, Any] | None = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Fit a model and leave a run folder behind.

    Args:
        plugin: The model's name; may come from ``config``.
        data: A dataset's name, or settings such as ``{"name": "ml-1m", "drop_below": 3}``.
        config: A YAML file, as under ``experiments/``.
        resume: A run folder to go on with, instead of starting a new one.
        console: Where progress is shown; nowhere if None.
        settings: Anything else that the command line takes, nested where it has dots:
            ``model={"num_layers": 2}, trainer={"max_epochs": 5}, seed=1``.

    Returns:
        The run.

    Raises:
        RecflowError: If something given cannot be used.

    Example:
        >>> run = fit("lightgcn", data="ml-latest-small")  # doctest: +SKIP
        >>> run.recommend(user=42, k=10)  # doctest: +SKIP
    """
    given = {"config": config, "resume": resume, "plugin": plugin, "data": data, **settings}
    return fit_from_arguments(list(_flatten(given)), console)


def fit_from_arguments(args: Sequence[str], console: Console | None = None) -> Run:
    """Fit from command-line arguments; see :func:`fit`."""
    args, resumed = _take_resume(args)
    console = console or Console(quiet=True)
    with _quiet_libraries():
        if resumed is None:
            configuration = parse(args)
        else:
            if resumed.finished and not args:
                raise RecflowError(f"{resumed.path} has finished; to train longer, add --trainer.max_epochs N.")
            configuration = parse(resume_arguments(resumed.path / CONFIG, args))
        return _Fit(configuration, resumed, console).run_all()


class _Fit:
    """One fit on its way through the stages."""

    def __init__(self, configuration: FitConfiguration, resumed: Run | None, console: Console) -> None:
        self.configuration, self.console = configuration, console
        self.config, self.spec = configuration.config, configuration.spec
        self.model: RecModule = configuration.model
        self.data: Dataset = configuration.datamodule.dataset
        self.metrics = MetricsConfig(**vars(self.config["metrics"]))
        self.monitor = self._monitor()
        self.validated = len(self.data.rows["val"].users) > 0
        self._check()
        if self.config["threads"] is not None:
            torch.set_num_threads(self.config["threads"])
        self.resumed = resumed is not None
        self.run = resumed or create_run(self.config["runs_dir"], self.spec.name, self.data.name, self.config["name"])

    def run_all(self) -> Run:
        """Train, choose the best epoch, test, and write the run folder."""
        if not self.resumed:
            (self.run.path / CONFIG).write_text(self.configuration.dump(), encoding="utf-8")
        self._announce()
        try:
            trainer, history, best_checkpoint = self._train()
        except BaseException as error:
            if not (self.run.path / "checkpoints" / "last.ckpt").is_file():
                shutil.rmtree(self.run.path)  # nothing to go on with
            else:
                self.console.print(f"\nbroken off; go on by: recflow fit --resume {self.run.path}", highlight=False)
            if isinstance(error, SystemExit):  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
            raise
        best_epoch = self._load_best(best_checkpoint)
        ranker = self.model.ranker().eval()
        self._write(trainer, history, ranker, best_epoch)
        return self.run

    def _monitor(self) -> str:
        names = [f"val/{name}" for name in self._metric_names()] + ["val/loss"]
        chosen: str | None = self.config["monitor"]
        if chosen is None:  # the model's own, at a cut-off that is measured
            own = self.model.monitor
            return own if own in names else f"{own.partition('@')[0]}@{max(self.metrics.ks)}"
        if chosen not in names:
            close = difflib.get_close_matches(chosen, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}."
            raise RecflowError(f"There is no metric {chosen!r} to monitor; {hint}")
        return chosen

    def _check(self) -> None:
        if self.config["patience"] < 1:
            raise RecflowError(f"patience must be at least 1, got {self.config['patience']}.")
        threads = self.config["threads"]
        if threads is not None and threads < 1:
            raise RecflowError(f"threads must be at least 1, got {threads}.")

    def _metric_names(self) -> list[str]:
        from recflow.metrics.ranking import RankingMetrics

        names = list(RankingMetrics.names(self.metrics.ks, self.metrics.auc))
        return ["rmse", "mae", "mse", *names] if self.spec.task == "rating" else names

    def _announce(self) -> None:
        header = self.data.header()
        for notice in self.data.interactions.notices:
            self.console.print(notice, style="yellow", markup=False, highlight=False)
        size = f"{header['users']:,} users, {header['items']:,} items, {len(self.data.interactions.table):,} ratings"
        default = " (the embedded sample: synthetic; choose other data by --data)" if self.data.name == "sample" else ""
        self.console.print(f"[bold]{self.spec.name}[/] on [bold]{self.data.name}[/]{default}: {size}")
        self.console.print(f"[dim]filter {header['filter']}; {header['split']}; relevant: {header['relevance']}[/]")
        self.console.print(f"[dim]run {self.run.path}[/]")

    def _train(self) -> tuple[pl.Trainer, History, Path]:
        history = History()
        folder = self.run.path / "checkpoints"
        mode = "min" if is_better_low(self.monitor) else "max"
        best = ModelCheckpoint(
            folder,
            filename="best",
            monitor=self.monitor if self.validated else None,
            mode=mode,
            save_last=True,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        callbacks: list[pl.Callback] = [history, EpochProgress(self.console, self.monitor), best]
        if self.validated:
            callbacks.append(_Patience(self.monitor, mode, self.config["patience"]))
        trainer = self.configuration.build_trainer(
            default_root_dir=self.run.path,
            logger=TensorBoardLogger(self.run.path, name="", version="tensorboard", default_hp_metric=False),
            callbacks=callbacks,
            **({} if self.validated else {"limit_val_batches": 0}),
        )
        self.model.attach(self.data, self.config["seed"], self.metrics)
        last = folder / "last.ckpt"
        checkpoint = str(last) if self.resumed and last.is_file() else None
        trainer.fit(self.model, datamodule=self.configuration.datamodule, ckpt_path=checkpoint, weights_only=True)
        return trainer, history, folder / ("best.ckpt" if self.validated else "last.ckpt")

    def _load_best(self, checkpoint: Path) -> int:
        loaded = torch.load(checkpoint, map_location=self.model.device, weights_only=True)
        self.model.load_state_dict(loaded["state_dict"])
        return int(loaded["epoch"])

    def _write(self, trainer: pl.Trainer, history: History, ranker: Ranker, best_epoch: int) -> None:
        data, run = self.data, self.run
        data.to(self.model.device)
        chosen: dict[str, float] = next((row for row in history.epochs if row["epoch"] == best_epoch), {})
        val = {name.removeprefix("val/"): value for name, value in chosen.items() if name.startswith("val/")}
        header = {**data.header(), **self._circumstances(trainer)}
        content: dict[str, Any] = {
            "plugin": self.spec.name,
            "task": self.spec.task,
            "monitor": self.monitor,
            "best_epoch": best_epoch,
            "epochs": len(history.epochs),
            "train_seconds": sum(row["seconds"] for row in history.epochs),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "header": header,
            "val": val,
        }
        if self.config["test"]:
            content |= self._test(ranker)
        polars.DataFrame(history.epochs, infer_schema_length=None).write_csv(run.path / HISTORY)
        plot_curves(
            run.path / CURVES,
            history.epochs,
            self.monitor,
            f"{self.spec.name} on {data.name}",
            best_epoch if self.validated else None,
        )
        self._save_bundle(ranker, content)
        self._log(trainer, ranker, content)
        run.write_json("metrics.json", content)

    def _test(self, ranker: Ranker) -> dict[str, Any]:
        started = time.perf_counter()
        measured = evaluate(ranker, self.data, "test", self.spec.task, self.metrics, keep_per_user=True)
        seconds = time.perf_counter() - started
        measured.per_user.write_parquet(self.run.path / PER_USER)
        baselines = {
            name: baseline(name, self.data, self.config["seed"], self.metrics).metrics
            for name in BASELINES
            if name != self.spec.name
        }
        return {
            "test": measured.metrics,
            "test_users": measured.users,
            "test_users_without_relevant": measured.skipped,
            "test_seconds": seconds,
            "baselines": baselines,
        }

    def _save_bundle(self, ranker: Ranker, content: Mapping[str, Any]) -> None:
        interactions = self.data.interactions
        known = self.data.known()
        counts = torch.bincount(self.data.train.items, minlength=self.data.num_items).tolist()
        save_bundle(
            self.run.path / "bundle",
            plugin=self.spec.name,
            ranker=ranker,
            histories=Histories.from_pairs(
                known.users, known.items, self.data.num_users, self.data.num_items, known.ratings
            ),
            items=(
                Item(item, row["item_id"], row["title"], row["year"], tuple(row["genres"]), counts[item])
                for item, row in enumerate(interactions.items.iter_rows(named=True))
            ),
            user_ids=interactions.users["user_id"].to_list(),
            about={
                "task": self.spec.task,
                "rating_scale": self.data.rating_scale,
                "relevant_from": self.data.config.relevant_from,
                "header": content["header"],
                "metrics": content.get("test") or content["val"],
            },
        )

    def _log(self, trainer: pl.Trainer, ranker: Ranker, content: Mapping[str, Any]) -> None:
        """Final numbers beside the hyper-parameters, and the items' embedding for the projector."""
        finals = {f"test/{name}": value for name, value in content.get("test", {}).items()}
        for logger in trainer.loggers:
            if not isinstance(logger, TensorBoardLogger):
                logger.log_metrics(finals)
                continue
            settings = {
                **_plain(self.config.get("model")),
                **{f"data.{k}": v for k, v in _plain(self.config["data"]).items()},
            }
            logger.log_hyperparams({"seed": self.config["seed"], **settings}, finals)
            if isinstance(ranker, FactorRanker) and ranker.item_factors.shape[1] > 2:
                items = self.data.interactions.items
                rows = zip(
                    items["title"].to_list(),
                    [str(year or "") for year in items["year"].to_list()],
                    ["|".join(genres) for genres in items["genres"].to_list()],
                    strict=True,
                )
                logger.experiment.add_embedding(
                    ranker.item_factors.cpu(),
                    [list(row) for row in rows],
                    metadata_header=["title", "year", "genres"],
                    tag="items",
                )
            logger.finalize("success")

    def _circumstances(self, trainer: pl.Trainer) -> dict[str, Any]:
        return {
            "seed": self.config["seed"],
            "device": str(self.model.device),
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in ("recflow", "torch", "lightning", "polars")},
            },
            "commit": _commit(),
        }


class _Patience(EarlyStopping):
    """Early stopping that, resumed where it had already stopped, does not train another epoch."""

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_finite=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def baseline(name: str, data: Dataset, seed: int, metrics: MetricsConfig | None = None) -> Evaluation:
    """Fit a closed-form model on the side, and measure it on the test part.

    Args:
        name: A plugin of a ClosedFormModule that needs nothing but the data's sizes.
        data: The prepared dataset.
        seed: The run's seed.
        metrics: What to measure.
    """
    spec = registry.load(name)
    module = registry.load_target(spec, "module")(num_users=data.num_users, num_items=data.num_items)
    module.attach(data, seed, metrics)
    module.sweep()
    return evaluate(module.ranker(), data, "test", spec.task, metrics)


def _take_resume(args: Sequence[str]) -> tuple[list[str], Run | None]:
    rest, resumed = list(args), None
    for place, arg in enumerate(rest):
        if arg == "--resume" or arg.startswith("--resume="):
            value = arg.partition("=")[2] or (rest[place + 1] if place + 1 < len(rest) else "")
            if not value or value.startswith("--"):
                raise RecflowError("--resume expects a run folder, such as --resume runs/lightgcn/ml-1m/first.")
            resumed = load_run(value)
            del rest[place : place + (1 if "=" in arg else 2)]
            break
    return rest, resumed


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Nested settings as command-line arguments, so that Python and the shell are parsed alike."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value is not None:
            text = str(value) if isinstance(value, str | Path) else json.dumps(value)
            yield f"--{prefix}{name}={text}"


def _plain(section: Any) -> dict[str, Any]:
    """A section's plain values, as TensorBoard's hyper-parameters take them; a model may have none."""
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in (vars(section) if section else {}).items()
    }


def _commit() -> str | None:
    """The commit of the folder that the fit was started in, if it is under git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Lightning's advice on data loaders, checkpoints and GPUs is for others: ours are whole tensors."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), nullcontext():
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
            ".*isinstance\\(treespec, LeafSpec\\).*",
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            logger.setLevel(level)
