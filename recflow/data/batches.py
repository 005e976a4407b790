"""Training batches as whole tensors: shuffled and, where needed, given negatives an epoch at a time.

Several processes share an epoch without talking to each other: all draw the same one from (seed, epoch), and each keeps
its slice of every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from recflow.data.negatives import NegativeSampler as NegativeSampler
from recflow.errors import RecflowError


class BPRBatch(NamedTuple):
    """Triples for pairwise losses, int64, each of shape ``[batch]``."""

    users: Tensor
    items: Tensor
    negatives: Tensor


class PointwiseBatch(NamedTuple):
    """Labelled pairs for pointwise losses: int64 indices and float32 labels, each of shape ``[batch]``.

    The label is 1 for an interaction and 0 for a sampled item. Each interaction is followed by its own negatives.
    """

    users: Tensor
    items: Tensor
    labels: Tensor


class RatingBatch(NamedTuple):
    """Ratings for pointwise losses: int64 indices and float32 stars, each of shape ``[batch]``."""

    users: Tensor
    items: Tensor
    ratings: Tensor


class Batches(Protocol):
    """A loader: iterates over one epoch's batches, the same ones for the same (seed, epoch).

    One that can feed several processes has ``shard(rank, world_size)``, too, as those of this file have.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[NamedTuple]: ...


def epoch_generator(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random state that follows (seed, epoch) alone, so that a resumed run repeats an unbroken one."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + epoch) % 2**63)


class _Epochs:
    """Batches of a permutation of the interactions. Lightning calls ``sampler.set_epoch`` before each epoch."""

    def __init__(self, num_interactions: int, batch_size: int, seed: int, rows_each: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.num_interactions, self.batch_size, self.seed, self.epoch = num_interactions, batch_size, seed, 0
        self.rows_each, self.rank, self.world_size = rows_each, 0, 1
        self.interactions_per_batch = max(1, batch_size // rows_each)

    def __len__(self) -> int:
        full, rest = divmod(self.num_interactions, self.interactions_per_batch)
        return full + (rest >= self.world_size)

    @property
    def sampler(self) -> Self:
        """Where Lightning looks for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's order the next iteration follows."""
        self.epoch = epoch

    def shard(self, rank: int, world_size: int) -> Self:
        """Yield one process's slice of each batch from now on; ``batch_size`` stays that of all processes together.

        Slices of one batch differ by at most one interaction in size and, joined by rank, are that batch. A last batch
        that holds fewer interactions than there are processes is left out on all, so that all make as many steps.

        Args:
            rank: This process, from 0.
            world_size: Number of processes.

        Returns:
            This loader.

        Raises:
            RecflowError: If a batch, or the whole epoch, has fewer interactions than there are processes.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1, got rank {rank} and world_size {world_size}")
        if self.interactions_per_batch < world_size:
            raise RecflowError(
                f"A batch of {self.batch_size} cannot be shared by {world_size} processes: "
                f"give a batch_size of at least {world_size * self.rows_each}."
            )
        if self.num_interactions < world_size:
            raise RecflowError(
                f"{self.num_interactions} training interactions cannot be shared by {world_size} processes: use fewer."
            )
        self.rank, self.world_size = rank, world_size
        return self

    def _slices(self, *columns: Tensor) -> Iterator[list[Tensor]]:
        for batch in zip(*(torch.split(column, self.interactions_per_batch) for column in columns), strict=True):
            if len(batch[0]) >= self.world_size:
                yield [torch.tensor_split(column, self.world_size)[self.rank] for column in batch]


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
        for batch in self._slices(users, items, negatives):
            yield BPRBatch(*batch)


class PointwiseBatches(_Epochs):
    """Every interaction once an epoch, in random order, each followed by freshly drawn negatives.

    He et al., WWW 2017, https://arxiv.org/abs/1708.05031

    Args:
        users: User indices, int64, shape ``[num_interactions]``.
        items: Item indices, int64, shape ``[num_interactions]``.
        negatives: Draws the negatives.
        batch_size: Rows in a batch, interactions and negatives together. No interaction is parted from its negatives: a
            batch holds ``batch_size // (1 + num_negatives)`` interactions, at least 1; the last one may hold fewer.
        seed: With the epoch's number, fixes order and negatives.
        num_negatives: Negatives for each interaction, at least 1; one item may come more than once among them.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        negatives: NegativeSampler,
        batch_size: int,
        seed: int,
        num_negatives: int = 4,
    ) -> None:
        if num_negatives < 1:
            raise RecflowError(f"num_negatives must be at least 1, got {num_negatives}.")
        super().__init__(len(users), batch_size, seed, rows_each=1 + num_negatives)
        self.users, self.items, self.negatives, self.num_negatives = users, items, negatives, num_negatives

    def __iter__(self) -> Iterator[PointwiseBatch]:
        generator = epoch_generator(self.seed, self.epoch, self.users.device)
        order = torch.randperm(self.num_interactions, generator=generator, device=self.users.device)
        # One negative of all interactions at a time: what drawing needs besides is not multiplied by num_negatives.
        # And before shuffling: tables are sorted by user, and in that order the sampler's searches stay in the cache.
        negatives = [self.negatives(self.users, generator)[order] for _ in range(self.num_negatives)]
        label = torch.tensor([1.0] + [0.0] * self.num_negatives, device=order.device)
        for batch_users, *candidates in self._slices(self.users[order], self.items[order], *negatives):
            yield PointwiseBatch(
                batch_users.repeat_interleave(self.rows_each),
                torch.stack(candidates, dim=1).flatten(),  # [interactions, 1 + num_negatives] -> [batch]
                label.repeat(len(batch_users)),
            )


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
        for (chunk,) in self._slices(order):
            yield RatingBatch(self.users[chunk], self.items[chunk], self.ratings[chunk])
