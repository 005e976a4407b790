"""Recommendations in a dataset's own ids: what ``recflow recommend``, a run and the service all call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking import questions
from recflow.ranking.bundle import Bundle, load_bundle
from recflow.ranking.catalog import Id, Item
from recflow.ranking.diversify import diversify, pool_size
from recflow.ranking.histories import Histories
from recflow.ranking.item_facts import ANYTHING, ItemFacts, Wishes
from recflow.ranking.newcomers import Newcomer
from recflow.ranking.questions import Question, best_of_all
from recflow.ranking.shortlist import LEAST_RECALL, Shortlist, build_shortlists
from recflow.ranking.titles import TitleIndex
from recflow.ranking.topk import TopK, mask_, score_chunks, top_k

CHUNK_BYTES, CHUNK_ROWS = 32 * 2**20, 500_000  # of scores, and of recommendations, in one chunk of many users

Route = Literal["known user", "fold-in", "popular"]


@dataclass(frozen=True)
class Recommendation:
    """One recommended item and, where asked for, the history items that speak for it most.

    The score is the model's own; on the popular path, where no model was asked, the item's number of interactions.
    """

    item: Item
    score: float
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A ranked list and the way it came about."""

    path: Route
    recommendations: tuple[Recommendation, ...]


class Recommender:
    """A bundle that answers questions.

    Args:
        bundle: A fitted model.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.ranker, self.catalog, self.about = bundle.ranker, bundle.catalog, bundle.about
        self.shortlists: dict[str, Shortlist] = {}
        """What :meth:`build_index` made, for ``recommend`` and ``similar``; without it every item is scored."""

    @property
    def _rates(self) -> bool:
        return bool(self.about["task"] == "rating")

    @classmethod
    def load(cls, folder: Path) -> Recommender:
        """Read a bundle from its folder; see :func:`~recflow.ranking.bundle.load_bundle`."""
        return cls(load_bundle(folder))

    @torch.inference_mode()
    def recommend(self, user_id: Id, k: int = 10, *, reasons: bool = False, wishes: Wishes = ANYTHING) -> Answer:
        """The best k items that a known user has not interacted with.

        Someone whom the model was not trained on, since all the rows were held out, is folded in.

        Raises:
            UnknownUserError: If the user was not in the data.
            UnknownItemError: If an item to leave out was not.
            RecflowError: If k is below 1, or a wish cannot be met.
        """
        user = self.catalog.user(user_id)
        seen, ratings = self._history_of(user)
        liked, stars = self._taste(seen, ratings)
        if bool(torch.isin(torch.tensor(user), self.bundle.untrained)):
            return self._fold_in(seen, liked, stars, k, reasons, wishes)
        question, taste = questions.of_user(self.ranker, user), (liked, stars) if reasons else None
        return Answer("known user", self._best(question, seen, k, taste, self._rates, wishes, "recommend"))

    def routes(self, users: Tensor) -> list[Route]:
        """The way on which :meth:`recommend` and :meth:`recommend_many` find what to recommend to known users."""
        untrained = torch.isin(users, self.bundle.untrained)
        tastes = self.tastes
        lengths = torch.zeros_like(users) if tastes is None else tastes.lengths(users)
        folded: list[Route] = ["popular" if length == 0 else "fold-in" for length in lengths.tolist()]
        return [way if new else "known user" for way, new in zip(folded, untrained.tolist(), strict=True)]

    def recommend_many(self, users: Tensor, k: int = 10, wishes: Wishes = ANYTHING) -> Iterator[tuple[Tensor, TopK]]:
        """The best k items of many known users, as indices: what :meth:`recommend` gives each of them.

        Scores may differ from its own in the last digit: a product of matrices rounds by its shape.

        Args:
            users: User indices, int64, shape ``[users]``.
            k: How many.
            wishes: Filters; diversity is for one list at a time and is not looked at.

        Returns:
            An iterator over some users at a time, shape ``[chunk]``, and their items, shape ``[chunk, k]``. What it
            holds at once is bounded, however many users there are.

        Raises:
            RecflowError: If k is below 1, or a wish cannot be met.
        """
        _check_k(k)
        return self._in_chunks(users, min(k, self.ranker.num_items), self._allowed(wishes))

    @torch.inference_mode()
    def _in_chunks(self, users: Tensor, k: int, allowed: Tensor | None) -> Iterator[tuple[Tensor, TopK]]:
        row = 4 * self.ranker.num_items
        chunk_bytes = min(CHUNK_BYTES, max(1, CHUNK_ROWS // k) * row)
        for chunk, scores in score_chunks(self.ranker, users, self.bundle.histories, chunk_bytes):
            self._fold_in_many_(chunk, scores)
            best = top_k(mask_(scores, chunk, allowed=allowed), k)
            yield chunk, TopK(best.items, best.scores.clamp(*self._shown).masked_fill(best.items < 0, -torch.inf))

    @torch.inference_mode()
    def recommend_for_history(
        self,
        history: Mapping[Id, float | None] | Sequence[Id],
        k: int = 10,
        *,
        reasons: bool = False,
        wishes: Wishes = ANYTHING,
    ) -> Answer:
        """The best k items for someone new, from a history: the model's fold-in, without any training.

        Args:
            history: Item ids or titles, each with its stars or None for a plain like. Models that learn from likes
                leave out what is rated below the run's ``relevant_from``; nothing in the history is recommended.
                An empty history gives the most popular items, and the answer says so.
            k: How many.
            reasons: Whether to say which history items speak for each recommendation.
            wishes: What the list is to be like.

        Raises:
            UnknownItemError: If an item was not in the data.
            RecflowError: If k is below 1, a rating is outside the data's scale, or a wish cannot be met.
        """
        rated = history if isinstance(history, Mapping) else dict.fromkeys(history)
        seen, ratings = self._resolve(rated)
        liked, stars = self._taste(seen, ratings)
        return self._fold_in(seen, liked, stars, k, reasons, wishes)

    @torch.inference_mode()
    def similar(self, item: Id, k: int = 10) -> tuple[Item, tuple[Recommendation, ...]]:
        """The k items most like one, given by id or title.

        Returns:
            The item that was meant, and its neighbours, best first.

        Raises:
            UnknownItemError: If nothing, or more than one item, fits.
            RecflowError: If k is below 1, or the model knows no similarity.
        """
        meant = self.catalog.find(item)
        question = questions.of_item(self.ranker, meant.item)
        return meant, self._best(question, torch.tensor([meant.item]), k, by="similar")

    @torch.inference_mode()
    def new_item(
        self, genres: Sequence[str], year: int | None = None, user_id: Id | None = None, k: int = 10
    ) -> tuple[tuple[Recommendation, ...], float | None, list[str]]:
        """What the model says of an item that nobody has rated, from its features.

        Returns:
            The k known items most like it, its score for the user if one is given, and the names of the features that
            the model was fitted on and nothing was said of.

        Raises:
            UnknownUserError: If the user was not in the data.
            RecflowError: If k is below 1, or the model cannot take the item; see :class:`Newcomer`.
        """
        newcomer = Newcomer(self.bundle, genres, year)
        score = None if user_id is None else newcomer.score(self.catalog.user(user_id))
        nobody = torch.empty(0, dtype=torch.int64)
        return self._best(questions.of_scores(newcomer.neighbours), nobody, k), score, newcomer.unknown_features

    @torch.inference_mode()
    def build_index(self, least_recall: float = LEAST_RECALL) -> dict[str, Shortlist]:
        """From now on score an index's candidates alone, for one user's or history's list and for similar items.

        Many users at once are scored exactly all the same. May run in a thread while questions are answered, which
        until then are by scoring every item.

        Args:
            least_recall: How many of the ten best an index must find, on average; one that does not is not used.

        Returns:
            What was built, for ``recommend`` and for ``similar``, with the recall of each, enough or not.

        Raises:
            RecflowError: If faiss is not installed.
        """
        built = build_shortlists(self.bundle, least_recall)
        self.shortlists = {name: made for name, made in built.items() if made.recall >= least_recall}
        return built

    def search(self, typed: str, k: int = 10) -> list[Item]:
        """The items whose titles have words that begin like those typed, best first."""
        return self.catalog.items(self.titles.search(typed, k))

    @cached_property
    def titles(self) -> TitleIndex:
        """The titles, ready to be searched."""
        return TitleIndex(self.catalog)

    @cached_property
    def facts(self) -> ItemFacts:
        """Years and genres of all items."""
        return ItemFacts(self.catalog)

    def _allowed(self, wishes: Wishes) -> Tensor | None:
        if wishes is ANYTHING:
            return None
        excluded = [self.catalog.find(item).item for item in wishes.exclude]
        return self.facts.allowed(wishes, torch.tensor(excluded, dtype=torch.int64))

    @cached_property
    def _popularity(self) -> Tensor:
        return torch.tensor(self.catalog.popularity(), dtype=torch.float32)

    @property
    def _shown(self) -> tuple[float, float]:
        """The range of the scores that are shown: a shown rating is a possible one."""
        low, high = self.about["rating_scale"] if self._rates else (-torch.inf, torch.inf)
        return low, high

    def _fold_in(
        self, seen: Tensor, liked: Tensor, stars: Tensor | None, k: int, reasons: bool, wishes: Wishes
    ) -> Answer:
        if len(liked) == 0:
            return Answer("popular", self._best(questions.of_scores(lambda: self._popularity), seen, k, wishes=wishes))
        question, taste = questions.of_history(self.ranker, liked, stars), (liked, stars) if reasons else None
        return Answer("fold-in", self._best(question, seen, k, taste, self._rates, wishes, "recommend"))

    def _fold_in_many_(self, users: Tensor, scores: Tensor) -> None:
        """Replace the scores of users whom the model was not trained on, in place, by those of :meth:`_fold_in`."""
        histories, rows = self.tastes, torch.isin(users, self.bundle.untrained).nonzero().flatten()
        if histories is None or len(rows) == 0:
            return
        masked = scores[rows] == -torch.inf
        folded = self.ranker.score_histories(histories, users[rows])
        folded[histories.lengths(users[rows]) == 0] = self._popularity
        scores[rows] = folded.masked_fill_(masked, -torch.inf)

    @property
    def _takes_all(self) -> bool:
        """Whether the ranker is given whole histories, not likes alone."""
        return self._rates or self.ranker.whole_history

    @property
    def heeds_ratings(self) -> bool:
        """Whether stars in a history make a difference; else everything in it counts as liked."""
        return self._takes_all or self.about["relevant_from"] is not None

    @cached_property
    def tastes(self) -> Histories | None:
        """Of each user, what the model learns from; see :meth:`_taste`."""
        histories, threshold = self.bundle.histories, self.about["relevant_from"]
        if histories is None or self._takes_all or threshold is None:
            return histories
        return histories.at_least(threshold)

    def _history_of(self, user: int) -> tuple[Tensor, Tensor | None]:
        if self.bundle.histories is None:
            return torch.empty(0, dtype=torch.int64), None
        return self.bundle.histories.of(user)

    def _resolve(self, history: Mapping[Id, float | None]) -> tuple[Tensor, Tensor | None]:
        low, high = self.about["rating_scale"]
        rated: dict[int, float] = {}  # by index: an id and a title may name the same item, of which the last holds
        for name, stars in history.items():
            if stars is not None and not low <= stars <= high:
                raise RecflowError(f"A rating must be from {low:g} to {high:g}, got {stars:g} for {name!r}.")
            rated[self.catalog.find(name).item] = high if stars is None else stars  # a like is the best rating
        return torch.tensor(list(rated), dtype=torch.int64), torch.tensor(list(rated.values()), dtype=torch.float32)

    def _taste(self, items: Tensor, ratings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The part of a history that the model learns from."""
        threshold = self.about["relevant_from"]
        if self._takes_all or ratings is None or threshold is None:
            return items, ratings
        liked = ratings >= threshold
        return items[liked], ratings[liked]

    def _best(
        self,
        question: Question,
        seen: Tensor,
        k: int,
        taste: tuple[Tensor, Tensor | None] | None = None,
        stars: bool = False,
        wishes: Wishes = ANYTHING,
        by: str = "",
    ) -> tuple[Recommendation, ...]:
        """Answer a question; by the shortlist of this name, if there is one."""
        _check_k(k)
        allowed = self._allowed(wishes)
        size = min(pool_size(k) if wishes.diversity > 0 else k, self.ranker.num_items)
        shortlist = self.shortlists.get(by)
        choose = best_of_all if shortlist is None else shortlist.best
        best = choose(question, size, seen, allowed)
        if wishes.diversity > 0:
            best = self._varied(best, k, wishes.diversity)
        indices = [item for item in best.items[0].tolist() if item >= 0]
        because = self._because(taste, indices) if taste else [()] * len(indices)
        listed = zip(self.catalog.items(indices), best.scores[0].tolist(), because, strict=False)
        low, high = self._shown if stars else (-torch.inf, torch.inf)
        return tuple(Recommendation(item, min(max(score, low), high), why) for item, score, why in listed)

    def _varied(self, pool: TopK, k: int, diversity: float) -> TopK:
        """By the items' vectors where the model has any, else by their genres."""
        items = pool.items[0][pool.items[0] >= 0]
        if self._vectors is not None:
            vectors = self._vectors[items]
        elif self.facts.items_of:
            vectors = self.facts.genre_vectors(items)
        else:
            raise RecflowError("Neither has this model item vectors, nor its data genres: diversity has no meaning.")
        chosen = diversify(pool.scores[0, : len(items)], vectors, k, diversity) if len(items) else items
        return TopK(items[chosen][None], pool.scores[:, chosen])

    @cached_property
    def _vectors(self) -> Tensor | None:
        vectors = self.ranker.item_embeddings()
        return None if vectors is None else vectors - vectors.mean(0)

    def _because(self, taste: tuple[Tensor, Tensor | None], indices: list[int], most: int = 2) -> list[tuple[str, ...]]:
        """For each recommended item, the titles of the history that speak most for it."""
        items, ratings = taste
        if len(items) == 0 or not indices:
            return [()] * len(indices)
        parts = self.ranker.explain_many(items, ratings, torch.tensor(indices))
        best = parts.topk(min(most, len(items)))
        chosen = [items[row[values > 0]].tolist() for row, values in zip(best.indices, best.values, strict=True)]
        return [tuple(found.title for found in self.catalog.items(some)) for some in chosen]


def _check_k(k: int) -> None:
    if k < 1:
        raise RecflowError(f"k must be at least 1, got {k}.")
