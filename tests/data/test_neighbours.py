"""Neighbour sampling: against naive references, the dense formula of two layers, and goodness of fit."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from recflow.data.graph import CSR, bipartite_graph
from recflow.data.neighbours import sample_neighbours, sample_subgraph, transposed
from recflow.errors import RecflowError
from recflow.training.propagation import propagate, sparse_matmul

NUM_USERS, NUM_ITEMS = 7, 9  # user 6 and items 7, 8 never have an edge
edges = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=30)
seeds = st.lists(st.integers(0, 6), unique=True, max_size=5)
fanouts = st.lists(st.sampled_from([-1, 1, 2, 3, 10]), min_size=1, max_size=3)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ints(values) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def build(pairs):
    return bipartite_graph(ints(user for user, _ in pairs), ints(item for _, item in pairs), NUM_USERS, NUM_ITEMS)


def columns_of(pairs, row) -> set[int]:
    return {item for user, item in pairs if user == row}


def one_row(degree) -> CSR:
    """A row whose neighbours are 10, 11, …"""
    return CSR(torch.tensor([0, degree]).int(), torch.arange(10, 10 + degree).int(), torch.ones(degree), 10 + degree)


def edges_of(block):
    """A block's messages in the graph's own numbers: {(user, item)} to users, and the same to items."""
    users, items = block.users.tolist(), block.items.tolist()
    to_users = {(users[row], items[column]) for row, column in block.user_item.to_dense().nonzero().tolist()}
    to_items = {(users[column], items[row]) for row, column in block.item_user.to_dense().nonzero().tolist()}
    return to_users, to_items


def same(first, second) -> bool:
    tensors = (
        [tensor for block in blocks for tensor in (*block[:2], *block.user_item[:3], *block.item_user[:3])]
        for blocks in (first, second)
    )
    return all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


class TestSampleNeighbours:
    @settings(max_examples=200, deadline=None)
    @given(
        edges, st.lists(st.integers(0, NUM_USERS - 1), max_size=12), st.sampled_from([-1, 1, 2, 4, 50]), st.integers(0)
    )
    def test_each_row_gets_distinct_neighbours_of_its_own_as_many_as_asked_or_all(self, pairs, rows, fanout, seed):
        position, column = sample_neighbours(build(pairs).user_item, ints(rows), fanout, generator(seed % 2**31))
        assert (position.dtype, column.dtype) == (torch.int64, torch.int64)
        assert position.tolist() == sorted(position.tolist())
        for place, row in enumerate(rows):
            known, got = columns_of(pairs, row), column[position == place].tolist()
            assert len(set(got)) == len(got) == (len(known) if fanout == -1 else min(fanout, len(known)))
            assert set(got) <= known

    @pytest.mark.parametrize(("degree", "fanout"), [(5, 1), (5, 4), (6, 3), (7, 2)])
    def test_every_set_of_neighbours_is_as_likely_as_any_other(self, degree, fanout):
        rows = torch.zeros(30_000, dtype=torch.int64)
        _, column = sample_neighbours(one_row(degree), rows, fanout, generator(2))
        members = torch.zeros(30_000, degree, dtype=torch.int64).scatter_(1, column.view(-1, fanout) - 10, 1)
        codes = torch.bincount((members << torch.arange(degree)).sum(1), minlength=2**degree)
        subsets = [sum(1 << member for member in subset) for subset in combinations(range(degree), fanout)]
        assert codes[subsets].sum() == 30_000
        assert chisquare(codes[subsets].numpy()).pvalue > 0.01

    def test_among_many_neighbours_all_are_equally_likely(self):
        rows = torch.zeros(20_000, dtype=torch.int64)
        _, column = sample_neighbours(one_row(500), rows, 5, generator(4))
        assert chisquare(torch.bincount(column - 10, minlength=500).numpy()).pvalue > 0.01

    def test_a_row_given_twice_is_sampled_twice(self):
        position, column = sample_neighbours(one_row(10_000), ints([0, 0]), 8, generator())
        assert set(column[position == 0].tolist()) != set(column[position == 1].tolist())

    def test_the_generator_alone_decides_and_torch_s_own_plays_no_part(self):
        rows = torch.zeros(50, dtype=torch.int64)
        first, again, other = (sample_neighbours(one_row(40), rows, 6, generator(seed))[1] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        state = torch.get_rng_state()
        sample_neighbours(one_row(40), rows, 6, generator())
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("fanout", [0, -2])
    def test_a_fan_out_that_cannot_be_is_refused(self, fanout):
        with pytest.raises(RecflowError, match=f"at least 1, or -1 for all of them; got {fanout}"):
            sample_neighbours(one_row(3), ints([0]), fanout, generator())


class TestSubgraph:
    @settings(max_examples=150, deadline=None)
    @given(edges, seeds, seeds, fanouts, st.integers(0, 99))
    def test_blocks_fit_together_and_hold_the_graph_s_own_edges(self, pairs, users, items, given_fanouts, seed):
        blocks = sample_subgraph(build(pairs), ints(users), ints(items), given_fanouts, generator(seed))
        assert len(blocks) == len(given_fanouts)
        target_users, target_items = users, items
        for block, fanout in zip(reversed(blocks), given_fanouts, strict=True):
            sources = block.users.tolist(), block.items.tolist()
            assert [len(set(nodes)) for nodes in sources] == [len(nodes) for nodes in sources]
            assert (sources[0][: len(target_users)], sources[1][: len(target_items)]) == (target_users, target_items)
            assert (block.user_item.num_rows, block.user_item.num_columns) == (len(target_users), len(sources[1]))
            assert (block.item_user.num_rows, block.item_user.num_columns) == (len(target_items), len(sources[0]))
            to_users, to_items = edges_of(block)
            assert to_users | to_items <= pairs
            # No node is brought along without a message of its own.
            assert set(sources[0]) == set(target_users) | {user for user, _ in to_items}
            assert set(sources[1]) == set(target_items) | {item for _, item in to_users}
            for half, axis, targets in ((to_users, 0, target_users), (to_items, 1, target_items)):
                for node in targets:
                    degree = sum(edge[axis] == node for edge in pairs)
                    sampled = sum(edge[axis] == node for edge in half)
                    assert sampled == (degree if fanout == -1 else min(degree, fanout))
            target_users, target_items = sources

    @settings(max_examples=100, deadline=None)
    @given(edges, seeds, seeds, st.integers(1, 3))
    def test_without_a_limit_they_are_the_whole_neighbourhood_of_a_naive_walk(self, pairs, users, items, num_layers):
        blocks = sample_subgraph(build(pairs), ints(users), ints(items), [-1] * num_layers, generator())
        reached_users, reached_items = set(users), set(items)
        for block in reversed(blocks):
            to_users = {(user, item) for user, item in pairs if user in reached_users}
            to_items = {(user, item) for user, item in pairs if item in reached_items}
            assert edges_of(block) == (to_users, to_items)
            reached_users |= {user for user, _ in to_items}
            reached_items |= {item for _, item in to_users}
            assert set(block.users.tolist()) == reached_users
            assert set(block.items.tolist()) == reached_items

    @settings(max_examples=100, deadline=None)
    @given(edges, seeds, seeds, edges)
    def test_two_layers_of_means_are_those_of_the_dense_matrices(self, pairs, users, items, excluded):
        weights = [torch.rand(3, 3, generator=generator(seed), dtype=torch.float64) - 0.5 for seed in range(4)]
        x_users = torch.rand(NUM_USERS, 3, generator=generator(8), dtype=torch.float64)
        x_items = torch.rand(NUM_ITEMS, 3, generator=generator(9), dtype=torch.float64)

        def layer(own, mean, number):
            return torch.tanh(own @ weights[2 * number] + mean @ weights[2 * number + 1])

        a = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.float64)
        for user, item in pairs - excluded:
            a[user, item] = 1
        mean_of_items, mean_of_users = (half / half.sum(1, keepdim=True).clamp(min=1) for half in (a, a.T))
        all_users, all_items = x_users, x_items
        for number in range(2):
            all_users, all_items = (
                layer(all_users, mean_of_items @ all_items, number),
                layer(all_items, mean_of_users @ all_users, number),
            )

        exclude = tuple(ints(column) for column in zip(*excluded, strict=True)) or (ints([]), ints([]))
        blocks = sample_subgraph(build(pairs), ints(users), ints(items), [-1, -1], generator(), exclude)
        some_users, some_items = x_users[blocks[0].users], x_items[blocks[0].items]
        for number, block in enumerate(blocks):
            some_users, some_items = (
                layer(some_users[: block.user_item.num_rows], sparse_matmul(block.user_item, some_items), number),
                layer(some_items[: block.item_user.num_rows], sparse_matmul(block.item_user, some_users), number),
            )
        # The blocks' means are stored in single precision.
        torch.testing.assert_close(some_users, all_users[users], rtol=0, atol=1e-7)
        torch.testing.assert_close(some_items, all_items[items], rtol=0, atol=1e-7)

    @settings(max_examples=100, deadline=None)
    @given(edges, edges, seeds, seeds, fanouts, st.integers(0, 99))
    def test_excluded_edges_carry_no_message_and_means_are_over_the_rest(
        self, pairs, excluded, users, items, given_fanouts, seed
    ):
        exclude = tuple(ints(column * 2) for column in zip(*excluded, strict=True)) or (ints([]), ints([]))
        for block in sample_subgraph(build(pairs), ints(users), ints(items), given_fanouts, generator(seed), exclude):
            to_users, to_items = edges_of(block)
            assert to_users | to_items <= pairs - excluded
            for matrix in (block.user_item, block.item_user):
                dense = matrix.to_dense()
                counts = (dense > 0).sum(1, keepdim=True)
                assert torch.equal(dense, (dense > 0) / counts.clamp(min=1).float())

    def test_what_remains_of_a_sample_after_exclusion_is_still_uniform(self):
        items = torch.arange(8)
        graph = bipartite_graph(torch.zeros(8, dtype=torch.int64), items, 1, 8)
        counts = torch.zeros(8)
        random = generator(6)
        for _ in range(1500):
            (block,) = sample_subgraph(graph, ints([0]), ints([]), [3], random, (ints([0, 0]), ints([2, 5])))
            counts[block.items] += 1
        rest = [0, 1, 3, 4, 6, 7]
        assert counts[[2, 5]].tolist() == [0, 0]
        assert chisquare(counts[rest].numpy()).pvalue > 0.01

    def test_the_generator_alone_decides(self):
        pairs = {(user, item) for user in range(6) for item in range(7) if (user + item) % 4}
        sample = [sample_subgraph(build(pairs), ints([0, 3]), ints([1]), [2, 2], generator(seed)) for seed in (1, 1, 2)]
        assert same(sample[0], sample[1])
        assert not same(sample[0], sample[2])

    def test_indices_are_as_small_as_the_graph_s(self):
        (block,) = sample_subgraph(build({(0, 1), (0, 3)}), ints([0]), ints([]), [-1], generator())
        assert (block.user_item.indptr.dtype, block.user_item.indices.dtype) == (torch.int32, torch.int32)
        assert block.user_item.values.tolist() == [0.5, 0.5]
        assert (block.users.dtype, block.items.tolist()) == (torch.int64, [1, 3])

    def test_a_node_given_twice_is_refused(self):
        with pytest.raises(ValueError, match="items hold a node twice"):
            sample_subgraph(build({(0, 1)}), ints([0]), ints([1, 2, 1]), [2], generator())

    def test_no_fan_out_is_refused(self):
        with pytest.raises(RecflowError, match="one fan-out a layer, at least one; got none"):
            sample_subgraph(build({(0, 1)}), ints([0]), ints([1]), [], generator())


class TestTransposed:
    @settings(max_examples=100, deadline=None)
    @given(edges)
    def test_it_is_the_dense_matrix_s_transpose_in_compressed_rows(self, pairs):
        half = build(pairs).user_item
        turned = transposed(half)
        assert torch.equal(turned.to_dense(), half.to_dense().T)
        assert all(torch.equal(a, b) for a, b in zip(turned[:3], build(pairs).item_user[:3], strict=True))

    @settings(max_examples=30, deadline=None)
    @given(edges, seeds, seeds, st.integers(0, 99))
    def test_the_gradient_through_a_block_is_right(self, pairs, users, items, seed):
        (block,) = sample_subgraph(build(pairs), ints(users), ints(items), [2], generator(seed))
        x = torch.rand(len(block.items), 2, dtype=torch.float64, generator=generator(), requires_grad=True)
        turned = transposed(block.user_item)
        assert torch.autograd.gradcheck(lambda x: propagate(block.user_item, x, turned), x)
