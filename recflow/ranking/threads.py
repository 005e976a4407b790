"""Independent pieces of work on all cores, each piece on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def on_all_cores(
    work: Callable[[Sequence[Piece]], Result], pieces: Sequence[Piece], device: torch.device
) -> list[Result]:
    """Deal pieces out to as many threads as torch may use, every so-manyth piece to each, and wait for all.

    torch itself shares every single operation out among the cores: that gains little where operations are short, and
    nothing where LAPACK takes one matrix after another. Here each thread runs its operations alone. On other devices
    than a CPU, and for a single piece, this thread does it all.

    Args:
        work: What a thread does with its pieces; it must be safe beside itself, and give the same numbers whichever
            pieces come together.
        pieces: In an order that makes every so-manyth of them a fair share.
        device: Where the work's tensors are.

    Returns:
        What each thread returned.
    """
    threads = min(torch.get_num_threads(), len(pieces)) if device.type == "cpu" else 1
    if threads <= 1:
        return [work(pieces)]
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, [pieces[thread::threads] for thread in range(threads)]))
    finally:
        torch.set_num_threads(before)  # a thread begins with the number that any thread set last
