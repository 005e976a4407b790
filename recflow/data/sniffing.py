"""How a file holds its table: Parquet, or a text whose separator and header are told from its first lines.

A text is read as strings by polars' streaming reader and typed as it goes by, so whole columns of strings never exist
unless they are asked for. Python walks through lines only to name the one that is wrong.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import polars as pl

from recflow.errors import RecflowError

#: Known separators and what messages call them, in the order in which they are preferred.
SEPARATORS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "'|'", "::": "'::'", " ": "spaces"}

_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 101
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_ATOMIC = re.compile(r"(.+):(token|float|token_seq|float_seq)")  # RecBole writes a column's type behind its name
_BLANK, _OPEN = "\0blank", "\0open"  # no header can hold a zero byte, so these names are free
_UNIT = b"\x1f"  # ASCII's own separator: polars wants one byte where the file has two
_FORMS = "CSV or another table of lines in UTF-8, plain or in gzip, or Parquet"


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
                raise _unreadable(self.path, error) from error
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
        given = "is missing" if value is None or value == "" else f"is {_short(value)}"
        raise RecflowError(f"{place}: {column} {given}, expected {expected}")

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
                raise _unreadable(self.path, error) from error
            try:  # a quote inside a field is a character
                frame = self._scan(None).select(table).collect(engine="streaming")
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                raise _unreadable(self.path, error) from error
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
        with _opened(self.path) as stream:
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
        with _opened(self.path) as stream:
            lines = _Lines(self.path, stream)
            records = _split(lines, self.separator or "")
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
                    f"{self.path}, line {number}: {_short(text)} given: {error}; expected each quote to be closed and "
                    "quotes inside a quoted field to be doubled"
                ) from None
            except (OSError, EOFError, zlib.error) as error:
                raise _unreadable(self.path, error) from error

    def _find_bad_line(self) -> None:
        """Raise for the first line that is no record of this table; return if there is none."""
        for number, text, fields in self._records():
            if len(fields) != len(self.names):
                raise RecflowError(
                    f"{self.path}, line {number}: {_short(text)} has {len(fields)} fields between "
                    f"{SEPARATORS[self.separator or '']}, expected {len(self.names)} as in the first line"
                )
            if not any(fields):
                raise RecflowError(f"{self.path}, line {number}: {_short(text)} holds no values; remove that line")

    def _has_quoted_fields(self) -> bool:
        if self.separator in ("::", " "):
            return False
        start = re.compile(rb"(?m)(?:^|" + re.escape((self.separator or "").encode()) + rb')"')
        with _opened(self.path) as stream:
            return any(start.search(line) for line in stream)

    def _find_stray_quote(self) -> None:
        mark = re.escape(self.separator or "")
        stray = re.compile(rf'(?<![{mark}"])"(?![{mark}"\r\n]|$)')
        for number, text, _ in self._records():
            if stray.search(text, 1):
                raise RecflowError(
                    f"{self.path}, line {number}: {_short(text)} has a quote inside a field, while other fields are "
                    "quoted; expected such a field to be quoted whole and its own quotes to be doubled"
                )


def open_table(path: Path, *, asked: Collection[str] = (), known: Collection[str] = ()) -> TableFile:
    """Look at a file's first lines and tell how it is to be read.

    Args:
        path: Parquet, or a text in UTF-8, perhaps in gzip; what it is decides, not what it is called.
        asked: Names that the header must hold; if there are any, there must be a header.
        known: Names by which a header is recognised, each as `plain_name` gives it.

    Returns:
        The file with its columns.

    Raises:
        RecflowError: If it is not there, no file, empty, not in UTF-8, or no table.
    """
    check_file(path)
    try:
        with _opened(path) as stream:
            sample = stream.read(_SAMPLE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if path.suffix == ".parquet" or sample.startswith(b"PAR1"):
        try:
            return TableFile(path, tuple(pl.scan_parquet(path, glob=False).collect_schema().names()))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise _unreadable(path, error) from error
    whole = len(sample) < _SAMPLE_BYTES
    lines = _sample_lines(path, sample, whole)
    candidates = [found for separator in SEPARATORS if (found := _candidate(path, lines, whole, separator, known))]
    if not candidates:
        number, text = next((number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip())
        raise RecflowError(
            f"{path}, line {number}: {_short(text)} is one column, expected at least two between one of: "
            f"{', '.join(SEPARATORS.values())}"
        )
    separator, records = max(candidates)[1:]
    skip = next(number for number, fields in enumerate(records) if fields)
    rows = [fields for fields in records if fields]
    has_header = _is_header(rows[0], rows[1:], asked, known)
    first, header_line = lines[skip].rstrip("\r\n"), skip + 1
    if not has_header:
        names = tuple(f"column_{number}" for number in range(1, len(rows[0]) + 1))
        return TableFile(path, names, separator, False, skip, first)
    cells = [name.strip() for name in rows[0]]
    header = [atomic_name(name) or f"column_{number}" for number, name in enumerate(cells, start=1)]
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise RecflowError(f"{path}, line {header_line}: two columns are called {repeated!r}; rename one of them")
    skip += 1
    while skip < len(records) and not records[skip]:  # polars counts the columns of the line that it meets first
        skip += 1
    lists = frozenset(name for name, cell in zip(header, cells, strict=True) if cell == f"{name}:token_seq")
    return TableFile(path, tuple(header), separator, True, skip, first, lists)


def check_file(path: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        RecflowError: If there is nothing, or a folder.
    """
    if path.is_dir():
        raise RecflowError(f"{path} is a folder, expected a file: {_FORMS}")
    if not path.exists():
        raise RecflowError(f"{path} is not there, expected a file: {_FORMS}")


def plain_name(name: str) -> str:
    """A column's name without what people write differently: case, ``_``, ``-`` and spaces.

    Example:
        >>> plain_name("User ID")
        'userid'
    """
    return re.sub(r"[\s_-]", "", name.lower())


def atomic_name(name: str) -> str:
    """A column's name without the type that RecBole's atomic files write behind it.

    Example:
        >>> atomic_name("user_id:token")
        'user_id'
    """
    found = _ATOMIC.fullmatch(name)
    return found[1] if found else name


class _Lines:
    """Decoded lines, with the number and text of those that a reader has taken for one record."""

    def __init__(self, path: Path, lines: Iterator[bytes] | BinaryIO) -> None:
        self._path = path
        self._lines = iter(lines)
        self._number = 0
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
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


def _split(lines: Iterator[str], separator: str, *, strict: bool = True) -> Iterator[list[str]]:
    """Each record's fields, none for a blank line. Between ``::`` or spaces, quotes are characters like others."""
    if separator == "::":
        return (text.split("::") if (text := line.rstrip("\r\n")) else [] for line in lines)
    if separator == " ":
        return (re.split(" +", text) if (text := line.strip(" \r\n")) else [] for line in lines)
    return csv.reader(lines, delimiter=separator, strict=strict)


def _opened(path: Path) -> BinaryIO:
    stream = path.open("rb")
    if stream.read(2) == b"\x1f\x8b":
        stream.close()
        return cast(BinaryIO, gzip.open(path))
    stream.seek(0)
    return stream


def _unreadable(path: Path, error: BaseException) -> RecflowError:
    reason = " ".join((getattr(error, "strerror", None) or str(error)).partition("\n")[0].split())[:200]
    return RecflowError(f"{path} cannot be read, it is damaged or cut short ({reason}); expected {_FORMS}")


def _sample_lines(path: Path, sample: bytes, whole: bool) -> list[str]:
    """The first lines of a text, each with its end."""
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecflowError(
            f"{path}, line 1: the file is in UTF-16, expected UTF-8; convert it by: iconv -f UTF-16 -t UTF-8 "
            f"{path.name} > converted.csv"
        )
    if not sample.removeprefix(b"\xef\xbb\xbf").strip():
        raise RecflowError(f"{path} is empty, expected a table with a user and an item in every row")
    if b"\0" in sample:
        raise RecflowError(f"{path} is no text, it holds zero bytes; expected {_FORMS}")
    if sample.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"{", b"[", b"<")):
        raise RecflowError(f"{path} looks like JSON, HTML or XML, expected {_FORMS}")
    if not whole:
        sample = sample[: sample.rfind(b"\n") + 1]
    if b"\n" not in sample and (b"\r" in sample or not whole):
        raise RecflowError(f"{path} holds no line feed; expected lines that end in \\n or \\r\\n, one for each row")
    return list(_Lines(path, io.BytesIO(sample)))


def _candidate(
    path: Path, lines: list[str], whole: bool, separator: str, known: Collection[str]
) -> tuple[tuple[float, ...], str, list[list[str]]] | None:
    """How well a separator explains the first records, and these; None where it does not."""
    try:
        records = list(islice(_split(iter(lines), separator, strict=False), _SAMPLE_RECORDS))
    except csv.Error:
        return None
    if len(records) < _SAMPLE_RECORDS and not whole and len(records) > 1:
        records.pop()  # its end may lie behind the sample's
    rows = [fields for fields in records if fields]
    width = len(rows[0]) if rows else 0
    even = sum(len(fields) == width for fields in rows) / max(len(rows), 1)
    if width < 2 or (separator == " " and even < 0.5):  # a title, not a row
        return None
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    hinted = {".tsv": "\t", ".inter": "\t", ".csv": ","}.get(suffix)
    named = sum(plain_name(atomic_name(name)) in known for name in rows[0])
    numeric = sum(_all_numbers(rows[1:] or rows, column) for column in range(width))
    order = -list(SEPARATORS).index(separator)
    explains = (even >= 0.5, separator != " ", named, numeric, even, separator == hinted, width, order)
    return explains, separator, records


def _all_numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    values = [fields[column] for fields in rows if len(fields) > column and fields[column]]
    return bool(values) and all(_NUMBER.fullmatch(value) for value in values)


def _is_header(
    first: Sequence[str], rows: Sequence[Sequence[str]], asked: Collection[str], known: Collection[str]
) -> bool:
    names = [atomic_name(name.strip()) for name in first]
    if any(name in asked for name in names):
        return True
    hits = sum(plain_name(name) in known for name in names)
    has_number = any(_NUMBER.fullmatch(name) for name in names)
    if hits > 1 or ((hits or asked) and not has_number):
        return True
    numeric = [column for column in range(len(first)) if _all_numbers(rows, column)]
    return bool(numeric) and not any(_NUMBER.fullmatch(first[column]) for column in numeric)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
