"""``recflow fit``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from recflow.cli.tables import metrics_table

_HELP = """\
usage: recflow fit --plugin NAME [--data NAME] [settings]
       recflow fit --config FILE.yaml [settings]
       recflow fit --resume RUN [--trainer.max_epochs N]

Train a model, choose its best epoch on the validation part, measure the test part once, and keep all of it in a run
folder. Every setting can stand in a YAML file or be given here, as --section.key value:

  --plugin NAME            the model: recflow plugins
  --data NAME              sample (default), ml-latest-small, ml-100k, ml-1m, ml-20m, ml-25m, ml-32m
  --seed N                 initialisation, batches and negatives (default 42)
  --name NAME              the run's name (default: the time)
  --monitor val/ndcg@10    what picks the best epoch and stops training early, with --patience 20
  --no-test                leave the test part unread
  --threads N              CPU threads
  --data.* --model.* --trainer.* --metrics.* --optimizer
  --print_config           print all settings as they stand, and stop

recflow fit --plugin NAME --help lists them all with their defaults."""


def run(argv: Sequence[str]) -> int:
    """Fit, then print the table and the next step."""
    console = Console(highlight=False)
    if not argv or list(argv) in (["-h"], ["--help"]):
        console.print(_HELP, markup=False, soft_wrap=True)
        return 0
    from recflow.training.fit import fit_from_arguments

    finished = fit_from_arguments(argv, console)
    metrics = finished.metrics
    epochs, planned = metrics["epochs"], finished.config["trainer"]["max_epochs"]
    chosen = f"best epoch {metrics['best_epoch']} of {epochs} by {metrics['monitor']}"
    if not metrics["val"]:
        chosen = f"no validation part: the last epoch of {epochs}"
    elif epochs < planned or planned == -1:
        chosen += f", stopped early: no better for {finished.config['patience']} validations"
    console.print(f"\n{chosen}; trained in {metrics['train_seconds']:.1f} s")
    if "test" in metrics:
        rows = {metrics["plugin"]: metrics["test"], **metrics["baselines"]}
        console.print(metrics_table(rows, f"test part of {metrics['header']['dataset']}"))
        skipped = metrics["test_users_without_relevant"]
        left_out = f" ({skipped:,} without a relevant item left out)" if skipped else ""
        console.print(
            f"[dim]ranking: means over {metrics['test_users']:,} users{left_out}; {metrics['header']['candidates']}[/]"
        )
    console.print(f"\nThe run is in [bold]{finished.path}[/]; next:", highlight=False)
    user = finished.recommender.catalog.user_id(0)
    for command in (
        f"recflow recommend --run {finished.path} --user {user}",
        f"recflow serve --run {finished.path}",
        f"tensorboard --logdir {finished.path.parent}",
    ):
        console.print(f"  {command}", highlight=False, soft_wrap=True)
    return 0
