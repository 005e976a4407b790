"""GraphSAGE's ranker: its layers, and the states that new users and new items meet in them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.ranking.histories import Histories
from recflow.ranking.mlp import MLPRanker


class SAGERanker(MLPRanker):
    """Scores known nodes as any :class:`MLPRanker` of one member does; new ones are sent through the layers first.

    A new user's state at depth 0 is the mean of what features say of users; from there on it is what the layers make of
    it and of the states of the history's items at each depth, exactly as for a node of the graph. Nothing is fitted.
    Where messages carry ratings, an item without stars counts as rated averagely.

    Args:
        user_states: What new items hear from users, ``[num_layers, num_users, dim]``: depths 0 to ``num_layers - 1``.
        item_states: What new users hear from items, ``[num_layers, num_items, dim]``.
        user_own: W_self of users, ``[num_layers, dim, dim]``.
        user_neighbours: W_neigh of users, ``[num_layers, kinds * dim, dim]``; of two kinds of messages the second is
            the first times the rating.
        user_offset: b of users, ``[num_layers, dim]``.
        item_own: W_self of items.
        item_neighbours: W_neigh of items.
        item_offset: b of items.
        item_features: From an item's features and, last, a one to its state at depth 0, ``[columns + 1, dim]``.
        item_input: The items' half of the scorer's first layer, ``[dim, hidden]``.
        hidden_bias: That layer's bias, ``[hidden]``.
        spread: The ratings' standard deviation, above 0.
        head: What :class:`MLPRanker` takes, ``prior_vector`` being a new user's state at depth 0.
    """

    user_states: Tensor
    item_states: Tensor
    user_own: Tensor
    user_neighbours: Tensor
    user_offset: Tensor
    item_own: Tensor
    item_neighbours: Tensor
    item_offset: Tensor
    item_features: Tensor
    item_input: Tensor
    hidden_bias: Tensor

    def __init__(
        self,
        user_states: Tensor,
        item_states: Tensor,
        user_own: Tensor,
        user_neighbours: Tensor,
        user_offset: Tensor,
        item_own: Tensor,
        item_neighbours: Tensor,
        item_offset: Tensor,
        item_features: Tensor,
        item_input: Tensor,
        hidden_bias: Tensor,
        spread: float = 1.0,
        **head: Any,
    ) -> None:
        super().__init__(**head)
        given = {"user_states": user_states, "item_states": item_states, "item_features": item_features}
        given |= {"user_own": user_own, "user_neighbours": user_neighbours, "user_offset": user_offset}
        given |= {"item_own": item_own, "item_neighbours": item_neighbours, "item_offset": item_offset}
        given |= {"item_input": item_input, "hidden_bias": hidden_bias}
        for name, tensor in given.items():
            self.register_buffer(name, tensor)
        self.rated = user_neighbours.shape[1] == 2 * self.dim
        self.spread = spread

    def settings(self) -> dict[str, Any]:
        """See :meth:`Ranker.settings`."""
        return {name: getattr(self, name) for name in ("mean", "spread", "rating_scale")}

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """See :meth:`Ranker.explain`; all shortened histories go through the layers together."""
        length = len(items)
        weights = self._weights(items, None if ratings is None or len(ratings) == 0 else ratings)
        heard = []
        for states in self.item_states:
            each = torch.cat([states[items] * weight[:, None] for weight in weights], dim=1)  # [history, kinds * dim]
            total = each.sum(0)
            without = (total - each) / max(1, length - 1)
            heard.append(torch.cat([total[None] / max(1, length), without]))  # [1 + history, kinds * dim]
        vectors = self._through_users(heard)
        scores = self._score(
            vectors[None], vectors.new_zeros(1, len(vectors)), torch.tensor([item], device=items.device)
        )
        return (scores[0] - scores[1:])[:, 0]

    def new_item(self, features: Tensor, users: Tensor | None = None, ratings: Tensor | None = None) -> Tensor:
        """The vector of an item that the model has never seen, from its features and, if there are any, its users.

        Args:
            features: Encoded as those the model was fitted on, float32, shape ``[columns]``.
            users: Who has interacted with it, int64, shape ``[fans]``.
            ratings: Their stars, float32, shape ``[fans]``.

        Returns:
            The vector, float32, shape ``[dim]``; :meth:`score_new_item` scores it.

        Raises:
            ValueError: If there are not as many features as the model was fitted on.
        """
        if features.shape != (len(self.item_features) - 1,):
            raise ValueError(f"features must be of shape [{len(self.item_features) - 1}], got {list(features.shape)}")
        fans = torch.empty(0, dtype=torch.int64, device=features.device) if users is None else users
        weights = self._weights(fans, ratings)
        state = F.pad(features, (0, 1), value=1.0) @ self.item_features
        for depth, states in enumerate(self.user_states):
            heard = torch.cat([weight @ states[fans] for weight in weights]) / max(1, len(fans))  # [kinds * dim]
            state = state @ self.item_own[depth] + heard @ self.item_neighbours[depth] + self.item_offset[depth]
            state = state.relu() if depth + 1 < len(self.user_states) else state
        return state

    def score_new_item(self, users: Tensor, vector: Tensor) -> Tensor:
        """Scores of :meth:`new_item`'s vector for some known users, int64, ``[batch]``: float32, ``[batch]``."""
        known = self.user_vectors[0, users]
        hidden = known @ self.user_input[0] + (vector @ self.item_input + self.hidden_bias)  # [batch, hidden]
        return self._deep(0, hidden) + known @ (vector * self.product) + self.mean

    def _fold_in(self, histories: Histories, users: Tensor) -> tuple[Tensor, Tensor]:
        """New users' vectors, ``[1, batch, dim]``, and biases, zeros."""
        counts = histories.lengths(users)
        _, place = histories.places(users)
        items = histories.items[place]
        weights = self._weights(items, histories.ratings[place] if len(histories.ratings) else None)
        starts, scale = counts.cumsum(0) - counts, counts.clamp(min=1)[:, None]
        heard = [
            torch.cat(
                [F.embedding_bag(items, states, starts, mode="sum", per_sample_weights=weight) for weight in weights],
                dim=1,
            )
            / scale
            for states in self.item_states
        ]  # of each depth, [batch, kinds * dim]
        return self._through_users(heard)[None], self.prior_bias[:, None].repeat(1, len(users))

    def _weights(self, nodes: Tensor, ratings: Tensor | None) -> list[Tensor]:
        """What each kind of message is multiplied by, for each edge, float32, ``[edges]``."""
        ones = self.item_states.new_ones(len(nodes))
        if not self.rated:
            return [ones]
        return [ones, 0 * ones if ratings is None else (ratings.to(ones) - self.mean) / self.spread]

    def _through_users(self, heard: list[Tensor]) -> Tensor:
        """Vectors of new users who hear such means at each depth, ``[batch, kinds * dim]``: ``[batch, dim]``."""
        state = self.prior_vector.expand(len(heard[0]), -1)
        for depth, means in enumerate(heard):
            state = state @ self.user_own[depth] + means @ self.user_neighbours[depth] + self.user_offset[depth]
            state = state.relu() if depth + 1 < len(heard) else state
        return state
