"""The whole command with `--jobs`, some of whose processes are killed on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from optuna.trial import TrialState

import recflow
from recflow.errors import RecflowError
from recflow.tuning.plan import make_plan
from recflow.tuning.storage import quiet_optuna
from recflow.tuning.study import begin_study, open_study
from recflow.tuning.trial_queue import RETRY_OF, alive
from recflow.tuning.worker import STORAGE_VARIABLE

TUNE = [sys.executable, "-m", "recflow", "tune"]
SMALL = ["--plugin", "lightgcn", "--data", "sample:ratings=3000", "--search.model.embedding_dim", "8"]
SHORT = ["--trainer.max_epochs", "20", "--pruner", "none", "--plots", "false"]


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_optuna():
        yield


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)
    return found


def begun(name, runs_dir, where=None):
    """The study, when it is there."""

    def there():
        try:
            return open_study(name, runs_dir, where)
        except RecflowError:
            return None

    return there


def owner(study):
    """The process that is at work on a trial."""

    def at_work():
        running = [trial for trial in study.every if trial.state == TrialState.RUNNING and trial.intermediate_values]
        return running[0].system_attrs["recflow:worker"][1] if running else None

    return at_work


@pytest.mark.slow
def test_four_workers_share_a_study_in_postgresql_and_one_that_is_killed_is_replaced(tmp_path, database):
    command = [*TUNE, *SMALL, *SHORT, "--jobs", "4", "--trials", "5", "--name", "jobs", "--storage", database]
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    study = wait_for(begun("jobs", tmp_path / "here", database), parent)
    killed = wait_for(owner(study), parent)
    os.kill(killed, signal.SIGKILL)
    out, err = parent.communicate(timeout=120)
    assert (parent.returncode, err) == (0, "")
    lost = [trial for trial in study.every if trial.state == TrialState.FAIL]
    assert [trial.user_attrs["reason"] for trial in lost] == [f"its worker, process {killed}, was killed"]
    again = [trial for trial in study.every if trial.user_attrs.get(RETRY_OF) == lost[0].number]
    assert [(trial.state, trial.params) for trial in again] == [(TrialState.COMPLETE, lost[0].params)]
    assert Counter(trial.state for trial in study.trials) == {TrialState.COMPLETE: 5}
    workers = {trial.system_attrs["recflow:worker"][1] for trial in study.every}
    assert len(workers) in (4, 5)
    assert f"trial {lost[0].number:3} its worker, process {killed}, was killed: it is tried again" in out
    assert "best of 5 trials (5 finished)" in out

    folder = tmp_path / "runs" / "tune" / "jobs"
    summary = json.loads((folder / "study.json").read_text())
    winner = max(study.trials, key=lambda trial: (trial.value, -trial.number))
    assert summary["tested"] == [winner.number] == [summary["best"]["trial"]]
    best = recflow.load_run(folder / "best")
    assert best.metrics["val"]["ndcg@10"] == winner.value
    assert "test" in best.metrics
    assert [path for path in folder.glob("trials/*/metrics.json") if "test" in json.loads(path.read_text())] == []
    assert len(list(csv.DictReader((folder / "trials.csv").open()))) == 5


@pytest.mark.slow
def test_a_worker_whose_command_is_killed_hands_its_trial_back_and_leaves(tmp_path):
    long = ["--trainer.max_epochs=9999", "--patience=9999"]
    plan, _ = make_plan([*SMALL[:4], f"--runs_dir={tmp_path}", "--model.embedding_dim=8", *long])
    study = begin_study(plan, tmp_path, None, 2)
    worker = [sys.executable, "-m", "recflow.tuning.worker", str(study.folder), "inf"]
    environment = {**os.environ, STORAGE_VARIABLE: study.where}
    parent = subprocess.Popen(["sh", "-c", '"$@" & wait', "sh", *worker], env=environment)
    left = wait_for(owner(study), parent)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while alive(left):
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.1)
    first, second, again = study.every
    assert (first.state, first.user_attrs["reason"]) == (TrialState.FAIL, "interrupted")
    assert (second.state, again.state) == (TrialState.WAITING, TrialState.WAITING)
    assert again.system_attrs["fixed_params"] == first.params
    assert study.queue.unfinished() == 2
