"""What a trial of `recflow tune` costs beyond its fit: by the clock and, for a busy machine, by the processor.

OMP_NUM_THREADS=1 python benchmarks/tune_overhead.py --plugin lightgcn --trials 20

The fit is Lightning's, with its validation. All else, from one trial's beginning to the next one's, is the study's:
drawing values, configuration, bundle, storage, event file, the table of what is there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

import recflow
from recflow.tuning.trial_queue import Queue

LIMIT = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", default="lightgcn")
    parser.add_argument("--data", default="sample")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--storage", help="as recflow tune takes it (default: a journal)")
    args = parser.parse_args()
    fits, taken = noted(pl.Trainer, "fit"), noted(Queue, "take")
    with tempfile.TemporaryDirectory() as folder:
        recflow.tune(
            args.plugin,
            data=args.data,
            trials=args.trials,
            sampler="tpe",
            pruner="none",
            trainer={"max_epochs": args.epochs},
            storage=args.storage,
            runs_dir=Path(folder),
        )
    print(f"{args.plugin} on {args.data}, {args.trials} trials of {args.epochs} epochs; beyond the fit, a trial:")
    for clock, name in enumerate(("seconds", "processor seconds")):
        trials = [after[0][clock] - before[0][clock] for before, after in pairwise(taken)]
        within = [end[clock] - start[clock] for start, end in fits]
        beyond = [trial - fit for trial, fit in zip(trials, within, strict=False)]
        print(
            f"  {name:18} median {statistics.median(beyond):.3f}, largest {max(beyond):.3f}; "
            f"the fit {statistics.median(within):.3f}; wanted at most {LIMIT}"
        )


def noted(kind: Any, name: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Let a method note when it begins and ends, by both clocks."""
    method, notes = getattr(kind, name), []

    def noting(*args: Any, **kwargs: Any) -> Any:
        begun = (time.perf_counter(), time.process_time())
        try:
            return method(*args, **kwargs)
        finally:
            notes.append((begun, (time.perf_counter(), time.process_time())))

    setattr(kind, name, noting)
    return notes


if __name__ == "__main__":
    main()
