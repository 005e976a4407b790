"""The HTTP service as a FastAPI app that needs no BentoML.

``POST /recommend`` is a route here as well, not a ``@bentoml.api``: that one reports mistakes in two other shapes, one
of them a list, logs each with a traceback, and takes a validation error of our own for the client's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from recflow import __version__
from recflow.serving import answers, routes
from recflow.serving.catalogue import describe
from recflow.serving.models import Models
from recflow.serving.problems import RESPONSES, RESPONSES_TO_BODIES, add_handlers
from recflow.serving.schemas import ModelsRequest
from recflow.serving.watch import exposition

WEB = Path(__file__).parent / "web"
_NAMES: dict[str, tuple[str, type[BaseModel]]] = {
    "recommend": ("Recommend to a user of the data, to someone new, or to anyone", answers.RecommendAnswer),
    "similar": ("List the items most like one", answers.SimilarAnswer),
    "search": ("Find items by title, as you type", answers.SearchAnswer),
    "movie": ("Say what is known of an item", answers.MovieAnswer),
}
_POST_ONLY: dict[str, tuple[str, type[BaseModel]]] = {
    "batch_recommend": ("Recommend to several users of the data at once", answers.BatchAnswer),
    "new_item": ("Place an item that nobody has rated by its features", answers.NewItemAnswer),
}


def make_app(models: Models | None = None) -> FastAPI:
    """Make the app.

    Args:
        models: What answers. May be given later, before the first request, as ``app.state.models``: BentoML wants the
            app when the service is defined, and models are loaded when a worker starts.
    """
    app = FastAPI(
        title="recflow",
        version=__version__,
        description="Recommendations over HTTP, in the ids of the models' own data.",
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
    )
    app.state.models = models
    # One by one, not through a router, whose routes BentoML does not list.
    for name, (summary, answer) in _NAMES.items():
        options: dict[str, Any] = {"summary": summary, "responses": RESPONSES, "response_model": answer}
        app.get(f"/api/{name}", **options)(getattr(routes, f"get_{name}"))
    for name, (summary, answer) in {**_NAMES, **_POST_ONLY}.items():
        options = {"summary": summary, "responses": RESPONSES_TO_BODIES, "response_model": answer}
        for path in (f"/{name}", f"/api/{name}"):
            app.post(path, **options)(getattr(routes, name))
    options = {"summary": "Say which models are served, on which data, how good they are"}
    app.get("/api/models", responses=RESPONSES, **options)(list_models)
    for path in ("/models", "/api/models"):
        app.post(path, responses=RESPONSES_TO_BODIES, **options)(post_models)
    app.get("/api/health", summary="Say that the service is well")(routes.health)
    app.get("/metrics", include_in_schema=False)(show_metrics)
    app.get("/", include_in_schema=False)(page)
    app.get("/docs", include_in_schema=False)(docs)
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    add_handlers(app)
    return app


def endpoints(app: FastAPI) -> frozenset[str]:
    """The paths that an app answers, without those of files."""
    return frozenset(str(getattr(route, "path", "")) for route in app.routes) - {"/web"}


def list_models(request: Request) -> answers.ModelsAnswer:
    """The served models, the default one first."""
    return answers.ModelsAnswer(models=describe(request.app.state.models))


def post_models(request: Request, body: ModelsRequest) -> answers.ModelsAnswer:
    """The served models, the default one first."""
    return list_models(request)


def show_metrics() -> Response:
    """All workers' metrics, for Prometheus."""
    return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def page() -> FileResponse:
    """The page for people."""
    return FileResponse(WEB / "index.html")


async def docs() -> FileResponse:
    """The OpenAPI page, from the copy of Swagger UI that BentoML brings: no other host is asked for anything."""
    return FileResponse(WEB / "docs.html")
