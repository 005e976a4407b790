"""Seconds for bootstrap intervals of many metrics over many users, and for the tests of all pairs of models.

python benchmarks/bootstrap.py --users 6040 --metrics 40 --models 12
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from recflow.evaluation.significance import FLIPS, RESAMPLES, PerUser, bootstrap, holm, interval, paired_test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--metrics", type=int, default=40)
    parser.add_argument("--models", type=int, default=12)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    metrics = [PerUser.mean(rng.random(args.users)) for _ in range(args.metrics)]
    started = time.perf_counter()
    interval(bootstrap(metrics))
    print(f"{RESAMPLES:,} resamples of {args.users:,} users, {args.metrics} metrics: {_since(started)}")
    pairs = args.models * (args.models - 1) // 2
    started = time.perf_counter()
    holm(paired_test(rng.normal(size=(args.users, pairs))))
    print(f"{FLIPS:,} flips of {args.users:,} users, {pairs} pairs of models: {_since(started)}")


def _since(started: float) -> str:
    return f"{time.perf_counter() - started:.2f} s"


if __name__ == "__main__":
    main()
