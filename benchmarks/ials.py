"""Seconds a sweep and peak memory of implicit ALS: recflow's ials beside the library implicit's, in one run.

    python benchmarks/ials.py --millions 4 --peer .peer/bin/python

The sampled ratings are made once. Then every contender runs in a process of its own, which reports the seconds of each
sweep over users and items and its peak memory (resident, from the operating system): ials exactly and by three steps
of conjugate gradients, implicit's ALS (0.7.3: ``use_cg`` False and True, three steps as well), and the explicit ALS
that bias-mf is fitted by. All see the same matrix. ``--peer`` names an interpreter that has implicit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PEER = """
import json, resource, sys, time
import numpy as np
from scipy.sparse import csr_matrix
from implicit.cpu.als import AlternatingLeastSquares
folder, solver, dim, sweeps, threads = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
users, items = (np.load(f"{folder}/{name}.npy") for name in ("user", "item"))
matrix = csr_matrix((np.ones(len(users), np.float32), (users, items)))
del users, items
model = AlternatingLeastSquares(
    factors=dim, alpha=1.0, use_cg=solver == "cg", iterations=sweeps, num_threads=threads, random_state=0
)
seconds = []
model.fit(matrix, show_progress=False, callback=lambda sweep, took, *rest: seconds.append(took))
print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""

WRITE = """
import sys
import numpy as np
from recflow.data.interactions import build_interactions
from recflow.data.sample import generate
table = build_interactions(generate(int(sys.argv[1]))).table
for name in ("user", "item", "rating"):
    np.save(f"{sys.argv[2]}/{name}.npy", table[name].to_numpy())
"""


def ours(folder: Path, kind: str, dim: int, sweeps: int, threads: int) -> dict[str, Any]:
    """Run in a process of its own: one of ``cholesky``, ``cg`` and ``bias-mf``."""
    import resource
    import time

    import numpy as np
    import torch

    from recflow.ranking.histories import Histories
    from recflow.ranking.ridge import Start
    from recflow_bias_mf import als
    from recflow_factors.half_sweep import Everywhere, Weights, half_sweep

    torch.set_num_threads(threads)
    users, items = (torch.from_numpy(np.load(folder / f"{name}.npy").astype(np.int64)) for name in ("user", "item"))
    stars = torch.from_numpy(np.load(folder / "rating.npy").astype(np.float32)) if kind == "bias-mf" else None
    sizes = int(users.max()) + 1, int(items.max()) + 1
    by_user = Histories.from_pairs(users, items, *sizes, stars)
    by_item = Histories.from_pairs(items, users, *sizes[::-1], stars)
    del users, items, stars
    torch.manual_seed(0)
    p, q = torch.randn(sizes[0], dim) * 0.1 / dim**0.5, torch.zeros(sizes[1], dim)
    weights, mean = Weights(alpha=0.3, reg=0.005, reg_exponent=1.0), by_user.ratings.mean()
    bias = torch.zeros(sizes[0])

    def half(rows: Histories, columns: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        steps = Start(start, 3) if kind == "cg" else None
        return half_sweep(rows, columns, Everywhere.of(columns), weights, steps).weights

    seconds = []
    for _ in range(sweeps):
        started = time.perf_counter()
        if kind == "bias-mf":
            q, item_bias, _ = als.half_sweep(by_item, p, bias, mean, 4.0, 4.0, 0.3)
            p, bias, _ = als.half_sweep(by_user, q, item_bias, mean, 4.0, 4.0, 0.3)
        else:
            q = half(by_item, p, q)
            p = half(by_user, q, p)
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def measure(command: list[str], threads: int) -> dict[str, Any]:
    """What a process prints as its last line, with so many threads allowed to it."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads)), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=32)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has implicit")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    numbers = [args.dim, args.sweeps, args.threads]
    if args.kind:
        print(json.dumps(ours(args.folder, args.kind, *numbers)))
        return
    table = Table(title=f"{args.millions:g} million ratings, d = {args.dim}, {args.threads} threads")
    for column in ("", "seconds a sweep", "peak, GiB"):
        table.add_column(column, justify="right")
    options = [str(number) for number in numbers]
    named = [f"--{name}={value}" for name, value in zip(("dim", "sweeps", "threads"), options, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", WRITE, str(int(args.millions * 1e6)), folder], check=True)
        contenders: dict[str, list[str]] = {}
        for solver in ("cholesky", "cg"):
            contenders[f"ials, {solver}"] = [sys.executable, __file__, "--kind", solver, "--folder", folder, *named]
            if args.peer:
                contenders[f"implicit, {solver}"] = [args.peer, "-c", PEER, folder, solver, *options]
        contenders["bias-mf"] = [sys.executable, __file__, "--kind", "bias-mf", "--folder", folder, *named]
        for name, command in contenders.items():
            found = measure(command, args.threads)
            times = found["seconds"]
            shown = f"{statistics.median(times):.2f} ({min(times):.2f}–{max(times):.2f}, n = {len(times)})"
            table.add_row(name, shown, f"{found['peak']:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
