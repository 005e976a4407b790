import numpy as np
import pytest
import torch

from recflow.errors import RecflowError, UnknownItemError, UnknownUserError
from recflow.ranking import recommender as recommending
from recflow.ranking.bundle import save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker
from recflow.ranking.recommender import Recommender

# Eight films, 100 … 107, film i the more popular the lower i; "ann" (user 0) liked 0 and 1, disliked 2; "new" is empty.
NUM_ITEMS = 8
USERS = ["ann", "bob", "new"]
ROWS = [(0, 0, 5.0), (0, 1, 4.0), (0, 2, 1.0), (1, 6, 5.0), (1, 7, 4.0), (1, 0, 2.0)]


def weights() -> torch.Tensor:
    drawn = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(1))
    return drawn.fill_diagonal_(0)


def histories(relevant_from: float | None = None) -> Histories:
    rows = [row for row in ROWS if relevant_from is None or row[2] >= relevant_from]
    users, items, stars = (torch.tensor(column) for column in zip(*rows, strict=True))
    return Histories.from_pairs(users, items, len(USERS), NUM_ITEMS, stars)


def item_item() -> ItemItemRanker:
    liked = histories(relevant_from=4)
    return ItemItemRanker(weights(), liked.indptr, liked.items)


def rating_factors() -> FactorRanker:
    generator = torch.Generator().manual_seed(2)
    vectors, biases = (torch.randn(NUM_ITEMS, size, generator=generator) / 2 for size in (3, 1))
    users = torch.randn(len(USERS), 3, generator=generator)
    return FactorRanker(
        users, vectors, item_bias=biases[:, 0], mean=3.5, reg=0.3, reg_bias=0.1, rating_scale=(1.0, 5.0)
    )


@pytest.fixture
def make(tmp_path):
    def make(ranker: Ranker | None = None, task="ranking", relevant_from=4.0, plugin="ease", **changes) -> Recommender:
        given = {
            "histories": histories(),
            "items": [Item(i, 100 + i, f"Film {i} (2000)", 2000, (), 50 - i) for i in range(NUM_ITEMS)],
            "user_ids": USERS,
            "about": {"task": task, "rating_scale": [1.0, 5.0], "relevant_from": relevant_from},
        }
        save_bundle(tmp_path / "bundle", plugin=plugin, ranker=ranker or item_item(), **given | changes)
        return Recommender.load(tmp_path / "bundle")

    return make


def ids(recommendations) -> list[int]:
    return [found.item.item_id for found in recommendations]


def by_hand(scores, seen, k=NUM_ITEMS) -> list[int]:
    scores = scores.tolist()
    return [100 + i for i in sorted(set(range(NUM_ITEMS)) - set(seen), key=lambda i: (-scores[i], i))][:k]


class TestKnownUser:
    def test_gets_the_best_unseen_items_with_their_scores(self, make):
        answer = make().recommend("ann", k=3)
        scores = weights()[[0, 1]].sum(0)
        assert answer.path == "known user"
        assert ids(answer.recommendations) == by_hand(scores, seen=[0, 1, 2], k=3)
        for found in answer.recommendations:
            assert found.score == pytest.approx(float(scores[found.item.item]))
            assert (found.item.title, found.because) == (f"Film {found.item.item} (2000)", ())

    @pytest.mark.parametrize("k", [5, 6, 1000])
    def test_asking_for_more_than_there_is_gives_all_that_is_unseen(self, make, k):
        assert sorted(ids(make().recommend("ann", k=k).recommendations)) == [103, 104, 105, 106, 107]

    def test_who_has_seen_everything_gets_nothing(self, make):
        everything = Histories.from_pairs(torch.zeros(8, dtype=torch.int64), torch.arange(8), 3, 8, torch.ones(8))
        assert make(histories=everything).recommend("ann").recommendations == ()

    def test_without_stored_histories_nothing_is_left_out(self, make):
        assert len(make(histories=None).recommend("ann", k=100, reasons=True).recommendations) == NUM_ITEMS

    def test_who_has_no_history_gets_a_list_without_reasons(self, make):
        answer = make().recommend("new", k=8, reasons=True)
        assert (answer.path, len(answer.recommendations)) == ("known user", 8)
        assert {found.because for found in answer.recommendations} == {()}

    def test_ties_go_to_the_lower_index(self, make):
        flat = FactorRanker(torch.zeros(3, 1), torch.zeros(8, 1))
        assert ids(make(flat, plugin="lightgcn").recommend("bob", k=3).recommendations) == [101, 102, 103]

    def test_an_unknown_user_is_refused_by_name(self, make):
        with pytest.raises(UnknownUserError, match=r"There is no user 'eve'.*it has 3 users, such as 'ann'"):
            make().recommend("eve")

    def test_numbers_of_numpy_will_do(self, make):
        recommender = make(user_ids=[11, 12, 13])
        assert recommender.recommend(np.int64(12)) == recommender.recommend("12") == recommender.recommend(12)

    def test_asking_twice_gives_the_same(self, make):
        recommender = make(rating_factors(), task="rating", plugin="bias-mf")
        first = recommender.recommend("ann", k=8, reasons=True)
        recommender.recommend_for_history({100: 5, 103: 1}, k=8, reasons=True)
        recommender.similar(100, k=8)
        assert recommender.recommend("ann", k=8, reasons=True) == first


class TestManyUsers:
    @pytest.mark.parametrize("kind", ["ranking", "rating"])
    @pytest.mark.parametrize("k", [1, 3, 8, 1000])
    @pytest.mark.parametrize("rows", [1, 2, 10**6])
    def test_each_gets_what_they_get_alone(self, make, monkeypatch, kind, k, rows):
        monkeypatch.setattr(recommending, "CHUNK_ROWS", rows)
        recommender = make() if kind == "ranking" else make(rating_factors(), task="rating", plugin="bias-mf")
        users = [2, 0, 1, 0]
        chunks = list(recommender.recommend_many(torch.tensor(users), k))
        assert torch.cat([chunk for chunk, _ in chunks]).tolist() == users
        items, scores = (torch.cat([best[part] for _, best in chunks]) for part in (0, 1))
        for user, chosen, score in zip(users, items, scores, strict=True):
            alone = recommender.recommend(USERS[user], k).recommendations
            assert [100 + item for item in chosen.tolist() if item >= 0] == ids(alone)
            assert score[chosen >= 0].tolist() == pytest.approx([found.score for found in alone], rel=1e-6)
            assert (score[chosen < 0] == -torch.inf).all()

    def test_a_chunk_holds_at_least_one_user_and_at_most_so_many_bytes(self, make, monkeypatch):
        recommender = make()
        monkeypatch.setattr(recommending, "CHUNK_BYTES", 1)
        assert [len(chunk) for chunk, _ in recommender.recommend_many(torch.arange(3), 1)] == [1, 1, 1]
        monkeypatch.setattr(recommending, "CHUNK_BYTES", 2 * 4 * NUM_ITEMS)
        assert [len(chunk) for chunk, _ in recommender.recommend_many(torch.arange(3), 1)] == [2, 1]

    def test_k_is_checked_before_anything_is_scored(self, make):
        with pytest.raises(RecflowError, match="k must be at least 1, got 0"):
            make().recommend_many(torch.arange(3), 0)

    def test_the_ranker_is_left_as_it_was(self, make):
        recommender = make()
        before = recommender.recommend("ann", k=8)
        list(recommender.recommend_many(torch.arange(3), 2))
        assert recommender.recommend("ann", k=8) == before


class TestFoldIn:
    def test_a_history_of_likes_gets_the_models_own_fold_in(self, make):
        answer = make().recommend_for_history([103, "film 4"], k=4)
        assert answer.path == "fold-in"
        assert ids(answer.recommendations) == by_hand(weights()[[3, 4]].sum(0), seen=[3, 4], k=4)

    def test_ids_titles_and_text_name_the_same_items(self, make):
        recommender = make()
        expected = recommender.recommend_for_history([103])
        for name in ("103", "Film 3 (2000)", "film 3", "FILM 3"):
            assert recommender.recommend_for_history([name]) == expected

    def test_an_item_that_is_named_twice_counts_once(self, make):
        recommender = make()
        assert recommender.recommend_for_history([103, "103", "film 3"]) == recommender.recommend_for_history([103])

    def test_ranking_models_do_not_count_what_was_disliked_yet_never_recommend_it(self, make):
        answer = make().recommend_for_history({103: 5, 104: 4, 105: 3.5, 106: None}, k=8)
        assert ids(answer.recommendations) == by_hand(weights()[[3, 4, 6]].sum(0), seen=[3, 4, 5, 6])

    def test_without_a_threshold_ranking_models_count_everything(self, make):
        answer = make(relevant_from=None).recommend_for_history({103: 5, 105: 1}, k=8)
        assert ids(answer.recommendations) == by_hand(weights()[[3, 5]].sum(0), seen=[3, 5])

    def test_rating_models_count_what_was_disliked(self, make):
        ranker = rating_factors()
        answer = make(ranker, task="rating", plugin="bias-mf").recommend_for_history({103: 5, 105: 1}, k=8)
        scores = ranker.score_history(torch.tensor([3, 5]), torch.tensor([5.0, 1.0]))
        assert ids(answer.recommendations) == by_hand(scores, seen=[3, 5])
        assert ids(answer.recommendations) != by_hand(
            ranker.score_history(torch.tensor([3]), torch.tensor([5.0])), [3, 5]
        )

    def test_a_plain_like_is_the_best_rating(self, make):
        recommender = make(rating_factors(), task="rating", plugin="bias-mf")
        expected = recommender.recommend_for_history({103: 5, 105: 5})
        assert recommender.recommend_for_history([103, 105]) == expected
        assert recommender.recommend_for_history({103: None, 105: 5.0}) == expected

    @pytest.mark.parametrize("stars", [0.5, 5.5, -1, float("nan"), float("inf")])
    def test_a_rating_off_the_scale_is_refused(self, make, stars):
        with pytest.raises(RecflowError, match=f"A rating must be from 1 to 5, got {stars:g} for 'film 3'"):
            make().recommend_for_history({"film 3": stars})

    @pytest.mark.parametrize("stars", [1, 5, 1.0, 5.0])
    def test_the_ends_of_the_scale_are_on_it(self, make, stars):
        make().recommend_for_history({103: stars})

    def test_an_unknown_item_is_refused_with_a_close_one(self, make):
        with pytest.raises(UnknownItemError, match=r"There is no item 'flim 3'.*did you mean 'Film 3"):
            make().recommend_for_history(["film 0", "flim 3"])


class TestPopular:
    @pytest.mark.parametrize(("history", "seen"), [([], []), ({}, []), ({100: 1, 102: 3}, [0, 2])])
    def test_without_any_like_the_most_popular_unseen_items_come(self, make, history, seen):
        answer = make().recommend_for_history(history, k=4)
        assert answer.path == "popular"
        assert ids(answer.recommendations) == [100 + i for i in range(NUM_ITEMS) if i not in seen][:4]
        assert [found.score for found in answer.recommendations] == [
            50.0 - (found.item.item_id - 100) for found in answer.recommendations
        ]

    def test_it_stays_whole_after_a_history_was_masked_in_it(self, make):
        recommender = make()
        before = recommender.recommend_for_history([], k=8)
        recommender.recommend_for_history({100: 1, 101: 1}, k=8)
        assert recommender.recommend_for_history([], k=8) == before


class TestReasons:
    def explained(self, recommender, items, stars, found) -> tuple[str, ...]:
        parts = recommender.ranker.explain(torch.tensor(items), torch.tensor(stars), found.item.item).tolist()
        order = sorted(range(len(items)), key=lambda place: -parts[place])[:2]
        return tuple(f"Film {items[place]} (2000)" for place in order if parts[place] > 0)

    @pytest.mark.parametrize("kind", ["ranking", "rating"])
    def test_a_history_s_reasons_are_what_the_ranker_explains_best_first(self, make, kind):
        recommender = make() if kind == "ranking" else make(rating_factors(), task="rating", plugin="bias-mf")
        items, stars = [3, 6, 0, 5], [5.0, 4.0, 4.5, 5.0]
        history = {100 + item: star for item, star in zip(items, stars, strict=True)}
        answer = recommender.recommend_for_history(history, k=8, reasons=True)
        reasons = [found.because for found in answer.recommendations]
        assert reasons == [self.explained(recommender, items, stars, found) for found in answer.recommendations]
        assert any(len(because) == 2 for because in reasons)
        assert len(set(reasons)) > 1

    def test_a_known_user_s_reasons_are_liked_items_only_in_a_ranking_model(self, make):
        recommender = make()
        answer = recommender.recommend("ann", k=8, reasons=True)
        for found in answer.recommendations:
            assert found.because == self.explained(recommender, [0, 1], [5.0, 4.0], found)

    def test_a_known_user_s_reasons_may_be_any_rated_item_in_a_rating_model(self, make):
        recommender = make(rating_factors(), task="rating", plugin="bias-mf")
        answer = recommender.recommend("ann", k=8, reasons=True)
        for found in answer.recommendations:
            assert found.because == self.explained(recommender, [0, 1, 2], [5.0, 4.0, 1.0], found)

    def test_they_are_given_only_when_asked_for(self, make):
        assert {found.because for found in make().recommend_for_history([103], k=8).recommendations} == {()}


class TestSimilar:
    def test_neighbours_come_best_first_without_the_item_itself(self, make):
        meant, neighbours = make().similar("film 3", k=8)
        assert meant.item_id == 103
        assert ids(neighbours) == by_hand(weights()[3], seen=[3])
        assert neighbours[0].score == pytest.approx(float(weights()[3].max()))

    def test_a_model_without_similarity_refuses(self, make):
        bare = FactorRanker(torch.empty(3, 0), torch.empty(8, 0), item_bias=torch.arange(8.0))
        with pytest.raises(RecflowError, match="no notion of similar items"):
            make(bare, plugin="popularity").similar(103)

    def test_an_unknown_item_is_refused(self, make):
        with pytest.raises(UnknownItemError, match="There is no item 99"):
            make().similar(99)


class Stored(Ranker):
    """A stranger's ranker that hands out its own memory."""

    def __init__(self) -> None:
        super().__init__()
        self.num_users, self.num_items = 3, NUM_ITEMS
        self.register_buffer("table", torch.arange(8.0).repeat(3, 1))

    def score(self, users, candidates=None):
        return self.table[int(users[0]) : int(users[0]) + 1]

    def score_history(self, items, ratings=None, candidates=None):
        return self.table[0]

    def similar(self, items):
        return self.table[:1]


def test_masking_never_writes_into_a_ranker_that_hands_out_its_own_memory(make):
    recommender = make()
    recommender.ranker = Stored()
    recommender.recommend("ann")
    recommender.recommend_for_history([103, 104])
    recommender.similar(103)
    assert bool(recommender.ranker.table.isfinite().all())


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused_everywhere(make, k):
    recommender = make()
    for ask in (
        lambda: recommender.recommend("ann", k=k),
        lambda: recommender.recommend_for_history([103], k=k),
        lambda: recommender.recommend_for_history([], k=k),
        lambda: recommender.similar(103, k=k),
    ):
        with pytest.raises(RecflowError, match=f"k must be at least 1, got {k}"):
            ask()
