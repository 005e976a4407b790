"""Ctrl-C, noticed even where it is dropped: inside a finaliser it is printed and forgotten, and libraries catch it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl

_asked = threading.Event()
_watching = False


@contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Remember that an interrupt came, beside raising it; only the main thread can."""
    global _watching
    if _watching or threading.current_thread() is not threading.main_thread():
        yield  # who watches already goes on to
        return
    _asked.clear()

    def remember(number: int, frame: FrameType | None) -> None:
        _asked.set()
        while frame is not None:
            if frame.f_code.co_name == "__del__":
                return  # raised here it would only be printed: the next stop_if_interrupted() does it
            frame = frame.f_back
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, remember)
    _watching = True
    try:
        yield
    finally:
        _watching = False
        signal.signal(signal.SIGINT, before)
        _asked.clear()


class StopIfInterrupted(pl.Callback):
    """Ends training after the batch in which an interrupt was dropped."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """See :func:`stop_if_interrupted`."""
        stop_if_interrupted()


def stop_if_interrupted() -> None:
    """Raise an interrupt that came and was dropped.

    Raises:
        KeyboardInterrupt: If so.
    """
    if _asked.is_set():
        raise KeyboardInterrupt
