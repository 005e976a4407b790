"""Users' vectors regressed on their histories, beside dense algebra."""

import pytest
import torch
from torch import Tensor

from recflow.data.graph import BipartiteGraph, bipartite_graph
from recflow.training.fold_in import history_vectors

USERS, ITEMS, DIM = 40, 15, 3


def some_interactions(seed: int = 0) -> Tensor:
    """Who has what, 0 or 1; user 3 and item 5 have nothing."""
    dense = (torch.rand(USERS, ITEMS, generator=torch.Generator().manual_seed(seed)) < 0.3).double()
    dense[3], dense[:, 5] = 0, 0
    return dense


def graph_of(dense: Tensor) -> BipartiteGraph:
    return bipartite_graph(*dense.nonzero(as_tuple=True), *dense.shape)


def user_vectors(seed: int = 1) -> Tensor:
    return torch.randn(USERS, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def root_means(dense: Tensor) -> Tensor:
    """A history's ones over the square root of its length."""
    return dense / dense.sum(1, keepdim=True).clamp(min=1).sqrt()


class TestHistoryVectors:
    @pytest.mark.parametrize("reg", [0.05, 1.0])
    def test_they_are_the_ridge_regression_of_the_users_vectors(self, reg):
        dense, vectors = some_interactions(), user_vectors()
        x, degrees = root_means(dense), dense.sum(0)
        unit = torch.diag((degrees == 0).double())  # an item without users has a row of its own
        wanted = torch.linalg.solve(x.T @ x + reg * torch.diag(degrees) + unit, x.T @ vectors)
        found = history_vectors(graph_of(dense), vectors, reg)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)

    def test_they_give_back_vectors_that_follow_from_the_histories(self):
        dense = some_interactions()
        x = root_means(dense)
        true = torch.randn(ITEMS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        found = history_vectors(graph_of(dense), x @ true, reg=1e-9)
        torch.testing.assert_close(x @ found, x @ true, rtol=1e-4, atol=1e-4)

    def test_single_precision_and_a_thousand_items_come_as_near(self):
        generator = torch.Generator().manual_seed(3)
        weight = torch.rand(1000, generator=generator) ** 3  # a few are popular, most are not
        dense = (torch.rand(500, 1000, generator=generator) < weight).double()
        vectors = torch.randn(500, DIM, dtype=torch.float64, generator=generator)
        x = root_means(dense)
        wanted = torch.linalg.solve(x.T @ x + 0.05 * torch.diag(dense.sum(0).clamp(min=1e-3)), x.T @ vectors)
        found = history_vectors(graph_of(dense), vectors.float(), reg=0.05)
        assert found.dtype == torch.float32
        torch.testing.assert_close(x @ found.double(), x @ wanted, rtol=0, atol=1e-4)

    def test_who_has_nothing_has_no_part(self):
        dense, vectors = some_interactions(), user_vectors()
        found = history_vectors(graph_of(dense), vectors, reg=0.1)
        assert not found[5].any()
        vectors[3] = 1e6
        assert torch.equal(history_vectors(graph_of(dense), vectors, reg=0.1), found)

    def test_vectors_of_zeros_give_zeros(self):
        found = history_vectors(graph_of(some_interactions()), torch.zeros(USERS, DIM), reg=0.1)
        assert torch.equal(found, torch.zeros(ITEMS, DIM))
