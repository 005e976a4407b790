"""embedding-mlp passes the kit; its parts agree with plain loops, dense algebra, autograd and SciPy."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

import recflow
from recflow.errors import RecflowError
from recflow.ranking import mlp
from recflow.ranking.histories import Histories
from recflow.ranking.mlp import MLPRanker
from recflow.ranking.rankers import FactorRanker
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow_embedding_mlp.model import EmbeddingMLP

SMALL = {"embedding_dim": 4, "hidden": (8,), "members": 2, "dropout": 0.0, "reg": 0.3, "reg_history": 0.3, "lr": 0.03}


class TestEmbeddingMLP(ModelConformance):
    plugin = "embedding-mlp"
    settings = {**SMALL, "hidden": (8, 4)}
    epochs = 30


class TestEmbeddingMLPWithoutFeaturesAndHistories(ModelConformance):
    plugin = "embedding-mlp"
    settings = {**SMALL, "features": False, "history": False}
    epochs = 40


@cache
def _stirred(**settings):
    """A model with nothing left at zero, as after training, in evaluation mode."""
    data, _ = taste_groups()
    torch.manual_seed(3)
    model = EmbeddingMLP(data.num_users, data.num_items, **{**SMALL, "dropout": 0.5, "hidden": (8, 4), **settings})
    model.attach(data, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        for norm in model.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def _by_formula(model, user, item):
    """The header's formula for one pair, one member and one number at a time."""
    data, own = model.data, model.hparams
    members, dim = own["members"], own["embedding_dim"]
    width = members * dim
    sides = [
        (model.users, model.user_bias, model.user_features, data.user_features, user),
        (model.items, model.item_bias, model.item_features, data.item_features, item),
    ]
    vectors, total = [], float(model.mean) * members
    for embedding, bias, weights, table, node in sides:
        row = torch.ones(1) if table is None or not own["features"] else torch.cat([table.values[node], torch.ones(1)])
        vectors.append(embedding[node] + row @ weights[:, :width])
        total += float((bias[node] + row @ weights[:, width:]).sum())
    if own["history"]:
        rows = data.train
        liked, fans = rows.items[rows.users == user], rows.users[rows.items == item]
        vectors[0] = vectors[0] + model.user_history[liked].sum(0) / len(liked) ** 0.5
        vectors[1] = vectors[1] + model.item_history[fans].sum(0) / len(fans) ** 0.5
    for member in range(members):
        of_user, of_item = (vector.view(members, dim)[member] for vector in vectors)
        hidden = torch.cat([of_user, of_item])
        for weight, norm in zip(model.weights, model.norms, strict=True):
            size = weight.shape[2]
            own_part = slice(member * size, (member + 1) * size)
            hidden = hidden @ weight[member] - norm.running_mean[own_part]
            hidden = hidden / (norm.running_var[own_part] + norm.eps).sqrt()
            hidden = (hidden * norm.weight[own_part] + norm.bias[own_part]).clamp(min=0)
        total += float(of_user @ of_item + hidden @ model.output[member, :, 0])
    return total / members


@pytest.mark.parametrize("parts", [{}, {"features": False}, {"history": False}, {"members": 1, "hidden": (6,)}])
def test_scores_are_the_formula_pair_by_pair(parts):
    model = _stirred(**parts)
    ranker = model.ranker()
    scores = ranker.score(torch.arange(5))
    with torch.no_grad():
        wanted = torch.tensor([[_by_formula(model, user, item) for item in range(44)] for user in range(5)])
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-4)
    users, items = torch.tensor([0, 3, 4]), torch.tensor([7, 1, 43])
    torch.testing.assert_close(ranker.predict(users, items), scores[users, items].clamp(1, 5), rtol=1e-4, atol=1e-4)


def test_chunks_of_pairs_change_no_score(monkeypatch):
    ranker, users, items = _stirred().ranker(), torch.arange(30), torch.arange(30) + 10
    whole, pairs = ranker.score(users), ranker.predict(users, items)
    for most in (1, 600, 5000):
        monkeypatch.setattr(mlp, "_HIDDEN_BYTES", most)
        torch.testing.assert_close(ranker.score(users), whole)
        torch.testing.assert_close(ranker.predict(users, items), pairs)
    assert ranker.predict(users[:0], items[:0]).shape == (0,)


def test_histories_solved_in_chunks_are_solved_alike(monkeypatch):
    ranker, rows = _stirred().ranker(), taste_groups()[0].train
    known = Histories.from_pairs(rows.users, rows.items, 30, 44, rows.ratings)
    whole = ranker.score_histories(known, torch.arange(30))
    monkeypatch.setattr(mlp, "_FOLD_IN_BYTES", 5000)
    torch.testing.assert_close(ranker.score_histories(known, torch.arange(30)), whole, rtol=1e-4, atol=1e-4)


def test_the_loss_is_each_members_error_and_als_penalty():
    model = _stirred()
    rows, own = model.data.train, model.hparams
    with torch.no_grad():
        loss = float(model.loss(rows))
        predicted = model._predict(model.nodes(), rows.users, rows.items)
    wanted = sum(float((predicted[:, member] - rows.ratings).square().mean()) for member in range(own["members"]))
    sides = [
        (rows.users, [(model.users, "reg"), (model.user_bias, "reg_bias"), (model.item_history, "reg_history")]),
        (rows.items, [(model.items, "reg"), (model.item_bias, "reg_bias"), (model.user_history, "reg_history")]),
    ]
    for nodes, tables in sides:
        for node, count in zip(*nodes.unique(return_counts=True), strict=True):
            for table, name in tables:
                wanted += (
                    own[name]
                    * int(count) ** own["reg_exponent"]
                    * float(table[node].detach().square().sum())
                    / len(nodes)
                )
    for table in (model.user_features, model.item_features):
        wanted += own["reg_features"] * float(table.detach().square().sum())
    for weight in (*model.weights, model.output):
        wanted += own["reg_network"] * float(weight.detach().square().sum())
    assert loss == pytest.approx(wanted / own["members"], rel=1e-4)


def test_gradients_are_those_of_finite_differences():
    model = _stirred(history=True, members=1, embedding_dim=2, hidden=(3,))
    rows = model.data.train
    model.zero_grad()
    model.loss(rows).backward()
    for name in ("user_history", "item_history", "user_features", "item_features", "users"):
        table = getattr(model, name)
        place = (table.shape[0] // 2, 1)
        wanted, before = 0.0, float(table.detach()[place])
        for sign in (1, -1):
            with torch.no_grad():
                table[place] = before + sign * 1e-2
                wanted += sign * float(model.loss(rows)) / 2e-2
        with torch.no_grad():
            table[place] = before
        assert float(table.grad[place]) == pytest.approx(wanted, rel=0.02, abs=2e-3), name


def test_a_batch_of_one_can_be_trained_on():
    data, _ = taste_groups()
    model = EmbeddingMLP(data.num_users, data.num_items, **SMALL)
    model.attach(data)
    model.train().loss(type(data.train)(*(column[:1] for column in data.train))).backward()
    assert bool(model.users.grad.isfinite().all())


def test_the_folds_gradient_is_autograds():
    ranker = _stirred().ranker().double()
    items = torch.arange(12)
    for member in range(2):
        point = torch.randn(12, ranker.dim + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(member))
        value, gradient = ranker._linearised(member, point, items)

        def score(inputs, item, member=member):
            user = inputs[:-1]
            hidden = user @ ranker.user_input[member] + ranker.item_hidden[member, item]
            for weight, bias in ranker._layers(member):
                hidden = hidden.relu() @ weight + bias
            return (
                ranker.mean
                + inputs[-1]
                + ranker.item_bias[member, item]
                + user @ ranker.item_vectors[member, item]
                + hidden[0]
            )

        for row, item in enumerate(items):
            inputs = point[row].clone().requires_grad_()
            result = score(inputs, item)
            (wanted,) = torch.autograd.grad(result, inputs)
            torch.testing.assert_close(value[row], result.detach())
            torch.testing.assert_close(gradient[row], wanted)


def _descent(ranker, items, stars):
    """The fold-in's sum where it begins, where it ends, and where SciPy ends from the same beginning."""
    length = len(items)
    prior = ranker.prior_vector[0] + ranker.history_vectors[0, items].sum(0) / length**0.5
    prior = torch.cat([prior, ranker.prior_bias])
    root = (2.0 * length**0.5) ** 0.5

    def residuals(inputs):
        point = torch.from_numpy(np.asarray(inputs))
        value, _ = ranker._linearised(0, point.expand(length, -1), items)
        return torch.cat([stars - value, root * (point - prior)]).numpy()

    vectors, bias = ranker._fold_in(Histories.of_one(items, stars), torch.tensor([0]))
    ends = prior.numpy(), torch.cat([vectors[0, 0], bias[0]]).numpy(), least_squares(residuals, prior.numpy()).x
    return tuple(float(np.square(residuals(end)).sum()) for end in ends)


HISTORY = st.dictionaries(st.integers(0, 43), st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(HISTORY)
def test_folding_in_never_ends_above_where_it_began(history):
    ranker = _stirred(members=1, reg=2.0, reg_bias=2.0).ranker().double()
    items, stars = torch.tensor(list(history)), torch.tensor(list(history.values())).double()
    began, ended, _ = _descent(ranker, items, stars)
    assert ended <= began * (1 + 1e-9)


def test_folding_in_gets_as_low_as_scipy():
    ranker = _stirred(members=1, reg=2.0, reg_bias=2.0).ranker().double()
    random = torch.Generator().manual_seed(0)
    totals = np.zeros(3)
    for length in range(1, 21):
        items = torch.randperm(44, generator=random)[:length]
        totals += _descent(ranker, items, torch.randint(1, 6, (length,), generator=random).double())
    began, ours, scipys = totals
    assert ours < 0.75 * began
    assert ours < 1.02 * scipys


def test_without_a_network_folding_in_is_the_factor_rankers_ridge_regression():
    ranker = _stirred(members=1, history=False, reg=0.7, reg_bias=0.4).ranker()
    ranker.weight_2.zero_()
    ranker.prior_vector.zero_()
    ranker.prior_bias.zero_()
    own = {name: getattr(ranker, name) for name in ("mean", "reg", "reg_bias", "reg_exponent")}
    tables = ranker.user_vectors[0], ranker.item_vectors[0], ranker.user_bias[0], ranker.item_bias[0]
    oracle = FactorRanker(*tables, **own)
    items, stars = torch.tensor([4, 9, 2, 30]), torch.tensor([5.0, 1.0, 4.0, 5.0])
    torch.testing.assert_close(ranker.score(torch.arange(9)), oracle.score(torch.arange(9)))
    torch.testing.assert_close(ranker.score_history(items, stars), oracle.score_history(items, stars))


def test_without_stars_or_items_a_new_user_is_the_prior():
    ranker = _stirred(history=False).ranker()
    nobody, nothing = torch.empty(0, dtype=torch.int64), torch.empty(0)
    expected = ranker.score_history(nobody, nothing)
    torch.testing.assert_close(ranker.score_history(torch.tensor([4, 9])), expected)
    with_history = _stirred().ranker()
    assert not torch.equal(with_history.score_history(torch.tensor([4, 9])), with_history.score_history(nobody))


def test_a_model_of_likes_ignores_the_stars():
    ranker = _stirred().ranker()
    likes = MLPRanker(**{**ranker.settings(), "likes": True}, **ranker.state_dict())
    items = torch.tensor([4, 9, 2])
    bare = likes.score_history(items)
    torch.testing.assert_close(likes.score_history(items, torch.tensor([5.0, 1.0, 2.0])), bare)
    torch.testing.assert_close(ranker.score_history(items, torch.ones(3)), bare)


def test_a_new_item_is_the_mean_and_its_features():
    model = EmbeddingMLP(30, 44, **SMALL)
    model.attach(taste_groups()[0], seed=1)
    with torch.no_grad():
        model.item_features.normal_()
    new, genres = torch.tensor([5]), model.data.item_features.values
    model.start_new(torch.tensor([2]), new)
    with torch.no_grad():
        _, items, _, bias = model.nodes()
    width = items.shape[1]
    history = model.item_history[model.data.train.users[model.data.train.items == 5]]
    wanted = torch.cat([genres[5], torch.ones(1)]) @ model.item_features
    torch.testing.assert_close(items[5], wanted[:width] + history.sum(0) / len(history) ** 0.5)
    torch.testing.assert_close(bias[5], wanted[width:])
    assert not model.users[2].any()


def test_similarity_is_the_cosine_of_centred_item_vectors():
    ranker = _stirred().ranker()
    vectors = np.concatenate(ranker.item_vectors.numpy(), axis=1)
    vectors = vectors - vectors.mean(0)
    wanted = [vectors[3] @ other / np.linalg.norm(vectors[3]) / np.linalg.norm(other) for other in vectors]
    np.testing.assert_allclose(ranker.similar(torch.tensor([3]))[0].numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"embedding_dim": 0},
        {"hidden": ()},
        {"hidden": (4, 0)},
        {"members": 0},
        {"dropout": 1.0},
        {"reg": 0.0},
        {"lr": 0.0},
        {"reg_network": -1.0},
    ],
)
def test_a_setting_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EmbeddingMLP(3, 4, **wrong)


def test_what_cannot_fit_is_refused_with_its_size():
    with pytest.raises(RecflowError, match=r"need \d+ GiB, the most is 32: lower model.members"):
        EmbeddingMLP(50_000_000, 10_000_000)


def test_layers_of_another_number_or_size_are_refused():
    ranker = _stirred().ranker()
    tensors = ranker.state_dict()
    with pytest.raises(ValueError, match="layers must be weight_1, bias_1"):
        MLPRanker(**{name: tensor for name, tensor in tensors.items() if name != "bias_2"})
    wide = tensors | {"weight_2": torch.zeros(2, 4, 3), "bias_2": torch.zeros(2, 3)}
    with pytest.raises(ValueError, match="the last layer must have one output, got 3"):
        MLPRanker(**wide)


def test_a_split_that_holds_out_whole_users_is_fitted(tmp_path):
    data = {"name": "sample:ratings=6000", "split": "users"}
    run = recflow.fit("embedding-mlp", data=data, trainer={"max_epochs": 2}, runs_dir=str(tmp_path))
    assert run.metrics["test"]["rmse"] < run.metrics["baselines"]["mean rating"]["rmse"]
