"""What the operator of the service may set, all of it by environment variable."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from recflow.errors import RecflowError

WORKERS = "RECFLOW_WORKERS"


@dataclass(frozen=True)
class Settings:
    """The service's settings.

    Attributes:
        api_key: ``RECFLOW_API_KEY``: what callers must send; None lets everyone in.
        cors_origins: ``RECFLOW_CORS_ORIGINS``: whose pages may call from a browser, separated by commas; nobody's.
        max_in_flight: ``RECFLOW_MAX_IN_FLIGHT``: requests that a worker has under way; one more is sent away.
        max_body: ``RECFLOW_MAX_BODY``: bytes of a request's body.
        log_requests: ``RECFLOW_LOG_REQUESTS``: whether every request is logged, not problems alone.
        workers: ``RECFLOW_WORKERS``: processes that answer, each with the models in its own memory.
        index: ``RECFLOW_INDEX``: whether large catalogues are answered from an index; ``auto`` or ``off``.
    """

    api_key: str | None = None
    cors_origins: tuple[str, ...] = ()
    max_in_flight: int = 64
    max_body: int = 2**20
    log_requests: bool = False
    workers: int = 1
    index: bool = True

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings.

        Raises:
            RecflowError: If one cannot be used.
        """
        key = environment.get("RECFLOW_API_KEY") or None
        if key is not None and not re.fullmatch(r"[!-~]{8,}", key):
            raise RecflowError("RECFLOW_API_KEY must be 8 or more printable ASCII characters without spaces.")
        origins = tuple(filter(None, re.split(r"[,\s]+", environment.get("RECFLOW_CORS_ORIGINS", ""))))
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/]+", origin):
                raise RecflowError(f"RECFLOW_CORS_ORIGINS expects origins such as https://example.org, got {origin!r}.")
        index = environment.get("RECFLOW_INDEX", "auto")
        if index not in {"auto", "off"}:
            raise RecflowError(f"RECFLOW_INDEX must be auto or off, got {index!r}.")
        return cls(
            api_key=key,
            cors_origins=origins,
            max_in_flight=_positive(environment, "RECFLOW_MAX_IN_FLIGHT", cls.max_in_flight),
            max_body=_positive(environment, "RECFLOW_MAX_BODY", cls.max_body),
            log_requests=environment.get("RECFLOW_LOG_REQUESTS", "").casefold() in {"1", "true", "yes", "on"},
            workers=_positive(environment, WORKERS, cls.workers),
            index=index == "auto",
        )


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise RecflowError(f"{name} must be a whole number above 0, got {text!r}.")
    return int(text)
