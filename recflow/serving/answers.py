"""What the HTTP service gives."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Path = Literal["known user", "fold-in", "popular"]
_ITEM: dict[str, Any] = {
    "item_id": 50,
    "title": "Star Wars (1977)",
    "year": 1977,
    "genres": ["Action", "Sci-Fi"],
    "popularity": 583,
}
_RANKED: dict[str, Any] = {**_ITEM, "rank": 1, "score": 7.25}


class ItemAnswer(BaseModel):
    """What is known of an item."""

    item_id: int | str
    title: str
    year: int | None
    genres: list[str]
    popularity: int = Field(description="how many interactions it had where the model was trained")


class Ranked(ItemAnswer):
    """One item of a ranked list."""

    rank: int
    score: float | None = Field(
        description="the model's raw score, of which only the order has a meaning, or stars where it predicts ratings; "
        "null on the path `popular`, where no model was asked"
    )


class Recommended(Ranked):
    """One recommended item."""

    because: list[str] = Field(description="titles of the history that speak for it; empty unless asked for")


class Sourced(BaseModel):
    """Where an answer comes from."""

    model: str = Field(description="the served model's name")
    data: str = Field(description="the dataset's name")


class RecommendAnswer(Sourced):
    """A ranked list, and the way it came about."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "known user",
                    "model": "lightgcn",
                    "data": "ml-100k",
                    "notes": [],
                    "recommendations": [{**_RANKED, "because": ["Empire Strikes Back, The (1980)"]}],
                }
            ]
        }
    )

    path: Path = Field(description="`popular` is the answer where there is no user and nothing liked")
    notes: list[str] = Field(description="what should be known of this answer; mostly nothing")
    recommendations: list[Recommended]


class UserAnswer(BaseModel):
    """One user's list of several."""

    user_id: int | str
    path: Path
    recommendations: list[Ranked]


class BatchAnswer(Sourced):
    """One list for each user, in the order asked for."""

    notes: list[str] = Field(description="what should be known of this answer; mostly nothing")
    users: list[UserAnswer]


class SimilarAnswer(Sourced):
    """The items most like one."""

    item: ItemAnswer = Field(description="the item that was meant")
    similar: list[Ranked]


class MovieAnswer(Sourced):
    """One item."""

    item: ItemAnswer


class SearchAnswer(Sourced):
    """The items whose titles fit, best first."""

    items: list[ItemAnswer]


class NewItemAnswer(Sourced):
    """What the model says of an item that nobody has rated."""

    title: str | None
    similar: list[Ranked] = Field(description="the known items most like it")
    score: float | None = Field(description="its score for the user; null where none was named")
    unknown_features: list[str] = Field(
        description="features that the model was fitted on and nothing was said of: counted as average"
    )


class IndexAnswer(BaseModel):
    """An index, from whose candidates lists are chosen by exact scores."""

    recall: float = Field(description="share of the ten best by exact scoring that it found, as measured at the start")
    candidates: int = Field(description="items that are scored for a list, besides five for each of its places")


class ModelAnswer(Sourced):
    """One served model."""

    default: bool
    plugin: str
    task: str
    users: int
    items: int
    genres: list[str]
    years: tuple[int, int] | None = Field(description="the first and the last")
    rating_scale: tuple[float, float]
    relevant_from: float | None = Field(description="the rating from which an item counts as liked, if there is one")
    heeds_ratings: bool = Field(description="whether stars in a history make a difference; else all of it is liked")
    histories: bool = Field(description="whether what users have seen is known, and left out of their lists")
    new_items: bool = Field(description="whether items without ratings can be placed by their features")
    diversity_by: Literal["vectors", "genres"] | None = Field(description="what diversity is measured by")
    index: dict[str, IndexAnswer] = Field(
        default={},
        description="by endpoint, as soon as one is in use; all items are scored without",
    )
    example_users: list[int | str]
    trained_on: dict[str, Any] = Field(description="split, filter, relevance, candidates, seed and versions")
    metrics: dict[str, Any] = Field(description="as measured when the model was fitted")
    notes: list[str]


class ModelsAnswer(BaseModel):
    """All served models; the first is the default."""

    models: list[ModelAnswer]


class Health(Sourced):
    """What is being served."""

    status: Literal["ok"] = "ok"
    task: str
    users: int
    items: int
    models: list[str]
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
