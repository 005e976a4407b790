"""The study on its way: workers, and what comes when they are done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.training.fit import configure
from recflow.training.interrupts import stop_if_interrupted
from recflow.tuning.boards import log_trial
from recflow.tuning.study import Study, work
from recflow.tuning.trial_queue import worked
from recflow.tuning.trials import BASE, UNTUNED, run_trial, strip
from recflow.tuning.winner import front
from recflow.tuning.worker import STORAGE_VARIABLE

_IN_VAIN = 3  # workers that die before they take a trial, until no more are started


def prepared_data(study: Study) -> Dataset:
    """The study's data, prepared.

    Raises:
        RecflowError: If they are no longer what the study was begun on.
    """
    data = configure([f"--config={study.folder / BASE}"])[0].datamodule.dataset
    if data.header()["sha256"] != study.plan.sha256:
        raise RecflowError(
            f"{data.name} is no longer what the study {study.plan.name} was begun on: its trials could not be "
            "compared; begin another by --name."
        )
    return data


def trial_runner(study: Study, data: Dataset) -> Callable[[optuna.Study, optuna.Trial], None]:
    """What carries the study's trials out in this process."""

    def run(own: optuna.Study, trial: optuna.Trial) -> None:
        run_trial(own, trial, study.plan, data, study.folder)
        log_trial(study.folder, study.storage.get_trial(trial._trial_id), study.plan)
        if not study.plan.keep_checkpoints:
            strip(study.folder, losers(study))

    return run


def losers(study: Study) -> set[int]:
    """The trials whose weights nobody needs any more; one that begins only now is none of them."""
    trials = study.every
    leading = {trial.number for trial in front(trials, study.optuna().directions)}
    return {
        trial.number
        for trial in trials
        if trial.state.is_finished()
        and trial.number not in leading
        and (UNTUNED not in trial.user_attrs or trial.state != TrialState.COMPLETE)
    }


def _ended(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state.is_finished() for trial in trials)


def run_here(study: Study, data: Dataset, deadline: float, after: Callable[[], None]) -> None:
    """Run the trials in this process."""
    work(study, trial_runner(study, data), deadline, after)


@dataclass
class Crew:
    """Worker processes that share a study's storage.

    Args:
        study: The study.
        jobs: How many.
        deadline: See :func:`~recflow.tuning.study.work`.
    """

    study: Study
    jobs: int
    deadline: float

    def run(self, after: Callable[[], None]) -> None:
        """Run the trials; a worker that is killed is replaced, unless that has been in vain three times.

        Raises:
            RecflowError: If the workers cannot go on.
        """
        workers = {number: self._start(number) for number in range(1, self.jobs + 1)}
        queue = self.study.queue
        in_vain, ended = 0, _ended(self.study.every)  # deaths before a trial was taken, none having ended in between
        try:
            while workers:
                time.sleep(0.3)
                stop_if_interrupted()
                after()
                for number, process in list(workers.items()):
                    if process.poll() is None:
                        continue
                    del workers[number]
                    if process.returncode < 0:
                        queue.rescue()
                        trials = self.study.every
                        before, ended = ended, _ended(trials)
                        in_vain = 0 if ended > before or worked(process.pid, trials) else in_vain + 1
                        if in_vain == _IN_VAIN:
                            raise RecflowError(self._last_words(number, process.returncode))
                        if queue.unfinished() and time.time() < self.deadline:
                            workers[number] = self._start(number)
                    elif process.returncode != 0 and not workers:
                        raise RecflowError(self._last_words(number))
        except BaseException:
            self._interrupt(list(workers.values()))
            raise
        after()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = {"OMP_NUM_THREADS": threads, **os.environ, STORAGE_VARIABLE: self.study.where}
        command = [sys.executable, "-m", "recflow.tuning.worker", str(self.study.folder), str(self.deadline)]
        with self._log(number).open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _log(self, number: int) -> Path:
        return self.study.folder / f"worker-{number}.txt"

    def _last_words(self, number: int, code: int = 0) -> str:
        log = self._log(number)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        said = lines[-1].removeprefix("recflow: error: ") if lines else "it said nothing"
        if code < 0:
            return (
                f"{_IN_VAIN} workers of {self.study.plan.name} in a row were killed before they took a trial, the last "
                f"by signal {-code}; give fewer --jobs if memory is short. Its last words: {said} ({log})"
            )
        return f"No worker of {self.study.plan.name} is left: {said} ({log})"

    @staticmethod
    def _interrupt(workers: Sequence[subprocess.Popen[bytes]]) -> None:
        for process in workers:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        for process in workers:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
