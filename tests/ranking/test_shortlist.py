"""An index's candidates, scored exactly, beside exact scores of every item."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from recflow.errors import RecflowError
from recflow.ranking import shortlist as shortlisting
from recflow.ranking.bundle import load_bundle, save_bundle
from recflow.ranking.catalog import Item
from recflow.ranking.histories import Histories
from recflow.ranking.index import Index
from recflow.ranking.item_facts import Wishes
from recflow.ranking.questions import Question, best_of_all
from recflow.ranking.rankers import FactorRanker, ItemItemRanker
from recflow.ranking.recommender import Recommender
from recflow.ranking.shortlist import Shortlist, build_shortlists
from recflow_bias_mf.prior_ranker import PriorRanker
from recflow_factors.ials_ranker import IALSRanker

USERS, ITEMS, DIM = 60, 20_000, 16


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save(folder, ranker, plugin="lightgcn", untrained=None):
    """Genre Half has every other item, Rare one in a thousand, Far those that most users' scores put last."""
    seen = torch.randint(ITEMS, (USERS * 30,), generator=torch.Generator().manual_seed(3))
    first = ranker.item_factors[:, 0]
    far = first < first.quantile(0.3)
    save_bundle(
        folder,
        plugin=plugin,
        ranker=ranker,
        histories=Histories.from_pairs(torch.arange(USERS).repeat_interleave(30), seen, USERS, ITEMS),
        items=(Item(n, n, f"Title {n}", 1900 + n % 100, genres(n, far), ITEMS - n) for n in range(ITEMS)),
        user_ids=range(USERS),
        about={"task": "ranking", "rating_scale": [1, 5], "relevant_from": None},
        untrained=untrained,
    )
    return folder


def genres(n, far):
    named = {"Half": n % 2 == 0, "Rare": n % 1000 == 0, "Far": bool(far[n])}
    return tuple(name for name, fits in named.items() if fits)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """An index is asked for larger shares of this catalogue than of a large one."""
    monkeypatch.setattr(shortlisting, "_FEW", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    items = drawn(1, ITEMS, DIM)
    users = drawn(0, USERS, DIM) + torch.eye(DIM)[0] * 8  # everyone likes the first axis
    ranker = FactorRanker(users, items, item_bias=drawn(2, ITEMS), reg=0.1)
    return save(tmp_path_factory.mktemp("large") / "bundle", ranker, untrained=torch.tensor([5, 6]))


@pytest.fixture(scope="module")
def exact(folder):
    return Recommender.load(folder)


@pytest.fixture(scope="module")
def indexed(folder):
    made = Recommender.load(folder)
    made.build_index()
    return made


class Whole:
    """An index that leaves nothing out."""

    num_items = ITEMS

    def nearest(self, query, n):
        return torch.arange(ITEMS)


@pytest.fixture
def whole(folder, monkeypatch):
    made = Recommender.load(folder)
    made.shortlists = {"recommend": Shortlist(Whole()), "similar": Shortlist(Whole())}
    monkeypatch.setattr(shortlisting, "_FEW", 1)
    monkeypatch.setattr(shortlisting, "best_of_all", None)  # nothing may be answered by the exact way
    return made


def items(found):
    return [one.item.item for one in found]


def scores(found):
    return pytest.approx([one.score for one in found], rel=1e-5, abs=1e-5)


class TestIndex:
    def test_it_finds_nearly_all_of_what_is_nearest_and_gives_it_in_ascending_order(self):
        points, queries = drawn(0, 5000, 32), drawn(1, 50, 32)
        index = Index(points)
        for query in queries:
            found, nearest = index.nearest(query, 100), (points @ query).topk(10).indices
            assert torch.equal(found, found.unique(sorted=True))
            assert len(found) == 100
            assert torch.isin(nearest, found).float().mean() >= 0.8

    def test_the_same_vectors_give_the_same_index(self):
        points, queries = drawn(0, 3000, 16), drawn(1, 20, 16)
        one, other = Index(points), Index(points.clone())
        assert all(torch.equal(one.nearest(query, 50), other.nearest(query, 50)) for query in queries)

    def test_building_one_leaves_torch_s_random_numbers_alone(self):
        torch.manual_seed(0)
        expected = torch.rand(1)
        torch.manual_seed(0)
        Index(drawn(0, 500, 8))
        assert torch.equal(torch.rand(1), expected)

    def test_more_than_there_is_gives_all(self):
        assert Index(drawn(0, 300, 8)).nearest(drawn(1, 8), 1000).tolist() == list(range(300))

    @pytest.mark.parametrize("points", [torch.zeros(300, 8), torch.arange(300.0)[:, None], drawn(0, 100, 200)])
    def test_odd_vectors_are_no_trouble(self, points):
        question = Question(lambda some: (points if some is None else points[some]) @ points[1], lambda: points[1])
        seen = torch.tensor([2, 5])
        found = Shortlist(Index(points)).best(question, 20, seen)
        assert torch.equal(found.items, best_of_all(question, 20, seen).items)

    def test_without_faiss_the_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(RecflowError, match=r"pip install 'recflow\[index\]'"):
            Index(torch.zeros(2, 2))


class TestCandidatesThatLeaveNothingOut:
    """Then every list must be the exact one."""

    @pytest.mark.parametrize("k", [1, 10, 100])
    def test_known_users(self, whole, exact, k):
        for user in range(0, USERS, 7):
            found, expected = (model.recommend(user, k).recommendations for model in (whole, exact))
            assert items(found) == items(expected)
            assert [one.score for one in found] == scores(expected)

    def test_histories_and_untrained_users(self, whole, exact):
        for history in ([1], list(range(0, 2000, 50))):
            found, expected = (model.recommend_for_history(history, 20) for model in (whole, exact))
            assert found.path == expected.path == "fold-in"
            assert items(found.recommendations) == items(expected.recommendations)
        assert items(whole.recommend(5).recommendations) == items(exact.recommend(5).recommendations)

    def test_similar_items(self, whole, exact):
        for item in range(0, ITEMS, 2500):
            (_, found), (_, expected) = (model.similar(item, 20) for model in (whole, exact))
            assert items(found) == items(expected)
            assert [one.score for one in found] == scores(expected)

    @pytest.mark.parametrize(
        "wishes", [{"genres": ["Half"]}, {"year_from": 1950, "exclude": [0, 1]}, {"diversity": 0.5}], ids=str
    )
    def test_wishes(self, whole, exact, wishes):
        for user in range(0, USERS, 15):
            found, expected = (model.recommend(user, 10, wishes=Wishes(**wishes)) for model in (whole, exact))
            assert items(found.recommendations) == items(expected.recommendations)

    def test_ties_go_to_the_lower_index(self, tmp_path):
        flat = FactorRanker(torch.ones(USERS, 1), (torch.arange(ITEMS) % 4 == 1).float()[:, None])
        made = Recommender(load_bundle(save(tmp_path / "bundle", flat)))
        expected = items(made.recommend(0, 20).recommendations)
        made.shortlists = {"recommend": Shortlist(Whole())}
        assert items(made.recommend(0, 20).recommendations) == expected == sorted(expected)


class TestLists:
    def test_most_of_the_best_are_found_with_their_exact_scores(self, indexed, exact):
        hits = 0
        for user in range(USERS):
            found, best = (model.recommend(user, 10).recommendations for model in (indexed, exact))
            true = {one.item.item: one.score for one in exact.recommend(user, 100).recommendations}
            hits += len(set(items(found)) & set(items(best)))
            assert [one.score for one in found] == pytest.approx([true[item] for item in items(found)], rel=1e-4)
        assert hits >= 0.98 * 10 * USERS

    def test_an_index_is_what_answers(self, indexed, monkeypatch):
        monkeypatch.setattr(shortlisting, "best_of_all", None)
        assert set(indexed.shortlists) == {"recommend", "similar"}
        for answer in (indexed.recommend(0), indexed.recommend(5), indexed.recommend_for_history([1, 2])):
            assert len(answer.recommendations) == 10
        assert len(indexed.recommend(0, wishes=Wishes(genres=["Half"], diversity=0.5)).recommendations) == 10
        assert len(indexed.similar(7)[1]) == 10

    def test_what_was_seen_never_comes(self, indexed):
        for user in range(USERS):
            seen, _ = indexed.bundle.histories.of(user)
            assert not set(items(indexed.recommend(user, 100).recommendations)) & set(seen.tolist())
        assert 7 not in items(indexed.similar(7, 100)[1])

    def test_who_has_seen_the_very_best_gets_the_next(self, indexed, exact):
        best = items(exact.recommend(0, 400).recommendations)
        found, expected = (model.recommend_for_history(best, 10).recommendations for model in (indexed, exact))
        assert not set(items(found)) & set(best)
        assert len(set(items(found)) & set(items(expected))) >= 9

    @pytest.mark.parametrize("k", [10, 200, 7000])
    @pytest.mark.parametrize(
        "wishes", [{}, {"genres": ["Half"]}, {"genres": ["Rare"]}, {"genres": ["Far"]}, {"year_to": 1900}], ids=str
    )
    def test_there_are_as_many_as_without_and_all_fit(self, indexed, exact, wishes, k):
        wishes = Wishes(**wishes)
        for user in (0, 5, 30):
            found, expected = (model.recommend(user, k, wishes=wishes).recommendations for model in (indexed, exact))
            assert len(set(items(found))) == len(found) == len(expected)
            allowed = exact._allowed(wishes)
            assert allowed is None or bool(allowed[items(found)].all())
            assert len(set(items(found)) & set(items(expected))) >= 0.95 * len(expected)

    def test_a_narrow_filter_is_exact(self, indexed, exact):
        for user in range(0, USERS, 10):
            found, expected = (model.recommend(user, 20, wishes=Wishes(genres=["Rare"])) for model in (indexed, exact))
            assert items(found.recommendations) == items(expected.recommendations)
        seen = [0, 1000, 2000]
        rest = items(indexed.recommend_for_history(seen, 20, wishes=Wishes(genres=["Rare"])).recommendations)
        assert sorted(rest) == list(range(3000, ITEMS, 1000))

    def test_a_filter_on_what_scores_low_falls_back_to_exact_scores(self, indexed, exact, monkeypatch):
        asked = []
        nearest = indexed.shortlists["recommend"].index.nearest
        monkeypatch.setattr(
            indexed.shortlists["recommend"].index, "nearest", lambda *given: asked.append(1) or nearest(*given)
        )
        found, expected = (model.recommend(0, 20, wishes=Wishes(genres=["Far"])) for model in (indexed, exact))
        assert asked
        assert items(found.recommendations) == items(expected.recommendations)

    def test_a_long_list_is_scored_exactly(self, indexed, exact):
        found, expected = (model.recommend(0, 5000).recommendations for model in (indexed, exact))
        assert items(found) == items(expected)

    def test_popular_items_and_many_users_are_as_ever(self, indexed, exact):
        assert indexed.recommend_for_history([], 5) == exact.recommend_for_history([], 5)
        users = torch.arange(8)
        (_, found), (_, expected) = (next(model.recommend_many(users, 10)) for model in (indexed, exact))
        assert torch.equal(found.items, expected.items)

    def test_asking_again_gives_the_same_in_four_threads_at_once(self, indexed):
        users = [user for user in range(USERS) for _ in range(5)]
        alone = [items(indexed.recommend(user).recommendations) for user in users]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda user: items(indexed.recommend(user).recommendations), users))
        assert together == alone


class TestMeasuring:
    def test_the_recall_is_what_a_loop_counts(self, folder, exact):
        built = build_shortlists(load_bundle(folder))
        assert set(built) == {"recommend", "similar"}
        model = Recommender.load(folder)
        model.shortlists = built
        trained = [user for user in range(USERS) if user not in (5, 6)]
        hits = sum(
            len(set(items(model.recommend(user).recommendations)) & set(items(exact.recommend(user).recommendations)))
            for user in trained
        )
        assert built["recommend"].recall == pytest.approx(hits / len(trained) / 10, abs=1e-6)
        assert min(one.recall for one in built.values()) >= 0.99

    def test_more_candidates_are_taken_until_the_recall_is_enough(self, folder, monkeypatch):
        monkeypatch.setattr(shortlisting, "_CANDIDATES", (1, 20, 500))
        monkeypatch.setattr(shortlisting, "_PER_PLACE", 1)
        least = {bar: build_shortlists(load_bundle(folder), bar)["recommend"] for bar in (0.1, 0.99)}
        assert least[0.1].candidates < least[0.99].candidates
        assert 0.1 <= least[0.1].recall < 0.99 <= least[0.99].recall

    def test_an_index_that_finds_too_little_is_not_used(self, folder, exact, monkeypatch):
        monkeypatch.setattr(shortlisting, "_CANDIDATES", (1,))
        monkeypatch.setattr(shortlisting, "_PER_PLACE", 1)
        model = Recommender.load(folder)
        assert 0 < model.build_index()["recommend"].recall < 0.99
        assert model.shortlists == {}
        assert model.recommend(0) == exact.recommend(0)

    def test_equals_may_stand_for_each_other(self, tmp_path):
        items = torch.eye(DIM)[torch.arange(ITEMS) % DIM]
        built = build_shortlists(load_bundle(save(tmp_path / "bundle", FactorRanker(drawn(0, USERS, DIM), items))))
        assert {name: made.recall for name, made in built.items()} == {"recommend": 1, "similar": 1}

    def test_other_rankers_have_no_index(self, tmp_path):
        nobody = torch.zeros(USERS + 1, dtype=torch.int64)
        other = ItemItemRanker(torch.zeros(4, 4), nobody, torch.empty(0, dtype=torch.int64))
        save_bundle(
            tmp_path / "bundle",
            plugin="ease",
            ranker=other,
            histories=None,
            items=[Item(n, n, f"Title {n}", None, (), 1) for n in range(4)],
            user_ids=range(USERS),
            about={"task": "ranking", "rating_scale": [1, 5], "relevant_from": None},
        )
        model = Recommender.load(tmp_path / "bundle")
        assert model.build_index() == {}
        assert model.similar(0)[1] == Recommender.load(tmp_path / "bundle").similar(0)[1]


def prior_ranker():
    return PriorRanker(
        user_vectors=drawn(0, 6, 5), item_vectors=drawn(1, 50, 5), item_covariances=torch.eye(5).repeat(50, 1, 1) / 9,
        start=drawn(2, 5), implicit_weights=drawn(3, 50, 5) / 9, precision=torch.ones(5),
        item_weights=torch.zeros(2, 5), item_centre=torch.zeros(1), mean=3.5, noise=0.7, rating_scale=(1, 5),
    )  # fmt: skip


def propagating():
    return FactorRanker(
        drawn(0, 6, 4), drawn(1, 50, 4), fold_in="propagate", fold_in_factors=drawn(2, 50, 4), user_bias=drawn(3, 6)
    )


@pytest.mark.parametrize(
    "ranker",
    [
        FactorRanker(drawn(0, 6, 4), drawn(1, 50, 4), drawn(2, 6), drawn(3, 50), mean=3.5, reg_bias=0.3),
        propagating(),
        FactorRanker(torch.empty(6, 0), torch.empty(50, 0), item_bias=drawn(3, 50)),
        IALSRanker(drawn(0, 6, 4), drawn(1, 50, 4), alpha=0.1, reg=0.01, reg_exponent=1.0),
        prior_ranker(),
    ],
    ids=["solve", "propagate", "bias", "ials", "prior"],
)
def test_scores_are_inner_products_up_to_a_number_of_the_user_s(ranker):
    def alike(scores, products):
        apart = scores - products
        torch.testing.assert_close(apart, apart[:, :1].expand_as(apart), rtol=1e-4, atol=1e-4)

    users = torch.tensor([4, 0, 2])
    alike(ranker.score(users), ranker.queries(users) @ ranker.points().T)
    histories = Histories.from_pairs(
        torch.tensor([0, 0, 1, 1, 1]), torch.tensor([3, 9, 4, 20, 49]), 2, 50, torch.tensor([5.0, 2, 3, 4, 1])
    )
    rows = torch.tensor([1, 0])
    alike(ranker.score_histories(histories, rows), ranker.queries_of_histories(histories, rows) @ ranker.points().T)
