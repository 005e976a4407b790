"""Each ranker beside the plainest way to compute the same: dense algebra, loops, and scikit-learn's Ridge."""

import pytest
import torch
from sklearn.linear_model import Ridge

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import FactorRanker, ItemItemRanker, Ranker

NUM_USERS, NUM_ITEMS, DIM = 7, 11, 3


@pytest.fixture
def random():
    return torch.Generator().manual_seed(3)


def factors(random, **settings) -> FactorRanker:
    def draw(*shape):
        return torch.randn(*shape, generator=random)

    biases = {"user_bias": draw(NUM_USERS), "item_bias": draw(NUM_ITEMS), "mean": 3.5}
    return FactorRanker(draw(NUM_USERS, DIM), draw(NUM_ITEMS, DIM), **biases | settings)


HISTORY = torch.tensor([4, 0, 9, 7, 2])
STARS = torch.tensor([5.0, 1.0, 4.5, 2.0, 3.0])


class TestFactorRanker:
    def test_scores_are_mean_plus_biases_plus_dot_product(self, random):
        ranker = factors(random)
        users = torch.tensor([6, 0, 0, 3])
        scores = ranker.score(users)
        for row, user in enumerate(users.tolist()):
            for item in range(NUM_ITEMS):
                dot = sum(
                    float(p) * float(q)
                    for p, q in zip(ranker.user_factors[user], ranker.item_factors[item], strict=True)
                )
                expected = 3.5 + float(ranker.user_bias[user]) + float(ranker.item_bias[item]) + dot
                assert float(scores[row, item]) == pytest.approx(expected, abs=1e-5)

    def test_candidates_choose_columns_in_the_order_given(self, random):
        ranker, candidates = factors(random), torch.tensor([8, 0, 3, 8])
        users = torch.arange(NUM_USERS)
        torch.testing.assert_close(ranker.score(users, candidates), ranker.score(users)[:, candidates])
        whole = ranker.score_history(HISTORY, STARS)
        torch.testing.assert_close(ranker.score_history(HISTORY, STARS, candidates), whole[candidates])

    def test_scoring_leaves_the_model_alone(self, random):
        ranker = factors(random)
        before = {name: tensor.clone() for name, tensor in ranker.state_dict().items()}
        ranker.score(torch.arange(NUM_USERS)).fill_(7)
        ranker.score_history(HISTORY, STARS).fill_(7)
        ranker.score_history(HISTORY[:0]).fill_(7)
        ranker.similar(HISTORY).fill_(7)
        assert all(torch.equal(tensor, before[name]) for name, tensor in ranker.state_dict().items())

    def test_without_biases_they_are_zero(self, random):
        ranker = FactorRanker(torch.ones(2, 1), torch.tensor([[1.0], [2.0]]))
        assert ranker.score(torch.tensor([1])).tolist() == [[1.0, 2.0]]

    def test_predictions_are_the_scores_of_pairs_kept_within_the_scale(self, random):
        ranker = factors(random, rating_scale=(3, 5))
        users, items = torch.cartesian_prod(torch.arange(NUM_USERS), torch.arange(NUM_ITEMS)).T
        predicted = ranker.predict(users, items).view(NUM_USERS, NUM_ITEMS)
        torch.testing.assert_close(predicted, ranker.score(torch.arange(NUM_USERS)).clamp(3, 5))
        assert (float(predicted.min()), float(predicted.max())) == (3.0, 5.0)

    def test_a_ranking_model_predicts_no_ratings(self, random):
        with pytest.raises(RecflowError, match="predicts no ratings"):
            factors(random).predict(torch.tensor([0]), torch.tensor([0]))

    def test_similarity_is_the_cosine(self, random):
        ranker = factors(random)
        similar = ranker.similar(torch.tensor([5, 1]))
        for row, item in enumerate((5, 1)):
            for other in range(NUM_ITEMS):
                a, b = ranker.item_factors[item], ranker.item_factors[other]
                assert float(similar[row, other]) == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-5)

    def test_items_without_vectors_have_no_similarity(self):
        with pytest.raises(RecflowError, match="no notion of similar items"):
            FactorRanker(torch.empty(2, 0), torch.empty(3, 0)).similar(torch.tensor([0]))

    @pytest.mark.parametrize(
        ("user_dim", "fold_in", "given", "message"),
        [
            (2, "solve", False, "must be of one dimension"),
            (3, "propagate", False, "fold_in_factors belong to"),
            (3, "solve", True, "fold_in_factors belong to"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, user_dim, fold_in, given, message):
        extra = torch.zeros(4, 3) if given else None
        with pytest.raises(ValueError, match=message):
            FactorRanker(torch.zeros(5, user_dim), torch.zeros(4, 3), fold_in=fold_in, fold_in_factors=extra)


def ridge(ranker: FactorRanker, items, stars) -> torch.Tensor:
    """Scores by scikit-learn: a regression of the residuals on the items' vectors."""
    x = ranker.item_factors[items].double().numpy()
    target = torch.ones(len(items)) if stars is None else stars
    residual = (target - ranker.mean - ranker.item_bias[items]).double().numpy()
    grown = len(items) ** ranker.reg_exponent
    every = ranker.item_factors.double()
    offset = ranker.mean + ranker.item_bias.double()
    if ranker.reg_bias is None:
        model = Ridge(alpha=ranker.reg * grown, fit_intercept=False).fit(x, residual)
        return offset + every @ torch.from_numpy(model.coef_)
    if ranker.reg_bias == 0:  # an intercept is never penalised
        model = Ridge(alpha=ranker.reg * grown, fit_intercept=True).fit(x, residual)
        return offset + every @ torch.from_numpy(model.coef_) + model.intercept_
    # One penalty for all: a bias that is penalised by reg_bias is the weight of a column sqrt(reg / reg_bias), scaled.
    column = (ranker.reg / ranker.reg_bias) ** 0.5
    wide = torch.cat([torch.from_numpy(x), torch.full((len(items), 1), column, dtype=torch.float64)], 1).numpy()
    model = Ridge(alpha=ranker.reg * grown, fit_intercept=False).fit(wide, residual)
    return offset + every @ torch.from_numpy(model.coef_[:-1]) + model.coef_[-1] * column


class TestFoldInBySolving:
    @pytest.mark.parametrize("reg_exponent", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("reg_bias", [None, 0.0, 0.3, 20.0])
    @pytest.mark.parametrize("reg", [0.05, 2.0])
    @pytest.mark.parametrize("length", [1, 2, 5])
    @pytest.mark.parametrize("rated", [True, False])
    def test_it_is_scikit_learns_ridge(self, random, reg, reg_bias, reg_exponent, length, rated):
        ranker = factors(random, reg=reg, reg_bias=reg_bias, reg_exponent=reg_exponent)
        items, stars = HISTORY[:length], STARS[:length] if rated else None
        expected = ridge(ranker, items, stars).float()
        torch.testing.assert_close(ranker.score_history(items, stars), expected, atol=2e-5, rtol=1e-5)

    def test_an_empty_history_leaves_what_everybody_gets(self, random):
        ranker = factors(random, reg_bias=1.0)
        torch.testing.assert_close(ranker.score_history(HISTORY[:0], STARS[:0]), 3.5 + ranker.item_bias)
        torch.testing.assert_close(ranker.score_history(HISTORY[:0]), 3.5 + ranker.item_bias)

    @pytest.mark.parametrize("stars", [STARS, None], ids=["rated", "liked"])
    def test_a_model_of_biases_alone_folds_in_the_bias(self, random, stars):
        bias = torch.randn(NUM_ITEMS, generator=random)
        ranker = FactorRanker(
            torch.empty(NUM_USERS, 0), torch.empty(NUM_ITEMS, 0), item_bias=bias, mean=3.0, reg_bias=2.0
        )
        target = torch.ones(5) if stars is None else stars
        user_bias = float((target - 3.0 - bias[HISTORY]).sum()) / (5 + 2.0)
        torch.testing.assert_close(ranker.score_history(HISTORY, stars), 3.0 + bias + user_bias)

    def test_without_factors_and_bias_a_history_changes_nothing(self):
        bias = torch.arange(4.0)
        ranker = FactorRanker(torch.empty(2, 0), torch.empty(4, 0), item_bias=bias)
        assert torch.equal(ranker.score_history(torch.tensor([1, 2]), torch.tensor([5.0, 1.0])), bias)

    @pytest.mark.parametrize("reg_bias", [None, 0.0])
    def test_without_a_penalty_a_short_history_gives_the_smallest_solution(self, random, reg_bias):
        ranker = factors(random, reg=0.0, reg_bias=reg_bias)
        items, stars = HISTORY[:2], STARS[:2]  # two equations, three unknowns or more
        x = ranker.item_factors.double()
        if reg_bias is not None:
            x = torch.cat([x, torch.ones(NUM_ITEMS, 1, dtype=torch.float64)], 1)
        offset = ranker.mean + ranker.item_bias.double()
        expected = offset + x @ torch.linalg.pinv(x[items]) @ (stars - offset[items])
        torch.testing.assert_close(ranker.score_history(items, stars), expected.float(), atol=1e-4, rtol=1e-4)

    def test_a_known_user_who_is_folded_in_gets_the_same_scores_where_the_model_was_fitted_so(self, random):
        ranker = factors(random, user_bias=torch.zeros(NUM_USERS), reg=0.7)
        residual = STARS - ranker.mean - ranker.item_bias[HISTORY]
        q = ranker.item_factors[HISTORY]
        ranker.user_factors[2] = torch.linalg.solve(q.T @ q + 0.7 * torch.eye(DIM), q.T @ residual)
        torch.testing.assert_close(ranker.score_history(HISTORY, STARS), ranker.score(torch.tensor([2]))[0])


class TestFoldInByPropagation:
    def test_it_is_the_history_times_the_matrix_over_the_root_of_its_length(self, random):
        fold_in = torch.randn(NUM_ITEMS, DIM, generator=random)
        ranker = factors(random, fold_in="propagate", fold_in_factors=fold_in)
        x = torch.zeros(NUM_ITEMS)
        x[HISTORY] = 1
        expected = 3.5 + ranker.item_bias + ranker.item_factors @ (fold_in.T @ x / x.sum().sqrt())
        torch.testing.assert_close(ranker.score_history(HISTORY), expected)
        torch.testing.assert_close(ranker.score_history(HISTORY, STARS), expected)  # stars are ignored

    def test_it_is_what_lightgcn_gives_a_new_node_of_the_graph(self, random):
        # A user joins with a history: after one layer of Â the node is Σ x_i / sqrt(n · degree of i).
        items = torch.randn(NUM_ITEMS, DIM, generator=random)
        degree = torch.arange(1, NUM_ITEMS + 1).float()
        a = torch.zeros(1, NUM_ITEMS)
        a[0, HISTORY] = 1
        dense = torch.diag(a.sum(1).rsqrt()) @ a @ torch.diag(degree.rsqrt())
        ranker = FactorRanker(
            torch.zeros(1, DIM), items, fold_in="propagate", fold_in_factors=items * degree.rsqrt()[:, None]
        )
        torch.testing.assert_close(ranker.score_history(HISTORY), (dense @ items @ items.T)[0])

    def test_an_empty_history_has_no_vector(self, random):
        ranker = factors(random, fold_in="propagate", fold_in_factors=torch.ones(NUM_ITEMS, DIM))
        torch.testing.assert_close(ranker.score_history(HISTORY[:0]), 3.5 + ranker.item_bias)


class TestItemItemRanker:
    @pytest.fixture
    def world(self, random):
        x = (torch.rand(NUM_USERS, NUM_ITEMS, generator=random) < 0.4).float()
        x[0] = 0  # the first, one in the middle, and the last user have no history
        x[4] = 0
        x[-1] = 0
        weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=random)
        users, items = x.nonzero(as_tuple=True)
        histories = Histories.from_pairs(users, items, NUM_USERS, NUM_ITEMS)
        return x, weights, ItemItemRanker(weights, histories.indptr, histories.items)

    @pytest.mark.parametrize("users", [[0, 1, 2, 3, 4, 5, 6], [6], [0, 4], [5, 1, 1, 0, 5], [4, 2]])
    def test_scores_are_the_histories_times_the_weights(self, world, users):
        x, weights, ranker = world
        torch.testing.assert_close(ranker.score(torch.tensor(users)), (x @ weights)[users])

    def test_candidates_choose_columns_in_the_order_given(self, world):
        x, weights, ranker = world
        candidates = torch.tensor([9, 2, 2])
        torch.testing.assert_close(ranker.score(torch.arange(NUM_USERS), candidates), (x @ weights)[:, candidates])
        torch.testing.assert_close(
            ranker.score_history(HISTORY, STARS, candidates), weights[HISTORY][:, candidates].sum(0)
        )

    def test_nobody_having_a_history_gives_zeros(self):
        ranker = ItemItemRanker(torch.ones(3, 3), torch.zeros(4, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
        assert ranker.score(torch.tensor([2, 0])).tolist() == [[0.0] * 3] * 2
        assert ranker.score_history(torch.empty(0, dtype=torch.int64)).tolist() == [0.0] * 3

    def test_a_known_user_and_the_same_history_have_the_same_scores(self, world):
        x, _, ranker = world
        for user in range(NUM_USERS):
            history = x[user].nonzero().flatten()
            torch.testing.assert_close(ranker.score_history(history), ranker.score(torch.tensor([user]))[0])

    def test_similarity_and_explanation_are_rows_and_entries_of_the_weights(self, world):
        _, weights, ranker = world
        assert torch.equal(ranker.similar(torch.tensor([3, 1])), weights[[3, 1]])
        torch.testing.assert_close(ranker.explain(HISTORY, STARS, 6), weights[HISTORY, 6])

    def test_its_short_cut_to_explain_is_what_leaving_out_gives(self, world):
        ranker = world[2]
        torch.testing.assert_close(ranker.explain(HISTORY, None, 6), Ranker.explain(ranker, HISTORY, None, 6))

    def test_scoring_leaves_the_model_alone(self, world):
        _, weights, ranker = world
        before = weights.clone()
        ranker.score(torch.arange(NUM_USERS)).fill_(7)
        ranker.score_history(HISTORY[:1]).fill_(7)
        ranker.similar(HISTORY[:1]).fill_(7)
        assert torch.equal(ranker.weights, before)

    def test_weights_are_kept_row_by_row_whatever_their_layout(self, world):
        _, weights, ranker = world
        turned = ItemItemRanker(weights.T.contiguous().T, ranker.indptr, ranker.items)
        assert turned.weights.is_contiguous()
        assert torch.equal(turned.score(torch.arange(NUM_USERS)), ranker.score(torch.arange(NUM_USERS)))

    def test_weights_that_are_not_square_are_refused(self):
        with pytest.raises(ValueError, match=r"square, \[num_items, num_items\], got \(2, 3\)"):
            ItemItemRanker(torch.zeros(2, 3), torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


class TestExplain:
    @pytest.mark.parametrize("stars", [STARS, None], ids=["rated", "liked"])
    def test_it_is_how_much_the_score_falls_without_each_item(self, random, stars):
        ranker = factors(random, reg=0.4, reg_bias=0.2)
        whole = float(ranker.score_history(HISTORY, stars)[6])
        expected = []
        for left_out in range(5):
            rest = [place for place in range(5) if place != left_out]
            without = ranker.score_history(HISTORY[rest], None if stars is None else stars[rest])
            expected.append(whole - float(without[6]))
        parts = ranker.explain(HISTORY, stars, 6)
        assert parts.tolist() == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize(
        "settings",
        [
            {"reg": reg, "reg_bias": reg_bias, "reg_exponent": exponent}
            for reg in (0.0, 0.05, 2.0)
            for reg_bias in (None, 0.0, 0.3)
            for exponent in (0.0, 0.5, 1.0)
        ]
        + [{"fold_in": "propagate", "fold_in_factors": torch.linspace(-1, 1, NUM_ITEMS * DIM).view(NUM_ITEMS, DIM)}],
        ids=str,
    )
    @pytest.mark.parametrize("length", [0, 1, 2, 3, 5])
    def test_the_short_cut_of_factor_models_is_what_leaving_out_gives(self, random, settings, length):
        ranker = factors(random, **settings)
        for stars in (None, STARS[:length]):
            expected = Ranker.explain(ranker, HISTORY[:length], stars, 6)
            torch.testing.assert_close(ranker.explain(HISTORY[:length], stars, 6), expected, atol=5e-5, rtol=1e-4)

    @pytest.mark.parametrize("fold_in", ["solve", "propagate"])
    def test_many_items_are_explained_as_each_alone(self, random, fold_in):
        shared = {"fold_in": fold_in, "fold_in_factors": torch.randn(NUM_ITEMS, DIM)} if fold_in != "solve" else {}
        ranker, wanted = factors(random, **shared), torch.tensor([6, 0, 3])
        together = ranker.explain_many(HISTORY, STARS, wanted)
        torch.testing.assert_close(together, torch.stack([ranker.explain(HISTORY, STARS, item) for item in (6, 0, 3)]))

    def test_leaving_out_scores_each_shortened_history_once_however_much_is_wanted(self, random, monkeypatch):
        ranker, calls = factors(random, reg=0.0), []
        alone = torch.stack([ranker.explain(HISTORY, STARS, item) for item in range(NUM_ITEMS)])
        score = ranker.score_history
        monkeypatch.setattr(ranker, "score_history", lambda *given: calls.append(1) or score(*given))
        torch.testing.assert_close(ranker.explain_many(HISTORY, STARS, torch.arange(NUM_ITEMS)), alone)
        assert len(calls) == len(HISTORY) + 1

    def test_a_single_item_accounts_for_all_that_a_history_adds(self, random):
        ranker = factors(random, reg=0.4)
        nothing = ranker.score_history(HISTORY[:0])
        parts = ranker.explain(HISTORY[:1], STARS[:1], 6)
        torch.testing.assert_close(parts, (ranker.score_history(HISTORY[:1], STARS[:1]) - nothing)[[6]])

    def test_an_empty_history_explains_nothing(self, random):
        parts = factors(random).explain(HISTORY[:0], STARS[:0], 6)
        assert (parts.shape, parts.dtype) == ((0,), torch.float32)


class TestRebuilding:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"reg": 0.5, "reg_bias": 0.0, "reg_exponent": 1.0, "rating_scale": (0.5, 5.0)},
            {"fold_in": "propagate", "fold_in_factors": torch.ones(NUM_ITEMS, DIM)},
        ],
    )
    def test_a_factor_ranker_comes_back_from_its_settings_and_tensors(self, random, settings):
        ranker = factors(random, **settings)
        again = FactorRanker.rebuild(ranker.settings(), ranker.state_dict())
        assert again.settings() == ranker.settings()
        torch.testing.assert_close(again.score_history(HISTORY, STARS), ranker.score_history(HISTORY, STARS))
        assert again.device == torch.device("cpu")
