import pytest
import torch
from torch_geometric import metrics as pyg
from torchmetrics import retrieval

from recflow.metrics.beyond import gini
from recflow.metrics.means import RankingMetrics
from recflow.metrics.ranking import RANKING_METRICS, per_user_metrics

KS = (1, 3, 10)


def close(actual, expected, rtol=1e-12, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def same(actual, expected):
    """Equal to the last bit; nan equals nan."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


class TestByHand:
    def test_class_takes_means_over_users_who_have_something_to_find(self):
        metrics = RankingMetrics((1, 2), 10)
        top_items = torch.tensor([[0, 1], [2, 0], [7, 8]])
        hits = torch.tensor([[True, False], [False, True], [False, False]])
        metrics.update(torch.arange(3), top_items, hits, torch.tensor([1, 4, 0]))
        values = metrics.compute()
        assert (metrics.users, metrics.skipped) == (2, 1)
        close(values["recall@1"], tensor(1 / 2))
        close(values["recall@2"], tensor((1 + 1 / 4) / 2))
        close(values["mrr@2"], tensor((1 + 1 / 2) / 2))
        close(values["coverage@1"], tensor(2 / 10))  # items 0 and 2; item 7 was shown to a user who is left out
        close(values["coverage@2"], tensor(3 / 10))
        close(values["gini@1"], tensor((7 + 9) / (9 * 2)))  # 8 items never, items 0 and 2 once each
        close(values["gini@2"], tensor((5 + 7 + 2 * 9) / (9 * 4)))  # 7 items never, 1 and 2 once each, item 0 twice

    def test_precision_divides_by_k_though_candidates_ran_out(self):
        metrics = RankingMetrics((4,), 5)
        metrics.update(
            torch.tensor([0]),
            torch.tensor([[3, -1, -1, -1]]),
            torch.tensor([[True, False, False, False]]),
            torch.tensor([1]),
        )
        assert metrics.compute()["precision@4"] == 1 / 4
        assert metrics.compute()["coverage@4"] == 1 / 5  # the padding is no item

    def test_auc_is_a_mean_over_users_who_have_one(self):
        metrics = RankingMetrics((1,), 3, auc=True)
        hits = torch.zeros(4, 1, dtype=torch.bool)
        auc = torch.tensor([0.25, torch.nan, 0.75, 1.0])
        metrics.update(torch.arange(4), torch.zeros(4, 1, dtype=torch.int64), hits, torch.tensor([1, 3, 1, 0]), auc)
        assert metrics.compute()["auc"] == 0.5  # the second has no other candidate, the last nothing to find
        assert metrics.users == 3
        assert metrics.counts() == (3, 1)


class TestAgainstOthers:
    def test_means_and_coverage_equal_a_loop_over_users(self, world, naive):
        metrics = world.metrics(auc=True)
        world.update(metrics)
        values = metrics.compute()
        assert list(values) == RankingMetrics.names(KS, auc=True)
        users = [user for user in range(world.batch) if world.num_relevant[user] > 0]
        for k in KS:
            each = [naive(world.hits[user].tolist(), int(world.num_relevant[user]), k) for user in users]
            for name in RANKING_METRICS:
                close(values[f"{name}@{k}"], tensor(sum(value[name] for value in each) / len(each)), atol=1e-11)
            shown = {item for user in users for item in world.top_items[user, :k].tolist()}
            assert values[f"coverage@{k}"] == len(shown) / world.num_items
            exposure = [sum(item in world.top_items[user, :k] for user in users) for item in range(world.num_items)]
            assert values[f"gini@{k}"] == gini(torch.tensor(exposure))

    @pytest.mark.parametrize("k", KS)
    @pytest.mark.parametrize(
        ("name", "oracle"),
        [
            ("precision", retrieval.RetrievalPrecision),
            ("recall", retrieval.RetrievalRecall),
            ("ndcg", retrieval.RetrievalNormalizedDCG),
            ("hit", retrieval.RetrievalHitRate),
            ("mrr", retrieval.RetrievalMRR),
        ],
    )
    def test_means_equal_torchmetrics(self, world, name, oracle, k):
        metrics = world.metrics()
        world.update(metrics)
        other = oracle(empty_target_action="skip", top_k=k)
        indexes = world.users.unsqueeze(1).expand_as(world.scores)
        other.update(world.scores.flatten(), world.relevant.flatten(), indexes.flatten())
        close(metrics.compute()[f"{name}@{k}"], other.compute(), rtol=1e-6, atol=1e-6)  # theirs is float32

    @pytest.mark.parametrize("k", KS)
    @pytest.mark.parametrize(
        ("name", "oracle"),
        [
            ("precision", pyg.LinkPredPrecision),
            ("recall", pyg.LinkPredRecall),
            ("ndcg", pyg.LinkPredNDCG),
            ("hit", pyg.LinkPredHitRatio),
            ("map", pyg.LinkPredMAP),
            ("mrr", pyg.LinkPredMRR),
        ],
    )
    def test_means_equal_pyg(self, world, name, oracle, k):
        metrics = world.metrics()
        world.update(metrics)
        other = oracle(k)
        other.update(world.top_items, world.relevant.nonzero().T)
        close(metrics.compute()[f"{name}@{k}"], other.compute(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("k", KS)
    def test_pyg_coverage_counts_lists_of_users_without_relevant_items_too(self, world, k):
        metrics = world.metrics()
        world.update(metrics)
        everyone, measured = (pyg.LinkPredCoverage(k, world.num_items) for _ in range(2))
        everyone.update(world.top_items, world.relevant.nonzero().T)
        measured.update(world.top_items[world.found], world.relevant[world.found].nonzero().T)
        ours = metrics.compute()[f"coverage@{k}"]
        close(ours, measured.compute(), rtol=1e-6, atol=1e-6)
        assert ours <= everyone.compute() + 1e-6


class TestStates:
    def test_a_first_batch_without_hits_does_not_make_metrics_one(self, naive):
        """MetricCollection merges metrics whose states are equal after the first batch; ours must not."""
        metrics = RankingMetrics((2,), 5)
        top_items = torch.tensor([[0, 1]])
        metrics.update(torch.tensor([0]), top_items, torch.tensor([[False, False]]), torch.tensor([3]))
        metrics.update(torch.tensor([1]), top_items, torch.tensor([[False, True]]), torch.tensor([3]))
        values = metrics.compute()
        expected = naive([False, True], 3, 2)
        for name in RANKING_METRICS:
            close(values[f"{name}@2"], tensor(expected[name] / 2), atol=1e-11)
        assert len({values[f"{name}@2"].item() for name in RANKING_METRICS}) == 5  # only precision and mrr coincide

    @pytest.mark.parametrize("size", [1, 7, 29])
    def test_chunks_in_any_order_equal_one_update_to_the_last_bit(self, world, size):
        whole, parts = (world.metrics(auc=True, keep_per_user=True) for _ in range(2))
        world.update(whole)
        for rows in torch.randperm(world.batch, generator=torch.Generator().manual_seed(size)).split(size):
            world.update(parts, rows)
        same(parts.compute(), whole.compute())
        assert (whole.users, whole.skipped) == (parts.users, parts.skipped)
        same(parts.per_user(), whole.per_user())

    def test_merged_states_equal_one_process_to_the_last_bit(self, world):
        whole, first, second = (world.metrics(auc=True, keep_per_user=True) for _ in range(3))
        world.update(whole)
        world.update(first, slice(0, 11))
        world.update(second, slice(11, None))
        first.merge_state(second)
        same(first.compute(), whole.compute())
        assert torch.equal(first.exposure, whole.exposure)
        assert (first.users, first.skipped) == (whole.users, whole.skipped)
        same(first.per_user(), whole.per_user())

    def test_forward_returns_the_batch_and_keeps_the_sum(self, world):
        whole, stepped = world.metrics(), world.metrics()
        world.update(whole)
        for rows in (slice(0, 11), slice(11, None)):
            batch = world.metrics()
            world.update(batch, rows)
            value = stepped(world.users[rows], world.top_items[rows], world.hits[rows], world.num_relevant[rows])
            assert value == batch.compute()
        assert stepped.compute() == whole.compute()

    def test_reset_forgets_everything_even_under_inference_mode(self, world):
        metrics, fresh = (world.metrics(auc=True, keep_per_user=True) for _ in range(2))
        world.update(metrics)
        with torch.inference_mode():
            metrics.reset()
        world.update(metrics, slice(5, 20))
        world.update(fresh, slice(5, 20))
        assert metrics.compute() == fresh.compute()
        assert (metrics.users, metrics.skipped) == (fresh.users, fresh.skipped)
        assert metrics.per_user()["user"].tolist() == fresh.per_user()["user"].tolist()

    def test_a_cast_to_half_precision_changes_nothing(self, world):
        cast, plain = world.metrics(), world.metrics()
        for rows in (slice(0, 11), slice(11, None)):
            cast.to(torch.bfloat16)
            world.update(cast, rows)
            world.update(plain, rows)
        assert cast.compute() == plain.compute()

    def test_per_user_values_are_those_of_users_with_relevant_items(self, world):
        metrics = world.metrics(auc=True, keep_per_user=True)
        world.update(metrics)
        values = metrics.per_user()
        assert values["user"].tolist() == world.found.nonzero().flatten().tolist()
        of_all_lists = [f"{name}@{k}" for name in ("coverage", "gini") for k in KS]
        assert list(values) == ["user", *(name for name in metrics.compute() if name not in of_all_lists)]
        shared = per_user_metrics(world.hits, world.num_relevant, KS)
        for name, expected in shared.items():
            assert torch.equal(values[name], expected[world.found])
            close(values[name].mean(), metrics.compute()[name], atol=1e-11)
        same(values["auc"], world.auc[world.found])

    def test_per_user_must_be_asked_for_beforehand(self, world):
        with pytest.raises(ValueError, match="keep_per_user=True"):
            world.metrics().per_user()

    @pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
    def test_means_over_nobody_are_nan(self, world):
        metrics = world.metrics(auc=True, keep_per_user=True)
        for values in (metrics.compute(), world.update(metrics, slice(0, 1)) or metrics.compute()):
            assert all(value == 0 if "coverage" in name else value.isnan() for name, value in values.items())
        assert (metrics.users, metrics.skipped) == (0, 1)
        assert metrics.per_user()["user"].tolist() == []


class TestGivenCandidates:
    """Few candidates: the same means under names of their own, and nothing that is about the catalogue."""

    def test_values_are_those_of_a_full_ranking_of_the_same_lists(self, world):
        full, few = world.metrics(keep_per_user=True), world.metrics(keep_per_user=True, negatives=99)
        world.update(full)
        world.update(few)
        expected = {f"{name}_neg99": full.compute()[name] for name in full.per_user() if name != "user"}
        assert few.compute() == expected
        assert list(few.compute()) == RankingMetrics.names(KS, negatives=99)
        same([*few.per_user().values()], [*full.per_user().values()])
        assert list(few.per_user()) == ["user", *expected]

    def test_no_name_is_one_of_a_full_ranking(self):
        assert not set(RankingMetrics.names(KS, auc=True)) & set(RankingMetrics.names(KS, auc=True, negatives=9))


class TestMistakes:
    def test_items_beyond_the_catalogue_are_refused(self):
        with pytest.raises(ValueError, match="items must be below num_items = 5, got 5"):
            RankingMetrics((1,), 5).update(
                torch.tensor([0]), torch.tensor([[5]]), torch.tensor([[False]]), torch.tensor([1])
            )

    @pytest.mark.parametrize("ks", [(), (0,), (-1, 5), (5, 5), (5, 2.0), (True,)])
    def test_cut_offs_must_be_distinct_and_positive(self, ks):
        with pytest.raises(ValueError, match="ks must be distinct positive whole numbers"):
            RankingMetrics(ks, 10)

    def test_cut_offs_may_come_in_any_order(self):
        assert RankingMetrics([20, 5], 30).ks == (5, 20)
        assert RankingMetrics.names([20, 5])[:4] == ["precision@5", "precision@20", "recall@5", "recall@20"]

    def test_num_items_must_be_given(self):
        with pytest.raises(ValueError, match="num_items must be at least 1, got 0"):
            RankingMetrics()

    def test_update_refuses_shapes_that_do_not_fit(self, world):
        metrics = world.metrics()
        with pytest.raises(ValueError, match="top_items and hits must have one shape"):
            metrics.update(world.users, world.top_items[:, :5], world.hits, world.num_relevant)
        with pytest.raises(ValueError, match="at least 10"):
            metrics.update(world.users, world.top_items[:, :5], world.hits[:, :5], world.num_relevant)

    def test_auc_is_neither_forgotten_nor_dropped(self, world):
        batch = (world.users, world.top_items, world.hits, world.num_relevant)
        with pytest.raises(ValueError, match="just when auc=True, got NoneType and True"):
            world.metrics(auc=True).update(*batch)
        with pytest.raises(ValueError, match="just when auc=True, got Tensor and False"):
            world.metrics().update(*batch, world.auc)
        with pytest.raises(ValueError, match="auc must have the shape of users"):
            world.metrics(auc=True).update(*batch, world.auc[:3])
