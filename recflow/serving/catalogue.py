"""What ``models`` says of each served model."""

from __future__ import annotations

from functools import cache
from typing import Literal

from recflow.serving.answers import ModelAnswer
from recflow.serving.models import WITHOUT_HISTORIES, Models, Served

_TRAINED_ON = ("split", "filter", "relevance", "candidates", "seed", "interactions", "versions")
_EXAMPLES = 12


@cache  # some rankers put their vectors together anew when asked for them
def describe(models: Models) -> list[ModelAnswer]:
    """One entry a model, the default one first."""
    return [_described(served, served is models.default) for served in models]


def _described(served: Served, default: bool) -> ModelAnswer:
    from recflow.ranking.newcomers import FEATURES, TakesNewItems

    recommender, about = served.recommender, served.about
    ranker, facts, header = recommender.ranker, recommender.facts, about["header"]
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
        **served.source(),
    )
