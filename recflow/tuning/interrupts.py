"""Ctrl-C, noticed even where Python drops it: an interrupt inside a finaliser is printed and forgotten."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def noticed_interrupts() -> Iterator[None]:
    """Remember that an interrupt came, beside raising it; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
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
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def stop_if_interrupted() -> None:
    """Raise an interrupt that came and was dropped.

    Raises:
        KeyboardInterrupt: If so.
    """
    if _asked.is_set():
        raise KeyboardInterrupt
