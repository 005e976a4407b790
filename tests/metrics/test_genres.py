import math

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import tensor
from torch_geometric.metrics import LinkPredDiversity

from recflow.metrics.genres import MAX_GENRES, diversity, genre_indicators, genre_parts, miscalibration

genre_sets = st.lists(st.sets(st.integers(0, 4)), min_size=8, max_size=8)
lists_of_items = st.permutations(range(8)).map(lambda order: order[:5])


def indicators(sets: list[set[int]]) -> torch.Tensor:
    return tensor([[genre in own for genre in range(5)] for own in sets])


def naive_diversity(items: list[int], sets: list[set[int]]) -> float:
    own = [sets[item] for item in items if item >= 0 and sets[item]]
    apart = [1 - len(a & b) / math.sqrt(len(a) * len(b)) for place, a in enumerate(own) for b in own[place + 1 :]]
    return sum(apart) / len(apart) if apart else math.nan


def naive_shares(items: list[int], sets: list[set[int]]) -> list[float] | None:
    own = [sets[item] for item in items if item >= 0 and sets[item]]
    if not own:
        return None
    return [sum(1 / len(genres) for genres in own if genre in genres) / len(own) for genre in range(5)]


class TestGenreIndicators:
    def test_data_without_genres_have_none(self):
        assert genre_indicators(pl.DataFrame({"item_id": [1, 2]})) is None
        assert genre_indicators(pl.DataFrame({"genres": [[], []]}, schema={"genres": pl.List(pl.String)})) is None
        many = [[str(genre)] for genre in range(MAX_GENRES + 1)]
        assert genre_indicators(pl.DataFrame({"genres": many})) is None

    def test_one_that_is_named_twice_counts_once(self):
        assert genre_indicators(pl.DataFrame({"genres": [["War", "War"], None]})).tolist() == [[True], [False]]


class TestDiversity:
    @given(genre_sets, lists_of_items, st.integers(0, 5))
    def test_it_is_one_less_the_mean_cosine_over_pairs_with_genres(self, sets, items, shown):
        padded = items[:shown] + [-1] * (5 - shown)
        value = float(diversity(tensor([padded]), indicators(sets)))
        assert value == pytest.approx(naive_diversity(padded, sets), abs=1e-12, nan_ok=True)

    def test_a_single_genre_each_is_pyg_s_diversity_of_categories(self):
        generator = torch.Generator().manual_seed(0)
        category = torch.randint(0, 6, (50,), generator=generator)
        lists = torch.rand(30, 50, generator=generator).argsort(1)[:, :8]
        oracle = LinkPredDiversity(k=8, category=category)
        oracle.update(lists, torch.empty(2, 0, dtype=torch.int64))
        ours = diversity(lists, torch.nn.functional.one_hot(category).bool())
        assert float(ours.mean()) == pytest.approx(float(oracle.compute()), rel=1e-6)


class TestMiscalibration:
    @given(genre_sets, lists_of_items, lists_of_items)
    def test_it_is_steck_s_divergence_as_scipy_has_it(self, sets, items, past):
        parts = genre_parts(indicators(sets))
        value = float(miscalibration(parts[tensor([items])].sum(1), parts[tensor([past])].sum(1)))
        q, p = naive_shares(items, sets), naive_shares(past, sets)
        if p is None or q is None:
            assert math.isnan(value)
        else:
            expected = entropy(p, [0.99 * own + 0.01 * theirs for own, theirs in zip(q, p, strict=True)])
            assert value == pytest.approx(expected, abs=1e-9)
            assert 0 <= value <= math.log(100) + 1e-12

    def test_the_past_itself_is_perfect_and_nothing_of_it_the_worst(self):
        parts = genre_parts(indicators([{0, 1}, {0}, {2}]))
        past = parts[:2].sum(0, keepdim=True)
        assert miscalibration(past, past) == 0.0
        assert float(miscalibration(parts[2:], past)) == pytest.approx(math.log(100))

    def test_a_lighter_hand_would_say_more(self):
        parts = genre_parts(indicators([{0}, {1}]))
        assert float(miscalibration(parts[:1], parts[1:], alpha=0.1)) == pytest.approx(math.log(10))
