"""What the HTTP service takes and gives. Unknown fields are refused: a misspelt one must not be overlooked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

LONGEST_ID = 500
"""Characters in an id or title: what is unknown is looked up among all titles, and echoed in the answer."""


def _id(value: Any) -> int | str:
    # By hand: a union of types reports one error for each of them, and takes `true` for the id 1.
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
TopK = Annotated[int, Field(ge=1, le=1000, description="how many items, best first")]
Reasons = Annotated[bool, Field(description="whether to name the items of the history that speak for each")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RecommendQuery(_Request):
    """The query string of ``GET /api/recommend``."""

    user_id: Annotated[RequestId, Field(description="a user id of the data")]
    top_k: TopK = 10
    reasons: Reasons = False


class SimilarQuery(_Request):
    """The query string of ``GET /api/similar``."""

    item_id: Annotated[RequestId, Field(description="an item's id or title")]
    top_k: TopK = 10


class Rated(_Request):
    """One item of a history."""

    item: Annotated[RequestId, Field(description="an item's id or title")]
    rating: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = Field(
        default=None, description="stars on the data's scale; without them the item counts as liked"
    )


class RecommendRequest(_Request):
    """Who asks: a user of the data by ``user_id``, or someone new by a ``history``, which may be empty."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": 42, "top_k": 10, "reasons": True},
                {"history": [{"item": "Heat (1995)", "rating": 4.5}, {"item": 1}], "top_k": 10},
            ]
        }
    )

    user_id: Annotated[RequestId, Field(description="a user id of the data")] | None = None
    history: (
        Annotated[list[Rated], Field(max_length=1000, description="what someone new has rated or liked")] | None
    ) = None
    top_k: Annotated[TopK, Field(strict=True)] = 10
    reasons: Annotated[Reasons, Field(strict=True)] = False

    @model_validator(mode="after")
    def _one_way(self) -> RecommendRequest:
        if (self.user_id is None) == (self.history is None):
            given = "neither" if self.user_id is None else "both"
            raise PydanticCustomError("one_way", f"give either user_id or history; {given} was given")
        return self


class ItemAnswer(BaseModel):
    """What is known of an item."""

    item_id: int | str
    title: str
    year: int | None
    genres: list[str]


class Ranked(ItemAnswer):
    """One item of a ranked list."""

    rank: int
    score: float = Field(description="the model's raw score; only the order has a meaning")


class Recommended(Ranked):
    """One recommended item."""

    because: list[str] = Field(description="titles of the history that speak for it; empty unless asked for")


class RecommendAnswer(BaseModel):
    """A ranked list, and the way it came about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "known user",
                    "model": "lightgcn",
                    "data": "ml-100k",
                    "recommendations": [
                        {
                            "item_id": 50,
                            "title": "Star Wars (1977)",
                            "year": 1977,
                            "genres": ["Action", "Sci-Fi"],
                            "rank": 1,
                            "score": 7.25,
                            "because": ["Empire Strikes Back, The (1980)"],
                        }
                    ],
                }
            ]
        }
    )

    path: Literal["known user", "fold-in", "popular"] = Field(
        description="`popular` is the answer to a history without anything liked in it"
    )
    model: str = Field(description="the plugin's name")
    data: str = Field(description="the dataset's name")
    recommendations: list[Recommended]


class SimilarAnswer(BaseModel):
    """The items most like one."""

    item: ItemAnswer = Field(description="the item that was meant")
    model: str = Field(description="the plugin's name")
    data: str = Field(description="the dataset's name")
    similar: list[Ranked]


class Health(BaseModel):
    """What is being served."""

    status: Literal["ok"] = "ok"
    model: str
    task: str
    data: str
    users: int
    items: int
    recflow: str = Field(description="recflow's version")


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(examples=["There is no user 0 in this run's data; it has 943 users, such as 1, 2, 3."])


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["history.0.rating"])
    reason: str = Field(examples=["must be from 1 to 5, got 7"])


class Unprocessable(Problem):
    """What cannot be used in a request."""

    error: str = Field(examples=["history.0.rating: must be from 1 to 5, got 7"])
    fields: list[FieldProblem]
