"""A dataset made ready for a model: indexed, split, with its graph and its held-out rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recflow.data.catalog import load_raw
from recflow.data.graph import BipartiteGraph, bipartite_graph
from recflow.data.interactions import Interactions, build_interactions
from recflow.data.splits import Split, split
from recflow.errors import RecflowError

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class DataConfig:
    """Which data, how it is filtered, split and batched.

    Args:
        name: A named dataset: sample (embedded, synthetic), ml-latest-small, ml-100k, ml-1m, ml-20m, ml-25m or
            ml-32m.
        split: ratio (per user, at random), leave-one-out (each user's last interaction is test, the one before
            validation) or files (the dataset's own folds).
        ratios: Shares of train, validation and test under split ratio; they sum to 1.
        fold: Which given fold is test under split files, from 1.
        val_fraction: Share of the rows outside the test fold that is validation under split files; 0 for none.
        seed: Fixes the split. A run's own seed is another, so that several seeds can share one split.
        drop_below: Leave out ratings below this before the split; null keeps all.
        relevant_from: Held-out ratings from here on count as relevant, and ranking models learn from training
            ratings from here on; null takes every interaction. Rating models learn from all.
        k_core: Keep only users and items with at least this many rows, repeatedly; 0 keeps all.
        batch_size: Interactions in a training batch.
    """

    name: str = "sample"
    split: Literal["ratio", "leave-one-out", "files"] = "ratio"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    fold: int = 1
    val_fraction: float = 0.1
    seed: int = 42
    drop_below: float | None = None
    relevant_from: float | None = None
    k_core: int = 0
    batch_size: int = 4096

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RecflowError(f"data.batch_size must be at least 1, got {self.batch_size}.")


class Rows(NamedTuple):
    """Interactions as tensors: int64 users and items, float32 ratings, each of shape ``[num_interactions]``."""

    users: Tensor
    items: Tensor
    ratings: Tensor

    @classmethod
    def of(cls, table: pl.DataFrame) -> Self:
        """Take the columns of an interaction table."""
        return cls(*(torch.from_numpy(_column(table, name, kind)) for name, kind in _COLUMNS))

    def where(self, mask: Tensor) -> Rows:
        """The rows that a boolean mask selects."""
        return Rows(*(column[mask] for column in self))

    def to(self, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return Rows(*(column.to(device) for column in self))


_COLUMNS = (("user", np.int64), ("item", np.int64), ("rating", np.float32))


class Dataset:
    """What a model is given as ``data``: sizes, training rows, the graph, the rating scale.

    Args:
        interactions: The filtered, indexed table.
        parts: Its split.
        config: How both were made.
    """

    def __init__(self, interactions: Interactions, parts: Split, config: DataConfig) -> None:
        self.interactions, self.parts, self.config = interactions, parts, config
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        self.batch_size = config.batch_size
        self.rows: dict[Part, Rows] = {
            "train": Rows.of(parts.train),
            "val": Rows.of(parts.val),
            "test": Rows.of(parts.test),
        }
        if len(self.positives.users) == 0:
            raise RecflowError(
                f"No training interaction of {config.name} is relevant: data.relevant_from is {config.relevant_from}; "
                f"ratings go up to {self.rating_scale[1]:g}."
            )

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.interactions.name

    @cached_property
    def train(self) -> Rows:
        """All training rows: what rating models learn from."""
        return self.rows["train"]

    @cached_property
    def positives(self) -> Rows:
        """The relevant training rows: what ranking models learn from."""
        return self.relevant("train")

    @cached_property
    def graph(self) -> BipartiteGraph:
        """The normalised graph of the positives."""
        return bipartite_graph(self.positives.users, self.positives.items, self.num_users, self.num_items)

    @property
    def rating_scale(self) -> tuple[float, float]:
        """Lowest and highest star in the data, filtered rows included."""
        return self.interactions.rating_scale

    @property
    def liked_from(self) -> float | None:
        """The rating from which a ranking model can have learnt from a row; None if it learns from every row."""
        bounds = [bound for bound in (self.config.drop_below, self.config.relevant_from) if bound is not None]
        return max(bounds, default=None)

    def relevant(self, part: Part) -> Rows:
        """A part's rows that are rated ``relevant_from`` or better."""
        rows = self.rows[part]
        threshold = self.config.relevant_from
        return rows if threshold is None else rows.where(rows.ratings >= threshold)

    def seen(self, part: Part) -> Rows:
        """What a user is known to have interacted with when a part is ranked: never a candidate there."""
        earlier: list[Part] = ["train"] if part == "val" else ["train", "val"]
        return Rows(*(torch.cat(columns) for columns in zip(*(self.rows[name] for name in earlier), strict=True)))

    def known(self) -> Rows:
        """Everything that users have ever rated, filtered rows included: a served list leaves it out."""
        tables = self.interactions.table, self.interactions.dropped
        return Rows(*(torch.cat(pair) for pair in zip(*map(Rows.of, tables), strict=True)))

    def header(self) -> dict[str, Any]:
        """What a number measured on this data must be printed with."""
        threshold = self.config.relevant_from
        return {
            "dataset": self.name,
            "sha256": self.interactions.sha256,
            "users": self.num_users,
            "items": self.num_items,
            "interactions": {part: len(rows.users) for part, rows in self.rows.items()},
            "filter": self.interactions.filters,
            "split": self.parts.describe,
            "relevance": "every interaction" if threshold is None else f"rating >= {threshold:g}",
            "candidates": "full ranking: every item left after filtering, minus what the user has seen",
        }

    def to(self, device: torch.device | str) -> Self:
        """Move the rows and the graph to a device, in place."""
        self.rows = {part: rows.to(device) for part, rows in self.rows.items()}
        for name in ("train", "positives"):
            self.__dict__.pop(name, None)
        if "graph" in self.__dict__:
            self.__dict__["graph"] = self.graph.to(device)
        return self


def prepare(config: DataConfig) -> Dataset:
    """Load, filter and split.

    Raises:
        RecflowError: If the data cannot be had, or nothing of it is left.
    """
    raw = load_raw(config.name)
    interactions = build_interactions(raw, drop_below=config.drop_below, k_core=config.k_core)
    parts = split(
        interactions,
        config.split,
        ratios=config.ratios,
        seed=config.seed,
        fold=config.fold,
        val_fraction=config.val_fraction,
    )
    return Dataset(interactions, parts, config)


def config_of(settings: dict[str, Any]) -> DataConfig:
    """Read a configuration back from a run's ``data:`` section."""
    known = asdict(DataConfig())
    return DataConfig(**{**known, **settings, "ratios": tuple(settings.get("ratios", known["ratios"]))})


def _column(table: pl.DataFrame, name: str, kind: type) -> np.ndarray[Any, Any]:
    return np.array(table[name].to_numpy(), dtype=kind)  # a copy: polars' own memory is read-only
