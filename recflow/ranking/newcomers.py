"""Items that nobody has rated: they enter by their features, where the model has learnt from features."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.bundle import Bundle

FEATURES = "item_features"  # in a bundle's `about`: the names of the columns that the model was fitted on


@runtime_checkable
class TakesNewItems(Protocol):
    """A ranker that makes an item's vector of features; see GraphSAGE's."""

    def new_item(self, features: Tensor, users: Tensor | None = None, ratings: Tensor | None = None) -> Tensor:
        """The item's vector, float32, shape ``[dim]``."""

    def score_new_item(self, users: Tensor, vector: Tensor) -> Tensor:
        """Its scores for known users, float32, shape ``[batch]``."""

    def item_embeddings(self) -> Tensor | None:
        """The known items' vectors, float32, shape ``[num_items, dim]``."""


class Newcomer:
    """An item that is not in the data.

    Args:
        bundle: A model that takes new items, and the names of its features.
        genres: The item's genres; case does not matter.
        year: Its year, if it is known.

    Raises:
        RecflowError: If the model does not take new items, knows none of the genres, or knows no features that a
            genre or a year would fill.
    """

    def __init__(self, bundle: Bundle, genres: Sequence[str], year: int | None) -> None:
        plugin, ranker = bundle.about["plugin"], bundle.ranker
        if not isinstance(ranker, TakesNewItems):
            raise RecflowError(
                f"{plugin} knows items by their ratings alone and can say nothing of one that has none; "
                "serve a model that learns from features, such as graphsage-bpr."
            )
        names = bundle.about.get(FEATURES)
        if not names:
            raise RecflowError(f"This {plugin} bundle does not name its features; fit the model again.")
        self.ranker = ranker
        self.unknown_features = [name for name in names if name.partition("=")[0] not in {"genres", "year"}]
        self.vector = ranker.new_item(torch.tensor(_encoded(bundle, names, genres, year)))

    def neighbours(self) -> Tensor:
        """Cosine of every known item's vector to this one's, both less the mean vector; shape ``[num_items]``."""
        known = self.ranker.item_embeddings()
        assert known is not None
        mean = known.mean(0)
        return F.normalize(known - mean, dim=1) @ F.normalize(self.vector - mean, dim=0)

    def score(self, user: int) -> float:
        """The model's score for a known user."""
        return float(self.ranker.score_new_item(torch.tensor([user]), self.vector)[0])


def _encoded(bundle: Bundle, names: Sequence[str], genres: Sequence[str], year: int | None) -> list[float]:
    """The features as the model was fitted on them; what is not known of the item is 0, an average."""
    known = {name.removeprefix("genres=").casefold() for name in names if name.startswith("genres=")}
    given = {genre.casefold() for genre in genres}
    if unknown := sorted(genre for genre in genres if genre.casefold() not in known):
        listed = ", ".join(sorted(name.removeprefix("genres=") for name in names if name.startswith("genres=")))
        raise RecflowError(f"The model was fitted without a genre {unknown[0]!r}; it knows {listed or 'none'}.")
    if not given and (year is None or "year" not in names):
        raise RecflowError("A new item needs a genre, or a year where the model was fitted on years.")
    values = {f"genres={genre}": 1.0 for genre in given}
    values |= (
        {"year.missing": 1.0} if year is None else {"year": _standardised(year, bundle.catalog.years_and_genres())}
    )
    return [values.get(name if name in values else name.casefold(), 0.0) for name in names]


def _standardised(year: int, rows: Iterable[tuple[int | None, Any]]) -> float:
    known = [float(given) for given, _ in rows if given is not None]
    spread = statistics.pstdev(known) if known else 0.0
    return (year - statistics.fmean(known)) / spread if spread else 0.0
