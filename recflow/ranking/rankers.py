"""Rankers: small torch-only modules that score items, for known users or for a bare history.

A ranker is what a fitted model leaves behind. Validation, the command line and the HTTP service all rank through it, so
what was measured is what is served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recflow.errors import RecflowError
from recflow.ranking.histories import Histories
from recflow.ranking.ridge import ridge_regressions

_LEAST_RIDGE = 1e-9  # of the inputs' squares, for a penalty of 0: all but the smallest solution of a short history


class Ranker(nn.Module, ABC):
    """Scores items. Higher is better; only the order has a meaning, unless the model predicts ratings.

    A ranker's constructor takes its tensors and its plain settings by keyword and nothing else, the tensors become
    buffers of the same names, and :meth:`settings` returns the rest: so any ranker can be saved and rebuilt.
    """

    num_users: int
    num_items: int
    whole_history: bool = False
    """Whether histories come whole, with stars, even where a ranking run learnt from likes alone. Rating models' do."""

    holds_histories: bool = False
    """Whether its tensors say what the known users have interacted with, which then cannot be left out of a bundle."""

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments that are not tensors: JSON values."""
        return {}

    @classmethod
    def rebuild(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Make a ranker from what :meth:`settings` and ``state_dict()`` returned."""
        return cls(**settings, **tensors)

    @abstractmethod
    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Score items for known users.

        Args:
            users: User indices, int64, shape ``[batch]``.
            candidates: Item indices, int64, shape ``[candidates]``; all items if None.

        Returns:
            Raw scores, float32, shape ``[batch, candidates]``, in memory of their own: evaluation masks them in place.
        """

    @abstractmethod
    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """Score items for someone the model has never seen, from a history alone (fold-in).

        Args:
            items: Item indices, int64, shape ``[history]``.
            ratings: Stars, float32, shape ``[history]``; models that learn from likes alone ignore them.
            candidates: Item indices, int64, shape ``[candidates]``; all items if None.

        Returns:
            Raw scores, float32, shape ``[candidates]``.
        """

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Score items for several histories at once: one :meth:`score_history` a row, or the same numbers sooner.

        Args:
            histories: One row of items, and of stars where the data has them, for each user who may be asked for.
            users: Rows of ``histories``, int64, shape ``[batch]``; an empty one gets what ``score_history`` gives it.
            candidates: Item indices, int64, shape ``[candidates]``; all items if None.

        Returns:
            Raw scores, float32, shape ``[batch, candidates]``, in memory of their own, as those of :meth:`score`.
        """
        rows = [self.score_history(*histories.of(user), candidates) for user in users.tolist()]
        if not rows:
            return torch.empty(0, self.num_items if candidates is None else len(candidates), device=users.device)
        return torch.stack(rows)

    def similar(self, items: Tensor) -> Tensor:
        """Similarity of every item to each given one; an item's similarity to itself has no meaning.

        Args:
            items: Item indices, int64, shape ``[batch]``.

        Returns:
            Similarities, float32, shape ``[batch, num_items]``.

        Raises:
            RecflowError: If the model has no notion of similar items.
        """
        raise RecflowError("This model has no notion of similar items; use a personalised one, such as lightgcn.")

    def item_embeddings(self) -> Tensor | None:
        """The items' vectors, for whoever wants to see which lie near each other; None if the model has none.

        Returns:
            Float, shape ``[num_items, dim]``.
        """
        return None

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """How much an item's score falls when one item of the history is left out, for each of them.

        Args:
            items: The history's item indices, int64, shape ``[history]``.
            ratings: Its stars, float32, shape ``[history]``.
            item: The recommended item's index.

        Returns:
            Contributions, float32, shape ``[history]``, in units of the score.
        """
        return self._leaving_out(items, ratings, torch.tensor([item], device=items.device))[0]

    def explain_many(self, items: Tensor, ratings: Tensor | None, wanted: Tensor) -> Tensor:
        """:meth:`explain` for several recommended items.

        Args:
            items: The history's item indices, int64, shape ``[history]``.
            ratings: Its stars, float32, shape ``[history]``.
            wanted: The recommended items, int64, shape ``[recommended]``.

        Returns:
            Contributions, float32, shape ``[recommended, history]``.
        """
        if type(self).explain is Ranker.explain:
            return self._leaving_out(items, ratings, wanted)
        return torch.stack([self.explain(items, ratings, item) for item in wanted.tolist()])

    def _leaving_out(self, items: Tensor, ratings: Tensor | None, wanted: Tensor) -> Tensor:
        """Each shortened history is scored once, for all that is wanted: ``[recommended, history]``."""
        whole = self.score_history(items, ratings, wanted)
        keep = ~torch.eye(len(items), dtype=torch.bool, device=items.device)
        without = [self.score_history(items[rest], None if ratings is None else ratings[rest], wanted) for rest in keep]
        if not without:
            return items.new_empty(len(wanted), 0, dtype=torch.float32)
        return whole[:, None] - torch.stack(without, dim=1)

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Predict ratings of user–item pairs, in stars.

        Args:
            users: User indices, int64, shape ``[batch]``.
            items: Item indices, int64, shape ``[batch]``.

        Returns:
            Stars within the data's scale, float32, shape ``[batch]``.

        Raises:
            RecflowError: If the model only ranks.
        """
        raise RecflowError("This model ranks items and predicts no ratings; use a rating model, such as bias-mf.")

    @property
    def device(self) -> torch.device:
        """Where the ranker's tensors are."""
        return next(self.buffers()).device


class FactorRanker(Ranker):
    """``score(u, i) = mean + b_u + b_i + <p_u, q_i>``: whatever ends in one vector per user and per item.

    A history is folded in by one of two closed forms:

    - ``"solve"``: ridge regression of the history's n ratings (or ones) on its items' vectors, ``argmin over (b, p) of
      Σ_h (r_h - mean - b_h - b - <p, q_h>)² + n^reg_exponent (reg_bias b² + reg |p|²)``;
    - ``"propagate"``: ``p = Σ_h f_h / sqrt(n)`` with one vector ``f`` per item, ``fold_in_factors``: what a linear
      graph model gives a new node.

    Args:
        user_factors: ``[num_users, dim]``; ``dim`` may be 0.
        item_factors: ``[num_items, dim]``.
        user_bias: ``[num_users]``; zeros if None.
        item_bias: ``[num_items]``; zeros if None.
        fold_in_factors: ``[num_items, dim]``, for ``"propagate"``.
        mean: The ratings' mean, in stars.
        fold_in: The closed form, see above.
        reg: Ridge penalty of the fold-in's vector, at least 0.
        reg_bias: Ridge penalty of the fold-in's bias; None leaves the bias out.
        reg_exponent: How the penalties grow with the history's length: 0 not at all, 1 in proportion.
        rating_scale: Lowest and highest star, if the scores are ratings.
    """

    user_factors: Tensor
    item_factors: Tensor
    user_bias: Tensor
    item_bias: Tensor
    fold_in_factors: Tensor | None

    def __init__(
        self,
        user_factors: Tensor,
        item_factors: Tensor,
        user_bias: Tensor | None = None,
        item_bias: Tensor | None = None,
        fold_in_factors: Tensor | None = None,
        mean: float = 0.0,
        fold_in: Literal["solve", "propagate"] = "solve",
        reg: float = 1.0,
        reg_bias: float | None = None,
        reg_exponent: float = 0.0,
        rating_scale: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if user_factors.shape[1] != item_factors.shape[1]:
            raise ValueError(
                f"user and item factors must be of one dimension, got {tuple(user_factors.shape)} and "
                f"{tuple(item_factors.shape)}"
            )
        if (fold_in == "propagate") != (fold_in_factors is not None):
            raise ValueError("fold_in_factors belong to fold_in='propagate', and to it alone")
        self.num_users, self.num_items = len(user_factors), len(item_factors)
        self.register_buffer("user_factors", user_factors)
        self.register_buffer("item_factors", item_factors)
        self.register_buffer("user_bias", user_factors.new_zeros(self.num_users) if user_bias is None else user_bias)
        self.register_buffer("item_bias", item_factors.new_zeros(self.num_items) if item_bias is None else item_bias)
        self.register_buffer("fold_in_factors", fold_in_factors)
        self.mean, self.reg, self.reg_bias, self.reg_exponent = mean, reg, reg_bias, reg_exponent
        self.fold_in: Literal["solve", "propagate"] = fold_in
        self.rating_scale = None if rating_scale is None else (float(rating_scale[0]), float(rating_scale[1]))

    def settings(self) -> dict[str, Any]:
        """See :meth:`Ranker.settings`."""
        names = ("mean", "fold_in", "reg", "reg_bias", "reg_exponent", "rating_scale")
        return {name: getattr(self, name) for name in names}

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score`."""
        factors, bias = self._items(candidates)
        offset = (self.mean + self.user_bias[users])[:, None]  # [batch, 1]
        return torch.addmm(bias.expand(len(users), -1), self.user_factors[users], factors.T).add_(offset)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_history`."""
        history = Histories.of_one(items, ratings)
        return self.score_histories(history, torch.zeros(1, dtype=torch.int64, device=items.device), candidates)[0]

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_histories`."""
        user_bias, user_factors = self.fold_in_vectors(histories, users)
        factors, bias = self._items(candidates)
        offset = (self.mean + user_bias)[:, None]  # [batch, 1]
        return torch.addmm(bias.expand(len(users), -1), user_factors, factors.T).add_(offset)

    def similar(self, items: Tensor) -> Tensor:
        """Cosine between item vectors; see :meth:`Ranker.similar`."""
        if self.item_factors.shape[1] == 0:
            return super().similar(items)
        unit = F.normalize(self.item_factors, dim=1)
        return unit[items] @ unit.T

    def item_embeddings(self) -> Tensor | None:
        """See :meth:`Ranker.item_embeddings`."""
        return self.item_factors if self.item_factors.shape[1] else None

    def points(self) -> Tensor:
        """Factors and bias; see :class:`~recflow.ranking.questions.InnerProducts`."""
        return torch.cat([self.item_factors, self.item_bias[:, None]], dim=1)

    def queries(self, users: Tensor) -> Tensor:
        """Factors, and a 1 for the items' biases; see :class:`~recflow.ranking.questions.InnerProducts`."""
        return F.pad(self.user_factors[users], (0, 1), value=1.0)

    def queries_of_histories(self, histories: Histories, users: Tensor) -> Tensor:
        """See :class:`~recflow.ranking.questions.InnerProducts`."""
        return F.pad(self.fold_in_vectors(histories, users)[1], (0, 1), value=1.0)

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """See :meth:`explain_many`."""
        return self.explain_many(items, ratings, torch.tensor([item], device=items.device))[0]

    def explain_many(self, items: Tensor, ratings: Tensor | None, wanted: Tensor) -> Tensor:
        """See :meth:`Ranker.explain_many`; the same numbers, without folding in once for each item of the history."""
        length, dim = len(items), self.item_factors.shape[1]
        if length < 2 or dim == 0 or self.reg == 0 or self.reg_bias == 0:
            return self._leaving_out(items, ratings, wanted)
        if self.fold_in_factors is not None:
            parts = self.item_factors[wanted] @ self.fold_in_factors[items].T  # [recommended, history]
            total = parts.sum(1, keepdim=True)
            return total.div(length**0.5) - (total - parts).div((length - 1) ** 0.5)
        factors, target, ridge = self._inputs(items), self._targets(items, ratings), self._ridge()
        asked = F.pad(self.item_factors[wanted].double(), (0, factors.shape[1] - dim), value=1.0)  # [.., weights]
        gram = factors.T @ factors
        whole = torch.linalg.solve(gram + torch.diag(ridge * length**self.reg_exponent), factors.T @ target)
        # All shortened histories share one penalty, so one solution serves them all: Sherman and Morrison's formula
        # takes a single row out of it.
        ridge = ridge * (length - 1) ** self.reg_exponent
        inverse = torch.linalg.solve(gram + torch.diag(ridge), factors.T)  # [weights, history]
        solution = inverse @ target
        residual = target - factors @ solution
        leverage = (factors.T * inverse).sum(0)
        without = (asked @ solution)[:, None] - (asked @ inverse) * residual / (1 - leverage)
        falls: Tensor = (asked @ whole)[:, None] - without
        return falls.float()

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """See :meth:`Ranker.predict`."""
        if self.rating_scale is None:
            return super().predict(users, items)
        dot = (self.user_factors[users] * self.item_factors[items]).sum(1)
        return (self.mean + self.user_bias[users] + self.item_bias[items] + dot).clamp(*self.rating_scale)

    def _items(self, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        if candidates is None:
            return self.item_factors, self.item_bias
        return self.item_factors[candidates], self.item_bias[candidates]

    def fold_in_vectors(self, histories: Histories, users: Tensor) -> tuple[Tensor, Tensor]:
        """New users' biases, ``[batch]``, and vectors, ``[batch, dim]``; zeros where a history is empty."""
        dim = self.item_factors.shape[1]
        bias, vectors = self.item_bias.new_zeros(len(users)), self.item_factors.new_zeros(len(users), dim)
        lengths = histories.lengths(users)
        if dim == 0 and self.reg_bias is None:
            return bias, vectors
        if self.fold_in_factors is not None:
            return bias, histories.sums(users, self.fold_in_factors) / lengths.clamp(min=1).sqrt()[:, None]
        _, place = histories.places(users)
        items, ratings = histories.items[place], histories.ratings[place] if len(histories.ratings) else None
        named, columns = torch.unique(items, return_inverse=True)  # an item's input stands in memory once
        inputs, targets = self._inputs(named), self._targets(items, ratings)
        ridge = self._ridge() * lengths.double()[:, None] ** self.reg_exponent  # [batch, weights]
        rows = Histories(F.pad(lengths.cumsum(0), (1, 0)), columns, targets[:0])
        weights = ridge_regressions(rows, inputs, ridge, targets).weights.float()
        if self.reg_bias is not None:
            bias = weights[:, dim]
        return bias, weights[:, :dim]

    def _inputs(self, items: Tensor) -> Tensor:
        """What the fold-in predicts from, float64, ``[items, weights]``; a bias is the weight of an input of 1."""
        factors = self.item_factors[items].double()
        return factors if self.reg_bias is None else F.pad(factors, (0, 1), value=1.0)

    def _targets(self, items: Tensor, ratings: Tensor | None) -> Tensor:
        """What the fold-in is to predict, float64, ``[interactions]``."""
        wanted = self.item_bias.new_ones(len(items)) if ratings is None else ratings
        return wanted.double() - (self.mean + self.item_bias[items].double())

    def _ridge(self) -> Tensor:
        """The fold-in's penalties before they grow with the history, float64, ``[weights]``."""
        penalties = [self.reg] * self.item_factors.shape[1] + ([] if self.reg_bias is None else [self.reg_bias])
        ridge = torch.tensor(penalties, dtype=torch.float64, device=self.item_factors.device)
        if min(penalties, default=1.0) == 0:
            ridge.clamp_(min=_LEAST_RIDGE * (1 + float(self.item_factors.square().sum(1).max())))
        return ridge


class ItemItemRanker(Ranker):
    """``score(u, i) = Σ over u's items h of weights[h, i]``: EASE, Item-KNN and their family.

    A new user needs nothing but the history, which is all that a known user has, too: fold-in is exact.

    Args:
        weights: What one item in a history adds to each item's score, dense, ``[num_items, num_items]``.
        indptr: Row starts of the known users' histories, int64, ``[num_users + 1]``.
        items: Their items, int64, ``[num_interactions]``.
    """

    holds_histories = True
    weights: Tensor
    indptr: Tensor
    items: Tensor

    def __init__(self, weights: Tensor, indptr: Tensor, items: Tensor) -> None:
        super().__init__()
        if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
            raise ValueError(f"weights must be square, [num_items, num_items], got {tuple(weights.shape)}")
        self.num_users, self.num_items = len(indptr) - 1, len(weights)
        self.register_buffer("weights", weights.contiguous())  # row by row, as histories sum them: 40 times as fast
        self.register_buffer("indptr", indptr)
        self.register_buffer("items", items)

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score`."""
        return self.score_histories(Histories(self.indptr, self.items, torch.empty(0)), users, candidates)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_history`."""
        rows = self.weights[items] if candidates is None else self.weights[items][:, candidates]
        return rows.sum(0)

    def score_histories(self, histories: Histories, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`Ranker.score_histories`."""
        return histories.sums(users, self.weights if candidates is None else self.weights[:, candidates])

    def similar(self, items: Tensor) -> Tensor:
        """Weights from each given item to all; see :meth:`Ranker.similar`."""
        return self.weights[items]

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """The weight from each history item to the item, which is exactly what the score would fall by."""
        return self.weights[items, item]
