"""Biases and factors, against loops, dense algebra and scikit-learn."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from recflow.data.batches import RatingBatch
from recflow.data.dataset import DataConfig, Rows, prepare
from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import NUM_ITEMS, NUM_USERS, taste_groups
from recflow_bias_mf.als import half_sweep
from recflow_bias_mf.dealt import DealtBatch, DealtBatches
from recflow_bias_mf.features import BiasMFFeatures
from recflow_bias_mf.gradient import SVD
from recflow_bias_mf.means import BiasOnly
from recflow_bias_mf.model import BiasMF
from recflow_bias_mf.posterior import Side, expected_squares, posterior


class TestBiasOnly(ModelConformance):
    plugin = "bias-only"
    personalised = False


class TestSVD(ModelConformance):
    plugin = "svd"
    settings = {"embedding_dim": 8, "lr": 0.05}
    epochs = 60


class TestUnbiasedSVD(ModelConformance):
    plugin = "svd"
    settings = {"embedding_dim": 8, "lr": 0.05, "biased": False}
    epochs = 60


class TestBiasMFFeatures(ModelConformance):
    plugin = "bias-mf-features"
    settings = {"embedding_dim": 4}


class TestBiasMFFeaturesWithoutImplicitFeedback(ModelConformance):
    plugin = "bias-mf-features"
    settings = {"embedding_dim": 4, "implicit": "none"}


def fitted(module, sweeps, seed=0, **hyper_parameters):
    data, _ = taste_groups()
    torch.manual_seed(seed)
    model = module(data.num_users, data.num_items, **hyper_parameters)
    model.attach(data, seed)
    for _ in range(sweeps):
        model.sweep()
    return model


# bias-only


def test_sweeps_lead_to_the_biases_of_the_joint_ridge_regression():
    model = fitted(BiasOnly, 200, reg_user=3.0, reg_item=0.5)
    train = model.data.train
    inputs = np.zeros((len(train.users), NUM_USERS + NUM_ITEMS))
    inputs[np.arange(len(inputs)), train.users] = 1
    inputs[np.arange(len(inputs)), NUM_USERS + train.items] = 1
    penalty = np.diag([3.0] * NUM_USERS + [0.5] * NUM_ITEMS)
    target = (train.ratings - model.mean).double().numpy()
    expected = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ target)
    np.testing.assert_allclose(np.concatenate([model.user_bias, model.item_bias]), expected, atol=1e-5)


def test_a_known_user_s_history_is_folded_in_to_the_same_scores_by_bias_only():
    ranker, train = (model := fitted(BiasOnly, 3)).ranker(), model.data.train
    own = train.users == 4
    torch.testing.assert_close(ranker.score_history(train.items[own], train.ratings[own]), ranker.score(tensor(4))[0])


# bias-mf


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 1.0]))
@settings(max_examples=20, deadline=None)
def test_rows_are_solved_as_scikit_learn_s_ridge_solves_them(seed, exponent):
    random = np.random.default_rng(seed)
    rows, factors, bias = some_ratings(random), some_tensor(random, 9, 3), some_tensor(random, 9)
    mean = torch.tensor(3.2)
    vectors, biases, squared_error = half_sweep(rows, factors, bias, mean, 0.7, 0.7, exponent)
    errors = 0.0
    for row in range(rows.num_users):
        items, stars = rows.of(row)
        if len(items) == 0:
            assert not vectors[row].any()
            assert biases[row] == 0
            continue
        inputs = np.hstack([factors[items], np.ones((len(items), 1))])
        ridge = Ridge(alpha=0.7 * len(items) ** exponent, fit_intercept=False, solver="cholesky")
        target = (stars - mean - bias[items]).numpy()
        ridge.fit(inputs, target)
        np.testing.assert_allclose([*vectors[row], biases[row]], ridge.coef_, atol=2e-4)
        errors += float(np.square(target - ridge.predict(inputs)).sum())
    assert squared_error == pytest.approx(errors, rel=1e-3, abs=1e-4)


def test_no_sweep_of_plain_bias_mf_raises_the_loss():
    model = fitted(BiasMF, 0, embedding_dim=3, reg=0.5, relaxation=1.0)
    losses = []
    for _ in range(6):
        model.sweep()
        losses.append(penalised(model))
    assert all(later <= earlier * (1 + 1e-5) for earlier, later in itertools.pairwise(losses))


def test_an_over_relaxed_sweep_is_what_numpy_makes_of_it():
    settings = {"embedding_dim": 3, "reg": 0.5, "reg_bias": 0.3, "reg_exponent": 0.4, "relaxation": 1.5}
    model, after = fitted(BiasMF, 0, **settings), fitted(BiasMF, 3, **settings)
    train, mean = model.data.train, float(model.data.train.ratings.mean())
    stars = train.ratings.double().numpy() - mean
    user, item = train.users.numpy(), train.items.numpy()

    def solve(own, other, columns, size):
        solved = np.zeros((size, 4))
        for row in range(size):
            of = own == row
            x = np.hstack([columns[other[of], :3], np.ones((of.sum(), 1))])
            penalty = np.diag([0.5] * 3 + [0.3]) * of.sum() ** 0.4
            solved[row] = np.linalg.solve(x.T @ x + penalty, x.T @ (stars[of] - columns[other[of], 3]))
        return solved

    def together(factors, bias):
        return np.hstack([factors.double().numpy(), bias.double().numpy()[:, None]])

    met = together(model.relaxed_factors, model.relaxed_bias)
    items = together(model.item_factors, model.item_bias)
    for _ in range(3):
        items = items + 1.5 * (solve(item, user, met, NUM_ITEMS) - items)
        users = solve(user, item, items, NUM_USERS)
        met = met + 1.5 * (users - met)
    np.testing.assert_allclose(together(after.item_factors, after.item_bias), items, atol=1e-4)
    np.testing.assert_allclose(together(after.user_factors, after.user_bias), users, atol=1e-4)
    np.testing.assert_allclose(together(after.relaxed_factors, after.relaxed_bias), met, atol=1e-4)


def test_what_nobody_rated_any_more_is_0_after_a_sweep_and_not_its_own_opposite():
    model = fitted(BiasMF, 2, embedding_dim=3)
    rows = model.data.train
    keep = (rows.items != 4) & (rows.users != 2)
    vars(model.data)["train"] = type(rows)(*(column[keep] for column in rows))
    model.attach(model.data)
    model.sweep()
    for of_items, of_users in ((model.item_factors, model.user_factors), (model.item_bias, model.relaxed_bias)):
        assert not of_items[4].any()
        assert not of_users[2].any()
    assert not model.relaxed_factors[2].any()


def test_a_loaded_state_goes_on_as_if_it_had_not_stopped():
    straight, begun, other = (fitted(BiasMF, sweeps, embedding_dim=3) for sweeps in (5, 2, 0))
    other.load_state_dict(begun.state_dict())
    for _ in range(3):
        other.sweep()
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_new_users_are_met_by_new_items_at_once():
    model = fitted(BiasMF, 3, embedding_dim=3)
    for name in ("user_factors", "user_bias", "relaxed_factors", "relaxed_bias"):
        getattr(model, name)[[1, 5]] = 7.0
    model.start_new(torch.tensor([1, 5]), torch.tensor([2]))
    for known, met in ((model.user_factors, model.relaxed_factors), (model.user_bias, model.relaxed_bias)):
        assert torch.equal(known[[1, 5]], met[[1, 5]])
        assert not (known[[1, 5]] == 7).any()
    expected = model._solve_items()
    torch.testing.assert_close(model.item_factors[2], expected.factors[2])


def test_over_relaxed_sweeps_get_further_than_as_many_plain_ones():
    plain, relaxed = (fitted(BiasMF, 12, embedding_dim=3, reg=0.5, relaxation=step) for step in (1.0, 1.5))
    assert penalised(relaxed) < 0.999 * penalised(plain)


def test_the_logged_error_is_that_of_the_model_s_own_predictions():
    model = fitted(BiasMF, 3, embedding_dim=3)
    logged, train = model.sweep(), model.data.train
    errors = train.ratings - model.ranker().score(torch.arange(NUM_USERS))[train.users, train.items]
    assert logged == pytest.approx(float(errors.double().square().mean()), rel=1e-5)


def penalised(model):
    train, ranker = model.data.train, model.ranker()
    raw = ranker.score(torch.arange(NUM_USERS))[train.users, train.items]
    loss = (train.ratings - raw).double().square().sum()
    for rows, vectors, bias in (
        (train.users, model.user_factors, model.user_bias),
        (train.items, model.item_factors, model.item_bias),
    ):
        growth = torch.bincount(rows, minlength=len(bias)).double() ** model.hparams["reg_exponent"]
        loss += growth @ (model.hparams["reg"] * vectors.square().sum(1) + model.hparams["reg_bias"] * bias**2).double()
    return float(loss)


# svd


def test_every_rating_is_dealt_once_and_every_run_names_its_rows():
    data, _ = taste_groups()
    batches = DealtBatches(data.train, NUM_USERS, NUM_ITEMS, 100, seed=3)
    assert sorted(len(batch.users) for batch in batches)[0] >= 100 * (len(data.train.users) // 100) // len(batches) // 2
    pairs = [pair for batch in batches for pair in zip(*(column.tolist() for column in batch[:3]), strict=True)]
    assert sorted(pairs) == sorted(zip(*(column.tolist() for column in data.train), strict=True))
    for batch in batches:
        assert spread(batch.run_users, batch.user_starts, len(batch.users)) == batch.users.tolist()
        assert spread(batch.run_items, batch.item_starts, len(batch.users)) == batch.items[batch.by_item].tolist()


def spread(values, starts, end):
    return values.repeat_interleave(torch.diff(starts, append=torch.tensor([end]))).tolist()


def test_batches_come_in_an_order_that_follows_seed_and_epoch():
    data, _ = taste_groups()
    one, same, other = (DealtBatches(data.train, NUM_USERS, NUM_ITEMS, 50, seed=seed) for seed in (3, 3, 4))
    for batches in (one, same, other):
        batches.set_epoch(2)
    assert all(torch.equal(a.items, b.items) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a.items, b.items) for a, b in zip(one, other, strict=False))
    order = [batch.users.tolist() for batch in one]
    one.set_epoch(3)
    assert order != [batch.users.tolist() for batch in one]
    assert sorted(order) == sorted(batch.users.tolist() for batch in one)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", [5, 64])  # few rows touched: sparse gradients; and many
def test_gradients_over_runs_are_those_of_autograd_over_single_ratings(size, biased):
    data, _ = taste_groups()
    torch.manual_seed(0)
    model = SVD(data.num_users, data.num_items, embedding_dim=5, biased=biased, reg=0.3)
    model.attach(data, 0)
    batch = next(iter(DealtBatches(data.train, NUM_USERS, NUM_ITEMS, size, seed=0)))
    plain = RatingBatch(batch.users, batch.items, batch.ratings)
    gradients = []
    for one in (batch, plain):
        model.zero_grad()
        model.loss(one).backward()
        gradients.append({name: parameter.grad.to_dense() for name, parameter in model.named_parameters()})
    assert model.loss(batch).item() == pytest.approx(model.loss(plain).item(), rel=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_a_batch_of_one_rating_makes_the_step_that_surprise_makes():
    data, _ = taste_groups()
    torch.manual_seed(0)
    model = SVD(data.num_users, data.num_items, embedding_dim=5, lr=0.01, reg=0.1)
    model.attach(data, 0)
    model.batches(data)
    p, q = model.user_factors[3].detach().clone(), model.item_factors[7].detach().clone()
    one = next(iter(DealtBatches(Rows(tensor(3), tensor(7), torch.tensor([4.0])), NUM_USERS, NUM_ITEMS, 10, seed=0)))
    assert isinstance(one, DealtBatch)
    error = 4.0 - float(model.mean) - float(p @ q)
    optimizer = model.configure_optimizers()
    (model.loss(one) * len(one.users)).backward()
    optimizer.step()
    torch.testing.assert_close(model.user_factors[3].detach(), p + 0.01 * (error * q - 0.1 * p))
    torch.testing.assert_close(model.item_factors[7].detach(), q + 0.01 * (error * p - 0.1 * q))
    assert float(model.user_bias[3]) == pytest.approx(0.01 * error, rel=1e-5)
    assert float(model.item_bias[7]) == pytest.approx(0.01 * error, rel=1e-5)
    assert not model.user_bias[[0, 1, 2, 4]].any()


def test_whoever_has_no_training_rating_is_predicted_by_what_is_known():
    data, _ = taste_groups()
    data = copy.copy(data)
    data.rows = {**data.rows, "train": data.train.where(data.train.users != 5)}
    data.__dict__.pop("train", None)
    torch.manual_seed(0)
    model = SVD(data.num_users, data.num_items, embedding_dim=3)
    model.attach(data, 0)
    ranker = model.ranker()
    assert not ranker.user_factors[5].any()
    assert ranker.user_factors[4].any()


# bias-mf-features


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_posteriors_are_those_of_dense_algebra(seed):
    random = np.random.default_rng(seed)
    rows, others = some_ratings(random), some_side(random, 9, 3)
    prior, precision = some_tensor(random, rows.num_users, 4), some_tensor(random, 4).abs() + 0.5
    mean, noise = torch.tensor(3.2), torch.tensor(0.8)
    users = torch.tensor([5, 0, 3])
    solved = posterior(rows, users, others, mean, prior[users], precision, noise)
    for place, user in enumerate(users.tolist()):
        system, target = np.diag(precision.double()), (precision * prior[user]).double().numpy()
        items, stars = rows.of(user)
        for item, star in zip(items.tolist(), stars.tolist(), strict=True):
            z, cov = others.vectors[item].double().numpy(), others.covariances[item].double().numpy()
            x, spread_of_x, with_bias = np.append(z[:-1], 1), cov.copy(), np.append(cov[-1, :-1], 0)
            spread_of_x[-1] = spread_of_x[:, -1] = 0
            system = system + (np.outer(x, x) + spread_of_x) / 0.8
            target = target + ((star - 3.2 - z[-1]) * x - with_bias) / 0.8
        np.testing.assert_allclose(solved.vectors[place], np.linalg.solve(system, target), atol=2e-4)
        np.testing.assert_allclose(solved.covariances[place], np.linalg.inv(system), atol=2e-4)


def test_the_expected_error_is_the_mean_over_draws_of_both_sides():
    random = np.random.default_rng(0)
    rows, items, users = some_ratings(random), some_side(random, 9, 2), some_side(random, 7, 2)
    mean, total, draws = 3.2, [], 40_000
    own, others = (
        [random.multivariate_normal(z, cov, draws) for z, cov in zip(*arrays(side), strict=True)]
        for side in (users, items)
    )
    for user in range(7):
        for item, star in zip(*(column.tolist() for column in rows.of(user)), strict=True):
            p, q = own[user], others[item]
            total.append((star - mean - p[:, -1] - q[:, -1] - (p[:, :-1] * q[:, :-1]).sum(1)) ** 2)
    sampled = np.sum(total, axis=0)
    exact = float(expected_squares(rows, users, items, torch.tensor(mean)))
    assert abs(exact - sampled.mean()) < 4 * sampled.std() / draws**0.5


@pytest.mark.parametrize("implicit", ["both", "users", "none"])
def test_priors_are_the_dense_ridge_regression_on_features_and_rated_columns(implicit):
    model = fitted(BiasMFFeatures, 3, embedding_dim=3, implicit=implicit, reg_features=2.0, reg_implicit=7.0)
    train, (for_users, for_items) = model.data.train, model._both_designs()
    rated = np.zeros((NUM_USERS, NUM_ITEMS))
    rated[train.users, train.items] = 1
    genres = model.data.item_features.values.double().numpy()
    tables = np.ones((NUM_USERS, 1)), np.hstack([genres - genres.mean(0), np.ones((NUM_ITEMS, 1))])
    sides = ((for_users, model.users, rated, implicit != "none"), (for_items, model.items, rated.T, implicit == "both"))
    for (design, vectors, seen, uses), table in zip(sides, tables, strict=True):
        inputs = np.hstack([table, seen / np.sqrt(seen.sum(1, keepdims=True))]) if uses else table
        penalty = np.diag([2.0] * table.shape[1] + [7.0] * (inputs.shape[1] - table.shape[1]))
        weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ vectors.double().numpy())
        np.testing.assert_allclose(design.expected(*design.regress(vectors)), inputs @ weights, atol=1e-4)


def test_a_history_is_folded_in_as_the_next_sweep_would_solve_its_user():
    model = fitted(BiasMFFeatures, 8, embedding_dim=3)  # taste groups have no table of users
    solved, ranker, train = model._solve_users(model._both_designs()[0]), model.ranker(), model.data.train
    rows = Histories.from_pairs(train.users, train.items, NUM_USERS, NUM_ITEMS, train.ratings)
    users = torch.tensor([9, 2, 9, 27])
    torch.testing.assert_close(ranker._fold_in(rows, users), solved.vectors[users], rtol=1e-4, atol=1e-4)


def test_an_item_that_nobody_has_rated_starts_from_its_genres():
    model = fitted(BiasMFFeatures, 12, embedding_dim=3)
    ranker, features = model.ranker(), model.data.item_features.values
    groups = features.argmax(1)
    newcomers = torch.stack([features[groups == group][0] for group in range(3)])
    scores = ranker.score_vectors(torch.arange(NUM_USERS), ranker.item_from_features(newcomers))
    train = model.data.train
    liked = torch.zeros(NUM_USERS, 3).index_put_(
        (train.users, groups[train.items]), (train.ratings == 5).float(), accumulate=True
    )
    assert torch.equal(scores.argmax(1), liked.argmax(1))
    with pytest.raises(RecflowError, match="3 features"):
        ranker.item_from_features(torch.zeros(1, 5))


def test_an_unrated_item_of_the_data_is_where_its_features_lead():
    data, _ = taste_groups()
    data = copy.copy(data)
    data.rows = {**data.rows, "train": data.train.where(data.train.items != 11)}
    data.__dict__.pop("train", None)
    torch.manual_seed(0)
    model = BiasMFFeatures(data.num_users, data.num_items, embedding_dim=3, implicit="users")
    model.attach(data, 0)
    for _ in range(8):
        model.sweep()
    solved = model._solve_items(model._both_designs()[1])
    expected = model.ranker().item_from_features(data.item_features.values[11:12])
    torch.testing.assert_close(solved.vectors[11:12], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(solved.covariances[11], torch.diag(1 / model.item_precision))


def test_inputs_say_what_the_data_have():
    assert fitted(BiasMFFeatures, 0).inputs == ("item features", "implicit feedback")
    assert fitted(BiasMFFeatures, 0, implicit="none").inputs == ("item features",)


def test_an_interrupted_fit_goes_on_to_the_same_vectors():
    whole, first = fitted(BiasMFFeatures, 9, embedding_dim=3), fitted(BiasMFFeatures, 6, embedding_dim=3)
    second = fitted(BiasMFFeatures, 0, seed=5, embedding_dim=3)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.sweep()
    assert torch.equal(second.users, whole.users)
    assert torch.equal(second.items, whole.items)


@pytest.mark.parametrize("module", [BiasOnly, BiasMFFeatures])
def test_a_new_user_and_a_new_item_are_solved_and_the_known_stay(module):
    model = fitted(module, 12)
    before, new_users, new_items = model.ranker().score(torch.arange(NUM_USERS)), tensor(3), tensor(8)
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("users", "user_bias", "items", "item_bias"):
        if name in trained:
            getattr(model, name)[3 if "user" in name else 8] = 9.0  # whatever stood there
    model.start_new(new_users, new_items)
    after = model.ranker().score(torch.arange(NUM_USERS))
    others = torch.arange(NUM_USERS) != 3
    known = torch.arange(NUM_ITEMS) != 8
    assert torch.equal(after[others][:, known], before[others][:, known])
    assert float((after - before).abs().max()) < 0.5


def test_memory_that_no_machine_has_is_refused_in_one_line():
    with pytest.raises(RecflowError, match=r"needs about [\d,]+ GiB of memory for 900,000 users") as raised:
        BiasMFFeatures(900_000, 500_000)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("module", "wrong"),
    [
        (BiasOnly, {"reg_user": 0.0}),
        (BiasOnly, {"reg_item": -1.0}),
        (SVD, {"embedding_dim": 0}),
        (SVD, {"lr": 0.0}),
        (SVD, {"reg": -0.1}),
        (SVD, {"init_std": -2.0}),
        (BiasMF, {"reg": 0.0}),
        (BiasMF, {"init_std": 0.0}),
        (BiasMF, {"reg_exponent": -3.0}),
        (BiasMF, {"relaxation": 2.0}),
        (BiasMFFeatures, {"init_std": 0.0}),
        (BiasMFFeatures, {"embedding_dim": 0}),
        (BiasMFFeatures, {"implicit": "items"}),
        (BiasMFFeatures, {"reg_features": 0.0}),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(module, wrong):
    with pytest.raises(ValueError, match="must be"):
        module(3, 4, **wrong)


@pytest.mark.data
@pytest.mark.parametrize(("module", "sweeps", "least", "most"), [(BiasOnly, 10, 0.94, 0.96)])
def test_u1_of_movielens_100k_is_predicted_as_well_as_ever(module, sweeps, least, most):
    data = prepare(DataConfig(name="ml-100k", split="files", fold=1, val_fraction=0.0))
    torch.manual_seed(42)
    model = module(data.num_users, data.num_items)
    model.attach(data, 42)
    for _ in range(sweeps):
        model.sweep()
    test = data.rows["test"]
    rmse = float((model.ranker().predict(test.users, test.items) - test.ratings).square().mean().sqrt())
    assert least < rmse < most


def tensor(index):
    return torch.tensor([index])


def some_tensor(random, *shape):
    return torch.from_numpy(random.normal(size=shape)).float()


def arrays(side):
    return [tensor.double().numpy() for tensor in side]


def some_ratings(random):
    """Seven rows of nine columns, one row empty, stars from 1 to 5."""
    rows, columns = np.nonzero(random.random((7, 9)) < 0.5)
    keep = rows != 3
    stars = torch.from_numpy(random.integers(1, 6, keep.sum())).float()
    return Histories.from_pairs(torch.from_numpy(rows[keep]), torch.from_numpy(columns[keep]), 7, 9, stars)


def some_side(random, rows, dim):
    roots = 0.3 * some_tensor(random, rows, dim + 1, dim + 1)
    return Side(some_tensor(random, rows, dim + 1), roots @ roots.mT)
