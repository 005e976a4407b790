"""Item–item models: the kit, naive loops, SciPy and dense algebra as references."""

import dataclasses
import math
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.dataset import DataConfig, Dataset, prepare
from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import ItemItemRanker
from recflow.testing import ModelConformance
from recflow_item_item import neighbours, products
from recflow_item_item.linear_autoencoder import EASE
from recflow_item_item.neighbours import ItemKNN
from recflow_item_item.rated_neighbours import ItemKNNRating
from recflow_item_item.rated_ranker import RatedNeighboursRanker, _cut
from recflow_item_item.sparse_ranker import SparseItemItemRanker


class TestItemKNN(ModelConformance):
    plugin = "item-knn"
    settings = {"num_neighbours": 10, "shrink": 1.0}


class TestItemKNNRating(ModelConformance):
    plugin = "item-knn-rating"
    settings = {"shrink": 1.0, "reg_user": 5.0}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return prepare(DataConfig(name="sample", val_fraction=0.1))


def fitted(model, data: Dataset):
    model.attach(data, seed=0)
    model.sweep()
    return model


def dense(data: Dataset, values: str = "likes") -> np.ndarray:
    rows = data.positives
    stars = rows.ratings if values == "ratings" else torch.ones_like(rows.ratings)
    x = np.zeros((data.num_users, data.num_items))
    x[rows.users, rows.items] = stars
    return x


def naive_weights(x: np.ndarray, similarity: str, weighting: str, shrink: float, k: int) -> np.ndarray:
    """W[h, i] by the formulas of the file's header, item by item."""
    there = x != 0
    num_items = x.shape[1]
    count, v = there.sum(1), np.ones(num_items)
    idf = np.log(num_items / (1 + count))[:, None]
    if weighting == "tfidf":
        x = np.sqrt(x) * idf
    if weighting == "bm25":
        length = 0.25 + 0.75 * x.sum(0) / x.sum(0).mean()
        x, v = 2.2 * x * idf / (1.2 * length + x), 2.2 / (1.2 * length + 1)
    if similarity == "pearson":
        x = np.where(there, x - x.sum(0) / np.maximum(there.sum(0), 1), 0)
    if similarity == "adjusted":
        x = np.where(there, x - (x.sum(1) / np.maximum(count, 1))[:, None], 0)
    weights = np.zeros((num_items, num_items))
    norm = np.sqrt((x**2).sum(0))
    for i in range(num_items):
        sim = x.T @ x[:, i] / np.maximum(norm * norm[i] + shrink, 1e-12)
        sim[i] = 0
        nearest = np.argsort(-sim, kind="stable")[:k]
        weights[nearest, i] = np.maximum(sim[nearest], 0) * v[nearest]
    return weights


@pytest.mark.parametrize(
    ("similarity", "weighting", "values"),
    [
        ("cosine", "none", "likes"),
        ("cosine", "none", "ratings"),
        ("cosine", "tfidf", "likes"),
        ("cosine", "bm25", "likes"),
        ("cosine", "bm25", "ratings"),
        ("pearson", "none", "ratings"),
        ("adjusted", "none", "ratings"),
    ],
)
def test_item_knn_has_the_scores_of_a_naive_loop(data, similarity, weighting, values):
    model = ItemKNN(
        data.num_users,
        data.num_items,
        num_neighbours=7,
        similarity=similarity,
        shrink=3.0,
        weighting=weighting,
        values=values,
    )
    expected = dense(data) @ naive_weights(dense(data, values), similarity, weighting, 3.0, 7)
    scores = fitted(model, data).ranker().score(torch.arange(data.num_users)).double().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_bare_dot_product_is_the_number_of_common_users(data):
    x = scipy.sparse.csr_matrix(dense(data))
    model = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=10**6, normalize=False), data)
    common = (x.T @ x).toarray()
    np.fill_diagonal(common, 0)
    np.testing.assert_array_equal(model.ranker().weights.numpy(), common)


def test_blocks_of_items_change_no_neighbour(data, monkeypatch):
    whole = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=9), data)
    monkeypatch.setattr(products, "_BLOCK_BYTES", 7 * 4 * 4 * max(data.num_users, data.num_items))  # seven a block
    blocked = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=9), data)
    assert torch.equal(whole.neighbours, blocked.neighbours)
    assert torch.equal(whole.weights, blocked.weights)


def test_each_item_has_at_most_as_many_neighbours_as_asked_for_and_not_itself(data):
    weights = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=5), data).ranker().weights
    assert int((weights > 0).sum(0).max()) == 5
    assert not weights.diagonal().any()


@pytest.fixture(scope="module")
def both_forms(data) -> tuple[ItemItemRanker, SparseItemItemRanker]:
    model = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=6), data)
    whole = model.ranker()
    return whole, SparseItemItemRanker.of_neighbours(model.neighbours, model.weights, whole.indptr, whole.items)


def test_sparse_weights_score_as_dense_ones(both_forms):
    whole, sparse = both_forms
    users, some = torch.tensor([4, 0, 4, 11]), torch.tensor([3, 0, 8])
    torch.testing.assert_close(sparse.score(users), whole.score(users))
    torch.testing.assert_close(sparse.score(users, some), whole.score(users, some))
    torch.testing.assert_close(sparse.score_history(some), whole.score_history(some))
    assert torch.equal(sparse.score_history(some[:0]), torch.zeros(whole.num_items))
    assert torch.equal(sparse.similar(some), whole.similar(some))
    for item in range(20):
        assert torch.equal(sparse.explain(some, None, item), whole.explain(some, None, item))


def test_sparse_weights_are_summed_alike_in_chunks(both_forms, monkeypatch):
    users = torch.arange(20)
    before = both_forms[1].score(users)
    monkeypatch.setattr("recflow_item_item.sparse_ranker._CHUNK", 5)
    torch.testing.assert_close(both_forms[1].score(users), before)


def test_beyond_a_size_the_weights_are_kept_sparse(data, monkeypatch):
    monkeypatch.setattr(neighbours, "_DENSE_BYTES", 4 * data.num_items**2 - 1)
    model = fitted(ItemKNN(data.num_users, data.num_items, num_neighbours=6), data)
    assert type(model.ranker()) is SparseItemItemRanker


class TestSparseItemKNN(ModelConformance):
    plugin = "item-knn"
    settings = {"num_neighbours": 9, "shrink": 1.0}

    @pytest.fixture(autouse=True)
    def _never_dense(self, monkeypatch):
        monkeypatch.setattr(neighbours, "_DENSE_BYTES", 0)


@pytest.mark.parametrize("model", [EASE, ItemKNN])
def test_a_known_users_scores_are_those_of_the_history(data, model):
    ranker = fitted(model(data.num_users, data.num_items), data).ranker()
    rows = Histories.from_pairs(data.positives.users, data.positives.items, data.num_users, data.num_items)
    users = torch.arange(40)
    folded = torch.stack([ranker.score_history(rows.of(user)[0]) for user in users.tolist()])
    torch.testing.assert_close(ranker.score(users), folded, rtol=1e-4, atol=1e-5)


def test_ease_is_the_ridge_regression_of_each_item_on_the_others(data):
    weights = fitted(EASE(data.num_users, data.num_items, reg=30.0), data).weights.double().numpy()
    x = dense(data)
    for item in (0, 7, 31):
        others = np.delete(np.arange(data.num_items), item)
        inputs = x[:, others]
        solved = np.linalg.solve(inputs.T @ inputs + 30 * np.eye(len(others)), inputs.T @ x[:, item])
        np.testing.assert_allclose(weights[others, item], solved, rtol=1e-4, atol=1e-6)
        assert weights[item, item] == 0


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (
            EASE,
            {},
            r"^ease on 1,000,000 items needs about 37,253 GiB of memory, this machine has",
        ),
        (ItemKNNRating, {}, r"^item-knn-rating on 1,000,000 items needs about 7,451 GiB"),
        (ItemKNN, {"num_neighbours": 10**5}, r"^item-knn on 1,000,000 items with 100,000 neighbours each needs"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_in_one_line(model, given, message):
    with pytest.raises(RecflowError, match=message) as raised:
        model(num_users=10, num_items=10**6, **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (EASE, {"reg": 0.0}),
        (ItemKNN, {"num_neighbours": 0}),
        (ItemKNN, {"shrink": -1.0}),
        (ItemKNN, {"similarity": "pearson"}),
        (ItemKNN, {"similarity": "adjusted", "values": "ratings", "weighting": "bm25"}),
        (ItemKNNRating, {"min_neighbours": 0}),
        (ItemKNNRating, {"min_neighbours": 41}),
        (ItemKNNRating, {"num_neighbours": 0}),
        (ItemKNNRating, {"reg_user": 0.0}),
        (ItemKNNRating, {"shrink": -0.5}),
    ],
)
def test_hyper_parameters_outside_their_range_are_refused(model, given):
    with pytest.raises(ValueError, match=next(iter(given))):
        model(num_users=3, num_items=4, **given)


def test_ratings_are_refused_where_there_are_none(data):
    unrated = Dataset(dataclasses.replace(data.interactions, has_ratings=False), data.parts, data.config)
    with pytest.raises(RecflowError, match=r"has no ratings, which model\.values ratings needs: set it to likes"):
        fitted(ItemKNN(data.num_users, data.num_items, values="ratings"), unrated)


def naive_rating_model(data: Dataset, kind: str, shrink: float, sweeps: int, reg_user: float, reg_item: float):
    """Biases and similarities by loops: mean, b_u, b_i, sim, and each user's ratings."""
    rows = data.train
    by_user: list[dict[int, float]] = [{} for _ in range(data.num_users)]
    by_item: list[dict[int, float]] = [{} for _ in range(data.num_items)]
    for user, item, stars in zip(*(column.tolist() for column in rows), strict=True):
        by_user[user][item] = by_item[item][user] = stars
    mean = float(rows.ratings.double().mean())
    b_u, b_i = [0.0] * data.num_users, [0.0] * data.num_items
    for _ in range(sweeps):
        for item, stars in enumerate(by_item):
            b_i[item] = sum(r - mean - b_u[user] for user, r in stars.items()) / (reg_item + len(stars))
        for user, stars in enumerate(by_user):
            b_u[user] = sum(r - mean - b_i[item] for item, r in stars.items()) / (reg_user + len(stars))
    sim = np.zeros((data.num_items, data.num_items))
    for h, i in combinations(range(data.num_items), 2):
        common = by_item[h].keys() & by_item[i].keys()
        if not common:
            continue
        x = np.array([by_item[h][user] for user in common])
        y = np.array([by_item[i][user] for user in common])
        if kind == "pearson-baseline":
            base = np.array([mean + b_u[user] for user in common])
            x, y = x - base - b_i[h], y - base - b_i[i]
        if kind == "pearson":
            x, y = x - x.mean(), y - y.mean()
        norm = math.sqrt((x @ x) * (y @ y))
        value = x @ y / norm if norm > 1e-9 else 0.0
        n = len(common)
        sim[h, i] = sim[i, h] = value * (n - 1) / (n - 1 + shrink) if kind == "pearson-baseline" else value
    return mean, b_u, b_i, sim, by_user


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    return prepare(DataConfig(name="sample:ratings=1500", min_item_ratings=5))


@pytest.mark.parametrize("kind", ["pearson-baseline", "pearson", "cosine"])
def test_predictions_are_those_of_a_naive_loop(tiny, kind):
    model = ItemKNNRating(tiny.num_users, tiny.num_items, 4, 2, kind, 10.0, 15.0, 10.0, 6)
    ranker = fitted(model, tiny).ranker()
    mean, b_u, b_i, sim, by_user = naive_rating_model(tiny, kind, 10.0, 6, 15.0, 10.0)
    np.testing.assert_allclose(model.similarity.numpy(), sim, atol=2e-6)
    assert torch.equal(model.similarity, model.similarity.T)
    sim = model.similarity.double().numpy()  # so that near ties are the same ones
    test = tiny.rows["test"]
    low, high = tiny.rating_scale
    for user, item, predicted in zip(
        test.users.tolist(), test.items.tolist(), ranker.predict(test.users, test.items).tolist(), strict=True
    ):
        near = sorted((h for h in by_user[user] if sim[h, item] > 0), key=lambda h: -sim[h, item])
        cut = sim[near[3], item] if len(near) > 4 else 0.0
        near = [h for h in near if sim[h, item] >= cut]
        expected = mean + b_u[user] + b_i[item]
        if len(near) >= 2:
            lift = sum(sim[h, item] * (by_user[user][h] - mean - b_u[user] - b_i[h]) for h in near)
            expected += lift / sum(sim[h, item] for h in near)
        assert predicted == pytest.approx(min(max(expected, low), high), abs=2e-5)


@pytest.fixture(scope="module")
def rated(data) -> RatedNeighboursRanker:
    return fitted(ItemKNNRating(data.num_users, data.num_items, num_neighbours=5), data).ranker()


def test_a_rated_history_is_folded_in_exactly(data, rated):
    rows = Histories.from_pairs(*data.train[:2], data.num_users, data.num_items, data.train.ratings)
    for user in (0, 3, 17):
        items = torch.arange(data.num_items)
        scores = rated.score_history(*rows.of(user))
        torch.testing.assert_close(rated.score(torch.tensor([user]))[0], scores)
        predicted = rated.predict(torch.full_like(items, user), items)
        torch.testing.assert_close(predicted, scores.clamp(*data.rating_scale))


def test_predictions_keep_the_order_of_the_pairs(rated):
    users, items = torch.tensor([5, 2, 5, 9, 2]), torch.tensor([0, 1, 7, 3, 30])
    one_by_one = [rated.predict(users[n : n + 1], items[n : n + 1]) for n in range(5)]
    torch.testing.assert_close(rated.predict(users, items), torch.cat(one_by_one))
    assert rated.predict(users[:0], items[:0]).shape == (0,)


def test_someone_without_a_history_gets_the_items_baseline(rated):
    nothing = torch.empty(0)
    torch.testing.assert_close(rated.score_history(nothing.long(), nothing), rated.mean + rated.item_bias)


def test_likes_without_stars_count_as_the_highest(rated):
    items = torch.tensor([3, 8, 1])
    assert torch.equal(rated.score_history(items), rated.score_history(items, torch.full((3,), rated.rating_scale[1])))


def test_an_explanation_is_what_the_score_falls_by(data, rated):
    rows = Histories.from_pairs(*data.train[:2], data.num_users, data.num_items, data.train.ratings)
    for user, item in ((0, 3), (5, 20), (8, 8)):
        items, stars = rows.of(user)
        one_by_one = super(RatedNeighboursRanker, rated).explain(items, stars, item)
        torch.testing.assert_close(rated.explain(items, stars, item), one_by_one, rtol=1e-4, atol=1e-5)
    single = rated.explain(items[:1], stars[:1], 3)
    torch.testing.assert_close(single, rated.score_history(items[:1], stars[:1])[3:4] - rated.mean - rated.item_bias[3])
    assert rated.explain(items[:0], stars[:0], 3).shape == (0,)


def test_blocks_of_candidates_change_no_score(data, rated, monkeypatch):
    users = torch.arange(12)
    before = rated.score(users)
    monkeypatch.setattr("recflow_item_item.rated_ranker._BLOCK_BYTES", 4096)
    torch.testing.assert_close(rated.score(users), before)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([-0.5, 0.0, 1e-30, 0.1, 0.100001, 0.5, 1.0]), min_size=3, max_size=3), min_size=1
    ),
    st.integers(1, 5),
)
def test_the_cut_keeps_the_nearest_and_their_equals(table, k):
    similarity = torch.tensor(table)  # [history, 3]
    kept = similarity >= _cut(similarity.clone(), k)
    for column in range(3):
        values = sorted((x for x in similarity[:, column].tolist() if x > 0), reverse=True)
        least = values[:k][-1] if values else math.inf
        assert kept[:, column].tolist() == [x >= least for x in similarity[:, column].tolist()]


def test_the_cut_of_many_random_numbers_is_between_the_kth_and_the_next():
    similarity = torch.randn(300, 500, generator=torch.Generator().manual_seed(0)) ** 3
    for k in (1, 40, 299):
        kept = (similarity >= _cut(similarity, k)).sum(0)
        assert torch.equal(kept, (similarity > 0).sum(0).clamp(max=k))


def test_the_search_spaces_are_of_settings_that_the_models_take():
    from recflow_item_item import search

    for space, model in (
        (search.EASE_SPACE, EASE),
        (search.ITEM_KNN_SPACE, ItemKNN),
        (search.ITEM_KNN_RATING_SPACE, ItemKNNRating),
    ):
        for name, distribution in space.items():
            bounds = getattr(distribution, "choices", None) or (distribution.low, distribution.high)
            for value in bounds:
                model(num_users=3, num_items=4, **{name.removeprefix("model."): value})


@pytest.mark.data
def test_the_error_on_the_first_fold_of_movielens_is_that_of_surprise():
    """Surprise 1.1.5, KNNBaseline, item-based, pearson_baseline, defaults otherwise, on u1.base and u1.test."""
    data = prepare(DataConfig(name="ml-100k", split="files", fold=1, val_fraction=0.0))
    test = data.rows["test"]
    ranker = fitted(ItemKNNRating(data.num_users, data.num_items), data).ranker()
    squared = (ranker.predict(test.users, test.items) - test.ratings).double().square().mean()
    assert math.sqrt(squared) == pytest.approx(0.9358854080458091, abs=1e-6)
