"""A ranker of factors and biases that starts whoever is new from what features and history lead to expect."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.rankers import Ranker
from recflow_bias_mf.posterior import Side, posterior


class PriorRanker(Ranker):
    """``score(u, i) = mean + b_u + b_i + <p_u, q_i>``, vectors being ``(factors, bias)``.

    A history is folded in as training solves a user: the expectation from the items rated (no feature is known of the
    user, so the average stands in for them), corrected by the ratings. A new item is expected where its features
    lead: :meth:`item_from_features`.

    Args:
        user_vectors: ``[num_users, dim + 1]``, the last column the bias.
        item_vectors: ``[num_items, dim + 1]``.
        item_covariances: How sure the items' vectors are, ``[num_items, dim + 1, dim + 1]``.
        start: A user's vector before anything is known, ``[dim + 1]``.
        implicit_weights: What having rated an item adds to it, times ``1 / sqrt(n)``, ``[num_items, dim + 1]``; no row
            if the model has no such input.
        precision: Of that expectation, ``[dim + 1]``.
        item_weights: From an item's features and a one to its expected vector, ``[features + 1, dim + 1]``.
        item_centre: What is taken from raw features, ``[features]``.
        mean: The ratings' mean, in stars.
        noise: Variance of a rating, in stars².
        rating_scale: Lowest and highest star.
    """

    user_vectors: Tensor
    item_vectors: Tensor
    item_covariances: Tensor
    start: Tensor
    implicit_weights: Tensor
    precision: Tensor
    item_weights: Tensor
    item_centre: Tensor

    def __init__(
        self,
        user_vectors: Tensor,
        item_vectors: Tensor,
        item_covariances: Tensor,
        start: Tensor,
        implicit_weights: Tensor,
        precision: Tensor,
        item_weights: Tensor,
        item_centre: Tensor,
        mean: float,
        noise: float,
        rating_scale: tuple[float, float],
    ) -> None:
        super().__init__()
        self.num_users, self.num_items = len(user_vectors), len(item_vectors)
        self.register_buffer("user_vectors", user_vectors)
        self.register_buffer("item_vectors", item_vectors)
        self.register_buffer("item_covariances", item_covariances)
        self.register_buffer("start", start)
        self.register_buffer("implicit_weights", implicit_weights)
        self.register_buffer("precision", precision)
        self.register_buffer("item_weights", item_weights)
        self.register_buffer("item_centre", item_centre)
        self.mean, self.noise = mean, noise
        self.rating_scale = (float(rating_scale[0]), float(rating_scale[1]))

    def settings(self) -> dict[str, Any]:
        """See :meth:`Ranker.settings`."""
        return {name: getattr(self, name) for name in ("mean", "noise", "rating_scale")}

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score`."""
        return self._score(self.user_vectors[users], self._items(candidates))

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_history`; without ratings, having rated the items is all that is known."""
        history = Histories.of_one(items, ratings)
        return self.score_histories(history, torch.zeros(1, dtype=torch.int64, device=items.device), candidates)[0]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_histories`."""
        return self._score(self._fold_in(histories, users), self._items(candidates))

    def similar(self, items: Tensor) -> Tensor:
        """Cosine between item factors; see :meth:`Ranker.similar`."""
        unit = F.normalize(self.item_vectors[:, :-1], dim=1)
        return unit[items] @ unit.T

    def item_embeddings(self) -> Tensor:
        """See :meth:`Ranker.item_embeddings`."""
        return self.item_vectors[:, :-1]

    def points(self) -> Tensor:
        """Factors and bias; see :class:`~recflow.ranking.questions.InnerProducts`."""
        return self.item_vectors

    def queries(self, users: Tensor) -> Tensor:
        """Factors, and a 1 for the items' biases; see :class:`~recflow.ranking.questions.InnerProducts`."""
        return F.pad(self.user_vectors[users, :-1], (0, 1), value=1.0)

    def queries_of_histories(self, histories: Histories, users: Tensor) -> Tensor:
        """See :class:`~recflow.ranking.questions.InnerProducts`."""
        return F.pad(self._fold_in(histories, users)[:, :-1], (0, 1), value=1.0)

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`Ranker.predict`."""
        own, others = self.user_vectors[users], self.item_vectors[items]
        dot = (own[:, :-1] * others[:, :-1]).sum(1)
        return (self.mean + own[:, -1] + others[:, -1] + dot).clamp(*self.rating_scale)

    def item_from_features(self, features: Tensor) -> Tensor:
        """Where items that nobody has rated are expected.

        Args:
            features: Raw features in the order of the data's table of items, float32, shape ``[items, features]``.

        Returns:
            Vectors, factors and bias, float32, shape ``[items, dim + 1]``; for :meth:`score_vectors`.

        Raises:
            RecflowError: If the number of features is not the one the model was fitted with.
        """
        if features.ndim != 2 or features.shape[1] != len(self.item_centre):
            raise RecflowError(
                f"Features of shape {tuple(features.shape)} were given; this model was fitted with "
                f"{len(self.item_centre)} features an item: give [items, {len(self.item_centre)}]."
            )
        inputs = F.pad(features - self.item_centre, (0, 1), value=1.0)
        return inputs @ self.item_weights

    def score_vectors(self, users: Tensor, vectors: Tensor) -> Tensor:
        """Score items that are not in the catalogue by their vectors.

        Args:
            users: User indices, int64, shape ``[batch]``.
            vectors: From :meth:`item_from_features`, ``[items, dim + 1]``.

        Returns:
            Raw scores, in stars, float32, shape ``[batch, items]``.
        """
        return self._score(self.user_vectors[users], vectors)

    def _score(self, own: Tensor, others: Tensor) -> Tensor:
        offset = (self.mean + own[:, -1])[:, None]  # [batch, 1]
        return torch.addmm(others[:, -1].expand(len(own), -1), own[:, :-1], others[:, :-1].T).add_(offset)

    def _items(self, candidates: Tensor | None) -> Tensor:
        return self.item_vectors if candidates is None else self.item_vectors[candidates]

    def _fold_in(self, histories: Histories, users: Tensor) -> Tensor:
        """Vectors of new users, ``[batch, dim + 1]``."""
        position, place = histories.places(users)
        lengths = torch.bincount(position, minlength=len(users))
        named, item = torch.unique(
            histories.items[place], return_inverse=True
        )  # what is computed once an item is for these
        indptr = F.pad(lengths.cumsum(0), (1, 0))
        prior = self.start.expand(len(users), -1).clone()
        if len(self.implicit_weights):
            rated = F.embedding_bag(item, self.implicit_weights[named], indptr[:-1], mode="sum")
            prior += rated * lengths.clamp(min=1).to(prior).rsqrt()[:, None]
        if len(histories.ratings) == 0:
            return prior
        rows = Histories(indptr, item, histories.ratings[place])
        known = Side(self.item_vectors[named], self.item_covariances[named])
        mean, noise = self.start.new_tensor(self.mean), self.start.new_tensor(self.noise)
        everyone = torch.arange(len(users), device=users.device)
        return posterior(rows, everyone, known, mean, prior, self.precision, noise).vectors
