"""Measures a ranker on a held-out part: the same code for validation, the final test and ``recflow test``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from recflow.data.dataset import Dataset, Part, Rows
from recflow.errors import RecflowError
from recflow.metrics.auc import auc_per_user
from recflow.metrics.means import RankingMetrics
from recflow.metrics.ranking import relevant_hits
from recflow.metrics.rating import RatingMetrics
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.ranking.topk import CHUNK_BYTES, score_chunks, top_k
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
        users: How many users the ranking metrics are means over.
        skipped: How many users were left out for want of a relevant item.
        per_user: One row per user with every ranking metric; empty unless asked for.
    """

    metrics: dict[str, float]
    users: int
    skipped: int
    per_user: pl.DataFrame


class UserChunks:
    """A loader of user indices: no sequence, which Lightning would take for several loaders."""

    def __init__(self, users: Tensor, size: int) -> None:
        self._chunks = torch.split(users, size) if len(users) else ()

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
    """

    def __init__(
        self, data: Dataset, part: Part, task: Task, config: MetricsConfig | None = None, keep_per_user: bool = False
    ) -> None:
        self.data, self.task, self.config = data, task, config or MetricsConfig()
        self.seen = _histories(data.seen(part), data)
        self.relevant = _histories(data.relevant(part), data)
        self.held_out = _histories(data.rows[part], data)
        counts = self.held_out.indptr.diff()
        self.users = counts.nonzero().flatten()  # everyone with a held-out row
        device = self.users.device
        self.ranking = RankingMetrics(self.config.ks, data.num_items, self.config.auc, keep_per_user).to(device)
        self.rating = RatingMetrics().to(device)

    def chunks(self) -> UserChunks:
        """The users to :meth:`update` with, as many at a time as bounded memory allows."""
        return UserChunks(self.users, max(1, CHUNK_BYTES // (4 * self.data.num_items)))

    def begin(self, ranker: Ranker) -> None:
        """Forget what was measured, and measure this ranker from here on."""
        self.ranker = ranker.eval()
        self.ranking.reset()
        self.rating.reset()

    @torch.inference_mode()
    def update(self, users: Tensor) -> None:
        """Measure some users.

        Args:
            users: User indices, int64, shape ``[batch]``.

        Raises:
            RecflowError: If the scores are not numbers.
        """
        for chunk, scores in score_chunks(self.ranker, users, self.seen):
            best = top_k(scores, max(self.config.ks))
            if bool(best.scores[:, 0].isnan().any()):
                raise RecflowError("The model's scores are not numbers: training diverged; try a smaller model.lr.")
            hits, relevant = relevant_hits(
                best.items, self.relevant.indptr, self.relevant.items, chunk, self.data.num_items
            )
            auc = auc_per_user(scores, torch.stack(self.relevant.rows(chunk))) if self.config.auc else None
            self.ranking.update(chunk, best.items, hits, relevant, auc)
        if self.task == "rating":
            position, place = self.held_out.places(users)
            predicted = self.ranker.predict(users[position], self.held_out.items[place])
            self.rating.update(predicted, self.held_out.ratings[place])

    def compute(self) -> Evaluation:
        """What was measured since :meth:`begin`."""
        values = {name: float(value) for name, value in self.ranking.compute().items()}
        if self.task == "rating":
            values = {name: float(value) for name, value in self.rating.compute().items()} | values
        per_user = pl.DataFrame()
        if self.ranking.keep_per_user:
            per_user = pl.DataFrame({name: column.cpu().numpy() for name, column in self.ranking.per_user().items()})
            ids = self.data.interactions.users["user_id"]
            per_user = per_user.with_columns(ids.gather(per_user["user"]).alias("user_id")).drop("user")
            per_user = per_user.select("user_id", *(name for name in per_user.columns if name != "user_id"))
        return Evaluation(values, int(self.ranking.users), int(self.ranking.skipped), per_user)


def evaluate(
    ranker: Ranker,
    data: Dataset,
    part: Part,
    task: Task,
    config: MetricsConfig | None = None,
    keep_per_user: bool = False,
) -> Evaluation:
    """Measure a ranker on a whole part; the arguments are those of :class:`Evaluator`."""
    evaluator = Evaluator(data, part, task, config, keep_per_user)
    evaluator.begin(ranker)
    for users in evaluator.chunks():
        evaluator.update(users)
    return evaluator.compute()


def _histories(rows: Rows, data: Dataset) -> Histories:
    return Histories.from_pairs(rows.users, rows.items, data.num_users, data.num_items, rows.ratings)
