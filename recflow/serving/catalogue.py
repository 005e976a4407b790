"""What ``models`` says of each served model."""

from __future__ import annotations

from functools import cache
from typing import Literal

from recflow.serving.answers import IndexAnswer, ModelAnswer
from recflow.serving.models import WITHOUT_HISTORIES, Models, Served

_TRAINED_ON = ("split", "filter", "relevance", "candidates", "seed", "interactions", "versions")
_EXAMPLES = 12


def describe(models: Models) -> list[ModelAnswer]:
    """One entry a model, the default one first."""
    known = zip(_lasting(models), models, strict=True)
    return [answer.model_copy(update={"index": _indexes(served)}) for answer, served in known]


def _indexes(served: Served) -> dict[str, IndexAnswer]:
    """They are built while the service answers."""
    made = served.recommender.shortlists
    return {name: IndexAnswer(recall=one.recall, candidates=one.candidates) for name, one in made.items()}


@cache  # some rankers put their vectors together anew when asked for them
def _lasting(models: Models) -> list[ModelAnswer]:
    return [_described(served, served is models.default) for served in models]


def _described(served: Served, default: bool) -> ModelAnswer:
    from recflow.ranking.newcomers import FEATURES, TakesNewItems

    recommender, about = served.recommender, served.about
    ranker, facts, header, source = recommender.ranker, recommender.facts, about["header"], served.source()
    by: Literal["vectors", "genres"] | None = "genres" if facts.items_of else None
    step = max(1, ranker.num_users // _EXAMPLES)
    notes = [] if served.has_histories else [WITHOUT_HISTORIES]
    return ModelAnswer(
        default=default,
        plugin=about["plugin"],
        task=about["task"],
        users=ranker.num_users,
        items=ranker.num_items,
        genres=facts.genres,
        years=facts.year_range,
        rating_scale=tuple(about["rating_scale"]),
        relevant_from=about["relevant_from"],
        heeds_ratings=recommender.heeds_ratings,
        histories=served.has_histories,
        new_items=isinstance(ranker, TakesNewItems) and FEATURES in about,
        diversity_by=by if ranker.item_embeddings() is None else "vectors",
        example_users=recommender.catalog.user_ids(list(range(0, ranker.num_users, step))[:_EXAMPLES]),
        trained_on={name: header[name] for name in _TRAINED_ON if name in header},
        metrics=about["metrics"],
        notes=notes,
        model=source["model"],
        data=source["data"],
    )
