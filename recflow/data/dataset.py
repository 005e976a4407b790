"""A dataset made ready for a model: indexed, split, with its graph and its held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recflow.data.catalog import load_path, load_raw
from recflow.data.features import FeatureTable, encode
from recflow.data.graph import BipartiteGraph, bipartite_graph
from recflow.data.interactions import Interactions, RawData, build_interactions
from recflow.data.pyg import hetero_data
from recflow.data.splits import Split, SplitMethod, split, thin_train
from recflow.data.tables import Columns, load_table
from recflow.errors import RecflowError
from recflow.spec import Task

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

Part = Literal["train", "val", "test", "fold_in"]


@dataclass(frozen=True)
class DataConfig:
    """Which data, how it is filtered, split and batched.

    Args:
        name: A named dataset: sample (embedded, synthetic; sample:ratings=1000000 for more) or one of `recflow data
            list`. Only read where path is null.
        path: Your own ratings: a CSV, TSV or Parquet file, or a folder in a published form.
        user: Its column of users; null: found by its usual name (user_id, userId, member …).
        item: Its column of items; null: found by its usual name.
        rating: Its column of ratings; null: found by its usual name, and done without if there is none.
        time: Its column of times; null: found by its usual name, and done without if there is none.
        items: A table of item features for path: title, year, genres and others; its first column or the one named
            like the ratings' is the id.
        users: A table of user features for path.
        rating_range: Lowest and highest rating that path may hold; null takes what comes.
        split: ratio (per user, at random), temporal (at two points in time, for all users), user-temporal (each
            user's last ones), leave-one-out (each user's last is test, the one before validation), users (whole users
            held out and folded in), k-fold (at random, see folds) or files (the dataset's own). Null: k-fold where
            folds is set, files for data published as train and test and for own data with a column fold, else ratio.
        ratios: Shares of train, validation and test under ratio, temporal and user-temporal, and of users under
            users; they sum to 1.
        folds: Number of folds under k-fold or files; without fold, all of them are fitted, one after another.
        fold: Which fold is test under k-fold and files, from 1.
        val_fraction: Share of the rows outside the test fold that is validation under k-fold and files; 0 for none.
        fold_in_fraction: Share of a held-out user's rows that is known under users.
        train_fraction: Share of the training rows that is trained on: how good would it be with less data?
        seed: Fixes the split. A run's own seed is another, so that several seeds can share one split.
        drop_below: Leave out ratings below this before the split; null keeps all.
        relevant_from: Held-out ratings from here on count as relevant, and ranking models learn from training
            ratings from here on; null takes every interaction. Rating models learn from all.
        require_genre: Leave out items that have no genre.
        years: First and last year of release of the items to keep; null keeps all.
        min_item_ratings: Leave out items with fewer rows than this; 0 keeps all.
        k_core: Keep only users and items with at least this many rows, repeatedly; 0 keeps all.
        batch_size: Interactions in a training step, over all processes together.
    """

    name: str = "sample"
    path: str | None = None
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    items: str | None = None
    users: str | None = None
    rating_range: tuple[float, float] | None = None
    split: SplitMethod | None = None
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    folds: int | None = None
    fold: int | None = None
    val_fraction: float = 0.1
    fold_in_fraction: float = 0.8
    train_fraction: float = 1.0
    seed: int = 42
    drop_below: float | None = None
    relevant_from: float | None = None
    require_genre: bool = False
    years: tuple[int, int] | None = None
    min_item_ratings: int = 0
    k_core: int = 0
    batch_size: int = 4096

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise RecflowError(f"data.batch_size must be at least 1, got {self.batch_size}.")
        of_files = [name for name in ("user", "item", "rating", "time", "items", "users") if getattr(self, name)]
        if of_files and self.path is None:
            named = ", ".join(f"data.{name}" for name in of_files)
            raise RecflowError(f"{named}: for data of your own: give the file as --data FILE or data.path.")
        if self.folds is not None and self.split not in (None, "k-fold", "files"):
            raise RecflowError(f"data.folds goes with split k-fold or files, got split {self.split}.")
        if self.fold is not None and self.split not in (None, "k-fold", "files"):
            raise RecflowError(f"data.fold goes with split k-fold or files, got split {self.split}.")
        if not 0 <= self.val_fraction < 1:
            raise RecflowError(f"data.val_fraction must be from 0 to below 1, got {self.val_fraction}.")
        if not 0 < self.fold_in_fraction < 1:
            raise RecflowError(f"data.fold_in_fraction must be above 0 and below 1, got {self.fold_in_fraction}.")
        if not 0 < self.train_fraction <= 1:
            raise RecflowError(f"data.train_fraction must be above 0 and up to 1, got {self.train_fraction}.")
        if self.rating_range is not None and self.path is None:
            raise RecflowError(
                "data.rating_range belongs to data of your own: give the file as --data FILE or data.path."
            )
        if self.split == "k-fold" and self.folds is None:
            raise RecflowError("Split k-fold needs data.folds, the number of folds, such as 5.")


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
            "fold_in": Rows.of(parts.fold_in if parts.fold_in.width else parts.train.clear()),
        }
        if len(self.positives.users) == 0:
            raise RecflowError(
                f"No training interaction of {interactions.name} is relevant: data.relevant_from is "
                f"{config.relevant_from}; ratings go up to {self.rating_scale[1]:g}."
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

    @cached_property
    def item_features(self) -> FeatureTable | None:
        """What is known of the items besides their interactions; None where nothing is."""
        table = encode(self.interactions.items)
        return None if table is None else table.to(self.train.users.device)

    @cached_property
    def user_features(self) -> FeatureTable | None:
        """What is known of the users besides their interactions; None where nothing is."""
        table = encode(self.interactions.users)
        return None if table is None else table.to(self.train.users.device)

    def missing_features(self) -> list[str]:
        """What whoever fits a model with features should be told: which tables these data lack."""
        tables = {"item": self.item_features, "user": self.user_features}
        return [f"{self.name} has no {side} features: done without" for side, table in tables.items() if table is None]

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
        earlier: list[Part] = ["train", "fold_in"] if part == "val" else ["train", "fold_in", "val"]
        return Rows(*(torch.cat(columns) for columns in zip(*(self.rows[name] for name in earlier), strict=True)))

    def untrained(self, task: Task) -> Tensor:
        """Users whom a model of this task is not trained on, bool, ``[num_users]``: they are folded in.

        Rating models learn from all training rows, ranking models from the positives.
        """
        users = (self.train if task == "rating" else self.positives).users
        return torch.bincount(users, minlength=self.num_users) == 0

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
            "interactions": {
                part: len(rows.users) for part, rows in self.rows.items() if part != "fold_in" or len(rows.users)
            },
            "cold": {part: self._cold(part) for part in ("val", "test")},
            "filter": self.interactions.filters,
            "split": self.parts.describe,
            "relevance": "every interaction" if threshold is None else f"rating >= {threshold:g}",
            "candidates": "full ranking: every item left after filtering, minus what the user has seen"
            + ("; besides, the given candidates" if self.interactions.negatives.height else ""),
        }

    def _cold(self, part: Part) -> dict[str, int]:
        """How many of a part's users and items have no training row."""

        def count(wanted: Tensor, trained: Tensor, size: int) -> int:
            counts, known = (torch.bincount(rows, minlength=size) for rows in (wanted, trained))
            return int(((counts > 0) & (known == 0)).sum())

        held_out, train = self.rows[part], self.train
        return {
            "users": count(held_out.users, train.users, self.num_users),
            "items": count(held_out.items, train.items, self.num_items),
        }

    def to_pyg(self, task: Task = "ranking") -> HeteroData:
        """The training graph as PyTorch Geometric's ``HeteroData``; held-out rows stand beside it, never in it.

        Node types ``user`` and ``item`` have ``num_nodes``, ``raw_id`` and, where the tables say anything, ``x`` and
        ``feature_names``. The edges ``("user", "rates", "item")`` and ``("item", "rated_by", "user")`` have
        ``edge_index``, int64, ``[2, interactions]``, and ``rating``; the former, too, ``val_label_index``,
        ``val_label``, ``test_label_index`` and ``test_label``.

        Args:
            task: ranking takes the relevant rows, as ranking models do, rating all of them.

        Raises:
            RecflowError: If PyTorch Geometric is not installed.
        """
        return hetero_data(self, task)

    def to(self, device: torch.device | str) -> Self:
        """Move the rows and the graph to a device, in place."""
        self.rows = {part: rows.to(device) for part, rows in self.rows.items()}
        for name in ("train", "positives"):
            self.__dict__.pop(name, None)
        for name in ("graph", "item_features", "user_features"):
            if self.__dict__.get(name) is not None:
                self.__dict__[name] = self.__dict__[name].to(device)
        return self


def prepare(config: DataConfig) -> Dataset:
    """Load, filter and split.

    Raises:
        RecflowError: If the data cannot be had, or nothing of it is left.
    """
    interactions = build_interactions(
        load(config),
        drop_below=config.drop_below,
        k_core=config.k_core,
        require_genre=config.require_genre,
        years=config.years,
        min_item_ratings=config.min_item_ratings,
    )
    method = _method(config, interactions)
    if method == "files" and config.folds is not None:
        given = _folds(interactions)
        if given != list(range(1, config.folds + 1)):
            brings = f"the folds {', '.join(map(str, given))}" if given else "no folds"
            raise RecflowError(f"data.folds is {config.folds}, but {interactions.name} brings {brings}.")
    parts = split(
        interactions,
        method,
        ratios=config.ratios,
        seed=config.seed,
        fold=1 if config.fold is None else config.fold,
        val_fraction=config.val_fraction,
        folds=config.folds or 0,
        fold_in_fraction=config.fold_in_fraction,
    )
    if config.train_fraction != 1:
        parts = thin_train(parts, config.train_fraction, config.seed)
    return Dataset(interactions, parts, config)


def load(config: DataConfig) -> RawData:
    """Read what a configuration names, a dataset or a file of one's own, in its own ids.

    Raises:
        RecflowError: If the data cannot be had.
    """
    if config.path is None:
        return load_raw(config.name)
    path = Path(config.path).expanduser()
    if path.is_dir():
        return load_path(path)
    columns = Columns(config.user, config.item, config.rating, config.time)
    items, users = (None if table is None else Path(table).expanduser() for table in (config.items, config.users))
    return load_table(path, columns, items=items, users=users, rating_range=config.rating_range)


def _method(config: DataConfig, interactions: Interactions) -> SplitMethod:
    """The split that is meant where none is named."""
    if config.split is not None:
        return config.split
    if config.folds is not None:
        return "k-fold"
    if "fold" not in interactions.table.columns:
        if config.fold is not None:
            raise RecflowError(
                f"data.fold is {config.fold}, but {interactions.name} brings no folds: give data.folds, too."
            )
        return "ratio"
    if config.fold is not None:
        return "files"
    own_column = config.path is not None and not Path(config.path).expanduser().is_dir()
    return "files" if own_column or interactions.table["fold"].has_nulls() else "ratio"


def _folds(interactions: Interactions) -> list[int]:
    if "fold" not in interactions.table.columns:
        return []
    return sorted(interactions.table["fold"].drop_nulls().unique().to_list())


def config_of(settings: dict[str, Any]) -> DataConfig:
    """Read a configuration back from a run's ``data:`` section."""
    pairs = {"ratios", "years", "rating_range"}  # YAML knows lists only
    given: dict[str, Any] = {name: tuple(v) if name in pairs and v else v for name, v in settings.items()}
    return DataConfig(**given)


def _column(table: pl.DataFrame, name: str, kind: type) -> np.ndarray[Any, Any]:
    return np.array(table[name].to_numpy(), dtype=kind)  # a copy: polars' own memory is read-only
