"""The course of a study: what waits is run, then the winner is tested."""

from __future__ import annotations

import time

from rich.console import Console

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.training.interrupts import noticed_interrupts
from recflow.tuning.finish import Tuned, finish, write_down_broken_off
from recflow.tuning.run import Crew, run_here
from recflow.tuning.space import decode, describe
from recflow.tuning.storage import MEMORY, public_form, quiet_optuna
from recflow.tuning.study import Study
from recflow.tuning.view import StudyView


def carry_out(
    study: Study,
    data: Dataset,
    *,
    timeout: float | None = None,
    jobs: int = 1,
    console: Console | None = None,
) -> Tuned:
    """Run what waits in a study, then test its winner beside the untuned model.

    Args:
        study: See :func:`~recflow.tuning.study.begin_study` and :func:`~recflow.tuning.study.open_study`.
        data: Its data, see :func:`~recflow.tuning.run.prepared_data`.
        timeout: Seconds after which no trial begins; what is running goes to its end.
        jobs: How many worker processes share the study; 1 runs it in this process.
        console: Where it is shown; nowhere if None.

    Raises:
        RecflowError: If the study cannot be run, or no trial came to its end.
    """
    console = console or Console(quiet=True)
    if jobs > 1 and study.where == MEMORY:
        raise RecflowError(f"--jobs {jobs} needs a storage that processes share: leave out --storage {MEMORY}.")
    deadline = float("inf") if timeout is None else time.time() + timeout
    queue = study.queue
    if queue.endless and timeout is None:
        raise RecflowError(f"The study {study.plan.name} has no number of trials: give --trials N or --timeout 30m.")
    with quiet_optuna(), noticed_interrupts():
        queue.rescue()
        _announce(study, console, jobs)
        _tell_of_cold(data, console)
        try:
            if queue.unfinished() or queue.endless:
                jobs = jobs if queue.endless else min(jobs, queue.unfinished())
                with StudyView(study, console, deadline, jobs) as view:
                    if jobs > 1:
                        Crew(study, jobs, deadline).run(view.poll)
                    else:
                        run_here(study, data, deadline, view.poll)
                    view.poll()
            console.print("[dim]testing the winner and the untuned model …[/]")
            return finish(study, data)
        except KeyboardInterrupt:
            queue.rescue()  # of workers that had to be killed
            write_down_broken_off(study)
            _tell_how_to_go_on(study, console)
            raise


def _tell_of_cold(data: Dataset, console: Console) -> None:
    """The tests count them, too; a fit says the same."""
    cold = data.header()["cold"]["test"]
    if cold["users"] or cold["items"]:
        counts = f"{cold['users']:,} users and {cold['items']:,} items"
        console.print(f"[dim]cold: {counts} of the test part have no training row[/]", soft_wrap=True)


def _announce(study: Study, console: Console, jobs: int) -> None:
    plan = study.plan
    workers = f", {jobs} workers" if jobs > 1 else ""
    console.print(
        f"study [bold]{plan.name}[/]: [bold]{plan.plugin}[/] on [bold]{plan.dataset}[/], "
        f"by {', '.join(plan.objectives)}; sampler {plan.sampler}, pruner {plan.pruner}, seed {plan.seed}{workers}",
        highlight=False,
        soft_wrap=True,
    )
    for key, distribution in plan.space.items():
        line = f"  {key}: {describe(distribution)}; untuned {decode(plan.untuned[key])}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    if len(plan.objectives) > 1:
        console.print(
            "[dim]several objectives: no trial is pruned, for Optuna prunes by one value only[/]", soft_wrap=True
        )
    if plan.outside:
        where = ", ".join(plan.outside)
        console.print(
            f"[dim]the untuned model lies outside the space ({where}): it is fitted beside the trials[/]",
            soft_wrap=True,
        )
    console.print(f"[dim]in {study.folder}; storage {public_form(study.where)}[/]", highlight=False, soft_wrap=True)


def _tell_how_to_go_on(study: Study, console: Console) -> None:
    trials = study.trials
    done = sum(trial.state.is_finished() for trial in trials)
    left = "" if study.queue.endless else f", {len(trials) - done} to go"
    console.print(f"\nbroken off; {done} trials are kept{left}", highlight=False)
    runs_dir = study.folder.parent.parent
    elsewhere = "" if str(runs_dir) == "runs" else f" --runs_dir {runs_dir}"
    if study.where == MEMORY:
        console.print("the study was kept in memory, and is over", highlight=False)
    else:
        console.print(f"go on by: recflow tune --resume {study.plan.name}{elsewhere}", highlight=False, soft_wrap=True)
    if (study.folder / "best.yaml").is_file():
        console.print(
            f"the best so far: recflow fit --config {study.folder / 'best.yaml'}", highlight=False, soft_wrap=True
        )
