"""Parsers of the MovieLens archives: one folder, as unpacked, in; one `RawData` out.

Four formats: ml-100k (tabs, pipes, genre flags, given folds), ml-1m (``::``, latin-1), ml-10m (``::``, half stars,
tags) and the CSV of later releases. A file that is missing or malformed is refused by name: nothing is guessed.
"""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import polars as pl

from recflow.data.interactions import TAG_COLUMNS, RawData
from recflow.data.rating_files import (
    Scale,
    SourceFiles,
    content_hash,
    csv_lines,
    read_ratings,
    refuse_empty,
    split_lines,
    utf_8_or_latin_1,
    whole_number,
)
from recflow.errors import RecflowError

ML_100K_FOLDS = tuple(f"u{fold}.test" for fold in range(1, 6))
ML_100K_FILES = SourceFiles(("u.data", "u.item", "u.user", "u.genre"), (ML_100K_FOLDS,))
ML_1M_FILES = SourceFiles(("ratings.dat", "movies.dat", "users.dat"))
ML_10M_FILES = SourceFiles(("ratings.dat", "movies.dat"), (("tags.dat",),))
CSV_FILES = SourceFiles(("ratings.csv", "movies.csv"), (("tags.csv",), ("links.csv",)))

WHOLE_STARS = Scale(1, 5, 1)
HALF_STARS = Scale(0.5, 5, 0.5)

_INT32 = 2**31 - 1
_RATINGS_HEADER = "userId,movieId,rating,timestamp"
_TAGS_HEADER = "userId,movieId,tag,timestamp"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_YEAR = re.compile(r"\((\d{4})\)\s*$")
_DATE = re.compile(rf"(\d{{1,2}})-({'|'.join(_MONTHS)})-(\d{{4}})", re.ASCII)
_ITEM_SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.Int64(),
    "title": pl.String(),
    "year": pl.Int32(),
    "genres": pl.List(pl.String()),
}
_TAG_SCHEMA: dict[str, pl.DataType] = {name: pl.String() if name == "tag" else pl.Int64() for name in TAG_COLUMNS}


def parse_ml_100k(folder: Path, name: str = "ml-100k") -> RawData:
    """Read MovieLens 100K, with its five given folds where `u1.test` to `u5.test` are all there.

    Args:
        folder: The unpacked archive.
        name: What the dataset is called.

    Returns:
        Ratings in whole stars, with ``fold`` where known; films with genres and ``released``, the Date of their
        release, null where unknown; users with ``age`` in years, ``gender``, ``occupation`` and ``zip_code``.

    Raises:
        RecflowError: If a file is missing or malformed, or the folds do not partition the ratings.
    """
    files = ML_100K_FILES.present(folder)
    sha256 = content_hash(folder, files)
    ratings = read_ratings(folder / "u.data", "\t", scale=WHOLE_STARS)
    notices: tuple[str, ...] = ()
    if ML_100K_FOLDS[0] in files:
        ratings = _join_folds(ratings, folder)
    else:
        notices = (f"{name}: without its five folds ({ML_100K_FOLDS[0]} to {ML_100K_FOLDS[-1]})",)
    items = _read_flagged_items(folder / "u.item", folder / "u.genre")
    columns = ("user_id", "age", "gender", "occupation", "zip_code")
    users = _read_users(folder / "u.user", "|", columns, ("user_id", "age"))
    return RawData(name, sha256, ratings, items, users, notices)


def parse_ml_1m(folder: Path, name: str = "ml-1m") -> RawData:
    """Read MovieLens 1M.

    Args:
        folder: The unpacked archive.
        name: What the dataset is called.

    Returns:
        Ratings in whole stars; films with genres; users with ``gender``, ``age``, ``occupation`` and ``zip_code``. An
        age is the code of a group: 1 under 18, 18 18–24, 25 25–34, 35 35–44, 45 45–49, 50 50–55, 56 from 56 on. An
        occupation is a code from 0 to 20, which the archive's README spells out.

    Raises:
        RecflowError: If a file is missing or malformed.
    """
    sha256 = content_hash(folder, ML_1M_FILES.needed)
    ratings = read_ratings(folder / "ratings.dat", "::", scale=WHOLE_STARS)
    items = _read_double_colon_items(folder / "movies.dat", mixed=False)
    columns = ("user_id", "gender", "age", "occupation", "zip_code")
    users = _read_users(folder / "users.dat", "::", columns, ("user_id", "age", "occupation"))
    return RawData(name, sha256, ratings, items, users)


def parse_ml_10m(folder: Path, name: str = "ml-10m") -> RawData:
    """Read MovieLens 10M, with its tags where `tags.dat` is there.

    Args:
        folder: The unpacked archive, which calls it ``ml-10M100K``.
        name: What the dataset is called.

    Returns:
        Ratings in half stars, films with genres, and tags; of users only their ids are known.

    Raises:
        RecflowError: If a file is missing or malformed.
    """
    files = ML_10M_FILES.present(folder)
    sha256 = content_hash(folder, files)
    ratings = read_ratings(folder / "ratings.dat", "::", scale=HALF_STARS)
    items = _read_double_colon_items(folder / "movies.dat", mixed=True)
    tags = _no_tags()
    if "tags.dat" in files:
        lines = split_lines(folder / "tags.dat", "::", 4, decode=utf_8_or_latin_1, free_field=2)
        tags = pl.DataFrame([_tag(place, fields) for place, fields in lines], schema=_TAG_SCHEMA, orient="row")
    return RawData(name, sha256, ratings, items, _ids_of_users(ratings), tags=tags)


def parse_csv_release(folder: Path, name: str) -> RawData:
    """Read any MovieLens release in CSV (ml-20m and later), with its tags and links where they are there.

    Args:
        folder: The unpacked archive.
        name: What the dataset is called.

    Returns:
        Ratings in half stars; films with genres and, where `links.csv` is there, ``imdb_id`` String (``tt0114709``) and
        ``tmdb_id`` Int64, null where unknown; tags; of users only their ids are known.

    Raises:
        RecflowError: If a file is missing or malformed.
    """
    files = CSV_FILES.present(folder)
    sha256 = content_hash(folder, files)
    ratings = read_ratings(folder / "ratings.csv", ",", header=_RATINGS_HEADER, scale=HALF_STARS)
    items = _read_csv_items(folder / "movies.csv")
    if "links.csv" in files:
        links = _read_links(folder / "links.csv").unique("item_id", keep="first")
        items = items.join(links, on="item_id", how="left", maintain_order="left")
    tags = _read_csv_tags(folder / "tags.csv") if "tags.csv" in files else _no_tags()
    return RawData(name, sha256, ratings, items, _ids_of_users(ratings), tags=tags)


def _join_folds(ratings: pl.DataFrame, folder: Path) -> pl.DataFrame:
    pair = ["user_id", "item_id"]
    folds = pl.concat(
        read_ratings(folder / name, "\t", scale=WHOLE_STARS).select(*pair, pl.lit(fold, dtype=pl.Int8).alias("fold"))
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


def _read_flagged_items(path: Path, genre_path: Path) -> pl.DataFrame:
    """ml-100k's films: id, title, release date, video date, url, then one flag per line of u.genre."""
    genres = [fields[0] for _, fields in split_lines(genre_path, "|", 2)]
    rows = []
    for place, (item, title, released, _, _, *flags) in split_lines(path, "|", 5 + len(genres)):
        if not set(flags) <= {"0", "1"}:
            raise RecflowError(f"{place}: {'|'.join(flags)!r} given, expected a 0 or 1 for each genre")
        day = _date(place, released) if released else None
        year = _year(title) or (day.year if day else None)
        flagged = [genre for genre, flag in zip(genres, flags, strict=True) if flag == "1" and genre != "unknown"]
        rows.append((whole_number(place, item, 1), title, year, flagged, day))
    return _frame(path, rows, {**_ITEM_SCHEMA, "released": pl.Date()})


def _read_double_colon_items(path: Path, *, mixed: bool) -> pl.DataFrame:
    """Films as id, title and genres; `mixed`: each line may be UTF-8 or latin-1, else all are latin-1."""
    decode = {"decode": utf_8_or_latin_1} if mixed else {}
    rows = [
        (whole_number(place, item, 1), title, _year(title), _genres(genres))
        for place, (item, title, genres) in split_lines(path, "::", 3, free_field=1, **decode)
    ]
    return _frame(path, rows, _ITEM_SCHEMA)


def _read_csv_items(path: Path) -> pl.DataFrame:
    rows = [
        (whole_number(place, item, 1), title, _year(title), _genres(genres))
        for place, (item, title, genres) in csv_lines(path, "movieId,title,genres")
    ]
    return _frame(path, rows, _ITEM_SCHEMA)


def _read_links(path: Path) -> pl.DataFrame:
    rows = []
    for place, (item, imdb, tmdb) in csv_lines(path, "movieId,imdbId,tmdbId"):
        film = f"tt{whole_number(place, imdb, 1):07}" if imdb else None
        rows.append((whole_number(place, item, 1), film, whole_number(place, tmdb, 1) if tmdb else None))
    schema = {"item_id": pl.Int64(), "imdb_id": pl.String(), "tmdb_id": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _read_csv_tags(path: Path) -> pl.DataFrame:
    """Tags by polars; by line where it finds something wrong, or a line break, which a stray quote can make of rows."""
    refuse_empty(path)
    try:
        tags = pl.read_csv(path, has_header=False, skip_rows=1, schema=_TAG_SCHEMA)
        tags = tags.with_columns(pl.col("tag").fill_null(""))
        numbers = pl.col("user_id", "item_id", "time")
        sound = [numbers.is_not_null(), pl.col("user_id", "item_id") >= 1, pl.col("time") >= 0]
        sound.append(~pl.col("tag").str.contains("\n", literal=True))
        with path.open(encoding="utf-8-sig") as stream:
            is_headed = stream.readline().rstrip("\n") == _TAGS_HEADER
        if is_headed and tags.select(pl.all_horizontal(sound).all()).item():
            return tags
    except (pl.exceptions.PolarsError, UnicodeDecodeError):
        pass
    rows = [_tag(place, fields) for place, fields in csv_lines(path, _TAGS_HEADER)]
    return pl.DataFrame(rows, schema=_TAG_SCHEMA, orient="row")


def _tag(place: str, fields: Sequence[str]) -> tuple[int, int, str, int]:
    user, item, tag, time = fields
    return whole_number(place, user, 1), whole_number(place, item, 1), tag, whole_number(place, time)


def _no_tags() -> pl.DataFrame:
    return pl.DataFrame(schema=_TAG_SCHEMA)


def _read_users(path: Path, separator: str, names: Sequence[str], numbers: Sequence[str]) -> pl.DataFrame:
    rows = [
        tuple(
            (whole_number(place, field, 1) if name == "user_id" else whole_number(place, field, highest=_INT32))
            if name in numbers
            else field
            for name, field in zip(names, fields, strict=True)
        )
        for place, fields in split_lines(path, separator, len(names))
    ]
    schema: dict[str, pl.DataType] = {name: pl.Int32() if name in numbers else pl.String() for name in names}
    return _frame(path, rows, {**schema, "user_id": pl.Int64()})


def _ids_of_users(ratings: pl.DataFrame) -> pl.DataFrame:
    return ratings.select(pl.col("user_id").unique().sort())


def _frame(path: Path, rows: Sequence[tuple[object, ...]], schema: dict[str, pl.DataType]) -> pl.DataFrame:
    if not rows:
        raise RecflowError(f"{path} has no rows, expected one for each {next(iter(schema))}")
    return pl.DataFrame(rows, schema=schema, orient="row")


def _date(place: str, text: str) -> date:
    """A date such as 01-Jan-1995, whatever language the machine speaks."""
    found = _DATE.fullmatch(text)
    try:
        if found:
            return date(int(found[3]), _MONTHS.index(found[2]) + 1, int(found[1]))
    except ValueError:
        pass
    raise RecflowError(f"{place}: {text[:80]!r} given, expected a date such as 01-Jan-1995")


def _year(title: str) -> int | None:
    found = _YEAR.search(title)
    return int(found[1]) if found else None


def _genres(text: str) -> list[str]:
    return [] if text in ("", "(no genres listed)") else text.split("|")
