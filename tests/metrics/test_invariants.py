"""What must hold whatever the model and the data: where one of these breaks, no number of any table can be believed."""

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recflow.data.dataset import DataConfig, Dataset
from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.metrics.lists import LIST_METRICS
from recflow.metrics.ranking import per_user_metrics
from recflow.ranking.rankers import FactorRanker, Ranker

KS = (1, 3, 7)
CONFIG = MetricsConfig(ks=KS)
GENRES = ["Comedy", "Drama", "War", "Western"]


class Scores(Ranker):
    """Scores as given, one row a user."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores, self.num_items = scores, scores.shape[1]

    def settings(self):
        return {}

    def score(self, users, candidates=None):
        return self.scores[users].clone()

    def score_history(self, items, ratings=None, candidates=None):
        raise NotImplementedError


def with_genres(data: Dataset, sets: list[list[str]]) -> Dataset:
    items = data.interactions.items.with_columns(pl.Series("genres", sets, dtype=pl.List(pl.String)))
    object.__setattr__(data.interactions, "items", items)
    return data


@pytest.fixture(scope="module")
def genres():
    generator = torch.Generator().manual_seed(5)
    has = torch.rand(19, len(GENRES), generator=generator) < 0.4
    return [[genre for genre, own in zip(GENRES, row, strict=True) if own] for row in has.tolist()]


class TestSinglePositive:
    @given(st.lists(st.booleans(), min_size=7, max_size=7).filter(lambda places: sum(places) <= 1))
    def test_ndcg_is_at_most_the_hit_rate(self, places):
        values = per_user_metrics(torch.tensor([places]), torch.tensor([1]), KS)
        for k in KS:
            assert float(values[f"ndcg@{k}"]) <= float(values[f"hit@{k}"]) == float(values[f"recall@{k}"])
            assert float(values[f"mrr@{k}"]) <= float(values[f"ndcg@{k}"])


class TestOracle:
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10**6))
    def test_who_knows_the_answer_scores_one(self, random_dataset, seed):
        data = random_dataset(seed=seed, relevant_from=None)
        scores = torch.zeros(data.num_users, data.num_items)
        relevant = data.relevant("test")
        scores[relevant.users, relevant.items] = 1.0
        metrics = evaluate(Scores(scores), data, "test", "ranking", CONFIG).metrics
        for k in KS:
            for name in ("ndcg", "hit", "map", "mrr"):
                assert metrics[f"{name}@{k}"] == pytest.approx(1.0, abs=1e-10)
        assert metrics["recall@7"] == pytest.approx(1.0, abs=1e-10)  # nobody has more than three


class TestNoOpinion:
    def test_constant_scores_rank_like_random_when_items_are_shuffled(self, random_dataset):
        data = random_dataset(num_users=40)
        generator = torch.Generator().manual_seed(0)
        same, chance = [], []
        for _ in range(150):
            order = torch.randperm(data.num_items, generator=generator)
            shuffled = relabelled(data, order)
            constant = Scores(torch.zeros(data.num_users, data.num_items))
            random = Scores(torch.rand(data.num_users, data.num_items, generator=generator))
            same.append(evaluate(constant, shuffled, "test", "ranking", CONFIG).metrics)
            chance.append(evaluate(random, data, "test", "ranking", CONFIG).metrics)
        for name in ("recall@3", "ndcg@7", "hit@1", "mrr@7"):
            ours, theirs = (torch.tensor([values[name] for values in rows]) for rows in (same, chance))
            error = float((ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt())
            assert abs(float(ours.mean() - theirs.mean())) < 3.5 * error


def relabelled(data: Dataset, order: Tensor) -> Dataset:
    """The same data under other item indices: item i becomes order[i]."""
    place = pl.Series(order.tolist(), dtype=pl.Int32)
    parts = type(data.parts)(
        **{
            name: getattr(data.parts, name).with_columns(place.gather(getattr(data.parts, name)["item"]).alias("item"))
            for name in ("train", "val", "test", "fold_in")
        },
        describe=data.parts.describe,
    )
    items = data.interactions.items[order.argsort().tolist()]
    table = data.interactions.table.with_columns(place.gather(data.interactions.table["item"]).alias("item"))
    fields = vars(data.interactions) | {"items": items, "table": table}
    return Dataset(type(data.interactions)(**fields), parts, DataConfig(relevant_from=data.config.relevant_from))


class TestOrderAndChunks:
    @pytest.mark.parametrize("chunk", [1, 4])
    @pytest.mark.parametrize("task", ["ranking", "rating"])
    def test_chunk_sizes_change_no_bit(self, random_dataset, genres, monkeypatch, chunk, task):
        data = with_genres(random_dataset(relevant_from=None), genres)
        # whole numbers, whose products no order of adding can round
        factors = (torch.randint(-9, 10, (size, 3)).float() for size in (data.num_users, data.num_items))
        ranker = FactorRanker(*factors, mean=3.0, rating_scale=(1.0, 5.0))
        whole = evaluate(ranker, data, "test", task, CONFIG, keep_per_user=True)
        monkeypatch.setattr("recflow.metrics.evaluate.CHUNK_BYTES", 4 * data.num_items * chunk)
        split = evaluate(ranker, data, "test", task, CONFIG, keep_per_user=True)
        assert split.metrics == whole.metrics
        assert split.per_user.equals(whole.per_user)
        pairs = {f"{name}@{k}" for name in LIST_METRICS for k in KS} - {"diversity@1"}  # one item is no pair
        assert pairs <= whole.metrics.keys()

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 10**6))
    def test_the_items_order_changes_nothing(self, random_dataset, genres, seed):
        data = with_genres(random_dataset(seed=1, relevant_from=None), genres)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(data.num_items, generator=generator)
        scores = torch.rand(data.num_users, data.num_items, generator=generator)  # no ties
        moved = torch.empty_like(scores)
        moved[:, order] = scores
        ours = evaluate(Scores(scores), data, "test", "ranking", CONFIG, keep_per_user=True)
        theirs = evaluate(Scores(moved), relabelled(data, order), "test", "ranking", CONFIG, keep_per_user=True)
        assert theirs.metrics == ours.metrics
        assert theirs.per_user.equals(ours.per_user)


class TestAbsence:
    def test_data_without_genres_lack_what_needs_them_and_nothing_is_nan(self, random_dataset):
        data = random_dataset()
        measured = evaluate(Scores(torch.rand(23, 19)), data, "test", "ranking", CONFIG, keep_per_user=True)
        names = {name.partition("@")[0] for name in measured.metrics}
        assert not {"diversity", "miscalibration"} & names
        assert {"arp", "novelty", "serendipity"} <= names
        assert not any(value != value for value in measured.metrics.values())

    def test_users_without_a_value_are_null_and_left_out_of_the_mean(self, dataset):
        rows = {"train": [(0, 0, 5), (1, 1, 5), (2, 0, 5)], "test": [(0, 1, 5), (1, 2, 5), (2, 3, 5)]}
        data = with_genres(dataset(3, 4, **rows), [["War"], [], ["War", "Drama"], ["Drama"]])
        measured = evaluate(
            Scores(torch.ones(3, 4)), data, "test", "ranking", MetricsConfig(ks=(2,)), keep_per_user=True
        )
        # lists: 1 2, 0 2, 1 2; user 1 knows only an item without genres
        assert measured.per_user["diversity@2"].to_list() == [None, pytest.approx(1 - 0.5**0.5), None]
        assert measured.metrics["diversity@2"] == pytest.approx(1 - 0.5**0.5)
        assert measured.per_user["miscalibration@2"].is_null().to_list() == [False, True, False]

    def test_nobody_to_rank_for_has_none_of_them(self, dataset):
        data = dataset(2, 3, train=[(0, 0, 5), (1, 1, 4)], test=[(0, 1, 1)], relevant_from=3.0)
        measured = evaluate(Scores(torch.ones(2, 3)), data, "test", "ranking", CONFIG, keep_per_user=True)
        assert not {name.partition("@")[0] for name in measured.metrics} & set(LIST_METRICS)

    def test_validation_goes_without(self, random_dataset):
        measured = evaluate(Scores(torch.rand(23, 19)), random_dataset(), "val", "ranking", CONFIG)
        assert measured.lists is None
        assert not {name.partition("@")[0] for name in measured.metrics} & set(LIST_METRICS)
