import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.graph import bipartite_graph

edges = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=25)
NUM_USERS, NUM_ITEMS = 6, 8  # user 5 and items 6, 7 never have an edge


def build(pairs):
    users = torch.tensor([user for user, _ in pairs], dtype=torch.int64)
    items = torch.tensor([item for _, item in pairs], dtype=torch.int64)
    return bipartite_graph(users, items, NUM_USERS, NUM_ITEMS)


def dense_formula(pairs) -> torch.Tensor:
    """D^-1/2 A D^-1/2 of all nodes, users first; 1/sqrt(0) counts as 0."""
    a = torch.zeros(NUM_USERS + NUM_ITEMS, NUM_USERS + NUM_ITEMS, dtype=torch.float64)
    for user, item in pairs:
        a[user, NUM_USERS + item] = a[NUM_USERS + item, user] = 1
    degree = a.sum(1)
    scale = torch.diag(torch.where(degree > 0, degree.rsqrt(), 0))
    return scale @ a @ scale


@settings(max_examples=150, deadline=None)
@given(edges)
def test_the_two_halves_are_the_blocks_of_the_normalised_adjacency(pairs):
    graph, expected = build(list(pairs)), dense_formula(pairs).float()
    assert not expected[:NUM_USERS, :NUM_USERS].any()
    assert not expected[NUM_USERS:, NUM_USERS:].any()
    torch.testing.assert_close(graph.user_item.to_dense(), expected[:NUM_USERS, NUM_USERS:])
    torch.testing.assert_close(graph.item_user.to_dense(), expected[NUM_USERS:, :NUM_USERS])


@settings(max_examples=150, deadline=None)
@given(edges)
def test_the_halves_are_each_other_s_transpose(pairs):
    graph = build(list(pairs))
    assert torch.equal(graph.user_item.to_dense(), graph.item_user.to_dense().T)


@settings(max_examples=100, deadline=None)
@given(edges, st.randoms())
def test_the_order_of_the_interactions_changes_nothing(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for half, other in zip(build(sorted(pairs)), build(shuffled), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(half[:3], other[:3], strict=True))


def test_rows_are_compressed_in_order_with_small_indices():
    half = build([(2, 5), (0, 3), (2, 0), (4, 3)]).user_item
    assert half.indptr.tolist() == [0, 1, 1, 3, 3, 4, 4]
    assert half.indices.tolist() == [3, 0, 5, 3]
    assert (half.indptr.dtype, half.indices.dtype, half.values.dtype) == (torch.int32, torch.int32, torch.float32)
    assert (half.num_rows, half.num_columns) == (NUM_USERS, NUM_ITEMS)


def test_nodes_without_an_edge_have_empty_rows_and_no_value_is_infinite():
    graph = build([(0, 0)])
    assert graph.user_item.to_dense().sum(1).tolist() == [1, 0, 0, 0, 0, 0]
    assert graph.item_user.to_dense().sum(1).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert graph.user_item.values.tolist() == [1]


def test_a_complete_graph_weighs_all_edges_alike():
    users, items = torch.cartesian_prod(torch.arange(4), torch.arange(9)).T
    graph = bipartite_graph(users, items, 4, 9)
    torch.testing.assert_close(graph.user_item.to_dense(), torch.full((4, 9), 1 / 6))


def test_the_largest_eigenvalue_is_one():
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.rand(20, 30, generator=generator) < 0.2).nonzero(as_tuple=True)
    largest = torch.linalg.svdvals(bipartite_graph(users, items, 20, 30).user_item.to_dense()).max()
    assert float(largest) == pytest.approx(1, abs=1e-5)


def test_moving_keeps_all():
    graph = build([(0, 1), (3, 2)])
    moved = graph.to("cpu")
    assert torch.equal(moved.user_item.to_dense(), graph.user_item.to_dense())
    assert moved.item_user.num_columns == NUM_USERS
