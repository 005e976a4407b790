import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor
from torch_geometric.metrics import LinkPredAveragePopularity

from recflow.metrics.popularity import average_popularity, more_popular_unseen, novelty, serendipity
from recflow.ranking.histories import Histories

NUM_ITEMS = 12
counts_of_items = st.lists(st.integers(0, 9), min_size=NUM_ITEMS, max_size=NUM_ITEMS)
lists_of_items = st.lists(st.permutations(range(NUM_ITEMS)).map(lambda order: order[:5]), min_size=1, max_size=6)


def naive_novelty(items: list[int], counts: list[int], num_users: int) -> float:
    bits = [math.log2(num_users / max(counts[item], 1)) for item in items if item >= 0]
    return sum(bits) / len(bits)


class TestAveragePopularity:
    @given(counts_of_items, lists_of_items)
    def test_it_is_the_mean_count(self, counts, lists):
        expected = [sum(counts[item] for item in items) / len(items) for items in lists]
        assert average_popularity(tensor(lists), tensor(counts)).tolist() == pytest.approx(expected, rel=1e-15)

    def test_full_lists_as_pyg_has_it(self):
        generator = torch.Generator().manual_seed(0)
        counts = torch.randint(0, 500, (40,), generator=generator)
        lists = torch.rand(25, 40, generator=generator).argsort(1)[:, :7]
        # PyG divides the sum of the users' means by users × 1 there
        oracle = LinkPredAveragePopularity(k=7, popularity=counts)
        oracle.update(lists, torch.empty(2, 0, dtype=torch.int64))
        assert float(average_popularity(lists, counts).mean()) == pytest.approx(float(oracle.compute()), rel=1e-6)

    def test_places_without_an_item_do_not_count_and_an_empty_list_has_none(self):
        values = average_popularity(tensor([[2, -1, -1], [-1, -1, -1]]), tensor([9, 9, 4]))
        assert values[0] == 4.0
        assert values[1].isnan()


class TestNovelty:
    @given(counts_of_items, lists_of_items, st.integers(9, 50))
    def test_it_is_the_mean_self_information_in_bits(self, counts, lists, users):
        expected = [naive_novelty(items, counts, users) for items in lists]
        values = novelty(tensor(lists), tensor(counts), users)
        assert values.tolist() == pytest.approx(expected, abs=1e-9)
        assert bool((values >= 0).all())
        assert float(values.max()) <= math.log2(users) + 1e-9

    def test_what_everybody_knows_tells_nothing_and_half_of_them_one_bit(self):
        assert novelty(tensor([[0], [1]]), tensor([64, 32]), 64).tolist() == [0.0, 1.0]

    def test_an_item_that_nobody_has_counts_as_one_user_s(self):
        assert novelty(tensor([[0]]), tensor([0]), 64) == novelty(tensor([[0]]), tensor([1]), 64) == 6.0


def naive_more_popular(user: int, items: list[int], counts: list[int], seen: set[tuple[int, int]]) -> list[int]:
    unseen = [item for item in range(len(counts)) if (user, item) not in seen]
    return [sum(counts[other] > counts[item] for other in unseen) for item in items]


class TestSerendipity:
    @given(counts_of_items, lists_of_items, st.sets(st.tuples(st.integers(0, 5), st.integers(0, NUM_ITEMS - 1))))
    def test_more_popular_items_are_counted_among_the_unseen(self, counts, lists, seen):
        pairs = tensor(sorted(seen), dtype=torch.int64).reshape(-1, 2)
        histories = Histories.from_pairs(pairs[:, 0], pairs[:, 1], 6, NUM_ITEMS)
        users = torch.arange(len(lists))
        unseen = [[item for item in items if (user, item) not in seen] for user, items in enumerate(lists)]
        padded = tensor([items + [-1] * (5 - len(items)) for items in unseen])
        found = more_popular_unseen(users, padded, tensor(counts), histories.indptr, histories.items)
        for user, items in enumerate(unseen):
            assert found[user, : len(items)].tolist() == naive_more_popular(user, items, counts, seen)

    def test_by_hand(self):
        hits = tensor([[True, True, False, True], [False, False, False, False]])
        place = tensor([[0, 4, 9, 3], [9, 9, 9, 9]])
        assert serendipity(hits, place).tolist() == [1 / 4, 0.0]  # places 3 and below are the popular list's

    @given(counts_of_items)
    def test_the_popular_list_finds_nothing_unexpected(self, counts):
        best = tensor(counts).sort(descending=True, stable=True).indices[:4].unsqueeze(0)
        nothing = torch.zeros(2, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        place = more_popular_unseen(tensor([0]), best, tensor(counts), *nothing)
        assert serendipity(torch.ones(1, 4, dtype=torch.bool), place) == 0.0
