"""What the tests of metrics share: worlds small enough to read, and the definitions in plain Python."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recflow.data.dataset import DataConfig, Dataset
from recflow.data.interactions import Interactions
from recflow.data.splits import Split
from recflow.metrics.auc import auc_per_user
from recflow.metrics.means import RankingMetrics
from recflow.metrics.ranking import RANKING_METRICS, relevant_hits

KS = (1, 3, 10)


class World:
    """Ten ranked places; some users have many relevant items, some have none."""

    def __init__(self, seed: int, batch: int = 30, num_items: int = 25, kmax: int = 10, density: float = 0.15):
        generator = torch.Generator().manual_seed(seed)
        self.batch, self.num_items, self.kmax = batch, num_items, kmax
        # A permutation per user, so no ties; positive, for torchmetrics drops documents scored 0 or less.
        self.scores = torch.rand(batch, num_items, generator=generator).argsort(1).argsort(1) + 1.0
        self.relevant = torch.rand(batch, num_items, generator=generator) < density
        self.relevant[0] = False  # nothing to find
        self.relevant[1] = True  # more to find than places
        self.users = torch.arange(batch)
        self.top_items = self.scores.topk(kmax).indices
        self.indptr = torch.cat([torch.zeros(1, dtype=torch.int64), self.relevant.sum(1).cumsum(0)])
        self.items = self.relevant.nonzero()[:, 1]
        self.hits, self.num_relevant = relevant_hits(self.top_items, self.indptr, self.items, self.users, num_items)
        self.auc = auc_per_user(self.scores, self.relevant.nonzero().T)
        self.found = self.num_relevant > 0

    def update(self, metrics: RankingMetrics, rows: Tensor | slice = slice(None)):
        auc = (self.auc[rows],) if metrics.auc else ()
        metrics.update(self.users[rows], self.top_items[rows], self.hits[rows], self.num_relevant[rows], *auc)

    def metrics(self, **kwargs) -> RankingMetrics:
        return RankingMetrics(KS, self.num_items, **kwargs)


@pytest.fixture(scope="session")
def world():
    return World(seed=0)


@pytest.fixture(scope="session")
def make_world():
    return World


@pytest.fixture(scope="session")
def naive():
    """One user's metrics, straight from the definitions."""
    return by_definition


def by_definition(hits: list[bool], num_relevant: int, k: int) -> dict[str, float]:
    if num_relevant == 0:
        return dict.fromkeys(RANKING_METRICS, math.nan)
    dcg = ideal = average_precision = reciprocal_rank = 0.0
    found = 0
    for place in range(1, k + 1):
        if place <= num_relevant:
            ideal += 1 / math.log2(place + 1)
        if hits[place - 1]:
            found += 1
            dcg += 1 / math.log2(place + 1)
            average_precision += found / place
            reciprocal_rank = reciprocal_rank or 1 / place
    return {
        "precision": found / k,
        "recall": found / num_relevant,
        "ndcg": dcg / ideal,
        "hit": float(found > 0),
        "map": average_precision / min(k, num_relevant),
        "mrr": reciprocal_rank,
    }


@pytest.fixture(scope="session")
def dataset():
    """Builds a dataset from ``(user, item, rating)`` rows of each part and ``(user, item)`` pairs of negatives."""

    def build(
        num_users, num_items, train, test, val=(), fold_in=(), negatives=(), relevant_from=None, scale=(1.0, 5.0)
    ) -> Dataset:
        schema = {"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32, "time": pl.Int64}
        parts = {
            part: pl.DataFrame([(*row, 0) for row in sorted(rows)], schema=schema, orient="row")
            for part, rows in {"train": train, "val": val, "test": test, "fold_in": fold_in}.items()
        }
        interactions = Interactions(
            name="small",
            sha256="0" * 64,
            table=pl.concat(parts.values()).sort("user", maintain_order=True),
            users=pl.DataFrame({"user_id": [f"u{user:03}" for user in range(num_users)]}),
            items=pl.DataFrame({"item_id": range(num_items)}),
            dropped=pl.DataFrame(schema={"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32}),
            rating_scale=scale,
            filters="none",
            negatives=pl.DataFrame(sorted(negatives), schema={"user": pl.Int32, "item": pl.Int32}, orient="row"),
        )
        return Dataset(interactions, Split(**parts, describe="by hand"), DataConfig(relevant_from=relevant_from))

    return build


@pytest.fixture(scope="session")
def random_dataset(dataset):
    """Builds a dataset of random rows, of whose users the first ``held_out`` are held out whole."""

    def build(seed=0, num_users=23, num_items=19, held_out=0, given=0, relevant_from=3.0) -> Dataset:
        random = np.random.default_rng(seed)
        rows: dict[str, list[tuple[int, int, float]]] = {"train": [], "val": [], "test": [], "fold_in": []}
        negatives = []
        for user in range(num_users):
            items = random.permutation(num_items)[: random.integers(6, 13)].tolist()
            rated = [(user, item, float(random.integers(1, 6))) for item in items]
            rows["test"] += rated[:3]
            rows["val"] += [] if user < held_out else rated[3:4]
            rows["fold_in" if user < held_out else "train"] += rated[3 + (user >= held_out) :]
            unknown = sorted(set(range(num_items)) - set(items))
            negatives += [(user, item) for item in random.permutation(unknown)[:given].tolist()]
        return dataset(num_users, num_items, **rows, negatives=negatives, relevant_from=relevant_from)

    return build
