"""``recflow tune``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from recflow.cli.tables import print_metrics
from recflow.tuning.arguments import read_arguments

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from recflow.tuning.finish import Tuned

_HELP = """\
usage: recflow tune --plugin NAME [--data NAME] [--trials N] [--timeout 30m] [settings]
       recflow tune --config FILE.yaml [settings]
       recflow tune --resume STUDY [--trials N] [--timeout 30m]

Look for better hyper-parameters: every trial is a fit, compared by a validation metric. The test part is read once, at
the end, for the winner and for the untuned model beside it. All of it goes into runs/tune/STUDY:

  --plugin NAME            the model, with a search space of its own: recflow plugins NAME
  --data, --model.*, …     all that recflow fit takes, for every trial; also from --config FILE.yaml
  --trials N               how many, the untuned model included (default 50; all of a grid; any with --timeout)
  --timeout 30m            no trial begins after that: 90s, 30m, 1h30m
  --jobs N                 worker processes that share the study (default 1)
  --objective METRIC …     what to improve (default: the metric that picks the model's best epoch); with several, such
                           as val/ndcg@10 val/coverage@10, a Pareto front and a winner by a stated rule
  --sampler NAME           tpe (default), random, grid or cmaes
  --pruner NAME            ends hopeless trials early: median (default), hyperband or none
  --search.KEY VALUE       change the space: a list of choices, '[32, 64]'; a range,
                           '{low: 1e-4, high: 0.1, log: true}'; a part of one, --search.model.lr.high 0.05; one value
                           or null leaves the key out
  --name STUDY             the study's name (default: plugin and data, such as lightgcn-ml-100k)
  --resume STUDY           go on with a study: with what is left of it, or with N more trials
  --storage WHERE          a database's URL (postgresql://user@host/name), a journal file (….log) or memory
                           (default: a journal file in the study's folder)
  --keep-checkpoints       keep every trial's weights, not the winner's alone
  --seed N                 of the sampler and of every fit (default 42): same seed, one worker, same study

docs/tuning.md says more."""


def run(argv: Sequence[str]) -> int:
    """Tune, then print the winner beside the untuned model, and the next step."""
    console = Console(highlight=False)
    if not argv or any(arg in ("-h", "--help") for arg in argv):
        console.print(_HELP, markup=False, soft_wrap=True)
        return 0
    arguments = read_arguments(argv)
    from recflow.tuning.tune import tune_by

    _print(tune_by(arguments, console), console)
    return 0


def _print(tuned: Tuned, console: Console) -> None:
    from recflow.tuning.report import shown
    from recflow.tuning.winner import RULE, front

    plan, winner = tuned.plan, tuned.winner
    if len(plan.objectives) > 1:
        best = front(tuned.counted, tuned.study.directions)
        console.print()
        console.print(_front_table(tuned, best))
        console.print(f"[dim]the winner (*): {RULE}[/]", soft_wrap=True)
    values = "  ".join(f"{name} {value:.4f}" for name, value in zip(plan.objectives, winner.values, strict=True))
    console.print(f"\nbest of {_counted(tuned)}: trial {winner.number}, {values}", soft_wrap=True)
    console.print(f"  {shown(winner.params, plan)}", markup=False, soft_wrap=True)
    if tuned.untuned_won:
        console.print("no trial was better than the untuned model", style="yellow")
    rows = {f"{plan.plugin}, tuned": tuned.best.metrics["test"]}
    if tuned.default is not None:
        rows[f"{plan.plugin}, untuned"] = tuned.default.metrics["test"]
    print_metrics(console, {**rows, **tuned.best.metrics["baselines"]}, f"test part of {plan.dataset}")
    header = tuned.best.metrics["header"]
    console.print(f"[dim]{header['split']}; {header['candidates']}[/]", soft_wrap=True)
    if len(tuned.tested) > 1:
        earlier = ", ".join(str(number) for number in tuned.tested[:-1])
        console.print(
            f"the test part has been read for {len(tuned.tested)} winners by now (trials {earlier} before)",
            style="yellow",
            soft_wrap=True,
        )
    left = tuned.kept.queue.unfinished()
    if left:
        console.print(f"time is up: {left} trials still wait", style="yellow")
    _print_next(tuned, console)


def _print_next(tuned: Tuned, console: Console) -> None:
    from recflow.tuning.storage import MEMORY, public_form, with_driver

    console.print(f"\nThe study is in [bold]{tuned.path}[/], the winner's run in best/; next:", soft_wrap=True)
    runs_dir = tuned.path.parent.parent
    elsewhere = "" if str(runs_dir) == "runs" else f" --runs_dir {runs_dir}"
    commands = [
        f"recflow recommend --run {tuned.best.path} --user {tuned.best.recommender.catalog.user_id(0)}",
        f"recflow fit --config {tuned.path / 'best.yaml'}",
        f"tensorboard --logdir {tuned.path / 'tensorboard'}",
    ]
    if tuned.kept.where != MEMORY:
        commands.insert(2, f"recflow tune --resume {tuned.plan.name} --trials 20{elsewhere}")
        where = with_driver(tuned.kept.where) if "://" in tuned.kept.where else tuned.kept.where
        commands.append(f"optuna-dashboard {public_form(where)}")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)


def _counted(tuned: Tuned) -> str:
    states = [trial.state.name for trial in tuned.counted if trial.state.is_finished()]
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    counts = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
    return f"{len(states)} trials ({', '.join(counts)})"


def _front_table(tuned: Tuned, front: Sequence[FrozenTrial]) -> Table:
    from recflow.tuning.report import shown

    table = Table(title="Pareto front", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for name in tuned.plan.objectives:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values", overflow="fold", style="dim")
    for trial in front:
        mark = "* " if trial.number == tuned.winner.number else ""
        cells = [f"{value:.4f}" for value in trial.values]
        table.add_row(f"{mark}{trial.number}", *cells, shown(trial.params, tuned.plan))
    return table
