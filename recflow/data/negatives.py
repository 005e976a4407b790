"""Negatives: items that a user has not interacted with, drawn for many users at once.

Drawing and rejecting is quick as long as most draws are free. For users who have nearly everything it would not end, so
what is still taken after some rounds is drawn from the rest of the items directly, in whole numbers and so exactly.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from recflow.errors import RecflowError

Distribution = Literal["uniform", "popularity"]

_ROUNDS = 100  # a user who has half of the items is still without a negative with probability 2^-100
_MASS = 2**40  # weights are whole numbers that sum to about this; user * mass stays within int64 for 8 million users


class NegativeSampler:
    """Draws, for each given user, an item that the user has not interacted with.

    All draws are made at once; those that hit an interaction, found by binary search in the sorted keys
    ``user * num_items + item``, are drawn again. A user who has no item left to be drawn is refused.

    Under ``popularity`` the probability of item j, among the items that the user has not, is proportional to
    ``count_j ** exponent``; count_j is how many users have interacted with it. An item that nobody has is never drawn.
    The exponent of 0.75 is that of word2vec (Mikolov et al., NIPS 2013, https://arxiv.org/abs/1310.4546).

    Args:
        users: User indices of what must not be drawn, int64, shape ``[num_interactions]``.
        items: Their items, int64, shape ``[num_interactions]``; a pair given twice counts once.
        num_items: Number of items.
        distribution: uniform (over all items) or popularity.
        exponent: Of the counts under popularity, at least 0: 0 draws all items that have a count alike, 1 in
            proportion to it.
        drawable: Which items may be drawn at all, bool, shape ``[num_items]``; all of them if None.

    Raises:
        RecflowError: If a user has interacted with every item that could be drawn, or nothing can be drawn at all.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        num_items: int,
        distribution: Distribution = "uniform",
        exponent: float = 0.75,
        drawable: Tensor | None = None,
    ) -> None:
        if distribution not in ("uniform", "popularity"):
            raise RecflowError(f"Negatives are drawn by uniform or popularity, not by {distribution!r}.")
        if not (math.isfinite(exponent) and exponent >= 0):
            raise RecflowError(f"The exponent of popularity is a number of at least 0, got {exponent}.")
        self.num_items, self.distribution = num_items, distribution
        self.keys = torch.unique(users * num_items + items)  # sorted
        if distribution == "uniform":
            self.weights = torch.ones(num_items, dtype=torch.int64, device=self.keys.device)
        else:
            self.weights = _popularity(torch.bincount(self.keys % num_items, minlength=num_items), exponent)
        if drawable is not None:
            self.weights = self.weights * drawable
        self.mass = self.weights.cumsum(0)  # of the items up to and including each
        self._every_item_alike = distribution == "uniform" and drawable is None
        self._refuse_who_has_all()

    def __call__(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one item per user, int64, shape of ``users``."""
        drawn = self._draw(len(users), generator)
        open_ = self._collisions(users, drawn)
        for _ in range(_ROUNDS):
            if len(open_) == 0:
                return drawn
            again = self._draw(len(open_), generator)
            drawn[open_] = again
            open_ = open_[self._collisions(users[open_], again)]
        drawn[open_] = self._draw_from_rest(users[open_], generator)
        return drawn

    def _refuse_who_has_all(self) -> None:
        num_drawable = int((self.weights > 0).sum())
        if num_drawable == 0:
            raise RecflowError("There are no interactions to draw negatives by popularity from: use uniform.")
        known = self.keys[self.weights[self.keys % self.num_items] > 0]
        if len(known) and int(torch.bincount(known // self.num_items).max()) >= num_drawable:
            which = "" if num_drawable == self.num_items else " that can be drawn"
            raise RecflowError(
                f"A user has interacted with all {num_drawable} items{which}: none is left to be drawn as a negative."
            )

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        device = self.keys.device
        if self._every_item_alike:
            return torch.randint(self.num_items, (count,), generator=generator, device=device)
        return self._item_at(torch.randint(int(self.mass[-1]), (count,), generator=generator, device=device))

    def _item_at(self, point: Tensor) -> Tensor:
        return torch.searchsorted(self.mass, point, right=True)  # right: never an item without weight

    def _collisions(self, users: Tensor, items: Tensor) -> Tensor:
        if len(self.keys) == 0:
            return users.new_empty(0)
        keys = users * self.num_items + items
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        taken: Tensor = (self.keys[place] == keys).nonzero().flatten()
        return taken

    def _draw_from_rest(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from what users have left: a point of the free mass, moved up by the known items' mass below it."""
        who, row = torch.unique(users, return_inverse=True)
        start = torch.searchsorted(self.keys, who * self.num_items)
        length = torch.searchsorted(self.keys, (who + 1) * self.num_items) - start
        end = length.cumsum(0)
        first = end - length  # where a user's known items begin in `known`, [num_who]
        owner = torch.repeat_interleave(torch.arange(len(who), device=who.device), length)  # [num_known]
        known = self.keys[torch.arange(len(owner), device=who.device) + (start - first)[owner]] % self.num_items
        running = torch.cat([first.new_zeros(1), self.weights[known].cumsum(0)])  # [num_known + 1]

        free = self.mass[-1] - (running[end] - running[first])  # [num_who]
        free_below = self.mass[known] - running[1:] + running[first][owner]  # grows along a user's known items
        point = (torch.rand(len(users), dtype=torch.float64, generator=generator, device=who.device) * free[row]).long()
        stride = self.mass[-1] + 1
        below = torch.searchsorted(owner * stride + free_below, row * stride + point, right=True)
        return self._item_at(point + running[below] - running[first[row]])


def _popularity(counts: Tensor, exponent: float) -> Tensor:
    """``counts ** exponent`` in whole numbers, at least 1 where there is a count: int64, shape ``[num_items]``."""
    relative = (counts.double() / counts.max().clamp(min=1)).pow(exponent).where(counts > 0, 0)
    weights = (relative / relative.sum() * _MASS).round().long()
    return weights.clamp_(min=1).where(counts > 0, 0)
