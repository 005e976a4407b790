"""Parsers of the MovieLens archives: one folder, as unpacked, in; one `RawData` out.

Three formats: ml-100k (tabs, pipes, genre flags, given folds), ml-1m (``::``, latin-1), the CSV of later releases.
A file that is missing, malformed or of the wrong length is refused by name: no dataset is silently another one.
"""

import csv
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from recflow.data.interactions import RATING_COLUMNS, RawData
from recflow.errors import RecflowError

ML_100K_FILES = ("u.data", "u.item", "u.user", "u.genre")
ML_100K_FOLDS = tuple(f"u{fold}.test" for fold in range(1, 6))
ML_1M_FILES = ("ratings.dat", "movies.dat", "users.dat")
CSV_FILES = ("ratings.csv", "movies.csv")

#: Ratings in each published archive.
NUM_RATINGS = {
    "ml-100k": 100_000,
    "ml-1m": 1_000_209,
    "ml-20m": 20_000_263,
    "ml-25m": 25_000_095,
    "ml-32m": 32_000_204,
    "ml-latest-small": 100_836,
}

_TYPES: tuple[pl.DataType, ...] = (pl.Int64(), pl.Int64(), pl.Float32(), pl.Int64())
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_ITEM_SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.Int64(),
    "title": pl.String(),
    "year": pl.Int32(),
    "genres": pl.List(pl.String()),
}


def parse_ml_100k(folder: Path) -> RawData:
    """Read MovieLens 100K, with its five given folds where `u1.test` to `u5.test` are all there.

    Args:
        folder: The unpacked archive.

    Returns:
        Ratings with ``fold`` where known, films with genres, users with age, gender, occupation and zip_code.

    Raises:
        RecflowError: If a file is missing, malformed or of the wrong length, or the folds do not partition the ratings.
    """
    folds = ML_100K_FOLDS if all((folder / name).is_file() for name in ML_100K_FOLDS) else ()
    sha256 = content_hash(folder, (*ML_100K_FILES, *folds))
    ratings = _read_ratings(folder / "u.data", "\t")
    _check_count("ml-100k", ratings)
    if folds:
        ratings = _join_folds(ratings, folder)
    items = _read_flagged_items(folder / "u.item", folder / "u.genre")
    users = _read_users(
        folder / "u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code"), ("user_id", "age")
    )
    notices = () if folds else (f"ml-100k: without its five folds ({ML_100K_FOLDS[0]} to {ML_100K_FOLDS[-1]})",)
    return RawData("ml-100k", sha256, ratings, items, users, notices)


def parse_ml_1m(folder: Path) -> RawData:
    """Read MovieLens 1M.

    Args:
        folder: The unpacked archive.

    Returns:
        Ratings, films with genres, users with gender, age (the code of its group), occupation (a code) and zip_code.

    Raises:
        RecflowError: If a file is missing, malformed or of the wrong length.
    """
    sha256 = content_hash(folder, ML_1M_FILES)
    ratings = _read_ratings(folder / "ratings.dat", "::")
    _check_count("ml-1m", ratings)
    rows = [
        (_whole(place, fields[0]), fields[1], _year(fields[1]), _genres(fields[2]))
        for place, fields in _lines(folder / "movies.dat", "::", 3)
    ]
    items = pl.DataFrame(rows, schema=_ITEM_SCHEMA, orient="row")
    names = ("user_id", "gender", "age", "occupation", "zip_code")
    users = _read_users(folder / "users.dat", "::", names, ("user_id", "age", "occupation"))
    return RawData("ml-1m", sha256, ratings, items, users)


def parse_ml_latest_small(folder: Path) -> RawData:
    """Read MovieLens latest-small, which GroupLens replaces from time to time: another length is a notice, no error.

    Args:
        folder: The unpacked archive.

    Returns:
        Ratings and films with genres; of users only their ids are known.

    Raises:
        RecflowError: If a file is missing or malformed.
    """
    return parse_csv_release(folder, "ml-latest-small", may_change=True)


def parse_csv_release(folder: Path, name: str, *, may_change: bool = False) -> RawData:
    """Read any MovieLens release in CSV (ml-20m and later).

    Args:
        folder: The unpacked archive.
        name: The dataset's name, a key of `NUM_RATINGS`.
        may_change: Whether an unexpected number of ratings is a notice instead of an error.

    Returns:
        Ratings and films with genres; of users only their ids are known.

    Raises:
        RecflowError: If a file is missing or malformed, or of the wrong length and must not change.
    """
    sha256 = content_hash(folder, CSV_FILES)
    ratings = _read_ratings(folder / "ratings.csv", ",", header="userId,movieId,rating,timestamp")
    notices = _check_count(name, ratings, may_change=may_change)
    items = _read_csv_items(folder / "movies.csv")
    return RawData(name, sha256, ratings, items, ratings.select(pl.col("user_id").unique().sort()), notices)


def content_hash(folder: Path, files: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a dataset's source files.

    Args:
        folder: Where the files lie.
        files: Their names, in a fixed order.

    Returns:
        64 hexadecimal digits.

    Raises:
        RecflowError: If a file is missing or cannot be read.
    """
    for name in files:
        if not (folder / name).is_file():
            raise RecflowError(
                f"{folder} lacks the file {name}, expected {', '.join(files)} as in the published archive"
            )
    total = hashlib.sha256()
    for name in files:
        try:
            with (folder / name).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise RecflowError(f"{folder / name} cannot be read: {error.strerror}") from error
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()


def _read_ratings(path: Path, separator: str, header: str | None = None) -> pl.DataFrame:
    """The four rating columns. A two-character separator is read as one character with an unused column in between."""
    gaps = [f"gap{number}" for number in range(3)] if len(separator) == 2 else []
    schema: dict[str, pl.DataType] = {}
    for number, (name, dtype) in enumerate(zip(RATING_COLUMNS, _TYPES, strict=True)):
        schema[name] = dtype
        if number < len(gaps):
            schema[gaps[number]] = pl.String()
    problem = "expected four fields a line"
    try:
        with path.open("rb") as stream:
            first = stream.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
        if header is not None and first != header:
            raise RecflowError(f"{path}, line 1: {first[:80]!r} given, expected the header {header!r}")
        # a header is skipped, not read: polars releases disagree on a header whose names are not the schema's
        skip = int(header is not None)
        frame = pl.read_csv(
            path, separator=separator[0], has_header=False, skip_rows=skip, schema=schema, quote_char=None
        )
        whole = not any(frame[name].null_count() for name in RATING_COLUMNS)
        if whole and bool(frame["rating"].is_finite().all()) and all(frame[n].null_count() == len(frame) for n in gaps):
            return frame.select(RATING_COLUMNS)
    except pl.exceptions.PolarsError as error:
        problem = str(error).partition("\n")[0]
    raise RecflowError(_name_bad_rating(path, separator, header is not None) or f"{path} is malformed: {problem}")


def _name_bad_rating(path: Path, separator: str, has_header: bool) -> str | None:
    """The first line that is no rating. polars names lines in some releases only, so the file is read again, slowly."""
    with path.open(encoding="latin-1", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and has_header:
                continue
            fields = line.rstrip("\r\n").split(separator)
            try:
                user, item, rating, time = fields
                if math.isfinite(float(rating)) and (int(user), int(item), int(time)):
                    continue
            except ValueError:
                pass
            shape = separator.join(("user", "item", "rating", "time"))
            return f"{path}, line {number}: {line.rstrip()[:80]!r} given, expected {shape!r} in numbers"
    return None


def _check_count(name: str, ratings: pl.DataFrame, *, may_change: bool = False) -> tuple[str, ...]:
    expected = NUM_RATINGS[name]
    if ratings.height == expected:
        return ()
    message = f"{name} has {ratings.height:,} ratings here, expected {expected:,} as published"
    if not may_change:
        raise RecflowError(f"{message}; the file is cut short or another release")
    return (f"{message}; GroupLens replaces this dataset from time to time",)


def _join_folds(ratings: pl.DataFrame, folder: Path) -> pl.DataFrame:
    pair = ["user_id", "item_id"]
    folds = pl.concat(
        _read_ratings(folder / name, "\t").select(*pair, pl.lit(fold, dtype=pl.Int8).alias("fold"))
        for fold, name in enumerate(ML_100K_FOLDS, start=1)
    )
    repeated = folds.height - folds.select(pl.struct(pair).n_unique()).item()
    joined = ratings.join(folds.unique(pair, keep="first"), on=pair, how="left", maintain_order="left")
    without = joined["fold"].null_count()
    if repeated or without or folds.height != ratings.height:
        raise RecflowError(
            f"{folder}: {ML_100K_FOLDS[0]} to {ML_100K_FOLDS[-1]} must hold each rating of u.data once; {repeated} are "
            f"repeated, {without} of u.data are in none, {folds.height:,} rows given for {ratings.height:,}"
        )
    return joined


def _lines(path: Path, separator: str, num_fields: int) -> Iterator[tuple[str, list[str]]]:
    """Each line's place (`path, line n`, for messages) and fields; latin-1 as published, with either line ending."""
    with path.open(encoding="latin-1", newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            place, text = f"{path}, line {number}", line.rstrip("\r\n")
            if not text:
                continue
            fields = text.split(separator)
            if len(fields) != num_fields:
                raise RecflowError(f"{place}: {text[:80]!r} given, expected {num_fields} fields between {separator!r}")
            yield place, fields


def _whole(place: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RecflowError(f"{place}: {text[:80]!r} given, expected a whole number") from None


def _year(title: str) -> int | None:
    found = _YEAR.search(title)
    return int(found[1]) if found else None


def _genres(text: str) -> list[str]:
    return [] if text in ("", "(no genres listed)") else text.split("|")


def _read_users(path: Path, separator: str, names: Sequence[str], numbers: Sequence[str]) -> pl.DataFrame:
    rows = [
        tuple(_whole(place, field) if name in numbers else field for name, field in zip(names, fields, strict=True))
        for place, fields in _lines(path, separator, len(names))
    ]
    schema: dict[str, pl.DataType] = {name: pl.Int32() if name in numbers else pl.String() for name in names}
    schema["user_id"] = pl.Int64()
    return pl.DataFrame(rows, schema=schema, orient="row")


def _read_flagged_items(path: Path, genre_path: Path) -> pl.DataFrame:
    """ml-100k's films: id, title, release date, video date, url, then one flag per line of u.genre."""
    genres = [fields[0] for _, fields in _lines(genre_path, "|", 2)]
    rows = []
    for place, fields in _lines(path, "|", 5 + len(genres)):
        released = fields[2][-4:]
        year = _year(fields[1]) or (int(released) if released.isdigit() else None)
        flagged = [genre for genre, flag in zip(genres, fields[5:], strict=True) if flag == "1" and genre != "unknown"]
        rows.append((_whole(place, fields[0]), fields[1], year, flagged))
    return pl.DataFrame(rows, schema=_ITEM_SCHEMA, orient="row")


def _read_csv_items(path: Path) -> pl.DataFrame:
    rows = []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            for fields in reader:
                place = f"{path}, line {reader.line_num}"
                if reader.line_num == 1:
                    if fields != ["movieId", "title", "genres"]:
                        raise RecflowError(
                            f"{place}: {','.join(fields)!r} given, expected the header 'movieId,title,genres'"
                        )
                    continue
                if len(fields) != 3:
                    raise RecflowError(f"{place}: {len(fields)} fields given, expected movieId,title,genres")
                rows.append((_whole(place, fields[0]), fields[1], _year(fields[1]), _genres(fields[2])))
        except (csv.Error, UnicodeDecodeError) as error:
            raise RecflowError(f"{path}, after line {reader.line_num}: {error}; expected CSV in UTF-8") from error
    return pl.DataFrame(rows, schema=_ITEM_SCHEMA, orient="row")
