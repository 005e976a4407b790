"""A study's worker process: ``python -m recflow.tuning.worker FOLDER DEADLINE``; ``recflow tune --jobs`` starts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from recflow.errors import RecflowError
from recflow.training.interrupts import noticed_interrupts
from recflow.tuning.storage import quiet_optuna
from recflow.tuning.study import open_study, work

STORAGE_VARIABLE = "RECFLOW_TUNE_STORAGE"  # not an argument: a password in it would be there for all to see
PARENT_SECONDS = 2.0


def main(folder: Path, deadline: float) -> int:
    """Run trials of a study, each with the data prepared here once."""
    from recflow.tuning.run import prepared_data, trial_runner

    try:
        with quiet_optuna(), noticed_interrupts():
            study = open_study(str(folder), folder.parent.parent, os.environ[STORAGE_VARIABLE])
            work(study, trial_runner(study, prepared_data(study)), deadline, lambda: None)
    except RecflowError as error:
        print(f"recflow: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def leave_with(parent: int) -> None:
    """Be interrupted when the parent is gone."""

    def watch() -> None:
        while not threading.Event().wait(PARENT_SECONDS):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    leave_with(os.getppid())
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
