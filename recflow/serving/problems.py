"""What is answered where something cannot be: one sentence and, for bad input, field and reason; never a trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from recflow.errors import RecflowError, UnknownItemError, UnknownUserError
from recflow.serving.answers import FieldProblem, Problem, Unprocessable
from recflow.serving.models import UnknownModelError

RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "An API key is needed."},
    404: {"model": Problem, "description": "There is no such user, item or model."},
    422: {"model": Unprocessable, "description": "A field cannot be used."},
    503: {"model": Problem, "description": "Too much is under way; try again."},
    504: {"model": Problem, "description": "It took too long."},
}
"""Beside the answer itself."""
RESPONSES_TO_BODIES: dict[int | str, dict[str, Any]] = {
    **RESPONSES,
    400: {"model": Problem, "description": "The body cannot be read at all."},
    408: {"model": Problem, "description": "The body has not arrived in time."},
    413: {"model": Problem, "description": "The body is too long."},
}
_MOST_FIELDS = 10  # reported of one request


class UnusableError(Exception):
    """A field that is well-formed, yet does not fit the model's data."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.problem = FieldProblem(field=field, reason=reason)


def add_handlers(app: FastAPI) -> None:
    """Teach an app to answer so."""
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(UnusableError, _unusable)
    for unknown in (UnknownUserError, UnknownItemError, UnknownModelError):
        app.add_exception_handler(unknown, _unknown)
    app.add_exception_handler(RecflowError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _unprocessable(_field_problem(found) for found in error.errors()[:_MOST_FIELDS])


async def _unusable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UnusableError)
    return _unprocessable([error.problem])


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    request.state.unknown_user = isinstance(error, UnknownUserError)
    return JSONResponse({"error": str(error)}, 404)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error), "fields": []}, 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of the first route of this path alone
        here = [route for route in request.app.routes if getattr(route, "path", None) == request.url.path]
        headers["Allow"] = ", ".join(sorted({method for route in here for method in route.methods or ()}))
    return JSONResponse({"error": error.detail}, error.status_code, headers)


async def _bug(_: Request, error: Exception) -> JSONResponse:
    # Starlette raises it again once this is sent, so the server's log has the traceback.
    return JSONResponse({"error": "Something went wrong in the service; its log says what."}, 500)


def _unprocessable(problems: Iterable[FieldProblem]) -> JSONResponse:
    fields = list(problems)
    sentence = "; ".join(f"{problem.field}: {problem.reason}" for problem in fields)
    return JSONResponse(Unprocessable(error=sentence, fields=fields).model_dump(), 422)


def _field_problem(found: dict[str, Any]) -> FieldProblem:
    # A field's name is the client's text: it may be long, or hold halves of characters that no answer can carry.
    place = [str(part)[:100].encode(errors="replace").decode() for part in found["loc"][1:]]
    if found["type"] == "json_invalid" or (not place and found["type"] in {"missing", "model_attributes_type"}):
        return FieldProblem(field="body", reason="must be a JSON object, sent with Content-Type: application/json")
    if found["type"] == "extra_forbidden":
        return FieldProblem(field=".".join(place), reason="there is no such field")
    return FieldProblem(field=".".join(place) or "body", reason=found["msg"])
