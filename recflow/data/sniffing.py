"""How a text holds its table: its separator and header, told from the first lines."""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path

import polars as pl

from recflow.data.table_files import (
    FORMS,
    SEPARATORS,
    Lines,
    TableFile,
    check_file,
    opened,
    shortened,
    split_records,
    unreadable,
)
from recflow.errors import RecflowError

_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 101
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_ATOMIC = re.compile(r"(.+):(token|float|token_seq|float_seq)")  # RecBole writes a column's type behind its name


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
        with opened(path) as stream:
            sample = stream.read(_SAMPLE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    if path.suffix == ".parquet" or sample.startswith(b"PAR1"):
        try:
            return TableFile(path, tuple(pl.scan_parquet(path, glob=False).collect_schema().names()))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise unreadable(path, error) from error
    whole = len(sample) < _SAMPLE_BYTES
    lines = _sample_lines(path, sample, whole)
    candidates = [found for separator in SEPARATORS if (found := _candidate(path, lines, whole, separator, known))]
    if not candidates:
        number, text = next((number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip())
        raise RecflowError(
            f"{path}, line {number}: {shortened(text)} is one column, expected at least two between one of: "
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
        raise RecflowError(f"{path} is no text, it holds zero bytes; expected {FORMS}")
    if sample.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"{", b"[", b"<")):
        raise RecflowError(f"{path} looks like JSON, HTML or XML, expected {FORMS}")
    if not whole:
        sample = sample[: sample.rfind(b"\n") + 1]
    if b"\n" not in sample and (b"\r" in sample or not whole):
        raise RecflowError(f"{path} holds no line feed; expected lines that end in \\n or \\r\\n, one for each row")
    return list(Lines(path, io.BytesIO(sample)))


def _candidate(
    path: Path, lines: list[str], whole: bool, separator: str, known: Collection[str]
) -> tuple[tuple[float, ...], str, list[list[str]]] | None:
    """How well a separator explains the first records, and these; None where it does not."""
    try:
        records = list(islice(split_records(iter(lines), separator, strict=False), _SAMPLE_RECORDS))
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
