"""GraphSAGE on the user–item graph: what both models share.

Model      h_v^0 = e_v + W F_v, F_v the node's features and a one;
           h_v^(l+1) = ReLU(W_self h_v^l + W_neigh mean over neighbours w of h_w^l + b), without ReLU in the last layer;
           users and items have weights of their own;
           score(u, i) = w · ReLU(U h_u + V h_i + c) + Σ over dimensions d of p_d h_ud h_id;  the sum can be left out
Training   an edge whose pair is being scored carries no message; some nodes have no e_v and some no neighbours, drawn
           anew at each step, so that the layers learn to do without: new nodes lack the one and often the other
Source     Hamilton et al., NeurIPS 2017, https://arxiv.org/abs/1706.02216
Differs    the paper scales h to length 1 after each layer, and has a ReLU in the last one, too; its nodes have no
           embeddings beside their features, and pairs are scored by an inner product alone
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import Embedding, Linear, Module, ModuleList, Parameter, init

from recflow.data.batches import epoch_generator
from recflow.data.dataset import Dataset, Rows
from recflow.data.features import FeatureTable
from recflow.data.graph import bipartite_graph
from recflow.data.neighbours import sample_subgraph
from recflow.metrics.evaluate import MetricsConfig
from recflow.training.modules import RecModule
from recflow_graphsage.messages import MessageGraph, Messages
from recflow_graphsage.ranker import SAGERanker


class SAGELayer(Module):
    """``W_self h + W_neigh m + b`` for the nodes of one side.

    Args:
        dim: Length of the states.
        kinds: How many messages stand side by side in m.
    """

    def __init__(self, dim: int, kinds: int) -> None:
        super().__init__()
        self.own = Linear(dim, dim, bias=False)
        self.neighbours = Linear(kinds * dim, dim)

    def forward(self, own: Tensor, heard: Tensor) -> Tensor:
        """``[nodes, dim]`` and ``[nodes, kinds * dim]`` to ``[nodes, dim]``."""
        state: Tensor = self.own(own) + self.neighbours(heard)
        return state


class GraphSAGE(RecModule):
    """The layers, the scorer and the ranker; see the module's header for the formulas.

    Features come from the data: genres, year of release, age, gender, whatever the tables hold.

    Args:
        num_users: Number of users; comes from the data.
        num_items: Number of items; comes from the data.
        embedding_dim: Length of each node's embedding and states, at least 1.
        num_layers: Layers, at least 1.
        hidden: Size of the scorer's hidden layer, at least 1.
        product: Whether the scorer adds a weighted inner product, which a layer of this size learns badly by itself.
        node_dropout: Share of nodes in a training step that have no embedding, and share of those that have no
            neighbours, from 0 to below 1; it is what lets the layers serve nodes they have never seen.
        fanouts: Neighbours to sample for a node in training, one number a layer, from the scored nodes outward, -1 for
            all; for graphs that are too large to go through as a whole at each step. Null goes through the whole.
        lr: Adam's learning rate.
        weight_decay: Adam's weight decay, at least 0.
    """

    kinds: ClassVar[int] = 1
    first_std: ClassVar[float]  # of the embeddings before training

    _tables: tuple[Tensor, Tensor]
    _messages: MessageGraph
    _trained: tuple[Tensor, Tensor]

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        num_layers: int = 2,
        hidden: int = 32,
        product: bool = True,
        node_dropout: float = 0.1,
        fanouts: Sequence[int] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
    ) -> None:
        super().__init__()
        if min(embedding_dim, num_layers, hidden) < 1:
            raise ValueError(
                f"embedding_dim, num_layers and hidden must be at least 1, got {embedding_dim}, {num_layers} and "
                f"{hidden}"
            )
        if not 0 <= node_dropout < 1:
            raise ValueError(f"node_dropout must be at least 0 and below 1, got {node_dropout}")
        if fanouts is not None and (len(fanouts) != num_layers or any(each < 1 and each != -1 for each in fanouts)):
            raise ValueError(
                f"fanouts must be one number for each of {num_layers} layers, at least 1 or -1 for all neighbours, "
                f"got {list(fanouts)}"
            )
        if lr <= 0 or weight_decay < 0:
            raise ValueError(f"lr must be above 0 and weight_decay at least 0, got {lr} and {weight_decay}")
        fanouts = None if fanouts is None else list(fanouts)
        self.save_hyperparameters()
        dim = embedding_dim
        self.users = Embedding(num_users, dim)
        self.items = Embedding(num_items, dim)
        self.user_features = Parameter(torch.empty(1, dim))  # as many rows as features and a one, from attach() on
        self.item_features = Parameter(torch.empty(1, dim))
        self.user_layers = ModuleList(SAGELayer(dim, self.kinds) for _ in range(num_layers))
        self.item_layers = ModuleList(SAGELayer(dim, self.kinds) for _ in range(num_layers))
        self.user_half = Linear(dim, hidden)
        self.item_half = Linear(dim, hidden, bias=False)
        self.output = Linear(hidden, 1, bias=False)
        self.product = Parameter(torch.empty(dim)) if product else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal embeddings, PyTorch's own weights, and zeros where the symmetry is broken already."""
        init.normal_(self.users.weight, std=self.first_std)
        init.normal_(self.items.weight, std=self.first_std)
        init.zeros_(self.user_features)
        init.zeros_(self.item_features)
        if self.product is not None:
            init.ones_(self.product)

    @abstractmethod
    def edges(self, data: Dataset) -> tuple[Rows, Tensor | None]:
        """The interactions that messages travel on, and the numbers that they are multiplied by for the second kind."""

    def attach(self, data: Dataset, seed: int = 0, metrics: MetricsConfig | None = None) -> None:
        """Take the data, and make room for one weight for each of its features; see :meth:`RecModule.attach`."""
        super().attach(data, seed, metrics)
        sizes = data.num_users, data.num_items
        self._tables = _with_ones(data.user_features, sizes[0]), _with_ones(data.item_features, sizes[1])
        for name, table in zip(("user_features", "item_features"), self._tables, strict=True):
            if len(getattr(self, name)) != table.shape[1]:
                zeros = torch.zeros(table.shape[1], self.hparams["embedding_dim"], device=self.user_features.device)
                setattr(self, name, Parameter(zeros))
        rows, ratings = self.edges(data)
        graph = bipartite_graph(rows.users, rows.items, *sizes)
        self._messages = MessageGraph.of(graph, rows.users, rows.items, ratings)
        self._to(rows.users.device)
        self._random = epoch_generator(seed, 0, rows.users.device)

    def feature_rows(self) -> dict[str, tuple[str, ...]]:
        """See :meth:`RecModule.feature_rows`."""
        return {
            "user_features": _names(self.data.user_features),
            "item_features": _names(self.data.item_features),
        }

    def setup(self, stage: str) -> None:
        """See :meth:`RecModule.setup`."""
        super().setup(stage)
        device = self.trainer.strategy.root_device
        self._to(device)
        self._random = epoch_generator(self.seed, 0, device)

    def _to(self, device: torch.device) -> None:
        kind = self.users.weight.dtype  # what trainer.precision has made of it
        self._tables = self._tables[0].to(device, kind), self._tables[1].to(device, kind)
        self._messages = self._messages.to(device)
        users, items = self._messages.degrees()
        self._trained = users > 0, items > 0

    def on_train_epoch_start(self) -> None:
        """Make dropout and sampling follow (seed, epoch), too, whatever else draws numbers in between."""
        super().on_train_epoch_start()
        self._random.manual_seed(int(torch.randint(2**62, ())))

    def configure_optimizers(self) -> Any:
        """Adam with weight decay, unless ``--optimizer`` names any other of ``torch.optim``."""
        own = self.hparams
        return torch.optim.Adam(self.parameters(), lr=own["lr"], weight_decay=own["weight_decay"], fused=True)

    def vectors(self, users: Tensor, items: Tensor, exclude: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The last layer's states of some nodes, as a loss needs them: with dropout and sampling in training.

        Args:
            users: User indices, int64, shape ``[batch]``; may repeat.
            items: Item indices, int64, shape ``[pairs]``; may repeat.
            exclude: Users and items of the pairs being scored, whose edges carry no message.

        Returns:
            Vectors, ``[batch, dim]`` and ``[pairs, dim]``.
        """
        own, heard = (self._dropped(), self._dropped()) if self.training else (None, None)
        fanouts = self.hparams["fanouts"] if self.training else None
        if fanouts is None:
            user_states, item_states = self.states(exclude, own, heard)[-1]
            return user_states.index_select(0, users), item_states.index_select(0, items)
        who, user_row = torch.unique(users, return_inverse=True)
        what, item_row = torch.unique(items, return_inverse=True)
        blocks = sample_subgraph(self._messages.graph, who, what, fanouts, self._random, exclude)
        states = self._first(own, blocks[0].users, blocks[0].items)
        for depth, block in enumerate(blocks):
            steps = self._messages.block_messages(block)
            if heard is not None:
                nodes = block.users[: len(steps[0].scale)], block.items[: len(steps[1].scale)]
                steps = steps[0].only(heard[0][nodes[0]]), steps[1].only(heard[1][nodes[1]])
            states = self._layer(depth, states, steps)
        return states[0].index_select(0, user_row), states[1].index_select(0, item_row)

    def states(
        self,
        exclude: tuple[Tensor, Tensor] | None = None,
        own: tuple[Tensor, Tensor] | None = None,
        heard: tuple[Tensor, Tensor] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """States of all users and items at every depth, ``[num_users, dim]`` and ``[num_items, dim]``.

        Args:
            exclude: Users and items of pairs whose edges carry no message.
            own: Who has an embedding, 0 or 1, ``[num_users]`` and ``[num_items]``; all if None.
            heard: Who has neighbours, likewise.
        """
        steps = self._messages.all_messages(exclude)
        if heard is not None:
            steps = steps[0].only(heard[0]), steps[1].only(heard[1])
        states = [self._first(own)]
        for depth in range(self.hparams["num_layers"]):
            states.append(self._layer(depth, states[-1], steps))
        return states

    def pair_scores(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of vectors row by row: ``[batch, dim]``, twice, to ``[batch]``."""
        score: Tensor = self.output((self.user_half(users) + self.item_half(items)).relu())[:, 0]
        return score if self.product is None else score + (users * items) @ self.product

    def _first(
        self, own: tuple[Tensor, Tensor] | None, users: Tensor | None = None, items: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """h^0 of some or all nodes; one without an edge has no embedding: nothing has ever trained it."""
        maps, first = (self.user_features, self.item_features), []
        for side, (table, rows) in enumerate(((self.users.weight, users), (self.items.weight, items))):
            has = self._trained[side] if own is None else self._trained[side] * own[side]
            features = self._tables[side]
            if rows is not None:  # index_select's backward adds rows in place, which is faster than indexing's
                table, has, features = table.index_select(0, rows), has[rows], features[rows]
            first.append(torch.addmm(table * has[:, None], features, maps[side]))
        return first[0], first[1]

    def _layer(
        self, depth: int, states: tuple[Tensor, Tensor], steps: tuple[Messages, Messages]
    ) -> tuple[Tensor, Tensor]:
        users, items = states
        to_users, to_items = steps
        next_users = self.user_layers[depth](users[: len(to_users.scale)], to_users(items))
        next_items = self.item_layers[depth](items[: len(to_items.scale)], to_items(users))
        if depth + 1 < self.hparams["num_layers"]:
            next_users, next_items = next_users.relu(), next_items.relu()
        return next_users, next_items

    def _dropped(self) -> tuple[Tensor, Tensor] | None:
        """0 for a random share of users and items, else 1; None where the share is 0."""
        share = self.hparams["node_dropout"]
        if share == 0:
            return None
        counts, device = (len(self._trained[0]), len(self._trained[1])), self._trained[0].device
        users, items = (torch.rand(count, generator=self._random, device=device) >= share for count in counts)
        return users.to(self.users.weight), items.to(self.users.weight)

    def notices(self) -> Sequence[str]:
        """Which features the data lack; those inputs are left out."""
        return self.data.missing_features()

    @torch.no_grad()
    def start_new(self, users: Tensor, items: Tensor) -> None:
        """Zero: a new node is its features and what its neighbours say; the layers have learnt to make do with that."""
        self.users.weight[users] = 0
        self.items.weight[items] = 0

    @torch.no_grad()
    def ranker(self) -> SAGERanker:
        """The layers and their states at every depth: a history goes through them as a node without embedding."""
        self._to(self.users.weight.device)
        states = self.states()
        (users, items), dim = states[-1], self.hparams["embedding_dim"]
        average = self._tables[0].mean(0) @ self.user_features  # a new user's features are unknown
        return SAGERanker(
            user_states=torch.stack([state[0] for state in states[:-1]]),
            item_states=torch.stack([state[1] for state in states[:-1]]),
            **_stacked("user", self.user_layers),
            **_stacked("item", self.item_layers),
            item_features=self.item_features.detach().clone(),
            item_input=_matrix(self.item_half),
            user_vectors=users[None],
            item_vectors=items[None],
            user_bias=users.new_zeros(1, len(users)),
            item_bias=items.new_zeros(1, len(items)),
            product=items.new_zeros(dim) if self.product is None else self.product.detach().clone(),
            user_input=_matrix(self.user_half)[None],
            item_hidden=(self.item_half(items) + self.user_half.bias)[None],
            hidden_bias=self.user_half.bias.detach().clone(),
            prior_vector=average[None],
            prior_bias=average.new_zeros(1),
            weight_1=_matrix(self.output)[None],
            bias_1=average.new_zeros(1, 1),
            **self.ranker_settings(),
        )

    def ranker_settings(self) -> dict[str, Any]:
        """What the task adds to the ranker's settings."""
        return {}


def _with_ones(table: FeatureTable | None, num_nodes: int) -> Tensor:
    """The features and a last column of ones, ``[nodes, columns + 1]``."""
    ones = torch.ones(num_nodes, 1)
    return ones if table is None else torch.cat([table.values, ones.to(table.values.device)], dim=1)


def _names(table: FeatureTable | None) -> tuple[str, ...]:
    """What the columns of :func:`_with_ones` are called."""
    return (*(() if table is None else table.names), "one")


def _matrix(linear: Linear) -> Tensor:
    """A layer's weights as a matrix to multiply rows by, ``[in, out]``."""
    return linear.weight.detach().T.clone(memory_format=torch.contiguous_format)


def _stacked(side: str, layers: ModuleList) -> dict[str, Any]:
    """The layers' weights as the ranker has them, ``[num_layers, in, dim]``, and biases, ``[num_layers, dim]``."""
    each = [cast(SAGELayer, layer) for layer in layers]
    return {
        f"{side}_own": torch.stack([_matrix(layer.own) for layer in each]),
        f"{side}_neighbours": torch.stack([_matrix(layer.neighbours) for layer in each]),
        f"{side}_offset": torch.stack([layer.neighbours.bias for layer in each]),
    }
