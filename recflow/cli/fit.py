"""``recflow fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from recflow.cli.tables import print_metrics

if TYPE_CHECKING:
    from recflow.runs import Run
    from recflow.training.folds import CrossValidation

_HELP = """\
usage: recflow fit --plugin NAME [--data NAME] [settings]
       recflow fit --config FILE.yaml [settings]
       recflow fit --resume RUN [--trainer.max_epochs N]

Train a model, choose its best epoch on the validation part, measure the test part once, and keep all of it in a run
folder. Every setting can stand in a YAML file or be given here, as --section.key value:

  --plugin NAME            the model: recflow plugins
  --data NAME|FILE         sample (default), ml-1m or another of recflow data list; or a CSV, TSV or Parquet file of
                           your own: --data my.csv --data.user member --data.item film --data.rating stars
  --data.split METHOD      ratio, temporal, user-temporal, leave-one-out, users, k-fold, files
  --data.folds K           fit all K folds, one after another, and print mean and standard deviation
  --seed N                 initialisation, batches and negatives (default 42)
  --name NAME              the run's name (default: the time)
  --monitor val/ndcg@10    what picks the best epoch and stops training early, with --patience 20
  --no-test                leave the test part unread
  --threads N              CPU threads
  --init-from RUN          start from an earlier run of the same model, on data that may have grown
  --plots false            draw no pictures of the test; recflow runs plot RUN draws them later
  --loggers '[csv]'        any of tensorboard (default), csv, mlflow, wandb
  --trainer.devices 2 --trainer.strategy ddp     several processes or GPUs
  --data.* --model.* --trainer.* --metrics.* --optimizer
  --print_config           print all settings as they stand, and stop

recflow fit --plugin NAME --help lists them all with their defaults."""


def run(argv: Sequence[str]) -> int:
    """Fit, then print the table and the next step."""
    console = Console(highlight=False)
    if not argv or list(argv) in (["-h"], ["--help"]):
        console.print(_HELP, markup=False, soft_wrap=True)
        return 0
    from recflow.training.fit import is_first_process
    from recflow.training.folds import CrossValidation, fit_or_cross_validate

    finished = fit_or_cross_validate(argv, console)
    if not is_first_process():
        return 0
    if isinstance(finished, CrossValidation):
        _print_folds(finished, console)
    else:
        _print_run(finished, console)
    return 0


def _print_folds(finished: CrossValidation, console: Console) -> None:
    if finished.rows:
        title = f"test parts of {finished.header['dataset']}: mean ± standard deviation over {len(finished.runs)} folds"
        console.print()
        print_metrics(console, finished.means, title, finished.deviations)
        console.print(f"[dim]{finished.header['split']}; {finished.header['candidates']}[/]")
    console.print(f"\nThe runs are in [bold]{finished.path}[/]; next:", highlight=False)
    for command in (
        f"recflow runs list --runs_dir {finished.path.parents[2]}",
        f"recflow runs show {finished.runs[0].path}",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def _print_run(finished: Run, console: Console) -> None:
    metrics = finished.metrics
    epochs, planned = metrics["epochs"], finished.config["trainer"]["max_epochs"]
    chosen = f"best epoch {metrics['best_epoch']} of {epochs} by {metrics['monitor']}"
    if not metrics["val"]:
        chosen = f"no validation part: the last epoch of {epochs}"
    elif epochs < planned or planned == -1:
        chosen += f", stopped early: no better for {finished.config['patience']} validations"
    console.print(f"\n{chosen}; trained in {metrics['train_seconds']:.1f} s")
    if metrics["train"]:
        parts = [("training", metrics["train"]), ("validation", metrics["val"]), ("test", metrics.get("test", {}))]
        shown = ", ".join(f"{name} {values['rmse']:.4f}" for name, values in parts if "rmse" in values)
        console.print(f"rmse: {shown}")
    if "test" in metrics:
        rows = {metrics["plugin"]: metrics["test"], **metrics["baselines"]}
        print_metrics(console, rows, f"test part of {metrics['header']['dataset']}")
        skipped = metrics["test_users_without_relevant"]
        left_out = f" ({skipped:,} without a relevant item left out)" if skipped else ""
        console.print(
            f"[dim]ranking: means over {metrics['test_users']:,} users{left_out}; {metrics['header']['candidates']}[/]"
        )
    console.print(f"\nThe run is in [bold]{finished.path}[/]; next:", highlight=False)
    user = finished.recommender.catalog.user_id(0)
    for command in (
        *([f"recflow runs show {finished.path}"] if "test" in metrics else []),
        f"recflow recommend --run {finished.path} --user {user}",
        f"recflow serve --run {finished.path}",
        *([f"tensorboard --logdir {finished.path.parent}"] if (finished.path / "tensorboard").is_dir() else []),
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
