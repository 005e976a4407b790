"""Files that hold a table: their columns read by polars, and a row that cannot be used refused by its line.

A text is read as strings by polars' streaming reader and typed as it goes by, so whole columns of strings never exist
unless they are asked for. Python walks through lines only to name the one that is wrong.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import polars as pl

from recflow.errors import RecflowError

#: Known separators and what messages call them, in the order in which they are preferred.
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "'|'", "::": "'::'", " ": "spaces"}

#: What files may be, for messages.
FORMS = "CSV or another table of lines in UTF-8, plain or in gzip, or Parquet"

_BLANK, _OPEN = "\0blank", "\0open"  # no header can hold a zero byte, so these names are free
_UNIT = b"\x1f"  # ASCII's own separator: polars wants one byte where the file has two


@dataclass(frozen=True)
class TableFile:
    """A file that holds a table, and how to read it.

    Attributes:
        path: The file.
        names: Its columns; ``column_1`` and so on where it has no header.
        separator: A key of `SEPARATORS`; None for Parquet.
        has_header: Whether `names` are the file's own.
        skip: Records before the first row: a header, and blank lines before and after it.
        first: The first line, for messages; empty for Parquet.
        lists: The columns that RecBole's header declares as lists, whose values stand between spaces.
    """

    path: Path
    names: tuple[str, ...]
    separator: str | None = None
    has_header: bool = True
    skip: int = 0
    first: str = ""
    lists: frozenset[str] = frozenset()

    @property
    def is_text(self) -> bool:
        """Whether every column is read as strings, null where a field is empty."""
        return self.separator is not None

    def read(self, columns: Sequence[pl.Expr]) -> pl.DataFrame:
        """Evaluate expressions over the table's columns; row n of the result is the table's row n.

        Args:
            columns: Element-wise expressions over the columns `names`.

        Returns:
            One row for each of the table's rows; blank lines are none.

        Raises:
            RecflowError: If the file is damaged, not in UTF-8, ragged, misquoted or without rows.
        """
        if not self.is_text:
            try:
                frame = pl.scan_parquet(self.path, glob=False).select(columns).collect()
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                raise unreadable(self.path, error) from error
        else:
            frame = self._read_text(columns)
        if frame.is_empty():
            raise RecflowError(f"{self.path}: there are no rows in it, only column names; expected at least one row")
        return frame

    def refuse(self, row: int, column: str, expected: str) -> NoReturn:
        """Raise an error that names a row by its line, and the value that cannot be used.

        Args:
            row: The row, from 0, as `read` counts.
            column: A column of `names`.
            expected: What should have been there.

        Raises:
            RecflowError: Always.
        """
        place, value = self.cell(row, column)
        given = "is missing" if value is None or value == "" else f"is {shortened(value)}"
        raise RecflowError(f"{place}: {column} {given}, expected {expected}")

    def refuse_first(self, bad: pl.Series, column: str, expected: str) -> None:
        """Refuse the first of the rows that a mask marks; do nothing where it marks none.

        Args:
            bad: One Boolean for each row.
            column: A column of `names`.
            expected: What should have been there.

        Raises:
            RecflowError: If any row is marked.
        """
        if bad.any():
            self.refuse(int(bad.arg_true()[0]), column, expected)

    def cell(self, row: int, column: str) -> tuple[str, Any]:
        """Where a row stands (``path, line n``, for Parquet ``path, row n``, from 1) and a column's value there."""
        if not self.is_text:
            value = pl.scan_parquet(self.path, glob=False).select(column).slice(row, 1).collect().item()
            return f"{self.path}, row {row + 1}", value
        line, _, fields = next(islice(self._records(), row, None))
        return f"{self.path}, line {line}", fields[self.names.index(column)]

    def _read_text(self, columns: Sequence[pl.Expr]) -> pl.DataFrame:
        # a line too short ends in nulls; one too long is an error only if polars must look at every column
        blank = pl.all_horizontal(pl.col(name).is_null() for name in self.names).alias(_BLANK)
        table = [*columns, blank, pl.col(self.names[-1]).is_null().alias(_OPEN)]
        try:
            frame = self._scan('"').select(table).collect(engine="streaming")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, zlib.error) as error:
            self._find_bad_line()
            if self._has_quoted_fields():
                self._find_stray_quote()
                raise unreadable(self.path, error) from error
            try:  # a quote inside a field is a character
                frame = self._scan(None).select(table).collect(engine="streaming")
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                raise unreadable(self.path, error) from error
        if frame[_OPEN].any() and self._may_be_ragged():
            self._find_bad_line()
        return frame.filter(~pl.col(_BLANK)).drop(_BLANK, _OPEN)

    def _scan(self, quote: str | None) -> pl.LazyFrame:
        separator = self.separator or ""
        if separator in ("::", " "):
            source: Path | bytes = self._unified()
            separator, quote = (_UNIT.decode(), None) if separator == "::" else (" ", None)
        else:
            source = self.path
        schema = dict.fromkeys(self.names, pl.String())
        options: dict[str, Any] = {"separator": separator, "quote_char": quote, "skip_rows": self.skip, "glob": False}
        return pl.scan_csv(source, has_header=False, schema=schema, **options)

    def _unified(self) -> bytes:
        """The file's bytes with separators of one byte, and none at a line's ends where these are spaces."""
        with opened(self.path) as stream:
            content = stream.read()
        if self.separator == "::":
            return content.replace(b"::", _UNIT)
        return re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb" +", b" ", content))

    def _may_be_ragged(self) -> bool:
        """False where each line surely has its fields; blank lines have none, and lines of separators are not blank."""
        separator = _UNIT.decode() if self.separator == "::" else self.separator or ""
        source = self._unified() if self.separator in ("::", " ") else self.path
        options: dict[str, Any] = {"separator": "\x01", "quote_char": None, "skip_rows": self.skip, "glob": False}
        lines = pl.scan_csv(source, has_header=False, schema={"line": pl.String()}, **options)
        line = pl.col("line")
        uneven = line.str.count_matches(separator, literal=True) != len(self.names) - 1
        empty = line.str.strip_chars(f'{separator}"') == ""
        try:
            return bool(lines.select((uneven | empty).any()).collect(engine="streaming").item())
        except pl.exceptions.PolarsError:  # a control character of the file's own
            return True

    def _records(self) -> Iterator[tuple[int, str, list[str]]]:
        """Each row's first line, from 1, its text and its fields; blank lines are left out."""
        with opened(self.path) as stream:
            lines = Lines(self.path, stream)
            records = split_records(lines, self.separator or "")
            header_left = self.has_header
            try:
                for fields in records:
                    number, text = lines.take()
                    if not fields:
                        continue
                    if header_left:
                        header_left = False
                        continue
                    yield number, text, fields
            except csv.Error as error:
                number, text = lines.take()
                raise RecflowError(
                    f"{self.path}, line {number}: {shortened(text)} given: {error}; expected each quote to be closed "
                    "and quotes inside a quoted field to be doubled"
                ) from None
            except (OSError, EOFError, zlib.error) as error:
                raise unreadable(self.path, error) from error

    def _find_bad_line(self) -> None:
        """Raise for the first line that is no record of this table; return if there is none."""
        for number, text, fields in self._records():
            if len(fields) != len(self.names):
                raise RecflowError(
                    f"{self.path}, line {number}: {shortened(text)} has {len(fields)} fields between "
                    f"{SEPARATORS[self.separator or '']}, expected {len(self.names)} as in the first line"
                )
            if not any(fields):
                raise RecflowError(f"{self.path}, line {number}: {shortened(text)} holds no values; remove that line")

    def _has_quoted_fields(self) -> bool:
        if self.separator in ("::", " "):
            return False
        start = re.compile(rb"(?m)(?:^|" + re.escape((self.separator or "").encode()) + rb')"')
        with opened(self.path) as stream:
            return any(start.search(line) for line in stream)

    def _find_stray_quote(self) -> None:
        mark = re.escape(self.separator or "")
        stray = re.compile(rf'(?<![{mark}"])"(?![{mark}"\r\n]|$)')
        for number, text, _ in self._records():
            if stray.search(text, 1):
                raise RecflowError(
                    f"{self.path}, line {number}: {shortened(text)} has a quote inside a field, while other fields are "
                    "quoted; expected such a field to be quoted whole and its own quotes to be doubled"
                )


def check_file(path: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        RecflowError: If there is nothing, or a folder.
    """
    if path.is_dir():
        raise RecflowError(f"{path} is a folder, expected a file: {FORMS}")
    if not path.exists():
        raise RecflowError(f"{path} is not there, expected a file: {FORMS}")


def digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        RecflowError: If it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RecflowError(f"{path} cannot be read: {error.strerror}") from error


class Lines:
    """Decoded lines, with the number and text of those that a reader has taken for one record."""

    def __init__(self, path: Path, lines: Iterator[bytes] | BinaryIO) -> None:
        self._path = path
        self._lines = iter(lines)
        self._number = 0
        self._taken: list[str] = []

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise RecflowError(
                f"{self._path}, line {self._number}: byte {line[error.start]:#04x} is not UTF-8; convert the file, "
                f"if it is Latin-1 by: iconv -f LATIN1 -t UTF-8 {self._path.name} > converted.csv"
            ) from None
        self._taken.append(text)
        return text

    def take(self) -> tuple[int, str]:
        """The first line, from 1, of what was read since the last call, and its text."""
        first, text = self._number - len(self._taken) + 1, "".join(self._taken).rstrip("\r\n")
        self._taken.clear()
        return first, text


def split_records(lines: Iterator[str], separator: str, *, strict: bool = True) -> Iterator[list[str]]:
    """Split lines into each record's fields, none for a blank line.

    Args:
        lines: Lines with their ends; a record whose fields are quoted may take several.
        separator: A key of `SEPARATORS`; between ``::`` or spaces, quotes are characters like others.
        strict: Whether a quote that is misused raises `csv.Error`.
    """
    if separator == "::":
        return (text.split("::") if (text := line.rstrip("\r\n")) else [] for line in lines)
    if separator == " ":
        return (re.split(" +", text) if (text := line.strip(" \r\n")) else [] for line in lines)
    return csv.reader(lines, delimiter=separator, strict=strict)


def opened(path: Path) -> BinaryIO:
    """Open a file for reading its bytes, unpacked where it is in gzip, whatever it is called."""
    stream = path.open("rb")
    if stream.read(2) == b"\x1f\x8b":
        stream.close()
        return cast(BinaryIO, gzip.open(path))
    stream.seek(0)
    return stream


def unreadable(path: Path, error: BaseException) -> RecflowError:
    """What to raise for a file that a reader has given up."""
    reason = " ".join((getattr(error, "strerror", None) or str(error)).partition("\n")[0].split())[:200]
    return RecflowError(f"{path} cannot be read, it is damaged or cut short ({reason}); expected {FORMS}")


def shortened(value: Any) -> str:
    """A value as a message shows it, 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
