"""What a list is to be like, and movies that nobody has rated."""

import pytest
import torch

from recflow.errors import RecflowError
from recflow.ranking.bundle import load_bundle, save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.item_facts import Wishes
from recflow.ranking.rankers import FactorRanker, ItemItemRanker
from recflow.ranking.recommender import Recommender

YEARS = [1980, None, 1990, 2000]
GENRES = [("A",), ("A", "B"), ("B",), ()]
NOTHING = torch.empty(0, dtype=torch.int64)


def make(folder, ranker, about=None, plugin="lightgcn"):
    save_bundle(
        folder,
        plugin=plugin,
        ranker=ranker,
        histories=Histories.from_pairs(torch.tensor([0, 1]), torch.tensor([0, 3]), 2, 4),
        items=[Item(n, 10 + n, f"Title {n}", YEARS[n], GENRES[n], 9 - n) for n in range(4)],
        user_ids=[1, 2],
        about={"task": "ranking", "rating_scale": [1, 5], "relevant_from": None, **(about or {})},
    )
    return Recommender(load_bundle(folder))


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    ranker = FactorRanker(torch.eye(2), torch.tensor([[4.0, 1], [3, 2], [2, 3], [1, 4]]))
    return make(tmp_path_factory.mktemp("wishes") / "bundle", ranker)


@pytest.mark.parametrize(
    ("wishes", "items"),
    [
        ({"genres": ["a"]}, [0, 1]),
        ({"genres": ["A", "B"]}, [0, 1, 2]),
        ({"exclude_genres": ["A"]}, [2, 3]),
        ({"genres": ["A"], "exclude_genres": ["B"]}, [0]),
        ({"year_from": 1990}, [2, 3]),
        ({"year_to": 1990}, [0, 2]),
        ({"year_from": 1985, "year_to": 1995}, [2]),
        ({"year_from": 2001}, []),
    ],
)
def test_filters_say_which_items_fit(recommender, wishes, items):
    assert recommender.facts.allowed(Wishes(**wishes), NOTHING).nonzero().flatten().tolist() == items


def test_what_is_left_out_is_masked_whether_or_not_there_are_filters(recommender):
    two = torch.tensor([0, 2])
    assert recommender.facts.allowed(Wishes(), two).tolist() == [False, True, False, True]
    assert recommender.facts.allowed(Wishes(genres=["A"]), two).tolist() == [False, True, False, False]
    assert recommender.facts.allowed(Wishes(), NOTHING) is None


def test_a_list_has_k_items_where_k_fit_and_fewer_where_not(recommender):
    answer = recommender.recommend(1, 2, wishes=Wishes(exclude_genres=["A"]))
    assert [found.item.item_id for found in answer.recommendations] == [12, 13]
    answer = recommender.recommend(1, 4, wishes=Wishes(exclude=[11], diversity=1))
    assert {found.item.item_id for found in answer.recommendations} == {12, 13}


def test_a_genre_that_is_not_there_is_named(recommender):
    with pytest.raises(RecflowError, match="There is no genre 'C' in this run's data; there are A, B"):
        recommender.recommend(1, wishes=Wishes(genres=["C"]))


def test_many_users_get_the_filters_of_one(recommender):
    wishes = Wishes(genres=["A"])
    (_, best), *_ = recommender.recommend_many(torch.tensor([0, 1]), 3, wishes)
    for user_id, items in zip([1, 2], best.items.tolist(), strict=True):
        alone = recommender.recommend(user_id, 3, wishes=wishes).recommendations
        assert [item for item in items if item >= 0] == [found.item.item for found in alone]


def test_without_item_vectors_genres_make_the_variety(tmp_path):
    weights = torch.tensor([[0.0, 3, 2, 1], [0] * 4, [0] * 4, [0] * 4])
    made = make(tmp_path / "bundle", ItemItemRanker(weights, torch.tensor([0, 1, 2]), torch.tensor([0, 3])))
    plain, varied = (made.recommend(1, 2, wishes=Wishes(diversity=d)).recommendations for d in (0.0, 0.9))
    assert [found.item.item for found in plain] == [1, 2]
    assert [found.item.item for found in varied] == [1, 3]  # the other two share a genre


class TestNewItems:
    def test_a_model_without_features_refuses(self, recommender):
        with pytest.raises(RecflowError, match="lightgcn knows items by their ratings alone"):
            recommender.new_item(["A"])
