"""Sparse products beside dense ones, and their gradients beside finite differences."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.autograd.gradcheck import GradcheckError

from recflow.data.graph import CSR, BipartiteGraph, bipartite_graph
from recflow.training.propagation import mean_of_layers, propagate, sparse_matmul

NUM_USERS, NUM_ITEMS, DIM = 6, 9, 4


def csr(dense: torch.Tensor) -> CSR:
    rows, columns = dense.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(dense))
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return CSR(indptr.int(), columns.int(), dense[rows, columns], dense.shape[1])


def random_dense(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    values[torch.rand(rows, columns, generator=generator) < 0.6] = 0
    values[1] = 0  # a row and a column without an entry
    values[:, 2] = 0
    return values


def random_x(*shape: int, dtype=torch.float64, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.fixture
def graph() -> BipartiteGraph:
    present = torch.rand(NUM_USERS, NUM_ITEMS, generator=torch.Generator().manual_seed(2)) < 0.4
    present[4] = False  # a user and an item that are alone
    present[:, 7] = False
    return bipartite_graph(*present.nonzero(as_tuple=True), NUM_USERS, NUM_ITEMS)


def whole(graph: BipartiteGraph) -> torch.Tensor:
    """Â of all nodes, users first, dense, in double precision."""
    a = torch.zeros(NUM_USERS + NUM_ITEMS, NUM_USERS + NUM_ITEMS, dtype=torch.float64)
    a[:NUM_USERS, NUM_USERS:] = graph.user_item.to_dense()
    a[NUM_USERS:, :NUM_USERS] = graph.item_user.to_dense()
    return a


class TestSparseMatmul:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize(("rows", "columns"), [(5, 7), (7, 5), (2, 3), (50, 80)])
    @pytest.mark.parametrize("dim", [1, 3, 64])
    def test_it_is_the_dense_product(self, rows, columns, dim, dtype):
        dense, x = random_dense(rows, columns), random_x(columns, dim, dtype=dtype).detach()
        product = sparse_matmul(csr(dense), x)
        assert (product.dtype, product.shape) == (dtype, (rows, dim))
        torch.testing.assert_close(product, dense.to(dtype) @ x)
        assert not product[1].any()

    def test_it_takes_columns_that_do_not_lie_side_by_side(self):
        dense, x = random_dense(5, 7), random_x(3, 7).detach()
        torch.testing.assert_close(sparse_matmul(csr(dense), x.T), dense.double() @ x.T)

    def test_a_matrix_without_entries_gives_zeros(self):
        assert sparse_matmul(csr(torch.zeros(3, 5)), torch.ones(5, 2)).tolist() == [[0, 0]] * 3


class TestPropagate:
    def test_value_and_gradient_are_those_of_the_dense_product(self):
        dense = random_dense(5, 7)
        x, weights = random_x(7, 3), random_x(5, 3, seed=3).detach()
        (propagate(csr(dense), x, csr(dense.T.contiguous())) * weights).sum().backward()
        torch.testing.assert_close(x.grad, dense.T.double() @ weights)
        torch.testing.assert_close(propagate(csr(dense), x, csr(dense.T.contiguous())), dense.double() @ x)

    @pytest.mark.parametrize(("rows", "columns"), [(5, 7), (7, 5), (6, 6)])
    def test_it_passes_gradcheck(self, rows, columns):
        dense = random_dense(rows, columns)
        matrix, transpose = csr(dense), csr(dense.T.contiguous())
        assert gradcheck(lambda x: propagate(matrix, x, transpose), random_x(columns, 2))

    def test_an_asymmetric_matrix_in_place_of_its_transpose_fails_gradcheck(self):
        matrix = csr(random_dense(6, 6))
        with pytest.raises(GradcheckError, match="Jacobian mismatch"):
            gradcheck(lambda x: propagate(matrix, x, matrix), random_x(6, 2))

    def test_a_transpose_that_is_normalised_by_the_wrong_side_fails_gradcheck(self, graph):
        # GraphSAGE's mean, D^-1 A: the transpose is Aᵀ D^-1, not the other half's own mean.
        a = (graph.user_item.to_dense() > 0).float()
        mean = a / a.sum(1, keepdim=True).clamp(min=1)
        wrong = a.T / a.T.sum(1, keepdim=True).clamp(min=1)
        matrix, x = csr(mean), random_x(NUM_ITEMS, 2)
        assert gradcheck(lambda x: propagate(matrix, x, csr(mean.T.contiguous())), x)
        with pytest.raises(GradcheckError, match="Jacobian mismatch"):
            gradcheck(lambda x: propagate(matrix, x, csr(wrong.contiguous())), x)

    def test_a_gradient_that_was_expanded_from_one_number_is_taken(self):
        dense, x = random_dense(5, 7), random_x(7, 3)
        propagate(csr(dense), x, csr(dense.T.contiguous())).sum().backward()
        torch.testing.assert_close(x.grad, dense.T.double() @ torch.ones(5, 3, dtype=torch.float64))


class TestMeanOfLayers:
    @pytest.mark.parametrize("num_layers", range(5))
    def test_it_is_the_mean_of_the_dense_powers(self, graph, num_layers):
        users, items = random_x(NUM_USERS, DIM), random_x(NUM_ITEMS, DIM, seed=4)
        a, x = whole(graph), torch.cat([users, items])
        expected = sum(torch.linalg.matrix_power(a, power) for power in range(num_layers + 1)) @ x / (num_layers + 1)
        torch.testing.assert_close(torch.cat(mean_of_layers(graph, users, items, num_layers)), expected)

    @pytest.mark.parametrize("num_layers", range(5))
    def test_it_passes_gradcheck(self, graph, num_layers):
        inputs = random_x(NUM_USERS, 2), random_x(NUM_ITEMS, 2, seed=4)
        assert gradcheck(lambda users, items: mean_of_layers(graph, users, items, num_layers), inputs)

    @pytest.mark.parametrize("part", [0, 1])
    def test_a_loss_on_one_half_alone_reaches_both(self, graph, part):
        inputs = random_x(NUM_USERS, 2), random_x(NUM_ITEMS, 2, seed=4)
        assert gradcheck(lambda users, items: mean_of_layers(graph, users, items, 3)[part], inputs)

    def test_halves_that_are_not_each_other_s_transpose_fail_gradcheck(self, graph):
        values = graph.item_user.values.clone()
        values[0] *= 2
        wrong = BipartiteGraph(graph.user_item, graph.item_user._replace(values=values))
        inputs = random_x(NUM_USERS, 2), random_x(NUM_ITEMS, 2, seed=4)
        with pytest.raises(GradcheckError, match="Jacobian mismatch"):
            gradcheck(lambda users, items: mean_of_layers(wrong, users, items, 2), inputs)

    def test_the_embeddings_that_go_in_are_left_alone(self, graph):
        users, items = random_x(NUM_USERS, 2).detach(), random_x(NUM_ITEMS, 2, seed=4).detach()
        before = users.clone(), items.clone()
        for num_layers in range(3):
            for part in mean_of_layers(graph, users, items, num_layers):
                part.fill_(7)
        assert torch.equal(users, before[0])
        assert torch.equal(items, before[1])

    def test_who_is_alone_keeps_a_share_of_the_own_embedding(self, graph):
        users, items = random_x(NUM_USERS, 2).detach(), random_x(NUM_ITEMS, 2, seed=4).detach()
        new_users, new_items = mean_of_layers(graph, users, items, 3)
        torch.testing.assert_close(new_users[4], users[4] / 4)
        torch.testing.assert_close(new_items[7], items[7] / 4)

    def test_single_precision_is_close_to_double(self, graph):
        users, items = random_x(NUM_USERS, DIM).detach(), random_x(NUM_ITEMS, DIM, seed=4).detach()
        single = mean_of_layers(graph, users.float(), items.float(), 3)
        for part, exact in zip(single, mean_of_layers(graph, users, items, 3), strict=True):
            assert part.dtype == torch.float32
            torch.testing.assert_close(part.double(), exact, atol=1e-6, rtol=1e-5)
