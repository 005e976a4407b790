"""The BentoML service: loads the bundles in each worker and serves :mod:`recflow.serving.app` behind its guard.

``RECFLOW_BUNDLE`` names what is served, see :mod:`recflow.serving.sources`; :mod:`recflow.serving.settings` the rest.
"""

from __future__ import annotations

import gc
import logging
import os
from threading import Thread

import anyio.to_thread
import bentoml
from bentoml.exceptions import BentoMLException
from uvicorn.config import HTTP_PROTOCOLS

from recflow.errors import RecflowError
from recflow.serving.app import endpoints, make_app
from recflow.serving.connections import notice_stops
from recflow.serving.guard import Guard
from recflow.serving.indexes import build_indexes
from recflow.serving.models import Models
from recflow.serving.settings import WORKERS, Settings
from recflow.serving.sources import BUNDLE, CHECKED, find_bundles, join
from recflow.serving.watch import log_as_json

THREADS = 4  # of a worker; for more cores take more workers

app = make_app()
log = logging.getLogger("bentoml.recflow")
HTTP_PROTOCOLS["auto"] = "recflow.serving.connections:Bounded"  # BentoML takes what this names, when a worker starts


@bentoml.service(
    name="recflow",
    workers=int(os.environ.get(WORKERS, "")) if os.environ.get(WORKERS, "").isdecimal() else 1,  # check() says if wrong
    envs=[{"name": "OTEL_SDK_DISABLED", "value": "true"}],  # traces that nobody collects cost time
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # labelled by path, as whoever asks writes it; ours are at /metrics instead
    traffic={"timeout": 10},  # a request's context lives as long as this, answered or not: keep it short
)
@bentoml.asgi_app(app, path="/")
class Recommender:
    """Recommendations for known users, and for anyone else from a history."""

    def __init__(self) -> None:
        import torch

        # Requests share the cores already, and a product's threads wait by spinning: with the other of two cores busy,
        # a recommendation took 2.9 ms on one thread and 20-60 ms on two; with both free, the same on either.
        torch.set_num_threads(1)
        models = Models.load(find_bundles()[0])
        for served in models:  # the first request finds everything warm
            model = served.recommender
            model.recommend(model.catalog.user_id(0))
            model.search("a")
            _ = model.facts
        app.state.models = models
        log_as_json()
        if Settings.read().index:
            Thread(target=build_indexes, args=[models], name="index", daemon=True).start()

    @bentoml.on_deployment  # type: ignore[untyped-decorator]  # which makes it static
    def check() -> None:
        """Try the bundles once before any worker starts: a worker that fails is started again, for ever."""
        try:
            Settings.read()
            folders, why = find_bundles()
            if os.environ.get(CHECKED) == join(folders):
                return  # `recflow serve` has looked, and said what it serves and why
            Models.load(folders)
        except RecflowError as error:
            raise BentoMLException(str(error)) from error  # the one kind that BentoML prints on one line
        log.info("Serving %s: %s", ", ".join(map(str, folders)), why)
        os.environ[BUNDLE] = join(folders)  # all workers serve these, whatever is packaged or fitted meanwhile

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def settle(self) -> None:
        """Keep the collector and the threads out of the requests' way.

        BentoML holds on to each request until its timeout, so the collector meets ever more living objects: here it
        stopped everything for up to 270 ms, and looks at the old ones seldom now. More threads than cores only fight
        for the interpreter. With 16 clients on two cores, 60,000 items: p99 140-170 ms before, 50-80 ms so.
        """
        notice_stops()
        gc.collect()
        gc.freeze()  # what start-up made stays
        gc.set_threshold(5_000, 20, 100)
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS


Recommender.add_asgi_middleware(Guard, endpoints=endpoints(app))  # type: ignore[attr-defined]  # around BentoML's own routes, too
