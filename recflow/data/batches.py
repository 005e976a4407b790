"""Training batches as whole tensors: shuffled and, where needed, given negatives an epoch at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from recflow.errors import RecflowError


class BPRBatch(NamedTuple):
    """Triples for pairwise losses, int64, each of shape ``[batch]``."""

    users: Tensor
    items: Tensor
    negatives: Tensor


class RatingBatch(NamedTuple):
    """Ratings for pointwise losses: int64 indices and float32 stars, each of shape ``[batch]``."""

    users: Tensor
    items: Tensor
    ratings: Tensor


class Batches(Protocol):
    """A loader: iterates over one epoch's batches, the same ones for the same (seed, epoch)."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[NamedTuple]: ...


def epoch_generator(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random state that follows (seed, epoch) alone, so that a resumed run repeats an unbroken one."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + epoch) % 2**63)


class _Epochs:
    """Batches of a permutation of the interactions. Lightning calls ``sampler.set_epoch`` before each epoch."""

    def __init__(self, num_interactions: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.num_interactions, self.batch_size, self.seed, self.epoch = num_interactions, batch_size, seed, 0

    def __len__(self) -> int:
        return math.ceil(self.num_interactions / self.batch_size)

    @property
    def sampler(self) -> Self:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's order the next iteration follows."""
        self.epoch = epoch


class BPRBatches(_Epochs):
    """Every interaction once an epoch, in random order, each with one item drawn as its negative.

    Args:
        users: User indices, int64, shape ``[num_interactions]``.
        items: Item indices, int64, shape ``[num_interactions]``.
        negatives: Draws the negatives.
        batch_size: Triples in a batch; the last one may be smaller.
        seed: With the epoch's number, fixes order and negatives.
    """

    def __init__(self, users: Tensor, items: Tensor, negatives: NegativeSampler, batch_size: int, seed: int) -> None:
        super().__init__(len(users), batch_size, seed)
        self.users, self.items, self.negatives = users, items, negatives

    def __iter__(self) -> Iterator[BPRBatch]:
        generator = epoch_generator(self.seed, self.epoch, self.users.device)
        order = torch.randperm(self.num_interactions, generator=generator, device=self.users.device)
        users, items = self.users[order], self.items[order]
        negatives = self.negatives(users, generator)
        for chunk in zip(*(torch.split(tensor, self.batch_size) for tensor in (users, items, negatives)), strict=True):
            yield BPRBatch(*chunk)


class RatingBatches(_Epochs):
    """Every rating once an epoch, in random order.

    Args:
        users: User indices, int64, shape ``[num_ratings]``.
        items: Item indices, int64, shape ``[num_ratings]``.
        ratings: Stars, float32, shape ``[num_ratings]``.
        batch_size: Ratings in a batch; the last one may be smaller.
        seed: With the epoch's number, fixes the order.
    """

    def __init__(self, users: Tensor, items: Tensor, ratings: Tensor, batch_size: int, seed: int) -> None:
        super().__init__(len(users), batch_size, seed)
        self.users, self.items, self.ratings = users, items, ratings

    def __iter__(self) -> Iterator[RatingBatch]:
        generator = epoch_generator(self.seed, self.epoch, self.users.device)
        order = torch.randperm(self.num_interactions, generator=generator, device=self.users.device)
        for chunk in torch.split(order, self.batch_size):
            yield RatingBatch(self.users[chunk], self.items[chunk], self.ratings[chunk])


class NegativeSampler:
    """Draws, for each given user, an item that the user has not interacted with, uniformly.

    All draws are made at once; those that hit an interaction, found by binary search in the sorted keys
    ``user * num_items + item``, are drawn again. A user who has interacted with every item has no negative: refused.
    """

    def __init__(self, users: Tensor, items: Tensor, num_items: int) -> None:
        self.num_items = num_items
        self.keys = torch.unique(users * num_items + items)  # sorted
        if len(self.keys) and int(torch.bincount(self.keys // num_items).max()) >= num_items:
            raise RecflowError(
                f"A user has interacted with all {num_items} items: none is left to be drawn as a negative."
            )

    def __call__(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one item per user, int64, shape of ``users``."""
        drawn = self._draw(len(users), generator)
        open_ = self._collisions(users, drawn)
        while len(open_):
            again = self._draw(len(open_), generator)
            drawn[open_] = again
            open_ = open_[self._collisions(users[open_], again)]
        return drawn

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.num_items, (count,), generator=generator, device=self.keys.device)

    def _collisions(self, users: Tensor, items: Tensor) -> Tensor:
        keys = users * self.num_items + items
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        taken: Tensor = (self.keys[place] == keys).nonzero().flatten()
        return taken
