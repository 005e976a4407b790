"""Your own tables: ratings, and perhaps items and users, from CSV, TSV, RecBole's atomic files, Parquet or a frame.

Columns are asked for by name or found by the names they usually have, and what was found is said in a notice. Every
value that cannot be used is refused by its line: nothing is guessed, dropped or replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from recflow.data.cache import default_cache, parsed, written_beside
from recflow.data.interactions import RawData
from recflow.data.sniffing import TableFile, atomic_name, check_file, open_table, plain_name
from recflow.errors import RecflowError

Role = Literal["user", "item", "rating", "time"]


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

#: What columns are usually called, best first, each as `plain_name` gives it.
NAMES: dict[Role, tuple[str, ...]] = {
    "user": (
        *("userid", "user", "uid", "memberid", "member", "customerid", "customer", "reviewerid", "reviewer"),
        *("readerid", "reader", "visitorid", "username", "sessionid", "session"),
    ),
    "item": (
        *("itemid", "item", "iid", "movieid", "movie", "filmid", "film", "productid", "product", "parentasin", "asin"),
        *("bookid", "book", "isbn", "trackid", "track", "songid", "song", "artistid", "artist", "articleid", "article"),
        *("gameid", "game", "businessid", "poiid", "venueid"),
    ),
    "rating": ("rating", "rate", "score", "stars", "star", "overall", "preference", "bookrating"),
    "time": (
        *("timestamp", "time", "datetime", "date", "ts", "unixreviewtime", "unixtime", "when"),
        *("createdat", "ratedat", "eventtime"),
    ),
}

_TITLES = ("title", "itemtitle", "movietitle", "filmtitle", "booktitle", "productname", "itemname", "name")
_YEARS = ("year", "releaseyear", "released", "releasedate", "yearofrelease")
_GENRES = ("genres", "genre", "categories", "category", "tags")
_ITEM_FEATURES = (*_TITLES, *_YEARS, *_GENRES)
_USER_FEATURES = ("age", "gender", "sex", "occupation", "country", "zipcode")
_FOLD = "fold"
_MISSING_MARKS = ("na", "n/a", "nan", "null", "none", "nil", "-", "?", "<na>")
_NO_GENRES = "(no genres listed)"
_TIME_UNITS = ((1e17, 10**9, "nanoseconds"), (1e14, 10**6, "microseconds"), (1e11, 10**3, "milliseconds"))
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M%#z")
_TIME_EXPECTED = "unix seconds or an ISO date such as 2024-05-31 or 2024-05-31 18:00:00+02:00"


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
            digest = _digest(written)
            kept = frames / digest[:16] / written.name
            if kept.is_file():
                written.replace(kept)  # the same bytes, unless the disk has lost some
            else:
                with written_beside(kept.parent) as folder:
                    written.rename(folder / written.name)
    except OSError as error:
        raise RecflowError(f"the frame cannot be kept in {frames}: {error.strerror or error}") from error
    return kept


def _content_hash(files: dict[str, Path | None], columns: Columns) -> str:
    """Hash of whatever decides what is parsed: contents, what each file is for, its suffix, the columns asked for."""
    total = hashlib.sha256(json.dumps(asdict(columns)).encode())
    for use, path in files.items():
        if path is not None:
            check_file(path)
            total.update(f"{use} {path.suffix} {_digest(path)}\n".encode())
    return total.hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecflowError(f"{path} cannot be read: {error.strerror}") from error


def _parse(name: str, sha256: str, path: Path, columns: Columns, items: Path | None, users: Path | None) -> RawData:
    table, roles = _open_ratings(path, columns)
    ratings, notices = _read_ratings(table, roles)
    tables = {}
    for column, file, asked in (("item_id", items, columns.item), ("user_id", users, columns.user)):
        if file is None:
            tables[column] = ratings.select(pl.col(column).unique().sort())
        else:
            tables[column], more = _read_features(file, column, asked, ratings.schema[column])
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
        found = asked.get(role) or _find(table, words, {*asked.values(), *roles.values()})
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


def _find(table: TableFile, words: Sequence[str], taken: Collection[str] = ()) -> str | None:
    """The column that has the best of some usual names."""
    for word in words:
        found = [name for name in table.names if plain_name(name) == word and name not in taken]
        if len(found) > 1:
            raise RecflowError(
                f"{table.path}: {' and '.join(map(repr, found))} are the same name but for its spelling, expected one "
                "such column; rename the other"
            )
        if found:
            return found[0]
    return None


def _read_ratings(table: TableFile, roles: dict[Role, str]) -> tuple[pl.DataFrame, list[str]]:
    fold = _find(table, (_FOLD,), roles.values()) if table.has_header else None
    wanted: list[pl.Expr] = []
    for role, name in (*roles.items(), *([] if fold is None else [(_FOLD, fold)])):
        wanted += _first_guess(role, name) if table.is_text else [pl.col(name).alias(role)]
    rows = table.read(wanted)
    columns = [_ids(table, roles[role], rows, role).alias(f"{role}_id") for role in ("user", "item")]
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


def _ids(table: TableFile, name: str, rows: pl.DataFrame, role: str) -> pl.Series:
    """A role's ids as Int64 or String; a text's are numbers only if every one is written as a number prints."""
    expected = f"{'an' if role == 'item' else 'a'} {role} id in every row"
    ids = rows[role]
    if not table.is_text:
        ids = _typed_ids(table, name, ids)
    elif not rows[f"{role} plain"].all():
        plain = rows[f"{role} plain"]
        ids = table.read([pl.col(name)])[name]
        _refuse_first(table, name, _is_missing(ids), expected)
        odd = ids.filter(~plain).str.strip_chars(" ").str.to_lowercase()
        if plain.any() and odd.is_in(_MISSING_MARKS).all():
            _refuse_first(table, name, ~plain, expected)
    _check_ids(table, name, ids, expected)
    return ids


def _typed_ids(table: TableFile, name: str, ids: pl.Series) -> pl.Series:
    if ids.dtype.is_integer():
        numbers = ids.cast(pl.Int64, strict=False)
        _refuse_first(table, name, numbers.is_null() & ids.is_not_null(), "an id below 2^63, or text")
        return numbers
    if ids.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return ids.cast(pl.String)
    hint = "; cast them to integers, since 1.0 and 1 would be two ids" if ids.dtype.is_float() else ""
    raise RecflowError(f"{table.path}: the ids in {name} are {ids.dtype}, expected integers or text{hint}")


def _check_ids(table: TableFile, name: str, ids: pl.Series, expected: str) -> None:
    _refuse_first(table, name, _is_missing(ids), expected)
    if ids.dtype == pl.Int64:
        _refuse_first(table, name, ids < 0, "an id from 0, since a negative one usually stands for a missing id")


def _is_missing(values: pl.Series) -> pl.Series:
    return values.is_null() | (values == "") if values.dtype == pl.String else values.is_null()


def _refuse_first(table: TableFile, name: str, bad: pl.Series, expected: str) -> None:
    if bad.any():
        table.refuse(int(bad.arg_true()[0]), name, expected)


def _ratings(table: TableFile, name: str, ratings: pl.Series) -> pl.Series:
    if not (ratings.dtype.is_numeric() or ratings.dtype == pl.Null):
        raise RecflowError(f"{table.path}: the ratings in {name} are {ratings.dtype}, expected numbers such as 3.5")
    ratings = ratings.cast(pl.Float32).alias("rating")
    _refuse_first(table, name, ~ratings.is_finite().fill_null(False), "a finite number such as 3.5")
    return ratings


def _check_range(ratings: pl.Series, path: Path, columns: Columns, rating_range: tuple[float, float]) -> None:
    lowest, highest = map(np.float32, rating_range)  # compared as the ratings are kept: 4.1 is within (1, 4.1)
    outside = (ratings < lowest) | (ratings > highest)
    if outside.any():
        table, roles = _open_ratings(path, columns)
        _refuse_first(table, roles["rating"], outside, f"a rating from {rating_range[0]:g} to {rating_range[1]:g}")


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
        _refuse_first(table, name, ~times.is_finite().fill_null(False), _TIME_EXPECTED)
        times = times.floor()
    times = times.cast(pl.Int64, strict=False).alias("time")
    _refuse_first(table, name, times.is_null(), _TIME_EXPECTED)
    size = times.abs()
    largest = size.max()
    for limit, divisor, unit in _TIME_UNITS:
        if isinstance(largest, int) and largest > limit:
            mixed = (size > 0) & (size <= limit)  # seconds among milliseconds, or a slip in a column of seconds
            _refuse_first(table, name, mixed, f"{unit}, as other times in this column seem to be")
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
    _refuse_first(table, name, ~(missing | whole), expected)
    return fold.set(missing | (fold == 0).fill_null(False), None).cast(pl.Int8).alias(_FOLD)


def _read_features(path: Path, column: str, asked: str | None, dtype: pl.DataType) -> tuple[pl.DataFrame, list[str]]:
    """A table of items or users by id, in the type of the ratings' ids, and what is to be said about it."""
    role: Role = "item" if column == "item_id" else "user"
    known = {*NAMES[role], *(_ITEM_FEATURES if role == "item" else _USER_FEATURES)}
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
    id_column = asked if asked in table.names else _find(table, NAMES[role]) or table.names[0]
    roles = {column: id_column}
    if role == "item":
        for feature, words in (("title", _TITLES), ("year", _YEARS), ("genres", _GENRES)):
            if (found := _find(table, words, roles.values())) is not None:
                roles[feature] = found
    rest = [name for name in table.names if name not in roles.values()]
    twice = next((name for name in rest if name in roles), None)
    if twice is not None:
        raise RecflowError(f"{path}: {roles[twice]!r} is taken as {twice}, so {twice!r} needs another name; rename it")
    frame = table.read([pl.col(name) for name in table.names])
    columns = [_feature_ids(table, id_column, frame[id_column], role, dtype).alias(column)]
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


def _feature_ids(table: TableFile, name: str, ids: pl.Series, role: str, dtype: pl.DataType) -> pl.Series:
    if not table.is_text:
        ids = _typed_ids(table, name, ids)
    expected = f"{'an' if role == 'item' else 'a'} {role} id in every row"
    _refuse_first(table, name, _is_missing(ids), expected)
    if dtype == pl.Int64 and ids.dtype == pl.String:
        text = ids.str.strip_chars(" ")
        ids = text.cast(pl.Int64, strict=False)
        _refuse_first(
            table, name, (ids.cast(pl.String) != text).fill_null(True), "a whole number, as the ratings' ids are"
        )
    ids = ids.cast(dtype)
    _check_ids(table, name, ids, expected)
    _refuse_first(table, name, ~ids.is_first_distinct(), f"each {role} once; an earlier row describes it already")
    return ids


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
