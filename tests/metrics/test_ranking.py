import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torchmetrics import retrieval

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


@st.composite
def hit_matrices(draw):
    k = draw(st.integers(1, 12))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=8))
    missed = draw(st.lists(st.integers(0, 15), min_size=len(rows), max_size=len(rows)))
    ks = draw(st.lists(st.integers(1, k), min_size=1, max_size=4, unique=True))
    return rows, [sum(row) + more for row, more in zip(rows, missed, strict=True)], ks


class TestAgainstALoop:
    @given(case=hit_matrices())
    def test_functions_and_the_shared_pass_equal_the_definitions(self, naive, case):
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
    @given(seed=st.integers(0, 10**6), density=st.sampled_from([0.05, 0.3]))
    def test_hits_equal_set_membership(self, make_world, seed, density):
        world = make_world(seed, batch=8, num_items=12, kmax=10, density=density)
        users = torch.randint(world.batch, (6,), generator=torch.Generator().manual_seed(seed))  # any order, twice too
        hits, num_relevant = relevant_hits(world.top_items[users], world.indptr, world.items, users, world.num_items)
        liked = [set(world.relevant[user].nonzero().flatten().tolist()) for user in users]
        ranked = world.top_items[users].tolist()
        assert hits.tolist() == [[item in likes for item in row] for likes, row in zip(liked, ranked, strict=True)]
        assert num_relevant.tolist() == [len(likes) for likes in liked]


class TestOracles:
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

    def test_torchmetrics_map_is_ours_where_every_relevant_item_was_found(self, make_world):
        found_all = make_world(seed=3, num_items=10, kmax=10)
        rows = found_all.found
        other = retrieval.RetrievalMAP(top_k=10)
        indexes = found_all.users.unsqueeze(1).expand_as(found_all.scores)[rows]
        other.update(found_all.scores[rows].flatten(), found_all.relevant[rows].flatten(), indexes.flatten())
        ours = map_at(found_all.hits, found_all.num_relevant, 10)[rows].mean()
        close(ours, other.compute(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("k", KS)
    def test_ndcg_equals_scikit_learn(self, world, k):
        rows = world.found
        expected = ndcg_score(world.relevant[rows].numpy(), world.scores[rows].numpy(), k=k)
        close(ndcg_at(world.hits, world.num_relevant, k)[rows].mean(), tensor(expected))


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


class TestPadding:
    def test_a_padded_place_never_hits(self):
        # Key arithmetic alone would read -1 in row 1 as the last item of row 0, which user 0 likes.
        indptr, items = torch.tensor([0, 1, 2]), torch.tensor([4, 0])
        hits, num_relevant = relevant_hits(torch.tensor([[4, -1], [-1, 0]]), indptr, items, torch.tensor([0, 1]), 5)
        assert hits.tolist() == [[True, False], [False, True]]
        assert num_relevant.tolist() == [1, 1]

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


class TestMistakes:
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

    def test_items_beyond_the_catalogue_are_refused_not_read_as_the_next_users(self):
        indptr, items = torch.tensor([0, 1, 2]), torch.tensor([4, 0])
        with pytest.raises(ValueError, match="items must be below num_items = 5, got 5"):
            relevant_hits(torch.tensor([[5], [1]]), indptr, items, torch.tensor([0, 1]), 5)
