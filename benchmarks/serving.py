"""Recommendations a second: recflow's service beside a bare FastAPI app with the same scorer, in one run.

    python benchmarks/serving.py --items 60000 --clients 16 --seconds 20

A generated factor model of 100,000 users and 60,000 items in 64 dimensions, seen items masked, ten recommendations for
a random known user a request. Both run as one worker, in turns, so that a slow spell of the machine meets both. The
bare app is FastAPI under uvicorn, with one route that calls the same `Recommender` and returns a dict: what anyone
would write first. The clients run in a process of their own, keep their connections, and ask as fast as they are
answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

BARE = """
import os, pathlib, torch, uvicorn
from fastapi import FastAPI
from recflow.ranking.recommender import Recommender

torch.set_num_threads(1)
model = Recommender.load(pathlib.Path(os.environ["RECFLOW_BUNDLE"]))
app = FastAPI()

@app.get("/api/recommend")
def recommend(user_id: int, top_k: int = 10):
    answer = model.recommend(user_id, top_k)
    found = [{"item_id": r.item.item_id, "title": r.item.title, "score": r.score} for r in answer.recommendations]
    return {"path": answer.path, "recommendations": found}

@app.get("/readyz")
def readyz():
    return "ok"

uvicorn.run(app, port=int(os.environ["PORT"]), access_log=False, log_level="warning")
"""


def generate(folder: Path, factors: tuple[Tensor, Tensor], history: int) -> Path:
    """Write the bundle of a factor model of invented users and titles, and random histories of one length."""
    import torch

    from recflow.ranking.bundle import save_bundle
    from recflow.ranking.catalog import Item
    from recflow.ranking.histories import Histories
    from recflow.ranking.rankers import FactorRanker

    users, items = map(len, factors)
    seen = torch.randint(items, (users * history,), generator=torch.Generator().manual_seed(1))
    save_bundle(
        folder,
        plugin="bpr-mf",
        ranker=FactorRanker(*factors, reg=0.1),
        histories=Histories.from_pairs(torch.arange(users).repeat_interleave(history), seen, users, items),
        items=(
            Item(n, n + 1, f"Title {n} ({1950 + n % 70})", 1950 + n % 70, ("Drama", "Comedy")[: n % 3], n)
            for n in range(items)
        ),
        user_ids=range(1, users + 1),
        about={
            "task": "ranking",
            "rating_scale": [1, 5],
            "relevant_from": None,
            "header": {"dataset": "generated"},
            "metrics": {},
        },
    )
    return folder


def noise(users: int, items: int, dim: int) -> tuple[Tensor, Tensor]:
    """Vectors of users and items without any structure."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(users, dim, generator=generator), torch.randn(items, dim, generator=generator)


@contextmanager
def serving(which: str, bundle: Path) -> Iterator[int]:
    """One of the two in a process group of its own; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = [
        "-m",
        "bentoml",
        "serve",
        "recflow.serving.service:Recommender",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    environment = {**os.environ, "RECFLOW_BUNDLE": str(bundle), "PORT": str(port), "BENTOML_DO_NOT_TRACK": "True"}
    process = subprocess.Popen(
        [sys.executable, *(service if which == "recflow" else ["-c", BARE])],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        started = time.perf_counter()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - started > 120:
                    raise SystemExit(f"{which} did not start") from None
                time.sleep(0.1)
        print(f"{which:8} ready after {time.perf_counter() - started:.1f} s")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)


async def _client(port: int, users: int, until: float, seed: int, waits: list[float]) -> None:
    """One client on one connection; by hand, for a client library would cost more than what is measured."""
    dice = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        path = f"/api/recommend?user_id={dice.randrange(users) + 1}&top_k=10"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        waits.append(time.perf_counter() - started)
    writer.close()


def drive(port: int, users: int, clients: int, seconds: float) -> list[float]:
    """Ask from several clients at once; gives the seconds that each answer took."""

    async def everyone() -> list[float]:
        waits: list[float] = []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(_client(port, users, until, seed, waits) for seed in range(clients)))
        return waits

    return asyncio.run(everyone())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rates: dict[str, list[float]] = {"recflow": [], "bare": []}
    with tempfile.TemporaryDirectory() as scratch, get_context("spawn").Pool(1) as apart:
        bundle = generate(Path(scratch) / "bundle", noise(args.users, args.items, args.dim), history=50)
        for _ in range(args.rounds):
            for which, found in rates.items():
                with serving(which, bundle) as port:
                    apart.apply(drive, (port, args.users, args.clients, min(3.0, args.seconds)))  # warm
                    waits = sorted(apart.apply(drive, (port, args.users, args.clients, args.seconds)))
                found.append(len(waits) / args.seconds)
                p50, p99 = (1000 * waits[int(len(waits) * part)] for part in (0.5, 0.99))
                print(f"{which:8} {found[-1]:8.0f} recommendations/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms")
    ours, bare = (statistics.median(found) for found in rates.values())
    print(f"recflow / bare FastAPI: {ours / bare:.2f} (medians of {args.rounds} rounds, {args.clients} clients)")


if __name__ == "__main__":
    main()
