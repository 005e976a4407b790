"""What a connection may cost: uvicorn's protocol with bounds that it lacks, or that BentoML has no way to set."""

from __future__ import annotations

import asyncio
import signal
import time
from threading import Event
from types import FrameType
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 5.0
"""Seconds for the head of a request to arrive, and for an unread answer to be fetched after the last of it is sent."""
MOST = 800
"""Connections of a worker: below the 1,024 files that a process may commonly open."""
STOPPING = Event()
"""Whether this worker has been told to stop."""


def notice_stops() -> None:
    """Set :data:`STOPPING` at SIGTERM and SIGINT, and then do what was done at them before. For the main thread."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _after_noticing(signal.getsignal(number)))


def _after_noticing(before: Any) -> Any:
    def handle(number: int, frame: FrameType | None) -> None:
        STOPPING.set()
        if callable(before):
            before(number, frame)

    return handle


class Bounded(H11Protocol):
    """An HTTP connection whose other end may neither hang nor be one of too many, nor outlive a stop.

    uvicorn waits for ever for the rest of a head, and for an answer to be fetched; each holds a file, memory, and the
    service from stopping. So does a connection that was on its way when uvicorn told the others to close, as long as
    its client goes on asking. h11, on which this rests, refuses a head of more than 16 kB.
    """

    _head: asyncio.TimerHandle | None = None
    _fetch: asyncio.TimerHandle | None = None
    _since = 0.0

    @property
    def idle(self) -> bool:
        """Whether there is no request under way."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it is, at first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for one more: the connection that has been idle for longest goes; if none is, the new one does."""
        super().connection_made(transport)
        self._since = time.monotonic()
        if len(self.connections) > MOST:
            others = [one for one in self.connections if isinstance(one, Bounded) and one.idle and one is not self]
            oldest = min(others, key=lambda one: one._since, default=self)
            self.connections.discard(oldest)  # its end is told of later
            oldest.transport.abort()
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; see :meth:`_expect_head`."""
        super().data_received(data)
        if STOPPING.is_set() and not self.idle:
            self.cycle.keep_alive = False
        self._expect_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the answer to be fetched, and for the next request."""
        self._since = time.monotonic()
        super().on_response_complete()
        self._expect_fetch()

    def pause_writing(self) -> None:
        """More is unread than the transport likes to hold."""
        super().pause_writing()
        self._expect_fetch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget about it."""
        self._head, self._fetch = _cancelled(self._head), _cancelled(self._fetch)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        # One limit for the whole head: one byte at a time wins nothing. Between requests uvicorn's own limit holds.
        if not self.idle or self.transport.is_closing():
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(PATIENCE, self.transport.abort)

    def _expect_fetch(self) -> None:
        self._fetch = _cancelled(self._fetch)
        if self.transport.get_write_buffer_size() > 0:
            self._fetch = self.loop.call_later(PATIENCE, self._drop_unread)

    def _drop_unread(self) -> None:
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()


def _cancelled(timer: asyncio.TimerHandle | None) -> Any:
    if timer is not None:
        timer.cancel()
    return None
