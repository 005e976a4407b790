"""Scores by chance, without storing any."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recflow.ranking.rankers import Ranker

_MASK = 0xFFFFFFFF


class RandomRanker(Ranker):
    """Uniform scores from a hash of seed, user and item: any pair's score is the same at every call and in any batch.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        seed: Fixes the scores.
    """

    item_hash: Tensor

    def __init__(self, num_users: int, num_items: int, seed: int) -> None:
        super().__init__()
        self.num_users, self.num_items, self.seed = num_users, num_items, seed
        self.register_buffer("item_hash", _mix(torch.arange(num_items) + 1), persistent=False)

    def settings(self) -> dict[str, Any]:
        """See :meth:`~recflow.ranking.rankers.Ranker.settings`."""
        return {"num_users": self.num_users, "num_items": self.num_items, "seed": self.seed}

    def score(self, users: Tensor, candidates: Tensor | None = None) -> Tensor:
        """See :meth:`~recflow.ranking.rankers.Ranker.score`."""
        items = self.item_hash if candidates is None else self.item_hash[candidates]
        return self._uniform(_mix(users + 1 + self.seed * 1_000_003)[:, None], items)

    def score_history(self, items: Tensor, ratings: Tensor | None = None, candidates: Tensor | None = None) -> Tensor:
        """A history changes nothing: someone new is dealt a hand of their own."""
        who = _mix(self.item_hash[items].sum() + self.seed)
        return self._uniform(who, self.item_hash if candidates is None else self.item_hash[candidates])

    def explain(self, items: Tensor, ratings: Tensor | None, item: int) -> Tensor:
        """Nothing in the history speaks for an item drawn by chance: zeros."""
        return torch.zeros(len(items), device=items.device)

    @staticmethod
    def _uniform(user: Tensor, items: Tensor) -> Tensor:
        return (_mix(user ^ items) & 0xFFFFFF).float() / 2**24


def _mix(x: Tensor) -> Tensor:
    """Scramble whole numbers below 2^32 (the finaliser of MurmurHash3, in 64-bit arithmetic)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)
