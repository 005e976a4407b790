"""The graph as PyTorch Geometric has it."""

import sys

import pytest
import torch

from recflow.data.dataset import DataConfig, prepare
from recflow.errors import RecflowError
from recflow.training.propagation import sparse_matmul

RATES, RATED_BY = ("user", "rates", "item"), ("item", "rated_by", "user")


@pytest.fixture(scope="module")
def data():
    return prepare(DataConfig(name="sample:ratings=3000", relevant_from=3.0))


class TestToPyG:
    def test_its_edges_are_the_training_rows_that_are_relevant_in_both_directions(self, data):
        graph = data.to_pyg()
        assert graph.validate()
        assert torch.equal(graph[RATES].edge_index, torch.stack(data.positives[:2]))
        assert torch.equal(graph[RATED_BY].edge_index, torch.stack(data.positives[:2]).flip(0))
        assert torch.equal(graph[RATES].rating, data.positives.ratings)
        assert float(graph[RATES].rating.min()) >= 3.0

    def test_rating_models_get_every_training_row(self, data):
        graph = data.to_pyg("rating")
        assert torch.equal(graph[RATES].edge_index, torch.stack(data.train[:2]))
        assert float(graph[RATES].rating.min()) < 3.0

    def test_held_out_rows_are_labels_and_no_edges(self, data):
        graph = data.to_pyg()
        edges = set(zip(*graph[RATES].edge_index.tolist(), strict=True))
        for part in ("val", "test"):
            held_out = graph[RATES][f"{part}_label_index"]
            assert torch.equal(held_out, torch.stack(data.relevant(part)[:2]))
            assert torch.equal(graph[RATES][f"{part}_label"], data.relevant(part).ratings)
            assert not edges & set(zip(*held_out.tolist(), strict=True))

    def test_nodes_have_their_ids_and_features(self, data):
        graph = data.to_pyg()
        assert (graph["user"].num_nodes, graph["item"].num_nodes) == (data.num_users, data.num_items)
        assert graph["item"].raw_id == data.interactions.items["item_id"].to_list()
        assert torch.equal(graph["item"].x, data.item_features.values)
        assert len(graph["item"].feature_names) == graph["item"].x.shape[1]

    def test_a_message_passing_layer_of_theirs_sees_the_graph_that_ours_do(self, data):
        from torch_geometric.nn import LGConv

        homogeneous = data.to_pyg().to_homogeneous(node_attrs=[], edge_attrs=[])  # users first, then items
        x = torch.randn(data.num_users + data.num_items, 4, generator=torch.Generator().manual_seed(0))
        users, items = LGConv()(x, homogeneous.edge_index).split([data.num_users, data.num_items])
        torch.testing.assert_close(sparse_matmul(data.graph.user_item, x[data.num_users :]), users)
        torch.testing.assert_close(sparse_matmul(data.graph.item_user, x[: data.num_users]), items)

    def test_without_the_package_one_line_says_how_to_get_it(self, data, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
        with pytest.raises(RecflowError, match=r"to_pyg needs PyTorch Geometric: pip install 'recflow\[pyg\]'"):
            data.to_pyg()
