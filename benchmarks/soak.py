"""Whether the service leaks: every endpoint, bad requests, a scanner and clients that leave, for minutes on end.

    python benchmarks/soak.py --minutes 10 --plot soak.png

Asks `bentoml serve` of a generated model, and looks every few seconds at the memory (proportional set size of all its
processes), files and threads of the service, and at the length of what `/metrics` shows. Ends with a verdict, and with
exit code 1 if an answer was none of those expected, or if memory, files, threads or metrics went on growing after the
warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from serving import generate, noise, serving

USERS, ITEMS = 20_000, 20_000
GENRES = ["Drama", "Comedy"]
PAGES = ["/", "/docs", "/web/main.js", "/openapi.json", "/readyz", "/api/health"]


class Sample(NamedTuple):
    """The service at one moment."""

    seconds: float
    megabytes: float
    files: int
    threads: int
    metrics: int


class Client:
    """One client on one connection, which it opens again when it was closed."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.dice = port, random.Random(seed)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: object = None, leave_at: float = 1.0) -> int:
        """Ask, and read the answer; gives its status, 0 where it left after a part of the request."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        sent = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(sent[: int(len(sent) * leave_at)])
        if leave_at < 1:
            await writer.drain()
            self.leave()
            return 0
        answer = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:] if line)
        await reader.readexactly(int(fields[b"content-length"]))
        if fields.get(b"connection") == b"close":
            self.leave()
        return int(answer.split(b" ", 2)[1])

    def leave(self) -> None:
        """Close the connection."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None

    def request(self) -> tuple[tuple[str, str, object], set[int]]:
        """A request of some kind, and the statuses that it may have."""
        dice = self.dice
        user, item = dice.randrange(USERS) + 1, dice.randrange(ITEMS) + 1
        history = [{"item": dice.randrange(ITEMS) + 1, "rating": dice.randint(1, 5)} for _ in range(dice.randrange(80))]
        word = "".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=12))
        return dice.choice(
            [
                (("GET", f"/api/recommend?user_id={user}", None), {200}),
                (("POST", "/recommend", {"history": history, "top_k": 50}), {200}),
                (("POST", "/recommend", {"user_id": user, "reasons": True}), {200}),
                (("POST", "/recommend", {"user_id": user, "diversity": 0.5, "genres": GENRES, "year_to": 1990}), {200}),
                (("POST", "/recommend", {"history": history, "exclude": [item], "exclude_genres": ["Drama"]}), {200}),
                (("GET", f"/api/similar?item_id={item}", None), {200}),
                (("GET", f"/api/search?q=title+{dice.randrange(1000)}", None), {200}),
                (("GET", f"/api/movie?movie_id={item}", None), {200}),
                (("POST", "/batch_recommend", {"user_ids": [dice.randrange(USERS) + 1 for _ in range(20)]}), {200}),
                (("GET", "/api/models", None), {200}),
                (("GET", dice.choice(PAGES), None), {200}),
                (("POST", "/new_item", {"title": word, "genres": ["Drama"]}), {422}),
                (("POST", "/recommend", {"user_id": user, word: 1}), {422}),
                (("POST", "/recommend", {"history": [{"item": item, "rating": 99}]}), {422}),
                (("POST", "/recommend", word.encode()), {422}),
                (("GET", f"/api/recommend?user_id={word}", None), {404}),
                (("GET", f"/api/movie?movie_id={word}", None), {404}),
                (("GET", f"/api/recommend?model={word}", None), {404}),
                (("GET", f"/{word}/{dice.randrange(10**9)}.php?{word}", None), {404}),
                (("GET", f"/web/{word}", None), {404}),
                ((word.upper(), "/recommend", None), {405}),
                (("POST", "/recommend", b"x" * 2_000_000), {413}),
            ]
        )  # fmt: skip


async def _drive(client: Client, until: float, waits: list[tuple[float, float]], seen: Counter[int]) -> None:
    while (started := time.perf_counter()) < until:
        asked, expected = client.request()
        leaves = client.dice.random() < 0.05
        try:
            status = await client.ask(*asked, leave_at=client.dice.random() if leaves else 1.0)
        except (ConnectionError, asyncio.IncompleteReadError):
            client.leave()  # as after 413, or when it was idle for too long
            status = 0
        seen[status] += 1
        if status not in {0, 503, *expected}:
            raise SystemExit(f"{asked[:2]} was answered by {status}")
        if status == 200:
            waits.append((started, time.perf_counter() - started))
        await asyncio.sleep(client.dice.random() * 0.05)


async def _sample(port: int, started: float, until: float, every: float, samples: list[Sample]) -> None:
    client = Client(port, 0)
    while time.perf_counter() < until:
        await asyncio.sleep(every)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        metrics = len(await reader.read())
        writer.close()
        service = psutil.Process().children(recursive=True)
        samples.append(
            Sample(
                time.perf_counter() - started,
                sum(one.memory_full_info().pss for one in service) / 2**20,
                sum(one.num_fds() for one in service),
                sum(one.num_threads() for one in service),
                metrics,
            )
        )
    client.leave()


def soak(port: int, seconds: float, clients: int) -> tuple[list[Sample], list[tuple[float, float]], Counter[int]]:
    """Ask for a while; gives what was seen of the service, when each answer was asked for and how long it took."""
    samples: list[Sample] = []
    waits: list[tuple[float, float]] = []
    seen: Counter[int] = Counter()
    started = time.perf_counter()
    until = started + seconds

    async def everything() -> None:
        driven = [_drive(Client(port, seed), until, waits, seen) for seed in range(clients)]
        await asyncio.gather(_sample(port, started, until, min(5.0, seconds / 40), samples), *driven)

    asyncio.run(everything())
    return samples, [(at - started, wait) for at, wait in waits], seen


def judge(samples: list[Sample], warm_up: float, tolerance: float) -> list[str]:
    """What went on growing after the warm-up; nothing, if all is well."""
    kept = [sample for sample in samples if sample.seconds >= warm_up]
    tail = max(3, len(kept) // 5)
    first, last = (
        Sample(*(statistics.median(values) for values in zip(*some, strict=True)))
        for some in (kept[:tail], kept[-tail:])
    )
    slope = np.polyfit([one.seconds / 3600 for one in kept], [one.megabytes for one in kept], 1)[0]
    grown = last.megabytes - first.megabytes
    change = {name: f"{getattr(first, name):,.0f} -> {getattr(last, name):,.0f}" for name in Sample._fields[1:]}
    print(f"after {warm_up:.0f} s of warm-up: " + ", ".join(f"{name} {text}" for name, text in change.items()))
    print(f"memory {grown:+.1f} MB; by slope {slope:+.0f} MB or {slope / first.megabytes:+.1%} an hour")
    faults = [f"memory grew by {grown:.1f} MB; {tolerance:g} are allowed"] if grown > tolerance else []
    for name, allowed in (("files", 20), ("threads", 2), ("metrics", 4_000)):
        before, after = getattr(first, name), getattr(last, name)
        faults += [f"{name} grew from {before:g} to {after:g}"] if after > before + allowed else []
    return faults


def plot(samples: list[Sample], waits: list[tuple[float, float]], file: Path) -> None:
    """Draw memory, and the median and 99th percentile of the answers' times."""
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True, layout="constrained")
    above.plot([one.seconds / 60 for one in samples], [one.megabytes for one in samples])
    above.set(
        ylabel="memory, MB",
        ylim=(0, 1.2 * max(one.megabytes for one in samples)),
        title="The service in a soak: every endpoint, mistakes, clients that leave",
    )
    minutes = sorted({int(at / 15) / 4 for at, _ in waits})
    by_minute = {minute: [1000 * wait for at, wait in waits if int(at / 15) / 4 == minute] for minute in minutes}
    for part in (50, 99):
        below.plot(minutes, [np.percentile(found, part) for found in by_minute.values()], label=f"{part} % within")
    below.set(xlabel="minutes", ylabel="time to answer, ms", ylim=(0, None))
    below.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--warm-up", type=float, default=90, help="seconds, and at most a fifth of the whole")
    parser.add_argument("--tolerance", type=float, default=8, help="MB that memory may grow by after the warm-up")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = generate(Path(scratch) / "bundle", noise(USERS, ITEMS, 64), history=50)
        with serving("recflow", bundle) as port:
            samples, waits, seen = soak(port, 60 * args.minutes, args.clients)
    print(f"{seen.total():,} requests: " + ", ".join(f"{n:,} {status or 'left'}" for status, n in sorted(seen.items())))
    for minute in range(int(max(at for at, _ in waits) // 60) + 1):
        found = [1000 * wait for at, wait in waits if at // 60 == minute]
        here = [one for one in samples if one.seconds // 60 == minute]
        if found and here:
            print(
                f"minute {minute + 1:3}: {len(found):6,} answers  p50 {np.percentile(found, 50):6.1f} ms  p99 "
                f"{np.percentile(found, 99):6.1f} ms  {here[-1].megabytes:7.1f} MB  {here[-1].files} files  "
                f"{here[-1].threads} threads  {here[-1].metrics:,} bytes of metrics"
            )
    if args.plot:
        plot(samples, waits, args.plot)
    faults = judge(samples, min(args.warm_up, 12 * args.minutes), args.tolerance)
    print("flat" if not faults else "; ".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
