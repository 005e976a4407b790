"""What stands between the outside and the routes: headers, the API key, and bounds on bodies and on load."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recflow.serving.settings import Settings
from recflow.serving.watch import Watch

PATIENCE = 5.0
"""Seconds for a body to arrive: a client that hangs holds no place of those that are under way."""
GONE = 499
"""As nginx has it: the client left before it could be answered."""
_OPEN = frozenset({"/", "/docs", "/openapi.json", "/api/health", "/livez", "/readyz", "/healthz"})
"""What answers without a key: health, and pages that hold nothing of the data."""
_OPEN_FOLDERS = ("/web/", "/static_content/")
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SWAGGER = _PAGE.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # it sets styles on its elements
_DATA = "default-src 'none'; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """Everything of this file around an app, with :class:`~recflow.serving.watch.Watch` outermost.

    Args:
        app: What answers.
        endpoints: The paths of its routes.
        settings: What the operator has set; read from the environment if None.
    """

    def __init__(self, app: ASGIApp, endpoints: Iterable[str], settings: Settings | None = None) -> None:
        chosen, paths = settings or Settings.read(), frozenset(endpoints)
        inner: ASGIApp = Load(app, chosen.max_in_flight, paths - _OPEN)
        inner = Body(inner, chosen.max_body)
        if chosen.api_key is not None:
            inner = Key(inner, chosen.api_key)
        if chosen.cors_origins:
            headers = ["Authorization", "Content-Type", "X-API-Key"]
            inner = CORSMiddleware(
                inner, allow_origins=chosen.cors_origins, allow_methods=["GET", "POST"], allow_headers=headers
            )
        self.app = Watch(Headers(inner), paths, chosen.log_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Guard`."""
        await self.app(scope, receive, send)


class Headers:
    """Adds the headers that make browsers careful."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Headers`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        policy = _SWAGGER if path == "/docs" else _PAGE if path == "/" else _DATA

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = policy
                headers.setdefault("Cache-Control", "no-cache" if path.startswith(_OPEN_FOLDERS) else "no-store")
            await send(message)

        await self.app(scope, receive, adding)


class Key:
    """Refuses whoever does not send the API key, as ``X-API-Key`` or ``Authorization: Bearer``."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Key`."""
        if scope["type"] == "http" and not self._may_pass(scope):
            refusal = {"error": "An API key is needed: send it as X-API-Key, or as Authorization: Bearer."}
            await JSONResponse(refusal, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        if scope["path"] in _OPEN or scope["path"].startswith(_OPEN_FOLDERS):
            return True
        given = dict(scope["headers"])  # names come in lower case
        bearer = given.get(b"authorization", b"")
        sent = given.get(b"x-api-key") or (bearer[7:].strip() if bearer[:7].lower() == b"bearer " else b"")
        return hmac.compare_digest(sent, self.key)  # takes as long whatever is wrong with it


class Body:
    """Reads bodies before anything else is done, and refuses long ones, whether or not they say how long they are."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Body`."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body, more = bytearray(), not (declared.isdigit() and int(declared) > self.most)
        if not more:
            await self._refuse(scope, receive, send)
            return
        try:
            async with asyncio.timeout(PATIENCE):
                while more and len(body) <= self.most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        # For the log, and for BentoML, which else waits until its time limit, even when it is to stop.
                        await Response(status_code=GONE)(scope, receive, send)
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            refusal = {"error": f"The body has not arrived within {PATIENCE:g} seconds."}
            await JSONResponse(refusal, 408, {"Connection": "close"})(scope, receive, send)
            return
        if len(body) > self.most:
            await self._refuse(scope, receive, send)
            return
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = {"error": f"The body is longer than {self.most:,} bytes."}
        await JSONResponse(refusal, 413, {"Connection": "close"})(scope, receive, send)


class Load:
    """Sends requests away at once while as many as a worker can bear are under way."""

    def __init__(self, app: ASGIApp, most: int, limited: frozenset[str]) -> None:
        self.app, self.most, self.limited, self.under_way = app, most, limited, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`Load`."""
        if scope["type"] != "http" or scope["path"] not in self.limited:
            await self.app(scope, receive, send)
            return
        if self.under_way >= self.most:
            refusal = {"error": "Too many requests are under way; try again in a second."}
            await JSONResponse(refusal, 503, {"Retry-After": "1"})(scope, receive, send)
            return
        self.under_way += 1
        place = 1

        async def sending(message: Message) -> None:
            leave()  # the work is done: who is slow to fetch an answer holds no place
            await send(message)

        def leave() -> None:
            nonlocal place
            self.under_way -= place
            place = 0

        try:
            await self.app(scope, receive, sending)
        finally:
            leave()
