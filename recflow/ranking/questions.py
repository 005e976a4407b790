"""What a list is ranked by: scores of all items or of some, and the vector, if there is one, that orders them alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.ranking.topk import TopK, top_k


@runtime_checkable
class InnerProducts(Protocol):
    """A ranker with ``score(u, i) = <query of u, point of i>``, up to a number that is the same for all items.

    What it calls similar are the items of the greatest cosine between ``item_embeddings()``.
    """

    def points(self) -> Tensor:
        """The items' vectors, float32, shape ``[num_items, dim]``."""

    def queries(self, users: Tensor) -> Tensor:
        """Known users' vectors, float32, shape ``[batch, dim]``."""

    def queries_of_histories(self, histories: Histories, users: Tensor) -> Tensor:
        """The vectors that some histories are folded into, float32, shape ``[batch, dim]``."""


@dataclass(frozen=True)
class Question:
    """A list that is asked for.

    Attributes:
        score: Gives the scores of all items for None, or of those whose indices it is given.
        query: Gives the vector whose inner products with the items' points order them as the scores do, shape
            ``[dim]``; None if the scores are no inner products.
    """

    score: Callable[[Tensor | None], Tensor]
    query: Callable[[], Tensor] | None = None


def _inner_products(ranker: Ranker) -> InnerProducts | None:
    return cast(InnerProducts, ranker) if _gives_inner_products(type(ranker)) else None


@cache  # asking a protocol takes a hundredth of a request
def _gives_inner_products(kind: type[Ranker]) -> bool:
    return issubclass(kind, InnerProducts)


def of_user(ranker: Ranker, user: int) -> Question:
    """What a known user would like."""
    users = torch.tensor([user])
    products = _inner_products(ranker)
    query = None if products is None else lambda: products.queries(users)[0]
    return Question(lambda some: ranker.score(users, some)[0], query)


def of_history(ranker: Ranker, items: Tensor, ratings: Tensor | None) -> Question:
    """What someone new would like."""
    history, only = Histories.of_one(items, ratings), torch.tensor([0])
    products = _inner_products(ranker)
    query = None if products is None else lambda: products.queries_of_histories(history, only)[0]
    return Question(lambda some: ranker.score_history(items, ratings, some), query)


def of_item(ranker: Ranker, item: int) -> Question:
    """What is like an item."""
    vectors = None if _inner_products(ranker) is None else ranker.item_embeddings()
    if vectors is None:
        return of_scores(lambda: ranker.similar(torch.tensor([item]))[0])
    own = F.normalize(vectors[item], dim=0)

    def score(some: Tensor | None) -> Tensor:
        return ranker.similar(torch.tensor([item]))[0] if some is None else F.normalize(vectors[some], dim=1) @ own

    return Question(score, lambda: own)


def of_scores(scores: Callable[[], Tensor]) -> Question:
    """What has the highest of some scores, which there are for all items or none."""
    return Question(lambda some: scores() if some is None else scores()[some])


def best_of_all(question: Question, k: int, seen: Tensor, allowed: Tensor | None = None) -> TopK:
    """Score every item and choose the best k.

    Args:
        question: What to rank by.
        k: How many, at most all.
        seen: Items that may not be chosen, int64, shape ``[seen]``.
        allowed: Items that may, bool, shape ``[num_items]``; all if None.

    Returns:
        One row.
    """
    scores = question.score(None).index_fill(0, seen, -torch.inf)  # a copy: they may be the ranker's own memory
    if allowed is not None:
        scores.masked_fill_(~allowed, -torch.inf)
    return top_k(scores[None], k)


def best_of(items: Tensor, question: Question, k: int) -> TopK:
    """The best k of some items, whose indices ascend; see :func:`best_of_all`."""
    best = top_k(question.score(items)[None], k)
    return TopK(torch.where(best.items < 0, -1, items[best.items]) if len(items) else best.items, best.scores)
