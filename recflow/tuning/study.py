"""A study: its folder, its storage and its plan together."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from recflow.errors import RecflowError
from recflow.runs import Run, read_mapping
from recflow.training.interrupts import stop_if_interrupted
from recflow.tuning.plan import Plan, kept_plan, sign_beginning, was_broken_off
from recflow.tuning.samplers import make_pruner, make_sampler
from recflow.tuning.space import grid_points
from recflow.tuning.storage import MEMORY, open_storage, public_form
from recflow.tuning.trial_queue import REASON, Queue, is_tried_again
from recflow.tuning.trials import BASE, UNTUNED

STUDY, JOURNAL = "study.json", "journal.log"
_ENDLESS = "recflow:endless"


@dataclass(frozen=True)
class Study:
    """A study as one process sees it.

    Args:
        folder: ``runs/tune/NAME``.
        where: Its storage, see :func:`~recflow.tuning.storage.open_storage`.
        storage: The same, opened.
        plan: What it is about.
    """

    folder: Path
    where: str
    storage: BaseStorage
    plan: Plan

    def optuna(self, trial: int = 0) -> optuna.Study:
        """Optuna's study, with the sampler of one trial."""
        return optuna.load_study(
            study_name=self.plan.name,
            storage=self.storage,
            sampler=make_sampler(self.plan.sampler, self.plan.seed, trial),
            pruner=make_pruner(self.plan.pruner, self.plan.max_epochs),
        )

    @property
    def queue(self) -> Queue:
        """Its trials that are still to be run."""
        study = self.optuna()
        return Queue(study, self.storage, endless=bool(study.user_attrs.get(_ENDLESS)))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, but those that were broken off and are tried again under another number."""
        return [trial for trial in self.every if not is_tried_again(trial)]

    @property
    def lost(self) -> list[FrozenTrial]:
        """The trials that were broken off from outside, and are tried again under another number."""
        return [trial for trial in self.every if is_tried_again(trial) and REASON in trial.user_attrs]

    @property
    def every(self) -> list[FrozenTrial]:
        """All trials, as the storage has them at one moment."""
        return self.storage.get_all_trials(self.storage.get_study_id_from_name(self.plan.name), deepcopy=False)

    def lock(self) -> FileLock:
        """Held by whoever ends the study or changes how much is to be run: the next one waits, and finds it done."""
        return FileLock(self.folder / ".finish.lock")

    def more(self, trials: int | None) -> int:
        """Let trials wait, this many in all; without a number, all of a grid, or as many as there is time for.

        Returns:
            How many that were waiting are left out.
        """
        with self.lock():
            return self._more(trials)

    def _more(self, trials: int | None) -> int:
        queue = self.queue
        waiting = queue.waiting()
        grid = self.plan.sampler == "grid"
        self.optuna().set_user_attr(_ENDLESS, trials is None and not grid)
        dropped = [] if trials is None else waiting[trials:]
        if dropped:
            queue.drop(dropped)
        wanted = None if trials is None else max(0, trials - len(waiting))
        if not grid:
            for _ in range(wanted or 0):
                queue.add()
            return len(dropped)
        begun = [trial.system_attrs.get("fixed_params", trial.params) for trial in self.trials]
        for point in [point for point in grid_points(self.plan.space) if point not in begun][:wanted]:
            queue.add(point)
        return len(dropped)

    def write(self, **content: Any) -> None:
        """Write what is known of the study into its folder."""
        Run(self.folder).write_text(
            STUDY, json.dumps({"study": self.plan.name, "storage": self._named(), **content}, indent=2) + "\n"
        )

    def _named(self) -> str:
        if "://" in self.where or self.where == MEMORY:
            return public_form(self.where)
        return os.path.relpath(self.where, self.folder)


def begin_study(plan: Plan, runs_dir: Path, where: str | None, trials: int | None) -> Study:
    """Make a study, its folder and its queue; the untuned model is the first in it, if the space holds it.

    Raises:
        RecflowError: If there is a study of that name already, or the storage cannot be opened.
    """
    folder = runs_dir / "tune" / plan.name
    journal = str(folder / JOURNAL)
    _refuse_taken(plan.name, folder)
    storage = None
    if where not in (None, journal):
        storage = open_storage(str(where))
        _refuse_kept(plan.name, storage, str(where))
    # whole or not at all: until its queue is full, a study's folder is hidden, and a shared storage has no plan of it
    begun = folder.with_name(f".{plan.name}-{uuid.uuid4().hex[:8]}")
    _make(begun, folder)
    own = str(begun / JOURNAL)
    filled = None
    try:
        made = Study(begun, str(where) if storage else own, storage or open_storage(own), plan)
        filled = _create(made)
        _fill(made, filled, trials)
        begun.rename(folder)
    except BaseException as error:
        shutil.rmtree(begun, ignore_errors=True)
        if filled is not None and storage is not None:
            storage.delete_study(filled._study_id)
        if isinstance(error, OSError):
            _refuse_taken(plan.name, folder)  # somebody else was first
            raise RecflowError(f"The study's folder {folder} cannot be made: {error.strerror}.") from error
        raise
    return Study(folder, where or journal, storage or open_storage(journal), plan)


def _refuse_kept(name: str, storage: BaseStorage, where: str) -> None:
    """A name is taken once in a storage; a study that was killed while it began makes room."""
    if name not in optuna.get_all_study_names(storage=storage):
        return
    if was_broken_off(optuna.load_study(study_name=name, storage=storage)):
        optuna.delete_study(study_name=name, storage=storage)
        return
    public = public_form(where)
    raise RecflowError(
        f"The study {name} is in {public} already: go on by: recflow tune --resume {name} --storage {public}, or "
        "choose another --name."
    )


def _refuse_taken(name: str, folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()  # an empty one holds nothing to go on with
    if not folder.exists():
        return
    if not (folder / STUDY).is_file():
        raise RecflowError(f"{folder} is there already, and holds no study: delete it, or choose another --name.")
    raise RecflowError(
        f"The study {name} is there already ({folder}): go on by: recflow tune --resume {name}, or choose another "
        "--name."
    )


def _create(made: Study) -> optuna.Study:
    plan = made.plan
    try:
        return optuna.create_study(study_name=plan.name, storage=made.storage, directions=plan.directions)
    except DuplicatedStudyError:
        _refuse_kept(plan.name, made.storage, made.where)
        raise


def _fill(made: Study, study: optuna.Study, trials: int | None) -> None:
    plan = made.plan
    sign_beginning(study)
    study.set_metric_names(list(plan.objectives))
    Run(made.folder).write_text(BASE, plan.base)
    made.write()
    if not plan.outside:
        made.queue.add(plan.untuned, **{UNTUNED: True})
    made.more(trials)
    plan.keep(study)


def open_study(name: str, runs_dir: Path, where: str | None = None) -> Study:
    """Open a study that was begun, here or on another machine.

    Args:
        name: Its name, or its folder.
        runs_dir: The folder of all runs.
        where: Its storage; by default, what its folder names.

    Raises:
        RecflowError: If there is none.
    """
    given = Path(name)
    folder = given if (given / STUDY).is_file() else runs_dir / "tune" / name
    if where is None:
        if not (folder / STUDY).is_file():
            raise RecflowError(f"There is no study {name!r} under {runs_dir / 'tune'}; {_there(runs_dir)}")
        kept = str(read_mapping(folder / STUDY)["storage"])
        where = kept if "://" in kept or kept == MEMORY else str(folder / kept)
    elif "://" not in where and not Path(where).is_file():
        raise RecflowError(f"There is no journal {where}.")
    if where == MEMORY:
        raise RecflowError(f"The study {name} was kept in memory, and has gone with its process: begin another.")
    storage = open_storage(where)
    if folder.name not in optuna.get_all_study_names(storage=storage):
        raise RecflowError(f"There is no study {folder.name!r} in {public_form(where)}.")
    plan = kept_plan(optuna.load_study(study_name=folder.name, storage=storage))
    study = Study(folder, where, storage, plan)
    if not (folder / STUDY).is_file():  # begun on another machine
        _make(folder)
        Run(folder).write_text(BASE, plan.base)
        study.write()
    return study


def work(
    study: Study, run: Callable[[optuna.Study, optuna.Trial], None], deadline: float, after: Callable[[], None]
) -> None:
    """Run trials until none is left, or time is up; trials of workers that were killed are run, too.

    Args:
        study: The study.
        run: Carries a trial out and tells the study.
        deadline: No trial begins after this, in seconds since 1970; what is running goes to its end.
        after: Called when a trial has ended, and now and then while others' trials are waited for.
    """
    queue = study.queue
    while time.time() < deadline:
        stop_if_interrupted()
        queue.rescue()
        taken = queue.take()
        if taken is None:
            if not queue.unfinished():
                return
            after()
            time.sleep(0.5)
            continue
        number = study.storage.get_trial_number_from_id(taken)
        try:
            with queue.signs_of_life(taken):
                own = study.optuna(number)
                run(own, optuna.Trial(own, taken))
        except KeyboardInterrupt:
            queue.hand_back(study.storage.get_trial(taken), "interrupted")
            raise
        after()


def _make(folder: Path, named: Path | None = None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecflowError(f"The study's folder {named or folder} cannot be made: {error.strerror}.") from error


def _there(runs_dir: Path) -> str:
    names = sorted(path.parent.name for path in (runs_dir / "tune").glob(f"[!.]*/{STUDY}"))
    return f"there are: {', '.join(names)}." if names else "recflow tune --plugin NAME begins one."
