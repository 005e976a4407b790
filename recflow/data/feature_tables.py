"""Tables of items and of users: titles, years and genres recognised by name, every other column kept as a feature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from recflow.data.sniffing import atomic_name, open_table, plain_name
from recflow.data.table_ids import feature_ids
from recflow.data.usual_names import GENRES, ITEM_FEATURES, NAMES, TITLES, USER_FEATURES, YEARS, Role, find_column
from recflow.errors import RecflowError

_NO_GENRES = "(no genres listed)"


def read_features(path: Path, column: str, asked: str | None, dtype: pl.DataType) -> tuple[pl.DataFrame, list[str]]:
    """Read a table of items or users.

    Args:
        path: The file, in any form that `open_table` knows.
        column: ``item_id`` or ``user_id``, as which the ids are given back.
        asked: What the column of ids is called in the ratings, where that was asked for.
        dtype: The type of the ratings' ids, Int64 or String.

    Returns:
        One row for each item or user, and what is to be said about it, one line each.

    Raises:
        RecflowError: If the file, a column or an id cannot be used.
    """
    role: Role = "item" if column == "item_id" else "user"
    known = {*NAMES[role], *(ITEM_FEATURES if role == "item" else USER_FEATURES)}
    asked = None if asked is None else atomic_name(asked)
    table = open_table(path, known=known if asked is None else {*known, plain_name(asked)})
    notices = []
    if not table.has_header:
        if role == "user" or len(table.names) > 3:
            raise RecflowError(
                f"{path} has no header, its first line is {table.first[:80]!r}; expected one that names the columns"
            )
        table = replace(table, names=("item_id", "title", "genres")[: len(table.names)])
        notices.append(f"{path.name}: no header, so the columns are {', '.join(table.names)}")
    id_column = asked if asked in table.names else find_column(table, NAMES[role]) or table.names[0]
    roles = {column: id_column}
    if role == "item":
        for feature, words in (("title", TITLES), ("year", YEARS), ("genres", GENRES)):
            if (found := find_column(table, words, roles.values())) is not None:
                roles[feature] = found
    rest = [name for name in table.names if name not in roles.values()]
    twice = next((name for name in rest if name in roles), None)
    if twice is not None:
        raise RecflowError(f"{path}: {roles[twice]!r} is taken as {twice}, so {twice!r} needs another name; rename it")
    frame = table.read([pl.col(name) for name in table.names])
    columns = [feature_ids(table, id_column, frame[id_column], role, dtype).alias(column)]
    if "title" in roles:
        columns.append(frame[roles["title"]].cast(pl.String).alias("title"))
    if "year" in roles:
        years, unread = _years(frame[roles["year"]])
        columns.append(years)
        notices += [f"{path.name}: {unread:,} years cannot be read and count as unknown"] if unread else []
    elif "title" in roles:
        columns.append(columns[-1].str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32).alias("year"))
    if "genres" in roles:
        columns.append(_genres(frame[roles["genres"]], spaced=roles["genres"] in table.lists))
    columns += [_inferred(frame[name]) if table.is_text else frame[name] for name in rest]
    return pl.DataFrame(columns), notices


def _years(given: pl.Series) -> tuple[pl.Series, int]:
    """Years of release, null where unknown, and how many are something else than a year."""
    if given.dtype in (pl.Date, pl.Datetime):
        years = given.dt.year()
    elif given.dtype.is_numeric():
        years = given
    else:
        given = given.cast(pl.String).str.strip_chars(" ")
        years = given.str.extract(r"^(\d{4})(?:\D|$)")
        given = given.set((given == "").fill_null(False), None)
    years = years.cast(pl.Int32, strict=False).alias("year")
    unknown = given.is_null() | (given.is_nan() if given.dtype.is_float() else False)
    return years, int((years.is_null() & ~unknown).sum())


def _genres(given: pl.Series, *, spaced: bool) -> pl.Series:
    """Lists of genres; in a text they stand between ``|``, where that occurs at all, else between commas."""
    if not isinstance(given.dtype, pl.List):
        text = given.cast(pl.String)
        separator = " " if spaced else "|" if text.str.contains("|", literal=True).any() else ","
        given = text.set((text == _NO_GENRES).fill_null(False), None).str.split(separator)
    genre = pl.element().cast(pl.String).str.strip_chars(" ")
    frame = given.alias("genres").to_frame()
    kept = pl.col("genres").list.eval(genre.filter(genre.is_not_null() & (genre != "")))
    return frame.select(kept.fill_null(pl.lit([], dtype=pl.List(pl.String))))["genres"]


def _inferred(text: pl.Series) -> pl.Series:
    """A text's feature as whole numbers or numbers if all of them are and print as they are written, else as it is."""
    text = text.set((text == "").fill_null(False), None)
    if text.null_count() == len(text):
        return text
    whole = text.cast(pl.Int64, strict=False)
    if bool((whole.cast(pl.String) == text).all()) and whole.null_count() == text.null_count():
        return whole
    padded = text.str.contains(r"^[+-]?0\d").any()  # a code such as 02154, not a number
    number = text.cast(pl.Float64, strict=False)
    return number if number.null_count() == text.null_count() and not padded else text
