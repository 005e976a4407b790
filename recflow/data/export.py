"""A prepared dataset as files for other tools: its split in the dataset's own ids, its features, its header.

parquet   ``train``, ``val``, ``test``, ``items``, ``users``; ``fold_in``, ``tags``, ``negatives`` where there are any
csv       the same tables; lists are joined by ``|``
recbole   RecBole's atomic files: ``NAME.train.inter``, ``NAME.valid.inter``, ``NAME.test.inter``, ``NAME.item`` and
          ``NAME.user``; in sequences, a blank within an entry becomes ``_``

Ratings and times are written only where they are the dataset's own. A folder appears whole or not at all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import polars as pl

from recflow.errors import RecflowError

if TYPE_CHECKING:
    from recflow.data.dataset import Dataset

Format = Literal["parquet", "csv", "recbole"]

HEADER = "header.json"
_JOINED_BY = {"csv": "|", "recbole": " "}
_RECBOLE_PARTS = {"train": "train", "val": "valid", "test": "test"}


def export(data: Dataset, tags: pl.DataFrame, folder: Path, form: Format, *, overwrite: bool = False) -> list[Path]:
    """Write a dataset's parts, items, users and header into a new folder.

    Args:
        data: The prepared dataset.
        tags: ``user_id``, ``item_id``, ``tag``, ``time``; those of users and items that a filter removed are left out.
        folder: Where the files go; it must not exist, or hold an earlier export if `overwrite`.
        form: How they are written.
        overwrite: Whether an earlier export may be replaced.

    Returns:
        The files, by name.

    Raises:
        RecflowError: If the folder is taken or cannot be written, or the format cannot hold the data.
    """
    check_format(form)
    if form == "recbole" and data.parts.fold_in.height:
        raise RecflowError(
            "format recbole knows no users held out whole, as split 'users' makes them; choose another --data.split, "
            "or --format parquet"
        )
    with whole_folder(folder, HEADER, overwrite=overwrite) as new:
        for name, table in _tables(data, tags):
            if form == "recbole":
                _write_recbole(table, new, data.name, name)
            elif form == "csv":
                _joined(table, name, "csv").write_csv(new / f"{name}.csv")
            else:
                table.write_parquet(new / f"{name}.parquet")
        header = json.dumps(data.header(), indent=2, ensure_ascii=False)
        (new / HEADER).write_text(header + "\n", encoding="utf-8")
    return sorted(folder.expanduser().iterdir())


def check_format(form: str) -> None:
    """Refuse a format that `export` does not know.

    Raises:
        RecflowError: If it is none of `Format`.
    """
    if form not in get_args(Format):
        raise RecflowError(f"format {form!r} is unknown, expected one of {', '.join(get_args(Format))}")


@contextmanager
def whole_folder(final: Path, marker: str, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder that becomes `final` when the block ends well, and vanishes when it does not.

    Args:
        final: The folder; refused where something is there already.
        marker: A file that tells what was written here from somebody else's folder: only the former is replaced.
        overwrite: Whether it may be replaced.

    Raises:
        RecflowError: If `final` is taken, or the disk refuses.
    """
    final = final.expanduser().absolute()
    refuse_taken(final, marker, overwrite=overwrite)
    taken = final.exists()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            yield new
            if taken:
                final.rename(old)
            try:
                new.rename(final)
            except OSError:
                if taken:
                    old.rename(final)
                raise
    except (OSError, pl.exceptions.ComputeError) as error:  # polars tells of a full disk in either way
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RecflowError(f"{final} cannot be written: {reason}; choose another --out") from error


def refuse_taken(final: Path, marker: str, *, overwrite: bool = False) -> None:
    """Tell early what `whole_folder` would refuse, before the work is done.

    Raises:
        RecflowError: If something is there that may not be replaced.
    """
    if not (final.exists() or final.is_symlink()):
        return
    if not overwrite or not final.is_dir() or final.is_symlink():
        raise RecflowError(f"{final} exists already; choose another --out, or replace an earlier one by --overwrite")
    if not (final / marker).is_file() and any(final.iterdir()):
        raise RecflowError(f"{final} holds no {marker}, so it was not written by this command and is not overwritten")


def _tables(data: Dataset, tags: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """One at a time: a part of 26 million rows with its ids is not kept beside the next one."""
    parts = data.parts
    for name in ("train", "val", "test"):
        yield name, _in_own_ids(getattr(parts, name), data)
    if parts.fold_in.height:
        yield "fold_in", _in_own_ids(parts.fold_in, data)
    users, items = data.interactions.users, data.interactions.items
    yield "items", items
    yield "users", users
    kept = tags.join(items.select("item_id"), on="item_id", how="semi") if tags.height else tags
    kept = kept.join(users.select("user_id"), on="user_id", how="semi") if kept.height else kept
    if kept.height:
        yield "tags", kept
    if data.interactions.negatives.height:
        yield "negatives", _in_own_ids(data.interactions.negatives, data)


def _in_own_ids(table: pl.DataFrame, data: Dataset) -> pl.DataFrame:
    """Indices back to ids; of rating and time what the dataset has."""
    own = data.interactions
    given = [name for name, has in (("rating", own.has_ratings), ("time", own.has_times)) if has and name in table]
    return pl.DataFrame(
        [
            own.users["user_id"].gather(table["user"]),
            own.items["item_id"].gather(table["item"]),
            *(table[name] for name in given),
        ]
    )


def _joined(table: pl.DataFrame, name: str, form: Literal["csv", "recbole"]) -> pl.DataFrame:
    """Lists as text; what text cannot hold is refused."""
    by = _JOINED_BY[form]
    for column, dtype in table.schema.items():
        if not dtype.is_nested():
            continue
        if isinstance(dtype, pl.Array):
            table = table.with_columns(pl.col(column).arr.to_list())
        inner = getattr(dtype, "inner", None)
        if inner is None or inner.is_nested() or inner == pl.Binary:
            raise RecflowError(f"the column {column} of {name} is {dtype}, which no text file holds; use parquet")
        entries = pl.element().cast(pl.String)
        if form == "recbole":
            entries = entries.str.replace_all(r"\s+", "_")
        elif table[column].explode().cast(pl.String).str.contains(by, literal=True).any():
            raise RecflowError(f"an entry of {column} in {name} contains {by!r}, which joins lists in CSV; use parquet")
        table = table.with_columns(pl.col(column).list.eval(entries).list.join(by))
    return table


def _write_recbole(table: pl.DataFrame, folder: Path, dataset: str, name: str) -> None:
    """One atomic file: tabs, and every column's type in its name. Tags and negatives have no such form."""
    if name in _RECBOLE_PARTS:
        file = f"{dataset}.{_RECBOLE_PARTS[name]}.inter"
    elif name in ("items", "users"):
        file = f"{dataset}.{name.removesuffix('s')}"
    else:
        return
    kinds = {column: _recbole_type(column, dtype) for column, dtype in table.schema.items()}
    columns = {column: f"{'timestamp' if column == 'time' else column}:{kind}" for column, kind in kinds.items()}
    words = [column for column, kind in kinds.items() if kind == "token_seq" and table[column].dtype == pl.String]
    one_line = [pl.col(column).str.replace_all(r"\s+", " ") for column in words]
    _joined(table.with_columns(one_line), name, "recbole").rename(columns).write_csv(folder / file, separator="\t")


def _recbole_type(column: str, dtype: pl.DataType) -> str:
    if column in ("user_id", "item_id"):
        return "token"
    if column == "title":
        return "token_seq"
    if isinstance(dtype, pl.List | pl.Array):
        return "float_seq" if dtype.inner.is_numeric() else "token_seq"
    return "float" if dtype.is_numeric() else "token"
