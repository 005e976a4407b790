"""Tables of items and users as numbers: what a model may know of a node besides its interactions.

Each column of a table becomes numbers by its type and name and by nothing else, so the same table always gives the same
ones, and no rating has a part in them:

- lists of texts (genres): 1 for each text that the list holds, else 0; left out where there are more than 1,024 texts;
- texts, and whole numbers that are codes: 1 in the column of the value, where there are 64 values or fewer; those of
  more values are left out, for they name rather than describe;
- numbers: standardised to mean 0 and standard deviation 1 over the known ones;
- truth values: 0 or 1;
- dates: the year as a number, standardised, and the month as a code.

Whole numbers measure something, unless the column's name says that they are codes: see ``CODES``. A number that is not
known is 0, the mean, and where any is unknown one more column says so. An unknown text, code or month has no 1 at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

MAX_VALUES = 64
MAX_TEXTS = 1024
SKIPPED = ("user_id", "item_id", "title", "imdb_id", "tmdb_id", "zip_code")
CODES = ("occupation", "gender", "sex", "country", "region", "state", "city", "language", "category", "type", "brand")

Column = tuple[str, npt.NDArray[np.float32]]


class FeatureTable(NamedTuple):
    """Features of users or of items.

    Attributes:
        values: Row n describes node n, float32, shape ``[rows, columns]``.
        names: What each column tells, such as ``"genres=Comedy"``, ``"age"`` or ``"released.month=3"``.
    """

    values: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> FeatureTable:
        """The same features on another device."""
        return FeatureTable(self.values.to(device), self.names)


def encode(frame: pl.DataFrame, skip: Collection[str] = SKIPPED) -> FeatureTable | None:
    """Turn a table's columns into features; columns that tell nothing apart are left out.

    Args:
        frame: One row per node.
        skip: Columns that name a node or link to it elsewhere: ids, titles, addresses.

    Returns:
        The features, or None where no column gives any.

    Example:
        >>> encode(pl.DataFrame({"user_id": [3, 7], "age": [20, 40], "gender": ["F", "M"]})).names
        ('age', 'gender=F', 'gender=M')
    """
    columns = [column for series in frame.iter_columns() if series.name not in skip for column in _columns(series)]
    columns = [(name, values) for name, values in columns if values.size and values.min() != values.max()]
    if not columns:
        return None
    return FeatureTable(
        torch.from_numpy(np.stack([values for _, values in columns], axis=1)), tuple(name for name, _ in columns)
    )


def _columns(series: pl.Series) -> Iterator[Column]:
    name, dtype = series.name, series.dtype
    if isinstance(dtype, pl.List) and dtype.inner in (pl.String, pl.Categorical):
        yield from _texts(series)
    elif dtype == pl.Boolean:
        yield name, series.fill_null(False).cast(pl.Float32).to_numpy()
        if series.has_nulls():
            yield f"{name}.missing", _as_numbers(series.is_null())
    elif dtype in (pl.Date, pl.Datetime):
        yield from _number(series.dt.year().alias(f"{name}.year"))
        yield from _code(series.dt.month().alias(f"{name}.month"))
    elif dtype in (pl.String, pl.Categorical, pl.Enum):
        yield from _code(series.cast(pl.String))
    elif dtype.is_integer() and name.lower() in CODES:
        yield from _code(series)
    elif dtype.is_numeric():
        yield from _number(series)


def _texts(series: pl.Series) -> Iterator[Column]:
    """One column for each text that a list holds."""
    pairs = pl.DataFrame({"row": np.arange(len(series)), "text": series.cast(pl.List(pl.String))})
    pairs = pairs.explode("text").drop_nulls()
    texts = pairs["text"].unique().sort()
    if len(texts) > MAX_TEXTS:
        return
    rows = dict(pairs.group_by("text").agg("row").iter_rows())
    for text in texts:
        has = np.zeros(len(series), dtype=np.float32)
        has[rows[text]] = 1
        yield f"{series.name}={text}", has


def _code(series: pl.Series) -> Iterator[Column]:
    """One column for each value, if they are few."""
    values = series.drop_nulls().unique().sort()
    if len(values) > MAX_VALUES:
        return
    for value in values:
        yield f"{series.name}={value}", _as_numbers((series == value).fill_null(False))


def _number(series: pl.Series) -> Iterator[Column]:
    """The number, standardised, and whether it is unknown."""
    given = series.cast(pl.Float64).to_numpy()  # what is null becomes nan
    known = np.isfinite(given)
    spread = given[known].std() if known.any() else 0.0
    if spread > 0:
        yield series.name, np.where(known, (given - given[known].mean()) / spread, 0.0).astype(np.float32)
    if not known.all():
        yield f"{series.name}.missing", (~known).astype(np.float32)


def _as_numbers(truth: pl.Series) -> npt.NDArray[np.float32]:
    return truth.cast(pl.Float32).to_numpy()
