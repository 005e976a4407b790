"""What the HTTP service takes. Unknown fields are refused: a misspelt one must not be overlooked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

LONGEST_ID = 500
"""Characters in an id or title: what is unknown is looked up among all titles, and echoed in the answer."""

MOST_REASONED = 100
"""Items in a list with reasons: each takes the history's every item into account."""
_MOST_FIELDS = 50


def _whole(value: Any) -> Any:
    # To JSON Schema, and so to OpenAPI, 10.0 is as good an integer as 10.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id(value: Any) -> int | str:
    # By hand: a union of types reports one error for each of them, and takes `true` for the id 1.
    value = _whole(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and 0 < len(value) <= LONGEST_ID and not any("\ud800" <= c <= "\udfff" for c in value):
        return value
    raise PydanticCustomError("id", f"must be a whole number, or text of 1 to {LONGEST_ID} characters")


RequestId = Annotated[
    int | str,
    PlainValidator(_id),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}]}, mode="validation"
    ),
]
UserId = Annotated[RequestId, Field(description="a user id of the data")]
ItemId = Annotated[RequestId, Field(description="an item's id or title")]
Text = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Genres = Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=50)]
_Whole = BeforeValidator(_whole)  # behind the bounds, or the OpenAPI page would not have them
Year = Annotated[int, Field(ge=0, le=9999), _Whole]
TopK = Annotated[int, Field(ge=1, le=1000, description="how many items, best first"), _Whole]


class Exact(BaseModel):
    """An object without fields of the client's own."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        # Each unknown field is a problem of its own: 70,000 of them, a megabyte, kept everything waiting for a second.
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            raise PydanticCustomError("fields", f"has {len(given)} fields, which is more than there are")
        return given


class Asked(Exact):
    """What every request may say."""

    model: Text | None = Field(default=None, description="which of the served models; the first if not said")


class Filtered(Asked):
    """Filters, applied inside the ranking: k items come back where there are k that fit, fewer where there are not."""

    genres: Genres = Field(default=[], description="items of any of these genres")
    exclude_genres: Genres = Field(default=[], description="items of none of these")
    year_from: Year | None = Field(default=None, description="the first year; items without a year are left out then")
    year_to: Year | None = Field(default=None, description="the last year")
    exclude: Annotated[list[RequestId], Field(max_length=1000)] = Field(
        default=[], description="items to leave out, by id or title"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Filtered:
        if self.year_from is not None and self.year_to is not None and self.year_from > self.year_to:
            raise PydanticCustomError("years", f"year_from {self.year_from} is after year_to {self.year_to}")
        return self


class RecommendQuery(Filtered):
    """The query string of ``GET /api/recommend``; without ``user_id`` the answer is what is popular."""

    user_id: UserId | None = None
    top_k: TopK = 10
    diversity: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: by score alone; towards 1: each item as unlike those above it as can be (MMR), by the model's "
        "item vectors or, where it has none, by genres",
    )
    reasons: bool = Field(
        default=False,
        description=f"whether to name the items of the history that speak for each; then `top_k` is {MOST_REASONED} at "
        "most",
    )

    @model_validator(mode="after")
    def _bounded(self) -> RecommendQuery:
        if self.reasons and self.top_k > MOST_REASONED:
            reason = f"with reasons, top_k is {MOST_REASONED} at most, got {self.top_k}"
            raise PydanticCustomError("reasons", reason)
        return self


class Rated(Exact):
    """One item of a history."""

    model_config = ConfigDict(strict=True)

    item: ItemId
    rating: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, description="stars on the data's scale; without them the item counts as liked"
    )


class RecommendRequest(RecommendQuery):
    """Who asks: a user of the data by ``user_id``, someone new by a ``history``, or nobody in particular."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"user_id": 42, "top_k": 10, "reasons": True},
                {"history": [{"item": "Heat (1995)", "rating": 4.5}, {"item": 1}], "top_k": 10},
                {"user_id": 42, "genres": ["Comedy"], "year_from": 1990, "exclude": [1], "diversity": 0.3},
            ]
        },
    )

    history: (
        Annotated[list[Rated], Field(max_length=1000, description="what someone new has rated or liked")] | None
    ) = None

    @model_validator(mode="after")
    def _one_way(self) -> RecommendRequest:
        if self.user_id is not None and self.history is not None:
            raise PydanticCustomError("one_way", "give either user_id or history; both were given")
        return self


class BatchRequest(Filtered):
    """Several users of the data at once."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"user_ids": [1, 2, 42], "top_k": 5, "genres": ["Drama"]}]}
    )

    user_ids: Annotated[list[UserId], Field(min_length=1, max_length=256)]
    top_k: Annotated[int, Field(ge=1, le=100, description="how many items for each, best first"), _Whole] = 10


class SimilarQuery(Asked):
    """The query string of ``GET /api/similar``."""

    item_id: ItemId
    top_k: TopK = 10


class SimilarRequest(SimilarQuery):
    """An item."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"item_id": 1, "top_k": 5}]})


class MovieQuery(Asked):
    """The query string of ``GET /api/movie``."""

    movie_id: ItemId


class MovieRequest(MovieQuery):
    """An item."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"movie_id": 1}]})


class SearchQuery(Asked):
    """The query string of ``GET /api/search``."""

    q: Annotated[str, Field(max_length=200, description="words of a title, of which any may be unfinished")]
    top_k: Annotated[int, Field(ge=1, le=100), _Whole] = 10


class SearchRequest(SearchQuery):
    """What was typed."""

    model_config = ConfigDict(strict=True, json_schema_extra={"examples": [{"q": "god fath", "top_k": 5}]})


class NewItemRequest(Asked):
    """An item that nobody has rated."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [{"title": "A New One", "genres": ["Comedy", "Drama"], "year": 1998, "user_id": 42, "top_k": 5}]
        },
    )

    title: Text | None = Field(default=None, description="comes back as it is: the model does not read titles")
    genres: Genres = []
    year: Year | None = None
    user_id: UserId | None = Field(default=None, description="for whom to score it as well")
    top_k: TopK = 10


class ModelsRequest(Exact):
    """Nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})
