"""Trials shared by processes, and the trials of processes that were killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from recflow.tuning.storage import open_storage, quiet_optuna
from recflow.tuning.trial_queue import ATTEMPT, REASON, RETRY_OF, Queue, is_tried_again

CREW = Path(__file__).with_name("crew.py")


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_optuna():
        yield


def begin(where, name, trials):
    storage = open_storage(where)
    study = optuna.create_study(study_name=name, storage=storage)
    queue = Queue(study, storage)
    for _ in range(trials):
        queue.add()
    return queue


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_four_processes_share_a_study_and_a_killed_ones_trial_is_tried_again(kind, tmp_path, request):
    where = str(tmp_path / "journal.log") if kind == "journal" else request.getfixturevalue("database")
    queue = begin(where, "four", trials=40)
    (tmp_path / "hang").touch()
    command = [sys.executable, str(CREW), where, "four", str(tmp_path)]
    crew = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 4)
        (tmp_path / "go").touch()
        wait_for(lambda: (tmp_path / "hanging").exists() and (tmp_path / "hanging").read_text())
        pid, number = map(int, (tmp_path / "hanging").read_text().split())
        os.kill(pid, signal.SIGKILL)
        for worker in crew:
            said = worker.communicate(timeout=60)[1]
            assert worker.returncode == (-signal.SIGKILL if worker.pid == pid else 0), said
    finally:
        for worker in crew:
            worker.kill()
    trials = queue.study.get_trials()
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 40, TrialState.FAIL: 1}
    lost = trials[number]
    assert lost.state == TrialState.FAIL
    assert lost.user_attrs[REASON] == f"its worker, process {pid}, was killed"
    again = next(trial for trial in trials if trial.user_attrs.get(RETRY_OF) == number)
    assert again.state == TrialState.COMPLETE
    assert again.params == lost.params
    workers = Counter(trial.user_attrs["pid"] for trial in trials if trial.state == TrialState.COMPLETE)
    assert set(workers) <= {worker.pid for worker in crew} - {pid}
    assert len(workers) == 3, "one worker had nothing to do"


def test_a_trial_is_taken_once(where):
    queue = begin(where, "once", trials=2)
    storage = open_storage(where)
    other = Queue(optuna.load_study(study_name="once", storage=storage), storage)
    assert {queue.take(), other.take()} == {trial._trial_id for trial in queue.study.get_trials()}
    assert queue.take() is None
    assert other.take() is None


def test_a_trial_that_was_taken_since_one_looked_is_not_taken_again(where, monkeypatch):
    queue = begin(where, "race", trials=2)
    storage = open_storage(where)
    other = Queue(optuna.load_study(study_name="race", storage=storage), storage)
    looked = storage.get_all_trials(other.study_id, states=(TrialState.WAITING,))
    first = queue.take()
    monkeypatch.setattr(storage, "get_all_trials", lambda *_, **__: looked)
    assert other.take() == looked[1]._trial_id != first


def test_a_trial_of_another_machine_is_lost_when_it_gives_no_sign_of_life_and_tried_again_once(where, monkeypatch):
    queue = begin(where, "elsewhere", trials=1)
    queue.silent_seconds = 0.2
    for attempt in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr("recflow.tuning.trial_queue.machine", lambda: "another")
            taken = queue.take()
        optuna.Trial(queue.study, taken).suggest_float("x", 0, 1)
        assert queue.rescue() == [], "it has only just begun"
        time.sleep(0.3)
        assert queue.rescue() == [attempt - 1]
    first, second = queue.study.get_trials()
    assert second.params == first.params
    assert second.user_attrs[ATTEMPT] == 2
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.FAIL)
    assert "no sign of life" in second.user_attrs[REASON]
    assert queue.unfinished() == 0


def test_a_trial_that_gives_signs_of_life_is_left_alone(where, monkeypatch):
    queue = begin(where, "alive", trials=1)
    queue.silent_seconds, queue.beat_seconds = 0.4, 0.05
    monkeypatch.setattr("recflow.tuning.trial_queue.machine", lambda: "another")
    taken = queue.take()
    monkeypatch.undo()
    with queue.signs_of_life(taken):
        for _ in range(8):
            time.sleep(0.1)
            assert queue.rescue() == []


def test_a_trial_that_is_handed_back_waits_again_with_its_values(where):
    queue = begin(where, "back", trials=1)
    taken = queue.take()
    optuna.Trial(queue.study, taken).suggest_float("x", 0, 1)
    assert queue.hand_back(queue.storage.get_trial(taken), "interrupted")
    assert not queue.hand_back(queue.storage.get_trial(taken), "interrupted"), "it has ended already"
    first, second = queue.study.get_trials()
    assert (first.state, first.user_attrs[REASON]) == (TrialState.FAIL, "interrupted")
    trial = optuna.Trial(queue.study, queue.take())
    assert trial.suggest_float("x", 0, 1) == first.params["x"]
    assert second.user_attrs[ATTEMPT] == 1, "that was not the trial's fault"


def test_a_trial_whose_rescuer_is_killed_before_it_adds_the_retry_is_found(where, monkeypatch):
    queue = begin(where, "rescuer", trials=1)
    taken = queue.take()
    optuna.Trial(queue.study, taken).suggest_float("x", 0, 1)
    with monkeypatch.context() as killed:
        killed.setattr(queue, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.hand_back(queue.storage.get_trial(taken), "interrupted")
    assert queue.take() is None
    assert queue.unfinished() == 1
    queue.beat_seconds = 0.2
    queue.rescue()
    assert queue.take() is None, "its rescuer may be about to add it"
    time.sleep(0.3)
    for _ in range(2):
        queue.rescue()
        assert queue.unfinished() == 1
    first, second = queue.study.get_trials()
    assert second.system_attrs["fixed_params"] == first.params
    assert (second.user_attrs[RETRY_OF], second.user_attrs[ATTEMPT]) == (0, 1)


def test_a_trial_that_ends_while_it_is_rescued_counts(where, monkeypatch):
    queue = begin(where, "late", trials=1)
    taken = queue.take()
    set_state = queue.storage.set_trial_state_values

    def too_late(trial_id, state):
        set_state(taken, TrialState.COMPLETE, [0.5])
        return set_state(trial_id, state)

    monkeypatch.setattr(queue.storage, "set_trial_state_values", too_late)
    assert not queue.hand_back(queue.storage.get_trial(taken), "silent")
    assert queue.unfinished() == 0
    assert [is_tried_again(trial) for trial in queue.study.get_trials()] == [False]


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_an_endless_queue_always_has_a_trial():
    queue = begin("memory", "endless", trials=0)
    assert queue.take() is None
    queue.endless = True
    assert queue.take() is not None


def test_a_journals_line_that_a_killed_process_left_unfinished_is_taken_off(tmp_path):
    where = str(tmp_path / "journal.log")
    begin(where, "torn", trials=1)
    with open(where, "ab") as journal:
        journal.write(b'{"op_code":4,"worker_id":"x","study')
    queue = begin(where, "after", trials=1)
    assert queue.take() is not None
    assert [trial.state for trial in open_storage(where).get_all_trials(queue.study_id)] == [TrialState.RUNNING]
