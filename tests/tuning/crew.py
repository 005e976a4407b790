"""One worker of a study whose trials are a sum, in a process of its own: ``crew.py STORAGE NAME FOLDER``.

It works as `recflow tune` does, through the queue, without Lightning's seconds of imports. A trial that finds a file
``hang`` in the folder says so and stays RUNNING until its process is killed.
"""

import os
import sys
import time
from pathlib import Path

import optuna

from recflow.tuning.storage import open_storage, quiet_optuna
from recflow.tuning.trial_queue import Queue


def main(where, name, folder):
    storage = open_storage(where)
    study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
    queue = Queue(study, storage)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    while queue.unfinished():
        queue.rescue()
        taken = queue.take()
        if taken is None:
            time.sleep(0.05)
            continue
        trial = optuna.Trial(study, taken)
        with queue.signs_of_life(taken):
            x, width = trial.suggest_float("x", 0, 1), trial.suggest_categorical("width", ["json:[8, 4]", "json:[8]"])
            if _takes(folder / "hang"):
                (folder / "hanging").write_text(f"{os.getpid()} {trial.number}")
                time.sleep(600)
            trial.set_user_attr("pid", os.getpid())
            study.tell(trial, x + len(width))


def _takes(file):
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


if __name__ == "__main__":
    with quiet_optuna():
        main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
