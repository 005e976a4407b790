"""What is measured and logged of each request: never a rating, a history or an id."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections import Counter
from functools import cache
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SLOW = 1.0  # seconds; what takes longer is logged
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LOGGER = "recflow.serving"
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})  # others are the client's own words


class Metrics:
    """What ``/metrics`` shows. Every label has a fixed, small set of values, whatever clients send."""

    def __init__(self) -> None:
        # Imported when a worker starts: before, prometheus_client would not see which folder the workers share.
        from prometheus_client import Counter as Count
        from prometheus_client import Histogram

        self.seconds = Histogram("recflow_request_seconds", "Time to answer", ["endpoint"], buckets=_BUCKETS)
        self.requests = Count("recflow_requests", "Requests", ["endpoint", "status"])
        self.recommendations = Count("recflow_recommendations", "Lists by the way they came about", ["model", "path"])
        self.unknown_users = Count("recflow_unknown_users", "Requests for users who are not in the data", ["model"])


@cache
def metrics() -> Metrics:
    """This process's metrics: prometheus_client allows each name but once."""
    return Metrics()


def exposition() -> bytes:
    """All workers' metrics in Prometheus' text form."""
    import os

    import prometheus_client

    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return prometheus_client.generate_latest()
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


class Watch:
    """Measures and logs, around everything else.

    Args:
        app: What answers.
        endpoints: Paths that are named in metrics and logs; all others are ``other``.
        log_requests: Whether every request is logged, not problems alone.
    """

    def __init__(self, app: ASGIApp, endpoints: frozenset[str], log_requests: bool) -> None:
        self.app, self.endpoints, self.log_requests = app, endpoints, log_requests
        self._quiet_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Watch`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        scope.setdefault("state", {})
        try:
            await self.app(scope, receive, noting)
        except asyncio.CancelledError:  # BentoML's time limit, which answers in our place
            status = 504
            raise
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        state, counted = scope["state"], metrics()
        endpoint = scope["path"] if scope["path"] in self.endpoints else "other"
        model = state.get("model", "")
        counted.seconds.labels(endpoint).observe(seconds)
        counted.requests.labels(endpoint, status).inc()
        paths = Counter(state.get("paths", ()))
        for path, number in paths.items():
            counted.recommendations.labels(model, path).inc(number)
        if state.get("unknown_user"):
            counted.unknown_users.labels(model).inc()
        if self.log_requests or (status >= 500 and not self._said(status)) or seconds > SLOW:
            level = logging.ERROR if status >= 500 and status != 503 else logging.INFO
            method = scope["method"] if scope["method"] in _METHODS else "other"
            entry = {"endpoint": endpoint, "method": method, "status": status, "ms": round(seconds * 1000, 2)}
            entry |= {"model": model} if model else {}
            entry |= {"paths": dict(paths)} if paths else {}
            logging.getLogger(_LOGGER).log(level, "request", extra={"entry": entry})

    def _said(self, status: int) -> bool:
        """Whether the log has a refusal of the last second: in an overload it must not be what takes the time."""
        now = time.monotonic()
        if status != 503 or now < self._quiet_until:
            return status == 503
        self._quiet_until = now + 1
        return False


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        entry: dict[str, Any] = {"time": stamp, "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(entry | getattr(record, "entry", {}), ensure_ascii=False)


def log_as_json() -> None:
    """Write the service's log to the error stream, one JSON object a line."""
    logger = logging.getLogger(_LOGGER)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_AsJson())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
