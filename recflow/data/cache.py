"""What is kept between runs: downloads, unpacked archives, and parsed tables as Parquet under their contents' hash.

Everything is written beside and then renamed, so neither a crash nor a second process leaves half of it.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recflow.data.interactions import RawData

PARSER_VERSION = 2  # raise it when a parser's result changes: tables parsed by another version are not used

_TABLES = ("ratings", "items", "users")
_IF_ANY = ("tags", "negatives")
_log = logging.getLogger(__name__)


def default_cache() -> Path:
    """`RECFLOW_CACHE_DIR`, else ``recflow`` in `XDG_CACHE_HOME`, else ``~/.cache/recflow``."""
    if given := os.environ.get("RECFLOW_CACHE_DIR"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recflow"


@contextmanager
def written_beside(final: Path) -> Iterator[Path]:
    """A new folder that becomes `final` when the block ends well, and vanishes when it does not."""
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / final.name  # inside, since a temporary folder itself is closed to other users
        folder.mkdir()
        yield folder
        try:
            folder.rename(final)
        except OSError:
            if not final.is_dir():  # else another process was quicker with the same contents
                raise


def parsed(cache: Path, name: str, sha256: str, parse: Callable[[], RawData]) -> RawData:
    """The tables kept for these source files, or those of `parse`, which are then kept.

    Args:
        cache: The cache's folder.
        name: The dataset's name.
        sha256: Hash of the source files, and of whatever else decides what `parse` returns.
        parse: Reads the source files.
    """
    key = hashlib.sha256(f"{PARSER_VERSION} {sha256}".encode()).hexdigest()[:12]
    final = cache / "parsed" / f"{name}-{key}"
    if final.is_dir():
        try:
            return _read(final, name, sha256)
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            _log.warning("%s is damaged (%s) and made anew", final, error)
            shutil.rmtree(final, ignore_errors=True)
    raw = parse()
    try:
        with written_beside(final) as folder:
            _write(raw, folder)
    except OSError as error:  # a full or read-only disk costs time, not the data
        _log.warning("the parsed tables of %s could not be kept in %s: %s", name, final, error)
    return raw


def _write(raw: RawData, folder: Path) -> None:
    sums = {}
    for table in (*_TABLES, *(name for name in _IF_ANY if not getattr(raw, name).is_empty())):
        path = folder / f"{table}.parquet"
        getattr(raw, table).write_parquet(path)
        with path.open("rb") as stream:
            sums[table] = hashlib.file_digest(stream, "sha256").hexdigest()
    header = {
        "name": raw.name,
        "sha256": raw.sha256,
        "notices": raw.notices,
        "has_ratings": raw.has_ratings,
        "has_times": raw.has_times,
        "tables": sums,
    }
    (folder / "header.json").write_text(json.dumps(header, indent=1), encoding="utf-8")


def _read(folder: Path, name: str, sha256: str) -> RawData:
    header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
    if header["name"] != name or header["sha256"] != sha256:
        raise ValueError("its header names other data")

    def table(wanted: str) -> pl.DataFrame:
        packed = (folder / f"{wanted}.parquet").read_bytes()
        if hashlib.sha256(packed).hexdigest() != header["tables"][wanted]:
            raise ValueError(f"the checksum of {wanted}.parquet is wrong")
        return pl.read_parquet(io.BytesIO(packed))

    tables: dict[str, Any] = {wanted: table(wanted) for wanted in (*_TABLES, *_IF_ANY) if wanted in header["tables"]}
    flags = {"has_ratings": header["has_ratings"], "has_times": header["has_times"]}
    return RawData(name=name, sha256=sha256, notices=tuple(header["notices"]), **tables, **flags)
