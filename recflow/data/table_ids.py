"""Ids in tables of one's own: whole numbers as Int64 where nothing is lost, else text, and none missing."""

from __future__ import annotations

import polars as pl

from recflow.data.table_files import TableFile
from recflow.errors import RecflowError

_MISSING_MARKS = ("na", "n/a", "nan", "null", "none", "nil", "-", "?", "<na>")


def rating_ids(table: TableFile, name: str, rows: pl.DataFrame, role: str) -> pl.Series:
    """A role's ids as Int64 or String; a text's are numbers only if every one is written as a number prints.

    Args:
        table: The table of ratings.
        name: The column of ids.
        rows: The table as read: a column `role` of its ids, for a text those that are numbers, and ``ROLE plain``,
            whether each is written as it prints.
        role: ``user`` or ``item``.

    Returns:
        The ids, one for each row.

    Raises:
        RecflowError: If an id is missing or negative, or the column's type is none of an id.
    """
    expected = f"{'an' if role == 'item' else 'a'} {role} id in every row"
    ids = rows[role]
    if not table.is_text:
        ids = _typed_ids(table, name, ids)
    elif not rows[f"{role} plain"].all():
        plain = rows[f"{role} plain"]
        ids = table.read([pl.col(name)])[name]
        table.refuse_first(_is_missing(ids), name, expected)
        odd = ids.filter(~plain).str.strip_chars(" ").str.to_lowercase()
        if plain.any() and odd.is_in(_MISSING_MARKS).all():
            table.refuse_first(~plain, name, expected)
    _check_ids(table, name, ids, expected)
    return ids


def feature_ids(table: TableFile, name: str, ids: pl.Series, role: str, dtype: pl.DataType) -> pl.Series:
    """The ids of a table of items or users, in the type of the ratings' ids.

    Args:
        table: The table.
        name: The column of ids.
        ids: The column as read.
        role: ``user`` or ``item``.
        dtype: The type of the ratings' ids, Int64 or String.

    Returns:
        The ids, one for each row.

    Raises:
        RecflowError: If an id is missing, negative, given twice, or no whole number where the ratings' ids are.
    """
    if not table.is_text:
        ids = _typed_ids(table, name, ids)
    expected = f"{'an' if role == 'item' else 'a'} {role} id in every row"
    table.refuse_first(_is_missing(ids), name, expected)
    if dtype == pl.Int64 and ids.dtype == pl.String:
        text = ids.str.strip_chars(" ")
        ids = text.cast(pl.Int64, strict=False)
        table.refuse_first(
            (ids.cast(pl.String) != text).fill_null(True), name, "a whole number, as the ratings' ids are"
        )
    ids = ids.cast(dtype)
    _check_ids(table, name, ids, expected)
    table.refuse_first(~ids.is_first_distinct(), name, f"each {role} once; an earlier row describes it already")
    return ids


def _typed_ids(table: TableFile, name: str, ids: pl.Series) -> pl.Series:
    if ids.dtype.is_integer():
        numbers = ids.cast(pl.Int64, strict=False)
        table.refuse_first(numbers.is_null() & ids.is_not_null(), name, "an id below 2^63, or text")
        return numbers
    if ids.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return ids.cast(pl.String)
    hint = "; cast them to integers, since 1.0 and 1 would be two ids" if ids.dtype.is_float() else ""
    raise RecflowError(f"{table.path}: the ids in {name} are {ids.dtype}, expected integers or text{hint}")


def _check_ids(table: TableFile, name: str, ids: pl.Series, expected: str) -> None:
    table.refuse_first(_is_missing(ids), name, expected)
    if ids.dtype == pl.Int64:
        table.refuse_first(ids < 0, name, "an id from 0, since a negative one usually stands for a missing id")


def _is_missing(values: pl.Series) -> pl.Series:
    return values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()
