import math
from itertools import product

import pytest
import torch
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score
from torch import Tensor
from torch_geometric import metrics as pyg
from torchmetrics import retrieval

from recflow.metrics.auc import auc_per_user
from recflow.metrics.means import RankingMetrics
from recflow.metrics.ranking import (
    RANKING_METRICS,
    hit_at,
    map_at,
    mrr_at,
    ndcg_at,
    per_user_metrics,
    precision_at,
    recall_at,
    relevant_hits,
)

FUNCTIONS = {
    "precision": precision_at,
    "recall": recall_at,
    "ndcg": ndcg_at,
    "hit": hit_at,
    "map": map_at,
    "mrr": mrr_at,
}
KS = (1, 3, 10)


def close(actual, expected, rtol=1e-12, atol=1e-12):
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def same(actual, expected):
    """Equal to the last bit; nan equals nan."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


# A world small enough to read: 10 ranked places, some users with many relevant items, some with none.
class World:
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


@pytest.fixture(scope="module")
def world():
    return World(seed=0)


def naive(hits: list[bool], num_relevant: int, k: int) -> dict[str, float]:
    """One user, straight from the definitions, in plain Python."""
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


def naive_auc(scores: list[float], relevant: list[bool]) -> float:
    good = [score for score, is_good in zip(scores, relevant, strict=True) if is_good and score > -math.inf]
    bad = [score for score, is_good in zip(scores, relevant, strict=True) if not is_good and score > -math.inf]
    if not good or not bad:
        return math.nan
    return sum((g > b) + (g == b) / 2 for g, b in product(good, bad)) / (len(good) * len(bad))


class TestByHand:
    """Four places: a hit, a miss, a hit, a miss; three relevant items, of which one was not found."""

    hits = torch.tensor([[True, False, True, False]])
    num_relevant = torch.tensor([3])

    def test_precision_divides_by_k(self):
        close(precision_at(self.hits, self.num_relevant, 4), tensor([2 / 4]))
        close(precision_at(self.hits, self.num_relevant, 3), tensor([2 / 3]))

    def test_recall_divides_by_all_that_is_relevant(self):
        close(recall_at(self.hits, self.num_relevant, 4), tensor([2 / 3]))
        close(recall_at(self.hits, self.num_relevant, 1), tensor([1 / 3]))

    def test_ndcg_discounts_by_log2_of_place_plus_one(self):
        gain = 1 + 1 / 2  # places 1 and 3: log2(2), log2(4)
        close(ndcg_at(self.hits, self.num_relevant, 4), tensor([gain / (1 + 1 / math.log2(3) + 1 / 2)]))
        close(ndcg_at(self.hits, self.num_relevant, 2), tensor([1 / (1 + 1 / math.log2(3))]))

    def test_hit_asks_for_one(self):
        close(hit_at(self.hits, self.num_relevant, 4), tensor([1.0]))
        close(hit_at(~self.hits, self.num_relevant, 1), tensor([0.0]))

    def test_map_divides_by_what_could_be_found(self):
        close(map_at(self.hits, self.num_relevant, 4), tensor([(1 / 1 + 2 / 3) / 3]))
        close(map_at(self.hits, self.num_relevant, 2), tensor([(1 / 1) / 2]))

    def test_mrr_reads_the_first_hit_only(self):
        close(mrr_at(self.hits, self.num_relevant, 4), tensor([1.0]))
        close(mrr_at(~self.hits, self.num_relevant, 4), tensor([1 / 2]))
        close(mrr_at(~self.hits, self.num_relevant, 1), tensor([0.0]))

    def test_auc_counts_pairs_and_half_of_ties(self):
        scores = torch.tensor([[4.0, 3.0, 3.0, 2.0, 1.0, -torch.inf]])
        close(auc_per_user(scores, torch.tensor([[0, 0], [3, 1]])), tensor([(1 + 1 + 0.5) / (2 * 3)]))

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


@st.composite
def hit_matrices(draw):
    k = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=8))
    missed = draw(st.lists(st.integers(0, 15), min_size=len(rows), max_size=len(rows)))
    ks = draw(st.lists(st.integers(1, k), min_size=1, max_size=4, unique=True))
    return rows, [sum(row) + more for row, more in zip(rows, missed, strict=True)], ks


class TestAgainstALoop:
    @given(hit_matrices())
    def test_functions_and_the_shared_pass_equal_the_definitions(self, case):
        rows, num_relevant, ks = case
        hits, relevant = torch.tensor(rows), torch.tensor(num_relevant)
        shared = per_user_metrics(hits, relevant, ks)
        assert list(shared) == [f"{name}@{k}" for name in RANKING_METRICS for k in sorted(ks)]
        for k in ks:
            expected = [naive(row, n, k) for row, n in zip(rows, num_relevant, strict=True)]
            for name, function in FUNCTIONS.items():
                by_hand = tensor([user[name] for user in expected])
                close(function(hits, relevant, k), by_hand)
                close(shared[f"{name}@{k}"], by_hand)

    @given(hit_matrices())
    def test_values_lie_between_0_and_1_and_undefined_means_nan(self, case):
        rows, num_relevant, ks = case
        relevant = torch.tensor(num_relevant)
        for values in per_user_metrics(torch.tensor(rows), relevant, ks).values():
            assert torch.equal(values.isnan(), relevant == 0)
            defined = values[relevant > 0]
            assert bool(((defined >= 0) & (defined <= 1 + 1e-15)).all())

    @settings(max_examples=30)
    @given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3]))
    def test_hits_equal_set_membership(self, seed, density):
        world = World(seed, batch=8, num_items=12, kmax=10, density=density)
        users = torch.randint(world.batch, (6,), generator=torch.Generator().manual_seed(seed))  # any order, twice too
        hits, num_relevant = relevant_hits(world.top_items[users], world.indptr, world.items, users, world.num_items)
        liked = [set(world.relevant[user].nonzero().flatten().tolist()) for user in users]
        ranked = world.top_items[users].tolist()
        assert hits.tolist() == [[item in likes for item in row] for likes, row in zip(liked, ranked, strict=True)]
        assert num_relevant.tolist() == [len(likes) for likes in liked]

    @given(
        st.lists(
            st.lists(
                st.tuples(st.sampled_from([-math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, math.inf]), st.booleans()),
                min_size=6,
                max_size=6,
            ),
            min_size=1,
            max_size=5,
        )
    )
    def test_auc_equals_all_pairs_compared(self, rows):
        scores = torch.tensor([[score for score, _ in row] for row in rows])
        relevant = torch.tensor([[good for _, good in row] for row in rows])
        pairs = relevant.nonzero().T.flip(1)  # the order of the pairs does not matter
        expected = [naive_auc([score for score, _ in row], [good for _, good in row]) for row in rows]
        same(auc_per_user(scores, pairs), tensor(expected))

    def test_means_and_coverage_equal_a_loop_over_users(self, world):
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


class TestOracles:
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
    def test_torchmetrics_map_divides_by_the_hits_instead(self, world, k):
        """Same sum over min(k, R) for us, over the hits in the first k for them: the exact relation, per user."""
        ours = map_at(world.hits, world.num_relevant, k)
        for user in world.found.nonzero().flatten().tolist():
            theirs = retrieval.RetrievalMAP(top_k=k)(
                world.scores[user], world.relevant[user], torch.zeros(world.num_items, dtype=torch.int64)
            )
            hits_in_k = int(world.hits[user, :k].sum())
            close(ours[user], tensor(theirs * hits_in_k / min(k, world.num_relevant[user])), rtol=1e-6, atol=1e-6)

    def test_torchmetrics_map_is_ours_where_every_relevant_item_was_found(self):
        found_all = World(seed=3, num_items=10, kmax=10)
        rows = found_all.found
        other = retrieval.RetrievalMAP(top_k=10)
        indexes = found_all.users.unsqueeze(1).expand_as(found_all.scores)[rows]
        other.update(found_all.scores[rows].flatten(), found_all.relevant[rows].flatten(), indexes.flatten())
        ours = map_at(found_all.hits, found_all.num_relevant, 10)[rows].mean()
        close(ours, other.compute(), rtol=1e-6, atol=1e-6)

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

    @pytest.mark.parametrize("k", KS)
    def test_ndcg_equals_scikit_learn(self, world, k):
        rows = world.found
        expected = ndcg_score(world.relevant[rows].numpy(), world.scores[rows].numpy(), k=k)
        close(ndcg_at(world.hits, world.num_relevant, k)[rows].mean(), tensor(expected))

    def test_auc_equals_scikit_learn_with_ties_and_masked_items(self):
        generator = torch.Generator().manual_seed(5)
        scores = torch.randint(8, (40, 50), generator=generator).double()  # ties all over
        scores[torch.rand(40, 50, generator=generator) < 0.3] = -torch.inf
        relevant = torch.rand(40, 50, generator=generator) < 0.2
        ours = auc_per_user(scores, relevant.nonzero().T)
        for row in range(40):
            candidates = scores[row] > -torch.inf
            close(ours[row], tensor(roc_auc_score(relevant[row, candidates].numpy(), scores[row, candidates].numpy())))


class TestInvariants:
    def test_one_relevant_item_has_ndcg_and_mrr_below_hit_and_recall_equal_to_it(self):
        hits = torch.eye(10, dtype=torch.bool)  # the item at each place once
        one = torch.ones(10, dtype=torch.int64)
        for k in KS:
            hit = hit_at(hits, one, k)
            assert torch.equal(recall_at(hits, one, k), hit)
            assert torch.equal(map_at(hits, one, k), mrr_at(hits, one, k))
            assert bool((ndcg_at(hits, one, k) <= hit).all())
            assert bool((mrr_at(hits, one, k) <= ndcg_at(hits, one, k)).all())

    def test_a_perfect_ranking_scores_1(self):
        num_relevant = torch.tensor([1, 3, 10, 40])
        hits = torch.arange(10) < num_relevant.unsqueeze(1)
        values = per_user_metrics(hits, num_relevant, KS)
        for k in KS:
            for name in ("ndcg", "hit", "map", "mrr"):
                close(values[f"{name}@{k}"], torch.ones(4))
            close(values[f"recall@{k}"], num_relevant.clamp(max=k) / num_relevant.double())
        relevant = torch.tensor([[0, 0], [3, 1]])
        assert auc_per_user(torch.tensor([[0.0, 2.0, 1.0, 3.0]]), relevant) == 1.0
        assert auc_per_user(-torch.tensor([[0.0, 2.0, 1.0, 3.0]]), relevant) == 0.0

    def test_constant_scores_have_an_auc_of_one_half(self):
        assert auc_per_user(torch.zeros(1, 9), torch.tensor([[0, 0], [1, 8]])) == 0.5

    def test_auc_is_exact_where_float32_could_not_count(self):
        scores = torch.arange(30_000.0).unsqueeze(0)
        relevant = torch.stack([torch.zeros(10_000, dtype=torch.int64), torch.arange(20_000, 30_000)])
        assert auc_per_user(scores, relevant) == 1.0

    def test_auc_is_undefined_without_a_relevant_or_another_candidate(self):
        scores = torch.tensor([[1.0, 2.0, -torch.inf]] * 4)
        pairs = [
            (1, 2),
            (2, 0),
            (2, 1),
            (3, 0),
            (3, 2),
        ]  # only a masked one; all candidates; one of two and a masked one
        auc = auc_per_user(scores, torch.tensor(pairs).T)
        assert auc.isnan().tolist() == [True, True, True, False]
        assert auc[3] == 0.0

    def test_auc_accepts_no_pairs_and_no_rows(self):
        none = torch.empty(2, 0, dtype=torch.int64)
        assert auc_per_user(torch.zeros(2, 3), none).isnan().all()
        assert auc_per_user(torch.zeros(0, 3), none).shape == (0,)

    def test_auc_in_chunks_equals_auc_at_once(self, world, monkeypatch):
        monkeypatch.setattr("recflow.metrics.auc._CHUNK_BYTES", 12 * world.num_items * 4)  # four rows
        again = auc_per_user(world.scores, world.relevant.nonzero().T)
        same(again, world.auc)

    def test_auc_refuses_nan_and_says_how_many_rows(self):
        scores = torch.zeros(4, 5)
        scores[1, 2] = scores[3, 0] = scores[3, 1] = torch.nan
        with pytest.raises(ValueError, match="nan in 2 of 4 rows"):
            auc_per_user(scores, torch.tensor([[0], [0]]))


class TestPadding:
    def test_a_padded_place_never_hits(self):
        # Key arithmetic alone would read -1 in row 1 as the last item of row 0, which user 0 likes.
        indptr, items = torch.tensor([0, 1, 2]), torch.tensor([4, 0])
        hits, num_relevant = relevant_hits(torch.tensor([[4, -1], [-1, 0]]), indptr, items, torch.tensor([0, 1]), 5)
        assert hits.tolist() == [[True, False], [False, True]]
        assert num_relevant.tolist() == [1, 1]

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

    def test_nobody_likes_anything(self):
        indptr, items = torch.zeros(4, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        hits, num_relevant = relevant_hits(torch.tensor([[0, 1], [2, -1]]), indptr, items, torch.tensor([0, 2]), 3)
        assert hits.tolist() == [[False, False], [False, False]]
        assert num_relevant.tolist() == [0, 0]

    def test_no_users_at_all(self, world):
        users = torch.empty(0, dtype=torch.int64)
        hits, num_relevant = relevant_hits(
            world.top_items[users], world.indptr, world.items, users, num_items=world.num_items
        )
        assert (hits.shape, num_relevant.shape) == ((0, world.kmax), (0,))


class TestStates:
    def test_a_first_batch_without_hits_does_not_make_metrics_one(self, world):
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
        assert list(values) == ["user", *(name for name in metrics.compute() if not name.startswith("coverage"))]
        shared = per_user_metrics(world.hits, world.num_relevant, KS)
        for name, expected in shared.items():
            assert torch.equal(values[name], expected[world.found])
            close(values[name].mean(), metrics.compute()[name], atol=1e-11)
        same(values["auc"], world.auc[world.found])

    def test_per_user_must_be_asked_for_beforehand(self, world):
        with pytest.raises(ValueError, match="keep_per_user=True"):
            world.metrics().per_user()

    def test_auc_is_a_mean_over_users_who_have_one(self):
        metrics = RankingMetrics((1,), 3, auc=True)
        hits = torch.zeros(4, 1, dtype=torch.bool)
        auc = torch.tensor([0.25, torch.nan, 0.75, 1.0])
        metrics.update(torch.arange(4), torch.zeros(4, 1, dtype=torch.int64), hits, torch.tensor([1, 3, 1, 0]), auc)
        assert metrics.compute()["auc"] == 0.5  # the second has no other candidate, the last nothing to find
        assert metrics.users == 3

    @pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
    def test_means_over_nobody_are_nan(self, world):
        metrics = world.metrics(auc=True, keep_per_user=True)
        for values in (metrics.compute(), world.update(metrics, slice(0, 1)) or metrics.compute()):
            assert all(value == 0 if "coverage" in name else value.isnan() for name, value in values.items())
        assert (metrics.users, metrics.skipped) == (0, 1)
        assert metrics.per_user()["user"].tolist() == []


def gather_in_two_processes(rank: int, folder: str) -> None:
    """Save what each of two processes reports, twice: for half the users each, and with nobody for rank 1."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(seed=0)
    for name, shards in {"halves": (slice(0, 13), slice(13, None)), "alone": (slice(None), None)}.items():
        metrics = world.metrics(auc=True, keep_per_user=True)
        if shards[rank] is not None:
            world.update(metrics, shards[rank])
        torch.save({"values": metrics.compute(), "users": metrics.per_user()}, f"{folder}/{name}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_each_report_one_process_numbers_to_the_last_bit(world, tmp_path):
    torch.multiprocessing.spawn(gather_in_two_processes, (str(tmp_path),), nprocs=2)
    whole = world.metrics(auc=True, keep_per_user=True)
    world.update(whole)
    for name, rank in product(("halves", "alone"), (0, 1)):
        got = torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
        same(got["values"], whole.compute())
        same(got["users"], whole.per_user())


class TestMistakes:
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

    @pytest.mark.parametrize("function", FUNCTIONS.values())
    def test_functions_refuse_what_does_not_fit(self, function):
        hits, one = torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, dtype=torch.int64)
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            function(hits, one, 0)
        with pytest.raises(ValueError, match=r"at least 4.*got \[1, 3\].*pad short lists with False"):
            function(hits, one, 4)
        with pytest.raises(ValueError, match=r"hits must be bool, got torch\.int64"):
            function(hits.long(), one, 3)
        with pytest.raises(ValueError, match=r"num_relevant \[batch\], got \[1, 3\] and \[2\]"):
            function(hits, torch.ones(2, dtype=torch.int64), 3)

    def test_update_refuses_shapes_that_do_not_fit(self, world):
        metrics = world.metrics()
        with pytest.raises(ValueError, match="top_items and hits must have one shape"):
            metrics.update(world.users, world.top_items[:, :5], world.hits, world.num_relevant)
        with pytest.raises(ValueError, match="at least 10"):
            metrics.update(world.users, world.top_items[:, :5], world.hits[:, :5], world.num_relevant)

    def test_items_beyond_the_catalogue_are_refused_not_read_as_the_next_users(self):
        indptr, items = torch.tensor([0, 1, 2]), torch.tensor([4, 0])
        with pytest.raises(ValueError, match="items must be below num_items = 5, got 5"):
            relevant_hits(torch.tensor([[5], [1]]), indptr, items, torch.tensor([0, 1]), 5)
        with pytest.raises(ValueError, match="items must be below num_items = 5, got 5"):
            RankingMetrics((1,), 5).update(
                torch.tensor([0]), torch.tensor([[5]]), torch.tensor([[False]]), torch.tensor([1])
            )

    def test_auc_is_neither_forgotten_nor_dropped(self, world):
        batch = (world.users, world.top_items, world.hits, world.num_relevant)
        with pytest.raises(ValueError, match="just when auc=True, got NoneType and True"):
            world.metrics(auc=True).update(*batch)
        with pytest.raises(ValueError, match="just when auc=True, got Tensor and False"):
            world.metrics().update(*batch, world.auc)
        with pytest.raises(ValueError, match="auc must have the shape of users"):
            world.metrics(auc=True).update(*batch, world.auc[:3])
