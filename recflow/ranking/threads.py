"""Independent pieces of work on all cores, each piece on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def on_all_cores(
    work: Callable[[Sequence[Piece]], Result], pieces: Sequence[Piece], device: torch.device
) -> list[Result]:
    """Deal pieces out to as many threads as torch may use, every so-manyth piece to each, and wait for all.

    torch itself shares every single operation out among the cores: that gains little where operations are short, and
    nothing where LAPACK takes one matrix after another. Here each thread runs its operations alone, without gradients.
    On other devices than a CPU, and for a single piece, this thread does it all.

    Args:
        work: What a thread does with its pieces; it must be safe beside itself, and give the same numbers whichever
            pieces come together.
        pieces: In an order that makes every so-manyth of them a fair share.
        device: Where the work's tensors are.

    Returns:
        What each thread returned.
    """
    before, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    threads = min(before, len(pieces)) if device.type == "cpu" else 1
    if threads <= 1:
        with torch.no_grad():
            return [work(pieces)]
    all_here = Barrier(threads + 1)

    def part(first: int) -> Result:
        torch.set_num_threads(1)
        torch.get_num_threads()  # from its first use on, a number is a thread's own
        all_here.wait()
        all_here.wait()
        with torch.inference_mode(inference), torch.no_grad():  # both modes are a thread's own
            return work(pieces[first::threads])

    with ThreadPoolExecutor(threads) as pool:
        try:
            parts = [pool.submit(part, first) for first in range(threads)]
            all_here.wait()
            torch.set_num_threads(before)  # threads that begin from here on take the number that any thread set last
            all_here.wait()
        except BaseException:  # Ctrl-C: nobody may be left waiting for the others
            all_here.abort()
            torch.set_num_threads(before)
            raise
        return [part.result() for part in parts]
