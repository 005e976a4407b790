"""The routes of the HTTP service, as a FastAPI app that needs no BentoML.

``POST /recommend`` is a route here as well, not a ``@bentoml.api``: that one reports mistakes in two other shapes, one
of them a list, logs each with a traceback, and takes a validation error of our own for the client's.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from recflow import __version__
from recflow.errors import RecflowError, UnknownItemError, UnknownUserError
from recflow.serving.schemas import (
    FieldProblem,
    Health,
    ItemAnswer,
    Problem,
    Ranked,
    RecommendAnswer,
    Recommended,
    RecommendQuery,
    RecommendRequest,
    SimilarAnswer,
    SimilarQuery,
    Unprocessable,
)

if TYPE_CHECKING:  # torch comes in with the model, in a worker: `bentoml build` and `import service` go without
    from recflow.ranking.catalog import Id, Item
    from recflow.ranking.recommender import Answer, Recommendation, Recommender

_PROBLEMS: dict[int | str, dict[str, Any]] = {404: {"model": Problem}, 422: {"model": Unprocessable}}
_MOST_FIELDS = 10  # reported of one request


class _UnusableError(Exception):
    """A field that is well-formed, yet does not fit the model's data."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.problem = FieldProblem(field=field, reason=reason)


def make_app(recommender: Recommender | None = None) -> FastAPI:
    """Make the app.

    Args:
        recommender: What answers. May be given later, before the first request, as ``app.state.recommender``: BentoML
            wants the app when the service is defined, and the model is loaded when a worker starts.
    """
    app = FastAPI(
        title="recflow",
        version=__version__,
        description="Recommendations over HTTP, in the ids of the model's own data.",
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
    )
    app.state.recommender = recommender
    # One by one, not through a router, whose routes BentoML does not list. The handlers that score are plain functions,
    # which run in threads and leave the event loop free.
    app.get("/api/recommend", summary="Recommend to a user of the data", responses=_PROBLEMS)(recommend_to_user)
    app.post("/recommend", summary="Recommend to a user of the data, or to someone new", responses=_PROBLEMS)(recommend)
    app.get("/api/similar", summary="List the items most like one", responses=_PROBLEMS)(similar)
    app.get("/api/health", summary="Say what is being served")(health)
    app.get("/", include_in_schema=False)(index)
    app.get("/docs", include_in_schema=False)(docs)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(_UnusableError, _unusable)
    app.add_exception_handler(UnknownUserError, _unknown)
    app.add_exception_handler(UnknownItemError, _unknown)
    app.add_exception_handler(RecflowError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    return app


def recommend_to_user(request: Request, query: Annotated[RecommendQuery, Query()]) -> RecommendAnswer:
    """The best items that a user of the data has not interacted with."""
    recommender = _recommender(request)
    return _answer(recommender, recommender.recommend(query.user_id, query.top_k, reasons=query.reasons))


def recommend(request: Request, body: RecommendRequest) -> RecommendAnswer:
    """The best items for a user of the data, or for someone new from what they rated or liked."""
    recommender = _recommender(request)
    if body.user_id is not None:
        answer = recommender.recommend(body.user_id, body.top_k, reasons=body.reasons)
    else:
        history: dict[Id, float | None] = {}
        low, high = recommender.about["rating_scale"]
        for position, entry in enumerate(body.history or ()):
            if entry.rating is not None and not low <= entry.rating <= high:
                reason = f"must be from {low:g} to {high:g}, got {entry.rating:g}"
                raise _UnusableError(f"history.{position}.rating", reason)
            history[entry.item] = entry.rating
        answer = recommender.recommend_for_history(history, body.top_k, reasons=body.reasons)
    return _answer(recommender, answer)


def similar(request: Request, query: Annotated[SimilarQuery, Query()]) -> SimilarAnswer:
    """The items most like one, as the model sees them."""
    recommender = _recommender(request)
    meant, neighbours = recommender.similar(query.item_id, query.top_k)
    return SimilarAnswer(
        item=ItemAnswer(**_known(meant)),
        similar=[Ranked(**_ranked(rank, found)) for rank, found in enumerate(neighbours, 1)],
        **_source(recommender),
    )


async def health(request: Request) -> Health:
    """What is being served. Answers on the event loop, so it stays quick while all threads are busy."""
    recommender = _recommender(request)
    ranker = recommender.ranker
    return Health(
        task=recommender.about["task"],
        users=ranker.num_users,
        items=ranker.num_items,
        recflow=__version__,
        **_source(recommender),
    )


def index(request: Request) -> HTMLResponse:
    """A plain page with links to try."""
    recommender = _recommender(request)
    user_id, item = recommender.catalog.user_id(0), recommender.catalog.items([0])[0]
    links = [
        (f"api/recommend?user_id={quote(str(user_id))}&top_k=10", f"recommendations for user {user_id}"),
        (f"api/recommend?user_id={quote(str(user_id))}&top_k=10&reasons=true", "the same, with reasons"),
        (f"api/similar?item_id={quote(str(item.item_id))}&top_k=5", f"items like {item.title}"),
        ("api/health", "what is being served"),
        ("docs", "all of it, to try out"),
    ]
    listed = "".join(f'<li><a href="{escape(url)}">{escape(text)}</a></li>' for url, text in links)
    source = _source(recommender)
    heading = escape(f"{source['model']} on {source['data']}")
    return HTMLResponse(
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>recflow</title>'
        f"<h1>{heading}</h1><ul>{listed}</ul></html>"
    )


async def docs() -> HTMLResponse:
    """The OpenAPI page, from the copy of Swagger UI that BentoML brings: no other host is asked for anything."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="recflow",
        swagger_js_url="static_content/swagger-ui-bundle.js",
        swagger_css_url="static_content/swagger-ui.css",
        swagger_favicon_url="data:,",
        swagger_ui_parameters={"validatorUrl": None},  # else a badge sends the schema to swagger.io
    )


def _recommender(request: Request) -> Recommender:
    recommender: Recommender = request.app.state.recommender
    return recommender


def _answer(recommender: Recommender, answer: Answer) -> RecommendAnswer:
    return RecommendAnswer(
        path=answer.path,
        recommendations=[
            Recommended(**_ranked(rank, found), because=list(found.because))
            for rank, found in enumerate(answer.recommendations, 1)
        ],
        **_source(recommender),
    )


def _source(recommender: Recommender) -> dict[str, Any]:
    return {"model": recommender.about["plugin"], "data": recommender.about["header"]["dataset"]}


def _known(item: Item) -> dict[str, Any]:
    return {"item_id": item.item_id, "title": item.title, "year": item.year, "genres": list(item.genres)}


def _ranked(rank: int, found: Recommendation) -> dict[str, Any]:
    return {"rank": rank, "score": found.score, **_known(found.item)}


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _unprocessable(_field_problem(found) for found in error.errors()[:_MOST_FIELDS])


async def _unusable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, _UnusableError)
    return _unprocessable([error.problem])


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 404)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error), "fields": []}, 422)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


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
