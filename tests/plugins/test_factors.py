"""Factor models: the kit, implicit ALS against dense algebra, sampled factorisation against its formulas."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow.ranking.ridge import Start
from recflow.testing import ModelConformance
from recflow.testing.taste_groups import taste_groups
from recflow_factors.half_sweep import Everywhere, Weights, half_sweep
from recflow_factors.ials_ranker import IALSRanker
from recflow_factors.implicit_als import IALS
from recflow_factors.sampled_mf import BPRMF

USERS, ITEMS, DIM = 23, 17, 5
WEIGHTS = Weights(alpha=0.2, reg=0.03, reg_exponent=0.7)


class TestIALS(ModelConformance):
    plugin = "ials"
    settings = {"embedding_dim": 8, "reg": 0.02}


class TestIALSByConjugateGradients(ModelConformance):
    plugin = "ials"
    settings = {"embedding_dim": 8, "reg": 0.02, "solver": "cg"}


def interactions(seed: int = 0) -> tuple[Histories, np.ndarray[Any, Any]]:
    """Rows of every length, an empty one and a full one among them, and the same as a dense matrix."""
    dense = np.random.default_rng(seed).random((USERS, ITEMS)) < np.linspace(0, 0.8, USERS)[:, None]
    dense[0], dense[5] = False, True
    users, items = (torch.from_numpy(part) for part in dense.nonzero())
    return Histories.from_pairs(users, items, USERS, ITEMS), dense


def vectors(rows: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_of_rows(dense: np.ndarray[Any, Any], p: np.ndarray[Any, Any], q: np.ndarray[Any, Any], w: Weights) -> float:
    """The loss by its definition, pair by pair, but for the columns' own penalty."""
    total = 0.0
    for user, row in enumerate(dense):
        total += w.reg * (row.sum() + w.alpha * len(q)) ** w.reg_exponent * float(p[user] @ p[user])
        for item, interacted in enumerate(row):
            score = float(p[user] @ q[item])
            total += w.alpha * score**2 + (score - 1) ** 2 * bool(interacted)
    return total


def normal_equations(dense: np.ndarray[Any, Any], q: np.ndarray[Any, Any], w: Weights) -> np.ndarray[Any, Any]:
    """Every row by numpy, from a diagonal matrix of weights on all columns."""
    solved = []
    for row in dense.astype(float):
        ridge = w.reg * (row.sum() + w.alpha * len(q)) ** w.reg_exponent
        system = q.T @ np.diag(row + w.alpha) @ q + ridge * np.eye(q.shape[1])
        solved.append(np.linalg.solve(system, q.T @ row))
    return np.array(solved)


def test_a_half_sweep_solves_the_normal_equations_of_every_row() -> None:
    rows, dense = interactions()
    q = vectors(ITEMS, 1)
    solved = half_sweep(rows, q, Everywhere.of(q), WEIGHTS)
    expected = normal_equations(dense, q.numpy(), WEIGHTS)
    np.testing.assert_allclose(solved.weights.numpy(), expected, rtol=1e-9, atol=1e-12)
    assert solved.loss == pytest.approx(loss_of_rows(dense, expected, q.numpy(), WEIGHTS), rel=1e-10)


def test_the_loss_of_a_few_cg_steps_is_that_of_its_definition_and_falls_with_every_step() -> None:
    rows, dense = interactions()
    q, start = vectors(ITEMS, 1), vectors(USERS, 2)
    start[0] = 0  # an empty row's vector is 0 whatever it starts from
    losses = []
    for steps in range(DIM):
        found = half_sweep(rows, q, Everywhere.of(q), WEIGHTS, Start(start, steps))
        expected = loss_of_rows(dense, found.weights.numpy(), q.numpy(), WEIGHTS)
        assert found.loss == pytest.approx(expected, rel=1e-10)
        losses.append(found.loss)
    assert all(after < before for before, after in pairwise(losses))


@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_the_loss_falls_at_every_sweep(solver: Any) -> None:
    data, _ = taste_groups()
    torch.manual_seed(0)
    model = IALS(data.num_users, data.num_items, embedding_dim=8, solver=solver)
    model.attach(data)
    losses = [model.sweep() for _ in range(8)]
    assert all(after < before for before, after in pairwise(losses)), losses


def test_the_logged_loss_is_that_of_its_definition_per_interaction() -> None:
    data, _ = taste_groups()
    torch.manual_seed(0)
    model = IALS(data.num_users, data.num_items, embedding_dim=8)
    model.attach(data)
    logged = [model.sweep() for _ in range(3)][-1]
    dense = np.zeros((data.num_users, data.num_items), dtype=bool)
    dense[data.positives.users, data.positives.items] = True
    p, q, w = model.user_factors.double().numpy(), model.item_factors.double().numpy(), Weights(0.3, 0.007, 1.0)
    of_items = w.reg * float(((dense.sum(0) + w.alpha * len(p)) ** w.reg_exponent) @ (q**2).sum(1))
    assert logged == pytest.approx((loss_of_rows(dense, p, q, w) + of_items) / dense.sum(), rel=1e-5)


def test_the_fold_in_of_a_users_own_history_is_the_users_vector() -> None:
    data, _ = taste_groups()
    model = IALS(data.num_users, data.num_items, embedding_dim=8)
    model.attach(data)
    model.sweep()
    known = Histories.from_pairs(data.positives.users, data.positives.items, data.num_users, data.num_items)
    everybody = torch.arange(data.num_users)
    torch.testing.assert_close(model.ranker().fold_in(known, everybody), model.user_factors, rtol=1e-4, atol=1e-6)


def ranker() -> IALSRanker:
    return IALSRanker(vectors(USERS, 3, torch.float32), vectors(ITEMS, 4, torch.float32), **WEIGHTS._asdict())


@pytest.mark.parametrize("history", [[], [3], [0, 4, 16], list(range(ITEMS))])
def test_explain_is_what_leaving_each_item_out_costs(history: list[int]) -> None:
    items = torch.tensor(history, dtype=torch.int64)
    fast, naive = ranker().explain(items, None, 7), Ranker.explain(ranker(), items, None, 7)
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=1e-5)


def test_similar_is_the_cosine_and_an_empty_history_scores_zero() -> None:
    made = ranker()
    q = made.item_factors.numpy()
    cosine = q @ q.T / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(q, axis=1))
    np.testing.assert_allclose(made.similar(torch.arange(ITEMS)).numpy(), cosine, atol=1e-6)
    assert torch.equal(made.score_history(torch.empty(0, dtype=torch.int64)), torch.zeros(ITEMS))


def test_new_users_and_items_are_solved_against_the_known_ones() -> None:
    data, _ = taste_groups()
    model = IALS(data.num_users, data.num_items, embedding_dim=8)
    model.attach(data)
    model.sweep()
    users, items = model.user_factors.clone(), model.item_factors.clone()
    model.user_factors[2], model.item_factors[5] = 9.0, 9.0
    model.start_new(torch.tensor([2]), torch.tensor([5]))
    assert torch.equal(model.user_factors[3:], users[3:])
    assert torch.equal(model.item_factors[:5], items[:5])
    dense = np.zeros((data.num_users, data.num_items))
    dense[data.positives.users, data.positives.items] = True
    without = items.clone()
    without[5] = 0
    weights = Weights(0.3, 0.007, 1.0)
    new_user = normal_equations(dense[2:3], without.double().numpy(), weights)[0]
    np.testing.assert_allclose(model.user_factors[2].numpy(), new_user, rtol=1e-3, atol=1e-5)
    new_item = normal_equations(dense[:, 5:6].T, model.user_factors.double().numpy(), weights)[0]
    np.testing.assert_allclose(model.item_factors[5].numpy(), new_item, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("dim", "reg"), [(64, 1e-6), (200, 1e-8)])
def test_more_dimensions_than_users_and_hardly_a_penalty_diverge_no_more(dim: int, reg: float) -> None:
    data, _ = taste_groups()
    torch.manual_seed(0)
    model = IALS(data.num_users, data.num_items, embedding_dim=dim, reg=reg, reg_exponent=0.0)
    model.attach(data)
    logged = [model.sweep() for _ in range(6)][-1]
    dense = np.zeros((data.num_users, data.num_items), dtype=bool)
    dense[data.positives.users, data.positives.items] = True
    p, q = model.user_factors.double().numpy(), model.item_factors.double().numpy()
    scores = p @ q.T
    true = ((scores - 1)[dense] ** 2).sum() + 0.3 * (scores**2).sum() + reg * ((p**2).sum() + (q**2).sum())
    assert logged == pytest.approx(true / dense.sum(), rel=5e-3)


@pytest.mark.parametrize(
    "wrong", [{"embedding_dim": 0}, {"reg": 0.0}, {"alpha": -1.0}, {"init_std": 0.0}, {"solver": "lu"}]
)
def test_hyper_parameters_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        IALS(3, 3, **wrong)


class TestBPRMF(ModelConformance):
    plugin = "bpr-mf"
    settings = {"lr": 0.02, "embedding_dim": 16}
    epochs = 30


class TestMFUnderBCE(ModelConformance):
    plugin = "bpr-mf"
    settings = {"lr": 0.05, "embedding_dim": 8, "loss": "bce", "num_negatives": 4, "reg": 0.05}
    epochs = 40


@pytest.mark.parametrize(("loss", "bias"), [("bpr", True), ("bpr", False), ("bce", True), ("bce", False)])
def test_sampled_mf_scores_and_is_penalised_by_its_formulas(loss: Any, bias: bool) -> None:
    data, _ = taste_groups()
    model = BPRMF(data.num_users, data.num_items, embedding_dim=3, loss=loss, reg=0.3, bias=bias).double()
    model.attach(data)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    users, items = torch.tensor([3, 3, 7]), torch.tensor([[1, 2], [2, 2], [43, 0]])
    wanted, squares = torch.zeros(3, 2, dtype=torch.float64), 0.0
    for row, user in enumerate(users.tolist()):
        squares += float(model.users[user].square().sum())
        if bias and loss == "bce":
            squares += float(model.user_bias[user].square())
        for column, item in enumerate(items[row].tolist()):
            squares += float(model.items[item].square().sum())
            wanted[row, column] = model.users[user] @ model.items[item]
            if bias:
                squares += float(model.item_bias[item].square())
                wanted[row, column] += model.item_bias[item]
                if loss == "bce":
                    wanted[row, column] += model.user_bias[user] + model.mean
    torch.testing.assert_close(model.scores(users, items), wanted)
    assert float(model.squares(users, items)) == pytest.approx(squares)
    ranked = model.ranker().score(users)[torch.arange(3)[:, None], items]
    torch.testing.assert_close(ranked.diff(dim=1), wanted.diff(dim=1), check_dtype=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ({"loss": "mse"}, "loss must be bce or bpr, got 'mse'"),
        ({"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        ({"reg": -1.0}, "reg must be at least 0"),
        ({"init_std": 0.0}, "lr and init_std above 0"),
    ],
)
def test_sampled_mf_refuses_settings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BPRMF(5, 6, **settings)
