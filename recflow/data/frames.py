"""Frames in memory, of Polars or pandas: kept as Parquet files, so that everything else may speak of a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recflow.data.cache import default_cache, written_beside
from recflow.data.table_files import digest
from recflow.errors import RecflowError


def keep_frame(frame: Any, cache_dir: Path | None = None) -> Path:
    """Keep a frame as a Parquet file, so that everything else may speak of a file.

    Args:
        frame: A Polars DataFrame or LazyFrame, or a pandas DataFrame (its index is left out; nan is missing).
        cache_dir: The cache's folder; None: `default_cache`.

    Returns:
        ``frames/<hash of the contents>/frame.parquet`` in the cache; the same contents give the same file.

    Raises:
        RecflowError: If it is no frame, or a column holds values of several kinds.
    """
    if isinstance(frame, pl.LazyFrame):
        table = frame.collect()
    elif isinstance(frame, pl.DataFrame):
        table = frame
    elif all(hasattr(frame, name) for name in ("columns", "iloc", "dtypes")):
        table = _from_pandas(frame)
    else:
        raise RecflowError(f"{type(frame).__name__} given, expected a Polars or pandas DataFrame or a file's path")
    objects = [name for name, dtype in table.schema.items() if dtype == pl.Object]
    if objects:
        raise RecflowError(f"the frame's column {objects[0]!r} holds Python objects, expected numbers, text or dates")
    frames = (cache_dir or default_cache()) / "frames"
    try:
        frames.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=frames, prefix=".new-") as temporary:
            written = Path(temporary) / "frame.parquet"
            table.write_parquet(written)
            kept = frames / digest(written)[:16] / written.name
            if kept.is_file():
                written.replace(kept)  # the same bytes, unless the disk has lost some
            else:
                with written_beside(kept.parent) as folder:
                    written.rename(folder / written.name)
    except OSError as error:
        raise RecflowError(f"the frame cannot be kept in {frames}: {error.strerror or error}") from error
    return kept


def _from_pandas(frame: Any) -> pl.DataFrame:
    names = [str(name) for name in frame.columns]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise RecflowError(f"the frame has two columns called {repeated!r}, expected one; rename the other")
    return pl.DataFrame([_pandas_column(name, frame[key]) for name, key in zip(names, frame.columns, strict=True)])


def _pandas_column(name: str, series: Any) -> pl.Series:
    """A pandas column without pyarrow: through NumPy, or through Python's own objects where it holds these already."""
    missing = pl.Series(np.asarray(series.isna(), dtype=np.bool_))
    kind = getattr(series.dtype, "kind", "O")
    if kind in "iu":
        whole = "uint64" if kind == "u" else "int64"
        values = pl.Series(name, series.to_numpy(dtype=whole, na_value=0))
    elif kind == "f":
        values = pl.Series(name, series.to_numpy(dtype="float64", na_value=np.nan))
    elif kind == "M":
        if getattr(series.dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        values = pl.Series(name, series.to_numpy().astype("datetime64[us]"))
    else:
        objects = [None if gone else value for value, gone in zip(series.astype(object), missing, strict=True)]
        try:
            return pl.Series(name, objects, strict=True)
        except (TypeError, pl.exceptions.PolarsError):
            kinds = sorted({type(value).__name__ for value in objects if value is not None})
            raise RecflowError(
                f"the frame's column {name!r} holds {' and '.join(kinds)}, expected one kind of value; cast it"
            ) from None
    return values.set(missing, None)
