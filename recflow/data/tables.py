"""Your own tables: ratings, and perhaps items and users, from CSV, TSV, RecBole's atomic files, Parquet or a frame.

Columns are asked for by name or found by the names they usually have, and what was found is said in a notice. Every
value that cannot be used is refused by its line: nothing is guessed, dropped or replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import polars as pl

from recflow.data.cache import default_cache, parsed
from recflow.data.feature_tables import read_features
from recflow.data.interactions import RawData
from recflow.data.sniffing import atomic_name, open_table, plain_name
from recflow.data.table_files import TableFile, check_file, digest
from recflow.data.table_ids import rating_ids
from recflow.data.usual_names import NAMES, Role, find_column
from recflow.errors import RecflowError

_FOLD = "fold"
_TIME_UNITS = ((1e17, 10**9, "nanoseconds"), (1e14, 10**6, "microseconds"), (1e11, 10**3, "milliseconds"))
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z")
_TIME_EXPECTED = "unix seconds or an ISO date such as 2024-05-31 or 2024-05-31 18:00:00+02:00"


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what.

    Attributes:
        user: The column of user ids; None, here and below: found by its usual name.
        item: The column of item ids.
        rating: The column of ratings.
        time: The column of times.
    """

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None


#: No column is asked for by name: each is found by its usual one.
USUAL = Columns()


def load_table(
    path: Path,
    columns: Columns = USUAL,
    *,
    items: Path | None = None,
    users: Path | None = None,
    rating_range: tuple[float, float] | None = None,
    cache_dir: Path | None = None,
) -> RawData:
    """Read ratings from a file, and perhaps what is known about items and users from two more.

    A header is recognised; without one the columns are user, item, rating, time, of which the last may be missing.
    Ids are Int64 if each is a whole number written plainly, else String. Times are unix seconds, milli-, micro- or
    nanoseconds (told by their size), or ISO dates, in UTC where they name no zone. A column ``fold`` gives the split:
    from 1, the fold in which the row is a test row; 0 or nothing where it is trained on in every fold.

    Args:
        path: CSV or another table of lines in UTF-8 (separators: tab ``,`` ``;`` ``|`` ``::`` spaces), plain or in
            gzip, RecBole's atomic files, or Parquet.
        columns: Which column is what.
        items: A table of items; its ids stand in `columns.item`, a column usually called so, or the first. Titles,
            years and genres are recognised by name, every other column is kept as a feature.
        users: A table of users, likewise.
        rating_range: Lowest and highest rating that the data may hold; None: any finite number.
        cache_dir: Where parsed tables are kept; None: `default_cache`.

    Returns:
        The dataset, called by the stem of the file's name.

    Raises:
        RecflowError: If a file, a column or a value cannot be used; the message names the line.
    """
    if rating_range is not None and not (rating_range[0] <= rating_range[1] and all(map(math.isfinite, rating_range))):
        raise RecflowError(
            f"rating_range is {rating_range}, expected the lowest and the highest rating, such as (1, 5)"
        )
    sha256 = _content_hash({"ratings": path, "items": items, "users": users}, columns)
    name = Path(path.stem).stem if path.suffix == ".gz" else path.stem
    raw = parsed(cache_dir or default_cache(), name, sha256, lambda: _parse(name, sha256, path, columns, items, users))
    if rating_range is not None and raw.has_ratings:
        _check_range(raw.ratings["rating"], path, columns, rating_range)
    return raw


def _content_hash(files: dict[str, Path | None], columns: Columns) -> str:
    """Hash of whatever decides what is parsed: contents, what each file is for, its suffix, the columns asked for."""
    total = hashlib.sha256(json.dumps(asdict(columns)).encode())
    for use, path in files.items():
        if path is not None:
            check_file(path)
            total.update(f"{use} {path.suffix} {digest(path)}\n".encode())
    return total.hexdigest()


def _parse(name: str, sha256: str, path: Path, columns: Columns, items: Path | None, users: Path | None) -> RawData:
    table, roles = _open_ratings(path, columns)
    ratings, notices = _read_ratings(table, roles)
    tables = {}
    for column, file, asked in (("item_id", items, columns.item), ("user_id", users, columns.user)):
        if file is None:
            tables[column] = ratings.select(pl.col(column).unique().sort())
        else:
            tables[column], more = read_features(file, column, asked, ratings.schema[column])
            notices += more
    return RawData(
        name,
        sha256,
        ratings,
        items=tables["item_id"],
        users=tables["user_id"],
        notices=tuple(notices),
        has_ratings="rating" in roles,
        has_times="time" in roles,
    )


def _open_ratings(path: Path, columns: Columns) -> tuple[TableFile, dict[Role, str]]:
    """The file, and the column that plays each role; rating and time may have none."""
    asked = {role: atomic_name(name) for role, name in asdict(columns).items() if name is not None}
    known = {word for words in NAMES.values() for word in words}
    table = open_table(path, asked=tuple(asked.values()), known=known)
    if not table.has_header:
        return _named_by_place(table, asked)
    missing = next((role for role, name in asked.items() if name not in table.names), None)
    if missing is not None:
        raise RecflowError(
            f"{path} has no column {asked[missing]!r}, asked for as {missing}; expected one of "
            f"{', '.join(table.names)}{_closest(asked[missing], table.names)}"
        )
    roles: dict[Role, str] = {}
    for role, words in NAMES.items():
        found = asked.get(role) or find_column(table, words, {*asked.values(), *roles.values()})
        if found is None:
            continue
        if found in roles.values():
            raise RecflowError(
                f"{path}: the column {found!r} is asked for twice, as {role} too; expected one use of it"
            )
        roles[role] = found
    if "user" not in roles or "item" not in roles:
        lacking = " and which the ".join(role for role in ("user", "item") if role not in roles)
        raise RecflowError(
            f"{path}: cannot tell which column is the {lacking} among {', '.join(table.names)}; name them by "
            "--data.user NAME --data.item NAME"
        )
    return table, roles


def _named_by_place(table: TableFile, asked: dict[str, str]) -> tuple[TableFile, dict[Role, str]]:
    if asked:
        raise RecflowError(
            f"{table.path} has no header, its first line is {table.first[:80]!r}; expected one that names "
            f"{', '.join(asked.values())}"
        )
    if len(table.names) > len(NAMES):
        raise RecflowError(
            f"{table.path} has {len(table.names)} columns and no header, its first line is {table.first[:80]!r}; "
            "expected user, item, rating and time in this order, or a first line that names the columns"
        )
    names = tuple(NAMES)[: len(table.names)]
    return replace(table, names=names), {role: role for role in names}


def _closest(name: str, names: Sequence[str]) -> str:
    plain = {plain_name(other): other for other in names}
    close = get_close_matches(plain_name(name), plain, n=1)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def _read_ratings(table: TableFile, roles: dict[Role, str]) -> tuple[pl.DataFrame, list[str]]:
    fold = find_column(table, (_FOLD,), roles.values()) if table.has_header else None
    wanted: list[pl.Expr] = []
    for role, name in (*roles.items(), *([] if fold is None else [(_FOLD, fold)])):
        wanted += _first_guess(role, name) if table.is_text else [pl.col(name).alias(role)]
    rows = table.read(wanted)
    columns = [rating_ids(table, roles[role], rows, role).alias(f"{role}_id") for role in ("user", "item")]
    if "rating" in roles:
        columns.append(_ratings(table, roles["rating"], rows["rating"]))
    else:
        columns.append(pl.ones(rows.height, pl.Float32, eager=True).alias("rating"))
    notices = [_what_was_found(table, roles, fold)]
    if "time" in roles:
        times, unit = _times(table, roles["time"], rows["time"])
        columns.append(times)
        notices += [f"{table.path.name}: times are in {unit}, read as whole seconds"] if unit else []
    else:
        columns.append(pl.zeros(rows.height, pl.Int64, eager=True).alias("time"))
    if fold is not None:
        folds = _folds(table, fold, rows)
        if folds.null_count() < len(folds):
            columns.append(folds)
        else:
            notices.append(f"{table.path.name}: {fold!r} names no fold in any row and is left out")
    return pl.DataFrame(columns), notices


def _what_was_found(table: TableFile, roles: dict[Role, str], fold: str | None) -> str:
    found = [f"{role} from {name!r}" for role, name in roles.items()]
    found += [] if fold is None else [f"fold from {fold!r}"]
    if not table.has_header:
        found = [f"no header, so the columns are {', '.join(roles)}"]
    absent = [{"rating": "no ratings (each counts as 1)", "time": "no times"}[r] for r in NAMES if r not in roles]
    return f"{table.path.name}: {', '.join(found + absent)}"


def _first_guess(role: str, name: str) -> list[pl.Expr]:
    """A text's column as the numbers it mostly is: null where it is not; for ids, also whether they are plain."""
    text = pl.col(name).str.strip_chars(" ")
    if role in ("rating", _FOLD):
        return [text.cast(pl.Float32, strict=False).alias(role), (text.fill_null("") == "").alias(f"{role} missing")]
    number = text.cast(pl.Int64, strict=False)
    return [number.alias(role), (number.cast(pl.String) == text).fill_null(False).alias(f"{role} plain")]


def _ratings(table: TableFile, name: str, ratings: pl.Series) -> pl.Series:
    if not (ratings.dtype.is_numeric() or ratings.dtype == pl.Null):
        raise RecflowError(f"{table.path}: the ratings in {name} are {ratings.dtype}, expected numbers such as 3.5")
    ratings = ratings.cast(pl.Float32).alias("rating")
    table.refuse_first(~ratings.is_finite().fill_null(False), name, "a finite number such as 3.5")
    return ratings


def _check_range(ratings: pl.Series, path: Path, columns: Columns, rating_range: tuple[float, float]) -> None:
    lowest, highest = map(np.float32, rating_range)  # compared as the ratings are kept: 4.1 is within (1, 4.1)
    outside = (ratings < lowest) | (ratings > highest)
    if outside.any():
        table, roles = _open_ratings(path, columns)
        table.refuse_first(outside, roles["rating"], f"a rating from {rating_range[0]:g} to {rating_range[1]:g}")


def _times(table: TableFile, name: str, times: pl.Series) -> tuple[pl.Series, str | None]:
    """Unix seconds, and the unit of the file's own numbers if that is another."""
    if table.is_text and times.null_count():
        times = _written_times(table.read([pl.col(name)])[name])
    elif times.dtype == pl.String:
        times = _written_times(times)
    elif times.dtype in (pl.Date, pl.Datetime):
        times = times.dt.epoch("s")
    elif not (times.dtype.is_numeric() or times.dtype == pl.Null):
        raise RecflowError(f"{table.path}: the times in {name} are {times.dtype}, expected {_TIME_EXPECTED}")
    if times.dtype.is_float():
        table.refuse_first(~times.is_finite().fill_null(False), name, _TIME_EXPECTED)
        times = times.floor()
    times = times.cast(pl.Int64, strict=False).alias("time")
    table.refuse_first(times.is_null(), name, _TIME_EXPECTED)
    size = times.abs()
    largest = size.max()
    for limit, divisor, unit in _TIME_UNITS:
        if isinstance(largest, int) and largest > limit:
            mixed = (size > 0) & (size <= limit)  # seconds among milliseconds, or a slip in a column of seconds
            table.refuse_first(mixed, name, f"{unit}, as other times in this column seem to be")
            return times // divisor, unit
    return times, None


def _written_times(text: pl.Series) -> pl.Series:
    """Numbers or seconds since 1970 of ISO dates, whichever most of the strings are; null where one is not."""
    text = text.str.strip_chars(" ")
    numbers = text.cast(pl.Float64, strict=False)
    if numbers.null_count() <= len(text) // 2:
        return numbers
    text = text.str.replace(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})[T ]?", "$1-$2-$3 ").str.strip_chars(" ")
    text = text.str.replace(r" ?UTC$", "Z").str.replace(r" ([+-]\d\d:?\d\d)$", "$1")
    seconds = pl.Series([None], dtype=pl.Int64).new_from_index(0, len(text))
    for layout in _TIME_FORMATS:
        found = text.str.to_datetime(layout, strict=False, time_unit="us").dt.epoch("s")
        seconds = seconds.zip_with(seconds.is_not_null(), found)
        if not seconds.null_count():
            break
    return seconds


def _folds(table: TableFile, name: str, rows: pl.DataFrame) -> pl.Series:
    given = rows[_FOLD]
    if not (given.dtype.is_numeric() or given.dtype == pl.Null):
        raise RecflowError(f"{table.path}: the folds in {name} are {given.dtype}, expected whole numbers from 1")
    missing = rows[f"{_FOLD} missing"] if table.is_text else given.is_null()
    fold = given.cast(pl.Float64)
    missing = missing | fold.is_nan().fill_null(False) if not table.is_text else missing
    whole = ((fold >= 0) & (fold <= np.iinfo(np.int8).max) & (fold == fold.floor())).fill_null(False)
    expected = "the number of a fold from 1 to 127, or 0 or nothing for a row that is trained on in every fold"
    table.refuse_first(~(missing | whole), name, expected)
    return fold.set(missing | (fold == 0).fill_null(False), None).cast(pl.Int8).alias(_FOLD)
