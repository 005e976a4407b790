"""``recflow tune``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from recflow.cli.tables import print_metrics
from recflow.cli.tune_arguments import Arguments, check_option_names, read_arguments
from recflow.errors import RecflowError

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from recflow.data.dataset import Dataset
    from recflow.tuning.finish import Finished
    from recflow.tuning.study import Study

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
    check_option_names(argv)
    arguments = read_arguments(argv)
    from recflow.tuning.storage import quiet_optuna
    from recflow.tuning.tune import tune

    with quiet_optuna():
        study, data = _resumed(arguments, console) if arguments.resume is not None else _begun(arguments)
        finished = tune(study, data, timeout=arguments.timeout, jobs=arguments.jobs, console=console)
    _print(finished, study, console)
    return 0


def _begun(arguments: Arguments) -> tuple[Study, Dataset]:
    from recflow.tuning.plan import make_plan
    from recflow.tuning.storage import MEMORY, check_storage
    from recflow.tuning.study import begin_study

    if arguments.storage is not None:
        check_storage(arguments.storage)
    if arguments.jobs > 1 and arguments.storage == MEMORY:
        raise RecflowError(f"--jobs {arguments.jobs} needs a storage that processes share: leave out --storage memory.")
    plan, data = make_plan(
        arguments.fit,
        name=arguments.name,
        objectives=arguments.objective,
        sampler=arguments.sampler,
        pruner=arguments.pruner,
        search=arguments.search,
        keep_checkpoints=arguments.keep_checkpoints,
    )
    trials = arguments.trials
    if trials is None and arguments.timeout is None and plan.sampler != "grid":
        trials = 50
    return begin_study(plan, Path(arguments.runs_dir), arguments.storage, trials), data


def _resumed(arguments: Arguments, console: Console) -> tuple[Study, Dataset | None]:
    from recflow.tuning.storage import check_storage
    from recflow.tuning.study import open_study

    assert arguments.resume is not None
    if arguments.storage is not None:
        check_storage(arguments.storage)
    study = open_study(arguments.resume, Path(arguments.runs_dir), arguments.storage)
    queue = study.queue
    for number in queue.rescue():
        console.print(f"[yellow]trial {number} was broken off with its process[/]")
    if arguments.trials is not None:
        study.more(arguments.trials)
    elif arguments.timeout is not None and not queue.unfinished():
        study.more(None)
    return study, None


def _print(finished: Finished, study: Study, console: Console) -> None:
    from recflow.tuning.report import shown
    from recflow.tuning.winner import RULE, front

    plan, winner = finished.plan, finished.winner
    if len(plan.objectives) > 1:
        best = front(finished.trials, study.optuna().directions)
        console.print()
        console.print(_front_table(finished, best))
        console.print(f"[dim]the winner (*): {RULE}[/]", soft_wrap=True)
    values = "  ".join(f"{name} {value:.4f}" for name, value in zip(plan.objectives, winner.values, strict=True))
    console.print(f"\nbest of {_counted(finished)}: trial {winner.number}, {values}", soft_wrap=True)
    console.print(f"  {shown(winner.params, plan)}", markup=False, soft_wrap=True)
    if finished.untuned_won:
        console.print("no trial was better than the untuned model", style="yellow")
    rows = {f"{plan.plugin}, tuned": finished.best.metrics["test"]}
    if finished.default is not None:
        rows[f"{plan.plugin}, untuned"] = finished.default.metrics["test"]
    print_metrics(console, {**rows, **finished.best.metrics["baselines"]}, f"test part of {plan.dataset}")
    header = finished.best.metrics["header"]
    console.print(f"[dim]{header['split']}; {header['candidates']}[/]", soft_wrap=True)
    if len(finished.tested) > 1:
        earlier = ", ".join(str(number) for number in finished.tested[:-1])
        console.print(
            f"the test part has been read for {len(finished.tested)} winners by now (trials {earlier} before)",
            style="yellow",
            soft_wrap=True,
        )
    left = study.queue.unfinished()
    if left:
        console.print(f"time is up: {left} trials still wait", style="yellow")
    _print_next(finished, study, console)


def _print_next(finished: Finished, study: Study, console: Console) -> None:
    from recflow.tuning.storage import MEMORY, public_form, with_driver

    console.print(f"\nThe study is in [bold]{finished.folder}[/], the winner's run in best/; next:", soft_wrap=True)
    runs_dir = finished.folder.parent.parent
    elsewhere = "" if str(runs_dir) == "runs" else f" --runs_dir {runs_dir}"
    commands = [
        f"recflow recommend --run {finished.best.path} --user {finished.best.recommender.catalog.user_id(0)}",
        f"recflow fit --config {finished.folder / 'best.yaml'}",
        f"tensorboard --logdir {finished.folder / 'tensorboard'}",
    ]
    if study.where != MEMORY:
        commands.insert(2, f"recflow tune --resume {finished.plan.name} --trials 20{elsewhere}")
        where = with_driver(study.where) if "://" in study.where else study.where
        commands.append(f"optuna-dashboard {public_form(where)}")
    for command in commands:
        console.print(f"  {command}", soft_wrap=True)


def _counted(finished: Finished) -> str:
    states = [trial.state.name for trial in finished.trials if trial.state.is_finished()]
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
    counts = [f"{states.count(state)} {word}" for state, word in words.items() if state in states]
    return f"{len(states)} trials ({', '.join(counts)})"


def _front_table(finished: Finished, front: Sequence[FrozenTrial]) -> Table:
    from recflow.tuning.report import shown

    table = Table(title="Pareto front", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    for name in finished.plan.objectives:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("values", overflow="fold", style="dim")
    for trial in front:
        mark = "* " if trial.number == finished.winner.number else ""
        cells = [f"{value:.4f}" for value in trial.values]
        table.add_row(f"{mark}{trial.number}", *cells, shown(trial.params, finished.plan))
    return table
