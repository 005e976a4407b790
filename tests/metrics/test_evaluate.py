"""The evaluator beside plain loops: who is ranked for, from what, and which chunks make up the whole."""

import math

import pytest
import torch

from recflow.errors import RecflowError
from recflow.metrics.evaluate import Evaluator, MetricsConfig, evaluate
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker

KS = (1, 3, 10)
CONFIG = MetricsConfig(ks=KS)


def linear_autoencoder(data, reg: float = 2.0) -> ItemItemRanker:
    """EASE, fitted on the positives: B = I - P diag(P)^-1, P = (XᵀX + reg I)^-1."""
    x = torch.zeros(data.num_users, data.num_items)
    x[data.positives.users, data.positives.items] = 1
    p = torch.linalg.inv(x.T @ x + reg * torch.eye(data.num_items))
    weights = torch.eye(data.num_items) - p / p.diagonal()
    known = Histories.from_pairs(data.positives.users, data.positives.items, data.num_users, data.num_items)
    return ItemItemRanker(weights.fill_diagonal_(0), known.indptr, known.items)


def factor_model(data, seed: int = 0, **settings) -> FactorRanker:
    generator = torch.Generator().manual_seed(seed)
    users, items = (torch.randn(size, 3, generator=generator) for size in (data.num_users, data.num_items))
    bias = torch.randn(data.num_items, generator=generator)
    return FactorRanker(users, items, item_bias=bias, mean=3.0, reg_bias=1.0, **settings)


def items_of(data, part: str, user: int, liked: bool = False) -> list[int]:
    rows = data.relevant(part) if liked else data.rows[part]
    return rows.items[rows.users == user].tolist()


def by_loop(data, part, naive, score) -> dict[int, dict[str, float]]:
    """Every user's metrics by sorting all unseen items by (score, lower index)."""
    values = {}
    for user in range(data.num_users):
        relevant = items_of(data, part, user, liked=True)
        if not relevant:
            continue
        earlier = ("train", "fold_in") if part == "val" else ("train", "fold_in", "val")
        seen = {item for other in earlier for item in items_of(data, other, user)}
        scores = score(user).tolist()
        ranked = sorted(set(range(data.num_items)) - seen, key=lambda item: (-scores[item], item))
        hits = [item in relevant for item in ranked] + [False] * max(KS)
        values[user] = {f"{name}@{k}": value for k in KS for name, value in naive(hits, len(relevant), k).items()}
    return values


class TestKnownUsers:
    @pytest.mark.parametrize("part", ["val", "test"])
    def test_values_are_those_of_a_loop_over_users(self, random_dataset, naive, part):
        data = random_dataset()
        ranker = factor_model(data)
        expected = by_loop(data, part, naive, lambda user: ranker.score(torch.tensor([user]))[0])
        measured = evaluate(ranker, data, part, "ranking", CONFIG, keep_per_user=True)
        assert measured.per_user["user_id"].to_list() == [f"u{user:03}" for user in expected]
        for name in next(iter(expected.values())):
            values = [user[name] for user in expected.values()]
            assert measured.per_user[name].to_list() == pytest.approx(values, rel=1e-12)
            assert measured.metrics[name] == pytest.approx(sum(values) / len(values), abs=1e-11)
        everyone = len(set(data.rows[part].users.tolist()))
        assert (measured.users, measured.skipped) == (len(expected), everyone - len(expected))

    def test_nobody_is_folded_in_where_nobody_is_held_out(self, random_dataset, monkeypatch):
        data = random_dataset()
        monkeypatch.setattr(FactorRanker, "score_histories", None)
        assert evaluate(factor_model(data), data, "test", "ranking", CONFIG).users > 0

    def test_scores_that_are_not_numbers_are_refused(self, random_dataset):
        data = random_dataset()
        ranker = factor_model(data)
        ranker.item_factors[3] = torch.nan
        with pytest.raises(RecflowError, match="training diverged"):
            evaluate(ranker, data, "test", "rating", CONFIG)


class TestHeldOutUsers:
    """Strong generalisation: the first seven users are never trained on."""

    @pytest.fixture
    def data(self, random_dataset):
        return random_dataset(held_out=7)

    def test_an_item_item_model_ranks_for_them_from_their_liked_fold_in_rows_alone(self, data, naive):
        ranker = linear_autoencoder(data)

        def score(user: int):
            return ranker.weights[items_of(data, "fold_in" if user < 7 else "train", user, liked=True)].sum(0)

        expected = by_loop(data, "test", naive, score)
        assert set(range(7)) & expected.keys()
        measured = evaluate(ranker, data, "test", "ranking", CONFIG, keep_per_user=True)
        for name in next(iter(expected.values())):
            assert measured.per_user[name].to_list() == pytest.approx([user[name] for user in expected.values()])

    def test_a_user_vector_that_was_never_trained_is_never_read(self, data):
        ranker = factor_model(data)
        measured = evaluate(ranker, data, "test", "ranking", CONFIG)
        ranker.user_factors[:7] = 100 * torch.randn(7, 3)
        ranker.user_bias[:7] = torch.nan
        assert evaluate(ranker, data, "test", "ranking", CONFIG).metrics == measured.metrics

    @pytest.mark.parametrize(("task", "everything"), [("ranking", False), ("rating", True)])
    def test_ranking_models_are_given_likes_and_rating_models_all_with_stars(self, data, monkeypatch, task, everything):
        given = {}

        def look(self, items, ratings=None, candidates=None):
            given[tuple(items.tolist())] = ratings.tolist()
            return torch.zeros(self.num_items)

        monkeypatch.setattr(FactorRanker, "score_history", look)
        monkeypatch.setattr(FactorRanker, "score_histories", Ranker.score_histories)
        evaluate(factor_model(data, rating_scale=(1, 5)), data, "test", task, CONFIG)
        rows, expected = data.rows["fold_in"], {}
        for user in range(7):
            of_user = rows.where((rows.users == user) & (everything | (rows.ratings >= 3)))
            pairs = sorted(zip(of_user.items.tolist(), of_user.ratings.tolist(), strict=True))
            expected[tuple(item for item, _ in pairs)] = [stars for _, stars in pairs]
        assert given == expected

    def test_their_ratings_are_predicted_by_the_scores_within_the_scale(self, data):
        ranker = factor_model(data, rating_scale=(1, 5))
        known, test = data.rows["fold_in"], data.rows["test"]
        errors = []
        for user, item, stars in zip(*(column.tolist() for column in test), strict=True):
            if user < 7:
                own = known.where(known.users == user)
                predicted = ranker.score_history(own.items, own.ratings)[item].clamp(1, 5)
            else:
                predicted = ranker.predict(torch.tensor([user]), torch.tensor([item]))[0]
            errors.append(float(predicted) - stars)
        rmse = math.sqrt(sum(error**2 for error in errors) / len(errors))
        assert evaluate(ranker, data, "test", "rating", CONFIG).metrics["rmse"] == pytest.approx(rmse, rel=1e-6)

    def test_someone_who_likes_nothing_known_gets_what_an_empty_history_gets(self, dataset, naive):
        rows = {"train": [(1, 0, 5), (1, 1, 5)], "fold_in": [(0, 3, 1)], "test": [(0, 2, 5), (1, 2, 4)]}
        data = dataset(2, 4, **rows, relevant_from=3.0)
        bias = torch.tensor([3.0, 2.0, 1.0, 9.0])
        ranker = FactorRanker(torch.zeros(2, 1), torch.ones(4, 1), item_bias=bias)
        measured = evaluate(ranker, data, "test", "ranking", MetricsConfig(ks=(3,)), keep_per_user=True)
        assert measured.per_user["mrr@3"].to_list() == [1 / 3, 1 / 2]  # item 3 is seen by user 0 and tops user 1's list

    def test_validation_has_them_too(self, dataset):
        rows = {"train": [(1, 0, 5), (1, 1, 5)], "fold_in": [(0, 0, 5)], "val": [(0, 1, 5)], "test": [(1, 2, 5)]}
        data = dataset(2, 3, **rows)
        weights = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        ranker = ItemItemRanker(weights, torch.tensor([0, 0, 2]), torch.tensor([0, 1]))
        assert evaluate(ranker, data, "val", "ranking", MetricsConfig(ks=(1,))).metrics["hit@1"] == 1.0


class TestChunks:
    @pytest.mark.parametrize("world_size", [1, 2, 3, 23, 40])
    def test_the_shares_of_all_processes_are_everybody_once(self, random_dataset, world_size):
        evaluator = Evaluator(random_dataset(), "test", "ranking", CONFIG)
        shares = [torch.cat(list(evaluator.chunks(rank, world_size))) for rank in range(world_size)]
        assert sorted(torch.cat(shares).tolist()) == list(range(23))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1

    def test_a_process_without_users_has_one_empty_chunk(self, random_dataset):
        evaluator = Evaluator(random_dataset(), "test", "ranking", CONFIG)
        assert [chunk.tolist() for chunk in evaluator.chunks(30, 31)] == [[]]
        assert len(evaluator.chunks(30, 31)) == 1

    def test_an_empty_part_has_none(self, dataset):
        data = dataset(2, 3, train=[(0, 0, 5), (1, 1, 5)], test=[(0, 1, 5)])
        assert len(Evaluator(data, "val", "ranking", CONFIG).chunks()) == 0

    @pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0)])
    def test_a_rank_that_there_is_not_is_refused(self, random_dataset, rank, world_size):
        evaluator = Evaluator(random_dataset(), "test", "ranking", CONFIG)
        with pytest.raises(ValueError, match=rf"rank must be from 0 to .*, got {rank}"):
            evaluator.chunks(rank, world_size)

    @pytest.mark.parametrize("make", [factor_model, linear_autoencoder])
    @pytest.mark.parametrize("held_out", [0, 7])
    def test_no_users_change_nothing(self, random_dataset, make, held_out):
        data, nobody = random_dataset(held_out=held_out, given=4), torch.empty(0, dtype=torch.int64)
        evaluator = Evaluator(data, "test", "ranking", MetricsConfig(ks=KS, auc=True), keep_per_user=True)
        evaluator.begin(make(data))
        evaluator.update(nobody)
        evaluator.update(evaluator.users)
        evaluator.update(nobody)
        measured = evaluator.compute()
        whole = evaluate(make(data), data, "test", "ranking", MetricsConfig(ks=KS, auc=True), keep_per_user=True)
        assert measured[:3] == whole[:3]
        assert measured.per_user.equals(whole.per_user)

    @pytest.mark.parametrize("task", ["ranking", "rating"])
    def test_small_chunks_give_the_same_numbers(self, random_dataset, monkeypatch, task):
        data = random_dataset(held_out=7, given=4)
        ranker = factor_model(data, rating_scale=(1, 5))
        whole = evaluate(ranker, data, "test", task, CONFIG)
        monkeypatch.setattr("recflow.metrics.evaluate.CHUNK_BYTES", 4 * data.num_items * 5)
        assert len(Evaluator(data, "test", task, CONFIG).chunks()) == 5
        assert evaluate(ranker, data, "test", task, CONFIG).metrics == pytest.approx(whole.metrics, rel=1e-6)

    @pytest.mark.parametrize("given", [{"rank": 0}, {"world_size": 2}])
    def test_rank_and_world_size_go_together(self, random_dataset, given):
        data = random_dataset()
        with pytest.raises(ValueError, match="rank and world_size go together"):
            evaluate(factor_model(data), data, "test", "ranking", CONFIG, **given)

    def test_a_share_alone_is_not_passed_off_as_the_whole(self, random_dataset):
        data = random_dataset()
        with pytest.raises(ValueError, match=r"world_size is 2, but torch\.distributed is not initialised"):
            evaluate(factor_model(data), data, "test", "ranking", CONFIG, rank=0, world_size=2)
