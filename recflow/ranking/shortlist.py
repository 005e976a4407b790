"""Ranking without scoring every item: an index names a few hundred candidates, which the ranker scores exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.bundle import Bundle
from recflow.ranking.index import Index
from recflow.ranking.questions import InnerProducts, Question, best_of, best_of_all, of_item, of_user
from recflow.ranking.topk import TopK, score_chunks, top_k

LEAST_ITEMS = 200_000  # below, scoring every item is quick enough
LEAST_RECALL = 0.99
CUTOFF = 10  # of the best so many is the recall measured
_SAMPLE = 200  # users, and items, on which it is
_CANDIDATES = (500, 1000, 2000, 4000)  # tried in turn until it is reached
_PER_PLACE = 5  # candidates besides for each place of a list
_FEW = 20  # an index names at most every so-manyth item: beyond, scoring all of them is as quick


class Shortlist:
    """Chooses the best of an index's candidates, and of all items where those would not do.

    Args:
        index: Names candidates.
        candidates: How many of them to score for a list, besides five for each of its places.

    Attributes:
        recall: As measured.
    """

    def __init__(self, index: Index, candidates: int = _CANDIDATES[0]) -> None:
        self.index, self.candidates = index, candidates
        self.recall = 0.0

    def best(self, question: Question, k: int, seen: Tensor, allowed: Tensor | None = None) -> TopK:
        """As :func:`best_of_all`: other items may be chosen, but as many, and with exact scores."""
        total = self.index.num_items
        fitting = total if allowed is None else int(allowed.sum())
        wanted = self.candidates + _PER_PLACE * k
        reach = wanted * total // max(fitting, 1) + len(seen)  # of which a filter leaves what is wanted, on average
        if question.query is not None and reach * _FEW <= total:
            items = self.index.nearest(question.query(), reach)
            items = items[~torch.isin(items, seen)]
            if allowed is not None:
                items = items[allowed[items]]
            if 2 * len(items) >= wanted:  # else what fits lies further off
                return best_of(items, question, k)
        if allowed is not None and 4 * fitting < total:
            return best_of(allowed.index_fill(0, seen, value=False).nonzero().flatten(), question, k)
        return best_of_all(question, k, seen, allowed)


def build_shortlists(bundle: Bundle, least_recall: float = LEAST_RECALL) -> dict[str, Shortlist]:
    """Build a bundle's indexes and measure them on 200 users, and items, against the scores of all items.

    Args:
        bundle: Whose ranker is asked.
        least_recall: What the number of candidates is raised for; the recall may still fall short of it.

    Returns:
        For ``recommend`` and for ``similar``; nothing for a ranker whose scores are not inner products.

    Raises:
        RecflowError: If faiss is not installed.
    """
    ranker, made = bundle.ranker, dict[str, Shortlist]()
    if not isinstance(ranker, InnerProducts):
        return made
    trained = torch.ones(ranker.num_users, dtype=torch.bool).index_fill_(0, bundle.untrained, value=False)
    if len(users := _spread(trained)):
        seen = [torch.empty(0, dtype=torch.int64)] * len(users)
        if bundle.histories is not None:
            seen = [bundle.histories.of(user)[0] for user in users.tolist()]
        exact = [top_k(scores, CUTOFF).scores for _, scores in score_chunks(ranker, users, bundle.histories)]
        questions = [of_user(ranker, user) for user in users.tolist()]
        made["recommend"] = _measured(Index(ranker.points()), questions, seen, torch.cat(exact), least_recall)
    vectors = ranker.item_embeddings()
    if vectors is not None and len(items := _spread(vectors.any(1))):
        exact = []
        for some in torch.split(items, 8):
            exact.append(top_k(ranker.similar(some).scatter(1, some[:, None], -torch.inf), CUTOFF).scores)
        questions = [of_item(ranker, item) for item in items.tolist()]
        made["similar"] = _measured(
            Index(F.normalize(vectors, dim=1)), questions, list(torch.split(items, 1)), torch.cat(exact), least_recall
        )
    return made


def _measured(
    index: Index, questions: Sequence[Question], seen: Sequence[Tensor], exact: Tensor, least_recall: float
) -> Shortlist:
    """A shortlist of as many candidates as its recall needs.

    Recall is the share of places whose item scores as one of the best does: equals may stand for each other.
    """
    cut = exact[:, -1:] - 1e-5 * exact.abs().amax(1, keepdim=True)  # products of other shapes round otherwise
    for candidates in _CANDIDATES:
        shortlist = Shortlist(index, candidates)
        asked = zip(questions, seen, strict=True)
        found = torch.cat([shortlist.best(question, CUTOFF, some).scores for question, some in asked])
        shortlist.recall = float((found >= cut).float().mean())
        if shortlist.recall >= least_recall:
            break
    return shortlist


def _spread(some: Tensor) -> Tensor:
    """Indices of a sample of what is true, evenly spread."""
    indices = some.nonzero().flatten()
    return indices[:: max(1, len(indices) // _SAMPLE)][:_SAMPLE]
