"""The graph as PyTorch Geometric has it, for whoever wants to try a layer of theirs on these very edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from recflow.errors import RecflowError
from recflow.spec import Task

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

    from recflow.data.dataset import Dataset, Rows

RATES, RATED_BY = ("user", "rates", "item"), ("item", "rated_by", "user")


def hetero_data(data: Dataset, task: Task = "ranking") -> HeteroData:
    """Make a heterogeneous graph of users and items; see :meth:`recflow.data.dataset.Dataset.to_pyg`."""
    try:
        from torch_geometric.data import HeteroData
    except ModuleNotFoundError:
        raise RecflowError("to_pyg needs PyTorch Geometric: pip install 'recflow[pyg]'.") from None
    graph = HeteroData()
    sides = (
        ("user", data.num_users, data.user_features, data.interactions.users),
        ("item", data.num_items, data.item_features, data.interactions.items),
    )
    for kind, size, features, table in sides:
        graph[kind].num_nodes = size
        graph[kind].raw_id = table[f"{kind}_id"].to_list()
        if features is not None:
            graph[kind].x = features.values
            graph[kind].feature_names = list(features.names)
    rows = data.train if task == "rating" else data.positives
    edges = graph[RATES]
    edges.edge_index = _pairs(rows)
    graph[RATED_BY].edge_index = edges.edge_index.flip(0)
    if data.interactions.has_ratings:
        edges.rating = graph[RATED_BY].rating = rows.ratings
    for part in ("val", "test"):
        held_out = data.rows[part] if task == "rating" else data.relevant(part)
        edges[f"{part}_label_index"] = _pairs(held_out)
        if data.interactions.has_ratings:
            edges[f"{part}_label"] = held_out.ratings
    return graph


def _pairs(rows: Rows) -> Any:
    return torch.stack([rows.users, rows.items])  # [2, interactions]
