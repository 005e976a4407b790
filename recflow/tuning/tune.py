"""``recflow.tune`` and ``recflow tune``: what is given is read, and a study is begun or gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from rich.console import Console

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.training.configuration import flatten
from recflow.training.fit import without_frames
from recflow.tuning.arguments import Arguments, read_arguments
from recflow.tuning.course import carry_out
from recflow.tuning.finish import Tuned
from recflow.tuning.plan import make_plan
from recflow.tuning.run import prepared_data
from recflow.tuning.settings import as_json
from recflow.tuning.space import FIELDS
from recflow.tuning.storage import MEMORY, check_storage, quiet_optuna
from recflow.tuning.study import Study, begin_study, open_study

DEFAULT_TRIALS = 50


def tune(
    plugin: str | None = None,
    data: Any = None,
    *,
    config: str | Path | None = None,
    resume: str | Path | None = None,
    trials: int | None = None,
    timeout: float | str | None = None,
    jobs: int = 1,
    objective: str | Sequence[str] | None = None,
    search: Mapping[str, Any] | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    name: str | None = None,
    storage: str | None = None,
    keep_checkpoints: bool | None = None,
    console: Console | None = None,
    **settings: Any,
) -> Tuned:
    """Look for better hyper-parameters: every trial is a fit, and the test part is read once, for the winner.

    Args:
        plugin: The model's name; may come from ``config``.
        data: As :func:`recflow.fit` takes it.
        config: A YAML file, as under ``experiments/``: a fit's settings, and a study's.
        resume: A study to go on with, by name or folder: with what is left of it, or with ``trials`` more.
        trials: How many, the untuned model included; by default 50, all of a grid, or any number with ``timeout``.
        timeout: Seconds, or a text such as ``"30m"``, after which no trial begins.
        jobs: How many worker processes share the study.
        objective: The validation metric to improve, or several; by default, the one that picks the model's best epoch.
        search: Changes to the plugin's search space by key: a list of choices, fields of a range such as ``{"high":
            0.05}``, an Optuna distribution, or one value or None to leave the key out.
        sampler: ``tpe`` (the default), ``random``, ``grid`` or ``cmaes``.
        pruner: ``median`` (the default), ``hyperband`` or ``none``.
        name: The study's name; by default, plugin and data.
        storage: A database's URL, a journal file or ``memory``; by default, a journal file in the study's folder.
        keep_checkpoints: Whether every trial keeps its weights, not the winner alone.
        console: Where progress is shown; nowhere if None.
        settings: Anything else that ``fit`` takes, for every trial: ``trainer={"max_epochs": 20}, seed=1``.

    Returns:
        The winner's run, the untuned model's beside it, and the trials.

    Raises:
        RecflowError: If something given cannot be used, or no trial came to its end.

    Example::

        found = recflow.tune("lightgcn", data="ml-latest-small", trials=20, search={"model.num_layers": [2, 3]})
        found.best.recommend(user=42, k=10)
        found.trials.sort("val/ndcg@10")
    """
    if objective is not None and not isinstance(objective, str):
        objective = ",".join(objective)
    given = {
        "config": config,
        "plugin": plugin,
        "data": without_frames(data),
        "resume": resume,
        "trials": trials,
        "timeout": timeout,
        "jobs": jobs,
        "objective": objective,
        "sampler": sampler,
        "pruner": pruner,
        "name": name,
        "storage": storage,
        "keep_checkpoints": keep_checkpoints,
        **settings,
    }
    changes = [] if search is None else [f"--search={as_json(_as_data(search), 'search')}"]
    return tune_by(read_arguments([*flatten(given), *changes]), console)


def tune_by(arguments: Arguments, console: Console | None = None) -> Tuned:
    """See :func:`tune`; the arguments have been read."""
    console = console or Console(quiet=True)
    with quiet_optuna():
        if arguments.storage is not None:
            check_storage(arguments.storage)
        study, data = _begin(arguments) if arguments.resume is None else _resume(arguments, console)
        return carry_out(study, data, timeout=arguments.timeout, jobs=arguments.jobs, console=console)


def _begin(arguments: Arguments) -> tuple[Study, Dataset]:
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
        trials = DEFAULT_TRIALS
    return begin_study(plan, Path(arguments.runs_dir), arguments.storage, trials), data


def _resume(arguments: Arguments, console: Console) -> tuple[Study, Dataset]:
    study = open_study(str(arguments.resume), Path(arguments.runs_dir), arguments.storage)
    data = prepared_data(study)  # before anything is changed: they may be others by now
    for number in study.queue.rescue():
        console.print(f"[yellow]trial {number} was broken off with its process[/]")
    if arguments.trials is not None:
        if dropped := study.more(arguments.trials):
            console.print(f"[yellow]{dropped} trials that were still to come are left out: --trials says so[/]")
    elif arguments.timeout is not None and not study.queue.unfinished():
        study.more(None)
    return study, data


def _as_data(search: Any) -> Any:
    """A search space in which Optuna's distributions have become what a file would say."""
    if isinstance(search, Mapping):
        return {key: _as_data(value) for key, value in search.items()}
    if isinstance(search, CategoricalDistribution):
        return list(search.choices)
    if isinstance(search, BaseDistribution):
        return {field: getattr(search, field) for field in FIELDS if getattr(search, field, None) is not None}
    return search
