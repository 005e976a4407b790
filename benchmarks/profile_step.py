"""Where a LightGCN training step's time goes, and how far it is from its six sparse products.

python benchmarks/profile_step.py --data ml-1m
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.profiler import ProfilerActivity, profile

from recflow.data.dataset import DataConfig, prepare
from recflow.training.propagation import sparse_matmul
from recflow_lightgcn.model import LightGCN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--rows", type=int, default=14)
    args = parser.parse_args()

    data = prepare(DataConfig(name=args.data, drop_below=3))
    torch.manual_seed(0)
    model = LightGCN(num_users=data.num_users, num_items=data.num_items)
    model.attach(data, seed=42)
    optimizer = model.configure_optimizers()
    batches = model.batches(data)

    def step(batch: object) -> None:
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step()

    for batch in batches:  # an epoch to warm up
        step(batch)
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    epoch = time.perf_counter() - started

    started, repeats = time.perf_counter(), 100
    with torch.no_grad():
        for _ in range(repeats):
            sparse_matmul(data.graph.user_item, model.items.weight)
            sparse_matmul(data.graph.item_user, model.users.weight)
    product = (time.perf_counter() - started) / repeats
    per_step = epoch / len(batches)
    print(f"{args.data}: {len(data.positives.users):,} training interactions, {torch.get_num_threads()} threads")
    print(f"bare epoch {epoch:.2f} s, {len(batches)} steps of {per_step * 1e3:.2f} ms")
    print(f"one product with Â {product * 1e3:.2f} ms; six are {6 * product / per_step:.0%} of a step\n")

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for batch in batches:
            step(batch)
    print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=args.rows, max_name_column_width=40))


if __name__ == "__main__":
    main()
