"""Measures a ranker on a held-out part: the same code for validation, the final test and ``recflow test``.

Ranked     every item that the user is not known to have seen; ties go to the lower item index
Held out   users who are held out whole (split ``users``) are ranked for from their fold-in rows alone, like someone new
Given      where a dataset brings a published protocol's candidates, its test part is measured on these, too, under
           names of their own: :mod:`recflow.metrics.candidates`
Test       every list is kept, and measured beyond accuracy too: :mod:`recflow.metrics.lists`; validation, which comes
           after every epoch, goes without
Processes  each measures a share of the users; sums of whole numbers make the result one process's, to the last bit
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor, distributed

from recflow.data.dataset import Dataset, Part, Rows
from recflow.errors import RecflowError
from recflow.metrics.auc import auc_per_user
from recflow.metrics.candidates import GivenCandidates
from recflow.metrics.kept import KeptRows
from recflow.metrics.lists import Surroundings, TopLists, list_metrics, mean_of_known
from recflow.metrics.means import RankingMetrics
from recflow.metrics.predictions import PREDICTION_WIDTH, Predictions
from recflow.metrics.ranking import relevant_hits
from recflow.metrics.rating import RatingMetrics
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.ranking.topk import CHUNK_BYTES, mask_, top_k
from recflow.spec import Task


@dataclass(frozen=True)
class MetricsConfig:
    """What is measured.

    Args:
        ks: Cut-offs of the ranking metrics, each at least 1.
        auc: Whether to measure the exact AUC too; it sorts every user's scores, which takes longer than all else.
    """

    ks: tuple[int, ...] = (5, 10, 20)
    auc: bool = False

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise RecflowError(f"metrics.ks must be distinct cut-offs of at least 1, got {list(self.ks)}.")


class Evaluation(NamedTuple):
    """What was measured.

    Attributes:
        metrics: Values by name, such as ``recall@10``; means over users, in the order in which they print.
        users: How many users the ranking metrics are means over; of all processes together.
        skipped: How many users were left out for want of a relevant item; of all processes, too.
        per_user: One row per user, ascending, with every ranking metric; those of given candidates are null for users
            without given negatives, those of lists for users who have no such value. Of the test part of a rating
            model, too, each user's ``mse``, ``mae`` and number of ``ratings``, also of users without a relevant item,
            whose other values are null. Empty unless asked for.
        lists: What each user was recommended; of the test part only.
        predictions: What was predicted for each rating; of the test part of a rating model only.
    """

    metrics: dict[str, float]
    users: int
    skipped: int
    per_user: pl.DataFrame
    lists: TopLists | None = None
    predictions: Predictions | None = None


class UserChunks:
    """A loader of user indices: no sequence, which Lightning would take for several loaders."""

    def __init__(self, chunks: Sequence[Tensor]) -> None:
        self._chunks = chunks

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._chunks)


class Evaluator:
    """Ranks all candidates for users of one part, some users at a time.

    Args:
        data: Where the part, the seen items and the sizes come from.
        part: ``"val"`` or ``"test"``.
        task: Rating models are measured on the part's ratings, too.
        config: Which metrics.
        keep_per_user: Whether to keep each user's values.
        gather: Whether :meth:`compute` adds up what all processes of ``torch.distributed`` have measured, where it is
            initialised: each of them must then call it. False for a process that measures everybody by itself.
    """

    def __init__(
        self,
        data: Dataset,
        part: Part,
        task: Task,
        config: MetricsConfig | None = None,
        keep_per_user: bool = False,
        gather: bool = True,
    ) -> None:
        self.data, self.part, self.task, self.config = data, part, task, config or MetricsConfig()
        self.seen = _histories(data.seen(part), data)
        self.relevant = _histories(data.relevant(part), data)
        self.held_out = _histories(data.rows[part], data)
        counts = self.held_out.indptr.diff()
        self.users = counts.nonzero().flatten()  # everyone with a held-out row
        untrained = data.untrained(task)
        self.folded = untrained if bool(untrained[self.users].any()) else None
        self.known: Histories | None = None  # what users are folded in from, from begin() on
        self._known: dict[bool, Histories] = {}
        self.popularity = torch.bincount(data.train.items, minlength=data.num_items).float()
        self.given = GivenCandidates.of(data, self.relevant) if part == "test" else None
        device = self.users.device
        ks, num_items = self.config.ks, data.num_items
        ranking = RankingMetrics(ks, num_items, self.config.auc, keep_per_user, sync_on_compute=gather)
        self.ranking = ranking.to(device)
        self.rating = RatingMetrics(sync_on_compute=gather).to(device)
        self.among_given: RankingMetrics | None = None
        if self.given is not None:
            negatives = self.given.negatives
            few = RankingMetrics(ks, num_items, False, keep_per_user, negatives, sync_on_compute=gather)
            self.among_given = few.to(device)
        self.around = Surroundings(data, part) if part == "test" else None
        self.lists = KeptRows(1 + max(ks), sync_on_compute=gather).to(device)
        self.predictions = KeptRows(PREDICTION_WIDTH, sync_on_compute=gather).to(device)

    def chunks(self, rank: int = 0, world_size: int = 1) -> UserChunks:
        """The users to :meth:`update` with, as many at a time as bounded memory allows.

        Args:
            rank: Which process asks, from 0.
            world_size: How many processes share the users: each gets every ``world_size``-th, nobody comes twice.

        Returns:
            No chunk if the part is empty; else at least one, which is empty where there are more processes than users.

        Raises:
            ValueError: If there is no such rank.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if len(self.users) == 0:
            return UserChunks(())
        return UserChunks(torch.split(self.users[rank::world_size], self._chunk_size))

    def begin(self, ranker: Ranker) -> None:
        """Forget what was measured, and measure this ranker from here on."""
        self.ranker = ranker.eval()
        if self.folded is not None:
            whole = self.task == "rating" or ranker.whole_history
            if whole not in self._known:
                self._known[whole] = _histories(_taste(self.data, self.part, whole), self.data)
            self.known = self._known[whole]
        self.ranking.reset()
        self.rating.reset()
        if self.among_given is not None:
            self.among_given.reset()
        self.lists.reset()
        self.predictions.reset()

    @torch.inference_mode()
    def update(self, users: Tensor) -> None:
        """Measure some users.

        Args:
            users: User indices, int64, shape ``[batch]``; there may be none.

        Raises:
            RecflowError: If the scores are not numbers.
        """
        for chunk in torch.split(users, self._chunk_size):
            scores = self._score(chunk)
            if self.task == "rating":
                _refuse_nan(scores)
                position, place = self.held_out.places(chunk)
                predicted = self._predict(chunk, position, self.held_out.items[place], scores)
                rating = self.held_out.ratings[place]
                self.rating.update(predicted, rating)
                if self.part == "test":
                    rated = chunk[position], self.held_out.items[place]
                    self.predictions.update(Predictions.rows(*rated, rating, predicted))
            scores = mask_(self._popular_(chunk, scores), chunk, self.seen)
            best = top_k(scores, max(self.config.ks))
            _refuse_nan(best.scores[:, 0])  # a nan is the greatest of its row
            auc = auc_per_user(scores, torch.stack(self.relevant.rows(chunk))) if self.config.auc else None
            self.ranking.update(chunk, best.items, *self._hits(chunk, best.items), auc)
            if self.part == "test":
                self.lists.update(torch.cat([chunk.unsqueeze(1), best.items], dim=1))
            if self.given is not None and self.among_given is not None:
                some, items = self.given.best(chunk, scores, max(self.config.ks))
                self.among_given.update(some, items, *self._hits(some, items))

    def compute(self) -> Evaluation:
        """What was measured since :meth:`begin`."""
        values = {name: float(value) for name, value in self.ranking.compute().items()}
        if self.task == "rating":
            values = {name: float(value) for name, value in self.rating.compute().items()} | values
        lists, predictions, beyond = None, None, {}
        if self.around is not None:
            lists = TopLists.of(self.lists.compute(), self.relevant, self.data.num_items)
            beyond = list_metrics(lists, self.around, self.config.ks)
            values |= {name: mean_of_known(column) for name, column in beyond.items()}
            if self.task == "rating":
                predictions = Predictions.of(self.predictions.compute())
        if self.among_given is not None:
            values |= {name: float(value) for name, value in self.among_given.compute().items()}
        per_user = self._per_user(beyond, predictions)
        return Evaluation(values, *self.ranking.counts(), per_user, lists, predictions)

    @property
    def _chunk_size(self) -> int:
        return max(1, CHUNK_BYTES // (4 * self.data.num_items))

    def _score(self, users: Tensor) -> Tensor:
        """Scores of all items, ``[batch, num_items]``, of users who are known or folded in."""
        if len(users) == 0:  # no model need know what to do with nobody
            return torch.empty(0, self.data.num_items, device=users.device)
        if self.folded is None or self.known is None:
            return self.ranker.score(users)
        folded = self.folded[users]
        if bool(folded.all()):
            return self.ranker.score_histories(self.known, users)
        scores = self.ranker.score(users)
        if bool(folded.any()):
            scores[folded] = self.ranker.score_histories(self.known, users[folded])
        return scores

    def _popular_(self, users: Tensor, scores: Tensor) -> Tensor:
        """Give those of whom nothing is known that a model could learn from the most popular items, as serving does."""
        if self.folded is not None and self.known is not None:
            scores[self.folded[users] & (self.known.lengths(users) == 0)] = self.popularity
        return scores

    def _predict(self, users: Tensor, position: Tensor, items: Tensor, scores: Tensor) -> Tensor:
        """Stars of held-out pairs, ``[pairs]``, ``position`` says whose they are; the scores are not masked yet."""
        if len(position) == 0:
            return scores.new_empty(0)
        if self.folded is None:
            return self.ranker.predict(users[position], items)
        of_scores = scores[position, items].clamp(*self.data.rating_scale)
        folded = self.folded[users[position]]
        if bool(folded.all()):
            return of_scores
        return torch.where(folded, of_scores, self.ranker.predict(users[position], items))

    def _hits(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        return relevant_hits(items, self.relevant.indptr, self.relevant.items, users, self.data.num_items)

    def _per_user(self, beyond: Mapping[str, Tensor], predictions: Predictions | None) -> pl.DataFrame:
        if not self.ranking.keep_per_user:
            return pl.DataFrame()
        lists = pl.DataFrame({name: column.numpy() for name, column in beyond.items()}).fill_nan(None)
        frame = pl.concat([_frame(self.ranking), lists], how="horizontal")
        if self.among_given is not None:
            frame = frame.join(_frame(self.among_given), on="user", how="left", maintain_order="left")
        if predictions is not None:
            frame = predictions.per_user().join(frame, on="user", how="left", maintain_order="left")
        ids = self.data.interactions.users["user_id"].gather(frame["user"])
        return frame.select(ids.alias("user_id"), pl.exclude("user"))


def evaluate(
    ranker: Ranker,
    data: Dataset,
    part: Part,
    task: Task,
    config: MetricsConfig | None = None,
    keep_per_user: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
) -> Evaluation:
    """Measure a ranker on a whole part; the other arguments are those of :class:`Evaluator`.

    Args:
        ranker: What to measure.
        data: See :class:`Evaluator`.
        part: See :class:`Evaluator`.
        task: See :class:`Evaluator`.
        config: See :class:`Evaluator`.
        keep_per_user: See :class:`Evaluator`.
        rank: Which process this is; None asks ``torch.distributed``, and is 0 where that is not initialised.
        world_size: How many processes measure a share of the users each: all of them must call this, and each returns
            the same. None asks ``torch.distributed``; 1 measures everybody in this process, whatever others do.

    Raises:
        ValueError: If one of rank and world_size is given without the other, or several processes have no group.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank and world_size go together, got {rank} and {world_size}")
    together = distributed.is_available() and distributed.is_initialized()
    if rank is None or world_size is None:
        rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
    if world_size > 1 and not together:
        raise ValueError(f"world_size is {world_size}, but torch.distributed is not initialised")
    evaluator = Evaluator(data, part, task, config, keep_per_user, gather=world_size > 1)
    evaluator.begin(ranker)
    for users in evaluator.chunks(rank, world_size):
        evaluator.update(users)
    return evaluator.compute()


def _histories(rows: Rows, data: Dataset) -> Histories:
    return Histories.from_pairs(rows.users, rows.items, data.num_users, data.num_items, rows.ratings)


def _taste(data: Dataset, part: Part, whole: bool) -> Rows:
    """What is known of users, or the part of it that ranking models learn from, likes alone, as when serving."""
    rows, threshold = data.seen(part), data.liked_from
    return rows if whole or threshold is None else rows.where(rows.ratings >= threshold)


def _refuse_nan(scores: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise RecflowError("The model's scores are not numbers: training diverged; try a smaller model.lr.")


def _frame(metrics: RankingMetrics) -> pl.DataFrame:
    return pl.DataFrame({name: column.cpu().numpy() for name, column in metrics.per_user().items()})
