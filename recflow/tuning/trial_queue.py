"""The trials that are still to be run, shared by any number of workers on any number of machines.

Every trial is a place in the storage's queue from the beginning, and whoever sets it from WAITING to RUNNING has it:
no trial too many, whatever the storage. While a worker runs a trial it leaves signs of life beside it. A trial without
them is its killed worker's: it FAILs, and its values are tried again, once. Optuna's own heartbeats know databases
only, and no loop but its own.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

REASON, RETRY_OF, ATTEMPT, AGAIN = "reason", "retry_of", "attempt", "tried_again"
_OWNER, _BEAT = "recflow:worker", "recflow:beat"

BEAT_SECONDS = 10.0
SILENT_SECONDS = 90.0  # without a sign of life, until a worker on another machine is taken for dead


def machine() -> str:
    """What tells machines, and containers that cannot see each other's processes, apart."""
    parts = [platform.node()]
    for path, read in (("/proc/sys/kernel/random/boot_id", Path.read_text), ("/proc/self/ns/pid", os.readlink)):
        try:
            parts.append(str(read(Path(path))).strip())
        except OSError:
            continue
    return "/".join(parts)


@dataclass
class Queue:
    """The trials of one study.

    Args:
        study: The study.
        storage: Where it is kept.
        endless: Whether new trials come as long as there is time, beside those that are waiting.
        beat_seconds: Between two signs of life.
        silent_seconds: How long a worker on another machine may be silent.
    """

    study: Study
    storage: BaseStorage
    endless: bool = False
    beat_seconds: float = BEAT_SECONDS
    silent_seconds: float = SILENT_SECONDS
    _heard: dict[int, tuple[Any, float]] = field(default_factory=dict)

    @property
    def study_id(self) -> int:
        """The storage's number for the study."""
        return self.storage.get_study_id_from_name(self.study.study_name)

    def take(self) -> int | None:
        """Take a trial: from now on it is RUNNING, here.

        Returns:
            Its storage's number, or None if nothing waits.
        """
        study = self.study_id
        for trial in self.storage.get_all_trials(study, deepcopy=False, states=(TrialState.WAITING,)):
            try:
                if not self.storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            self._sign(trial._trial_id)
            return trial._trial_id
        if not self.endless:
            return None
        created = self.storage.create_new_trial(study)
        self._sign(created)
        return created

    @contextmanager
    def signs_of_life(self, trial_id: int) -> Iterator[None]:
        """Show that the trial is being worked on, for as long as the block runs."""
        stop = threading.Event()

        def beat() -> None:
            count = 0
            while not stop.wait(self.beat_seconds):
                count += 1
                try:
                    self.storage.set_trial_system_attr(trial_id, _BEAT, count)
                except UpdateFinishedTrialError:  # taken for dead: whoever finishes the trial will be told
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def add(self, values: Mapping[str, Any] | None = None, **attributes: Any) -> None:
        """Let one more trial wait; those of its values that are given are not drawn."""
        self.study.enqueue_trial(dict(values or {}), user_attrs=attributes)

    def hand_back(self, trial: FrozenTrial, reason: str) -> bool:
        """End a trial that was broken off from outside as FAIL, and let its values wait again.

        Returns:
            Whether it was still RUNNING.
        """
        return self._end(trial, reason, int(trial.user_attrs.get(ATTEMPT, 1)))

    def rescue(self) -> list[int]:
        """Find trials whose worker is gone: they FAIL and, unless that was their second time, wait again.

        Returns:
            Their numbers.
        """
        for trial in self._without_retry():
            if self._unchanged(trial, AGAIN) > self.beat_seconds:
                self._retry(trial, int(trial.user_attrs[AGAIN]))
        lost = []
        running = self.storage.get_all_trials(self.study_id, deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            why = self._gone(trial)
            if why and self._end(trial, why, int(trial.user_attrs.get(ATTEMPT, 1)) + 1):
                lost.append(trial.number)
        return lost

    def waiting(self) -> list[FrozenTrial]:
        """The trials that nobody has taken yet."""
        return self.storage.get_all_trials(self.study_id, deepcopy=False, states=(TrialState.WAITING,))

    def drop(self, trials: Sequence[FrozenTrial]) -> None:
        """Let trials that nobody has taken yet be none."""
        for trial in trials:
            with suppress(UpdateFinishedTrialError):
                self.storage.set_trial_user_attr(trial._trial_id, AGAIN, True)
                self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)

    def unfinished(self) -> int:
        """How many trials wait or run, or are about to be tried again."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        open_ones = self.storage.get_all_trials(self.study_id, deepcopy=False, states=states)
        return len(open_ones) + len(self._without_retry())

    def _sign(self, trial_id: int) -> None:
        self.storage.set_trial_system_attr(trial_id, _OWNER, [machine(), os.getpid()])

    def _gone(self, trial: FrozenTrial) -> str:
        """Why the trial's worker is taken for dead; empty if it is not."""
        owner = trial.system_attrs.get(_OWNER)
        if owner is not None and owner[0] == machine() and not alive(owner[1]):
            return f"its worker, process {owner[1]}, was killed"
        if self._unchanged(trial, (owner, trial.system_attrs.get(_BEAT))) > self.silent_seconds:
            return f"its worker gave no sign of life for {self.silent_seconds:.0f} s"
        return ""

    def _unchanged(self, trial: FrozenTrial, sign: Any) -> float:
        """For how many seconds this process has seen no other sign of a trial."""
        now = time.monotonic()
        before, since = self._heard.get(trial._trial_id, (None, now))
        if before != sign:
            since = now
        self._heard[trial._trial_id] = (sign, since)
        return now - since

    def _end(self, trial: FrozenTrial, reason: str, attempt: int) -> bool:
        again = attempt <= 2
        try:
            self.storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            self.storage.set_trial_user_attr(trial._trial_id, AGAIN, attempt if again else False)
            if not self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL):
                return False
        except UpdateFinishedTrialError:  # somebody else was first
            return False
        if again:
            self._retry(trial, attempt)
        return True

    def _retry(self, trial: FrozenTrial, attempt: int) -> None:
        values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        kept = {name: value for name, value in trial.user_attrs.items() if name == "untuned"}
        self.add(values, **{RETRY_OF: trial.number, ATTEMPT: attempt, **kept})

    def _without_retry(self) -> list[FrozenTrial]:
        """Trials that are to be tried again, and whose retry is still to come: or never, if whoever ended them died."""
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
        lost = [trial for trial in trials if is_tried_again(trial) and REASON in trial.user_attrs]
        return [trial for trial in lost if trial.number not in retried]


def is_tried_again(trial: FrozenTrial) -> bool:
    """Whether a trial was broken off, and counts under another number, or not at all."""
    return trial.state == TrialState.FAIL and bool(trial.user_attrs.get(AGAIN))


def worked(pid: int, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a process of this machine ever took one of the trials."""
    return any(trial.system_attrs.get(_OWNER) == [machine(), pid] for trial in trials)


def alive(pid: int) -> bool:
    """Whether a process of this machine is there, and not merely waited for by its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Killed, but not yet waited for by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False
