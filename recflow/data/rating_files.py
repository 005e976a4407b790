"""Checked reading of rating files and of the tables beside them.

Ratings and tags, which may be millions, are read by polars and checked as columns; only where something is wrong is the
file read again, line by line, to say where. Whatever is wrong is told with the file, the line and what was expected.
"""

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl

from recflow.data.interactions import RATING_COLUMNS
from recflow.errors import RecflowError

_HIGHEST = 2**63 - 1  # what Int64 holds
# what polars reads as a number; Python's own int() and float() take more, such as 1_000
_WHOLE = re.compile(r"[ \t]*[+-]?\d+", re.ASCII)
_DECIMAL = re.compile(r"[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class SourceFiles:
    """The files that make up a dataset.

    Attributes:
        needed: Those without which it cannot be read.
        optional: Groups of further files; each group is read where all of it is there, and else left out whole.
    """

    needed: tuple[str, ...]
    optional: tuple[tuple[str, ...], ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every file that may be read."""
        return (*self.needed, *chain.from_iterable(self.optional))

    def present(self, folder: Path) -> tuple[str, ...]:
        """What is read of a folder: the needed files, there or not, and the optional groups that are complete."""
        whole = (group for group in self.optional if all((folder / name).is_file() for name in group))
        return (*self.needed, *chain.from_iterable(whole))


class Scale(NamedTuple):
    """The ratings that can be given: from `lowest` to `highest` stars in steps of `step`."""

    lowest: float
    highest: float
    step: float

    def __contains__(self, rating: object) -> bool:
        """Whether a rating can be given."""
        return isinstance(rating, float) and self.lowest <= rating <= self.highest and (rating / self.step).is_integer()

    def __str__(self) -> str:
        """``1 to 5 in steps of 1``."""
        return f"{self.lowest:g} to {self.highest:g} in steps of {self.step:g}"


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


def read_ratings(
    path: Path,
    separator: str,
    *,
    header: str | None = None,
    columns: Sequence[str] = RATING_COLUMNS,
    scale: Scale | None = None,
    first_id: int = 1,
) -> pl.DataFrame:
    """Read a file of one rating per line.

    Args:
        path: The file.
        separator: What stands between fields: one character, or the same one twice, such as ``::``.
        header: The first line, where there is one.
        columns: What each line holds, in order: of the four rating columns.
        scale: The ratings that can be given; None takes any finite number.
        first_id: The lowest id that users and items may have.

    Returns:
        The columns, in the file's order: ids and time Int64, rating Float32; nothing is null. Repeated rows are kept.

    Raises:
        RecflowError: If the file is empty or a line is no rating.
    """
    refuse_empty(path)
    # two characters are read as one with a column in between, which must stay empty
    gaps = {name: f"after {name}" for name in columns[:-1]} if len(separator) == 2 else {}
    schema: dict[str, pl.DataType] = {}
    for name in columns:
        schema[name] = pl.Float32() if name == "rating" else pl.Int64()
        if name in gaps:
            schema[gaps[name]] = pl.Boolean()
    skip = 0 if header is None else _skip_header(path, header)
    problem = "its lines are no ratings"
    try:
        # a header is skipped, not read: polars releases disagree on a header whose names are not the schema's
        frame = pl.read_csv(
            path, separator=separator[0], has_header=False, skip_rows=skip, schema=schema, quote_char=None
        )
        if frame.is_empty():
            problem = "it holds no ratings"
        elif all(frame[gap].null_count() == len(frame) for gap in gaps.values()):
            frame = frame.select(columns)
            if _is_sound(frame, scale, first_id):
                return frame
    except pl.exceptions.NoDataError:
        problem = "it holds no ratings"
    except pl.exceptions.PolarsError as error:
        problem = " ".join(str(error).partition("\n")[0].split())
    shape = separator.join(name.removesuffix("_id") for name in columns)
    raise RecflowError(
        _name_bad_rating(path, separator, columns, shape, scale, first_id, skip)
        or f"{path}: {problem}, expected {shape!r} in every line"
    )


def _skip_header(path: Path, header: str) -> int:
    with path.open("rb") as stream:
        first = stream.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if first != header:
        raise RecflowError(f"{path}, line 1: {first[:80]!r} given, expected the header {header!r}")
    return 1


def _is_sound(frame: pl.DataFrame, scale: Scale | None, first_id: int) -> bool:
    if any(frame[name].null_count() for name in frame.columns):
        return False
    lowest = {"user_id": first_id, "item_id": first_id, "time": 0}
    rules = [pl.col(name).min() >= bound for name, bound in lowest.items() if name in frame.columns]
    rating = pl.col("rating")
    if scale is None:
        rules.append(rating.is_finite().all())
    else:
        steps = rating / scale.step
        given = rating.is_finite() & rating.is_between(scale.lowest, scale.highest) & (steps == steps.floor())
        rules.append(given.all())
    return bool(frame.select(pl.all_horizontal(rules)).item())


def _name_bad_rating(
    path: Path, separator: str, columns: Sequence[str], shape: str, scale: Scale | None, first_id: int, skip: int
) -> str | None:
    """The first line that is no rating, with what it should be."""
    for number, line in enumerate(_raw_lines(path), start=1):
        if number <= skip:
            continue
        text = line.decode("latin-1")
        expected = _what_is_wrong(dict(zip(columns, text.split(separator), strict=False)), scale, first_id)
        if text.count(separator) != len(columns) - 1 or expected == "number":
            expected = f"{shape!r} in numbers"
        if expected:
            return f"{path}, line {number}: {text[:80]!r} given, expected {expected}"
    return None


def _what_is_wrong(fields: dict[str, str], scale: Scale | None, first_id: int) -> str | None:
    for name, field in fields.items():
        if not (_DECIMAL if name == "rating" else _WHOLE).fullmatch(field):
            return "number"
        value = float(field) if name == "rating" else int(field)
        if abs(value) > _HIGHEST:
            return "number"
        if name.endswith("_id") and value < first_id:
            return f"ids from {first_id}"
        if name == "time" and value < 0:
            return "a time from 0, in seconds since 1970"
        if name == "rating" and scale is not None and value not in scale:
            return f"a rating from {scale}"
    return None


def refuse_empty(path: Path) -> None:
    """Raise if there is nothing in a file: an interrupted copy leaves one like that."""
    if path.stat().st_size == 0:
        raise RecflowError(f"{path} is empty, 0 bytes; copy it again from the published archive")


def latin_1(line: bytes) -> str:
    """Decode what is published as latin-1; every byte means something in it."""
    return line.decode("latin-1")


def utf_8_or_latin_1(line: bytes) -> str:
    """Decode a line of a file that mixes both: what is no UTF-8 is latin-1."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def split_lines(
    path: Path, separator: str, num_fields: int, *, decode: Callable[[bytes], str] = latin_1, free_field: int = -1
) -> Iterator[tuple[str, list[str]]]:
    """Read a small file without quotes; blank lines are passed over, either line ending is taken.

    Args:
        path: The file.
        separator: What stands between fields.
        num_fields: Fields in a line.
        decode: Makes text of a line.
        free_field: The one field that may hold the separator, such as a title; -1 for none.

    Yields:
        Each line's place, ``path, line n``, for messages, and its fields.

    Raises:
        RecflowError: If the file is empty or a line has another number of fields.
    """
    refuse_empty(path)
    for number, line in enumerate(_raw_lines(path), start=1):
        place, text = f"{path}, line {number}", decode(line)
        if not text:
            continue
        fields = text.split(separator)
        if free_field >= 0 and len(fields) > num_fields:
            behind = len(fields) - num_fields + free_field + 1
            fields[free_field:behind] = [separator.join(fields[free_field:behind])]
        if len(fields) != num_fields:
            raise RecflowError(f"{place}: {text[:80]!r} given, expected {num_fields} fields between {separator!r}")
        yield place, fields


def csv_lines(path: Path, header: str) -> Iterator[tuple[str, list[str]]]:
    """Read a CSV file in UTF-8 with quotes, one row at a time.

    Args:
        path: The file.
        header: Its first line.

    Yields:
        Each row's place, ``path, line n``, for messages, and its fields.

    Raises:
        RecflowError: If the file is empty, is no UTF-8, or a row has another number of fields.
    """
    refuse_empty(path)
    names = header.split(",")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            for row, fields in enumerate(reader):
                place = f"{path}, line {reader.line_num}"
                if row == 0:
                    if fields != names:
                        raise RecflowError(f"{place}: {','.join(fields)[:80]!r} given, expected the header {header!r}")
                elif len(fields) != len(names):
                    raise RecflowError(f"{place}: {len(fields)} fields given, expected {header}")
                else:
                    yield place, fields
        except csv.Error as error:
            raise RecflowError(f"{path}, after line {reader.line_num}: {error}; expected CSV in UTF-8") from error
        except UnicodeDecodeError as error:
            raise RecflowError(f"{_place_of_bad_bytes(path)}: {error.reason}; expected CSV in UTF-8") from error


def whole_number(place: str, text: str, lowest: int = 0, highest: int = _HIGHEST) -> int:
    """A field as a whole number.

    Args:
        place: Where it stands, for a message.
        text: The field.
        lowest: The lowest number that it may be.
        highest: The highest number that it may be.

    Raises:
        RecflowError: If it is no whole number or not between the two.
    """
    if not _WHOLE.fullmatch(text):
        raise RecflowError(f"{place}: {text[:80]!r} given, expected a whole number")
    if not lowest <= int(text) <= highest:
        raise RecflowError(f"{place}: {text[:80]!r} given, expected a whole number from {lowest} to {highest}")
    return int(text)


def _raw_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        for line in stream:
            yield line.rstrip(b"\r\n")


def _place_of_bad_bytes(path: Path) -> str:
    for number, line in enumerate(_raw_lines(path), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            return f"{path}, line {number}"
    return str(path)
