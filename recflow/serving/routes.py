"""What the routes do. Those that score are plain functions, which run in threads and leave the event loop free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel

from recflow import __version__
from recflow.errors import RecflowError
from recflow.serving.answers import (
    BatchAnswer,
    Health,
    ItemAnswer,
    MovieAnswer,
    NewItemAnswer,
    Ranked,
    RecommendAnswer,
    Recommended,
    SearchAnswer,
    SimilarAnswer,
    UserAnswer,
)
from recflow.serving.models import WITHOUT_HISTORIES, Models, Served
from recflow.serving.problems import UnusableError
from recflow.serving.schemas import (
    BatchRequest,
    Filtered,
    MovieQuery,
    MovieRequest,
    NewItemRequest,
    RecommendQuery,
    RecommendRequest,
    SearchQuery,
    SearchRequest,
    SimilarQuery,
    SimilarRequest,
)

if TYPE_CHECKING:  # torch comes in with the model, in a worker: `bentoml build` and `import service` go without
    from recflow.ranking.catalog import Id, Item
    from recflow.ranking.item_facts import Wishes
    from recflow.ranking.recommender import Answer, Recommendation


def get_recommend(request: Request, query: Annotated[RecommendQuery, Query()]) -> Response:
    """The best items that a user of the data has not interacted with; without a user, what is popular."""
    served = _served(request, query.model)
    return _recommended(request, served, query, {})


def recommend(request: Request, body: RecommendRequest) -> Response:
    """The best items for a user of the data, for someone new from what they rated or liked, or for anyone."""
    served = _served(request, body.model)
    history: dict[Id, float | None] = {}
    low, high = served.about["rating_scale"]
    for position, entry in enumerate(body.history or ()):
        if entry.rating is not None and not low <= entry.rating <= high:
            reason = f"must be from {low:g} to {high:g}, got {entry.rating:g}"
            raise UnusableError(f"history.{position}.rating", reason)
        history[entry.item] = entry.rating
    return _recommended(request, served, body, history)


def batch_recommend(request: Request, body: BatchRequest) -> Response:
    """The best items for each of several users of the data, scored together."""
    served = _served(request, body.model)
    recommender = served.recommender
    users = recommender.catalog.users(body.user_ids)
    import torch

    indices = torch.tensor(users, dtype=torch.int64)
    ways = recommender.routes(indices)
    lists = []
    for _, best in recommender.recommend_many(indices, body.top_k, _wishes(served, body)):
        for items, scores in zip(best.items.tolist(), best.scores.tolist(), strict=True):
            kept = [item for item in items if item >= 0]
            lists.append(list(zip(recommender.catalog.items(kept), scores, strict=False)))
    answers = [
        UserAnswer(
            user_id=user_id,
            path=way,
            recommendations=[
                Ranked(rank=rank, score=None if way == "popular" else score, **_known(item))
                for rank, (item, score) in enumerate(found, 1)
            ],
        )
        for user_id, way, found in zip(recommender.catalog.user_ids(users), ways, lists, strict=True)
    ]
    request.state.paths = ways
    return _json(BatchAnswer(users=answers, notes=_notes(served), **served.source()))


def get_similar(request: Request, query: Annotated[SimilarQuery, Query()]) -> Response:
    """The items most like one, as the model sees them."""
    served = _served(request, query.model)
    meant, neighbours = served.recommender.similar(query.item_id, query.top_k)
    similar = [Ranked(**_ranked(rank, found)) for rank, found in enumerate(neighbours, 1)]
    return _json(SimilarAnswer(item=ItemAnswer(**_known(meant)), similar=similar, **served.source()))


def similar(request: Request, body: SimilarRequest) -> Response:
    """The items most like one, as the model sees them."""
    return get_similar(request, body)


def get_search(request: Request, query: Annotated[SearchQuery, Query()]) -> Response:
    """The items whose titles have words that begin so, as you type: accents and case do not matter."""
    served = _served(request, query.model)
    found = served.recommender.search(query.q, query.top_k)
    return _json(SearchAnswer(items=[ItemAnswer(**_known(item)) for item in found], **served.source()))


def search(request: Request, body: SearchRequest) -> Response:
    """The items whose titles have words that begin so, as you type: accents and case do not matter."""
    return get_search(request, body)


def get_movie(request: Request, query: Annotated[MovieQuery, Query()]) -> Response:
    """What is known of an item."""
    served = _served(request, query.model)
    return _json(
        MovieAnswer(item=ItemAnswer(**_known(served.recommender.catalog.find(query.movie_id))), **served.source())
    )


def movie(request: Request, body: MovieRequest) -> Response:
    """What is known of an item."""
    return get_movie(request, body)


def new_item(request: Request, body: NewItemRequest) -> Response:
    """What the model says of an item that nobody has rated, from its genres and year."""
    served = _served(request, body.model)
    neighbours, score, unknown = served.recommender.new_item(body.genres, body.year, body.user_id, body.top_k)
    answer = NewItemAnswer(
        title=body.title,
        similar=[Ranked(**_ranked(rank, found)) for rank, found in enumerate(neighbours, 1)],
        score=score,
        unknown_features=unknown,
        **served.source(),
    )
    return _json(answer)


async def health(request: Request) -> Health:
    """What is being served. Answers on the event loop, so it stays quick while all threads are busy."""
    models: Models = request.app.state.models
    served = models.default
    source = served.source()
    return Health(
        task=served.about["task"],
        users=served.recommender.ranker.num_users,
        items=served.recommender.ranker.num_items,
        models=[one.name for one in models],
        recflow=__version__,
        model=source["model"],
        data=source["data"],
    )


def _served(request: Request, name: str | None) -> Served:
    models: Models = request.app.state.models
    served = models.get(name)
    request.state.model = served.name
    return served


def _wishes(served: Served, asked: Filtered) -> Wishes:
    from recflow.ranking.item_facts import ANYTHING, Wishes

    given = {
        name: getattr(asked, name) for name in (*Filtered.model_fields, "diversity") if name in asked.model_fields_set
    }
    given.pop("model", None)
    for field in ("genres", "exclude_genres"):
        for place, genre in enumerate(given.get(field, ())):
            try:
                served.recommender.facts.genre(genre)
            except RecflowError as error:
                raise UnusableError(f"{field}.{place}", str(error)) from None
    return Wishes(**given) if given else ANYTHING


def _recommended(request: Request, served: Served, asked: RecommendQuery, history: dict[Id, float | None]) -> Response:
    options: dict[str, Any] = {"reasons": asked.reasons, "wishes": _wishes(served, asked)}
    if asked.user_id is None:
        answer = served.recommender.recommend_for_history(history, asked.top_k, **options)
    else:
        answer = served.recommender.recommend(asked.user_id, asked.top_k, **options)
    request.state.paths = [answer.path]
    return _json(_answer(served, answer))


def _answer(served: Served, answer: Answer) -> RecommendAnswer:
    scored = answer.path != "popular"
    return RecommendAnswer(
        path=answer.path,
        notes=_notes(served) if answer.path == "known user" else [],
        recommendations=[
            Recommended(**_ranked(rank, found, scored), because=list(found.because))
            for rank, found in enumerate(answer.recommendations, 1)
        ],
        **served.source(),
    )


def _notes(served: Served) -> list[str]:
    return [] if served.has_histories else [WITHOUT_HISTORIES]


def _known(item: Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "year": item.year,
        "genres": list(item.genres),
        "popularity": item.popularity,
    }


def _ranked(rank: int, found: Recommendation, scored: bool = True) -> dict[str, Any]:
    return {"rank": rank, "score": found.score if scored else None, **_known(found.item)}


def _json(answer: BaseModel) -> Response:
    # Written out here: FastAPI would check the answer once more first.
    return Response(answer.model_dump_json(), media_type="application/json")
