"""Where a dataset's files are: found in a folder or an archive, downloaded, verified and unpacked into the cache.

Nothing is parsed here. An archive is kept and laid out only when it is what was published, so that a load cut short or
a disk that is full leaves nothing behind that looks whole.
"""

import hashlib
import logging
import os
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from recflow.data.cache import written_beside
from recflow.data.interactions import RawData
from recflow.data.rating_files import SourceFiles
from recflow.errors import RecflowError

SERVER = "https://files.grouplens.org/datasets/movielens/"

#: Where a dataset comes from: generated, from the user's folder, kept from a download, to be downloaded, or to be
#: fetched by the user.
Source = Literal["embedded", "RECFLOW_DATA_DIR", "cached", "download", "by hand"]

_log = logging.getLogger(__name__)
# what zipfile and zlib raise over bytes that are no archive
_BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """A published dataset.

    Attributes:
        name: What it is called here and what its folder under `RECFLOW_DATA_DIR` is called.
        summary: One line about it.
        parser: Reads the unpacked folder.
        files: What the parser reads.
        licence: One line about what may be done with the data.
        num_ratings: Ratings as published, checked on loading; None where they change.
        num_users: Users with a rating, where known.
        num_items: Items in its catalogue, rated or not, where known.
        has: What there is beside users, items and interactions, in words.
        archive: File name of the archive, on the server and under `RECFLOW_DATA_DIR`; None if it is not downloaded.
        folder: The folder inside the archive, if it is not called as the dataset is; a name for it under
            `RECFLOW_DATA_DIR`, too.
        size: Of the archive in bytes, where known.
        sha256: Of the archive, where known.
        md5: Of the archive, where known; it decides only where there is no `sha256`.
        home: Where its authors publish it, if not on GroupLens' server.
        may_change: Whether another checksum or length is a notice instead of an error.
    """

    name: str
    summary: str
    parser: Callable[[Path], RawData]
    files: SourceFiles
    licence: str
    num_ratings: int | None = None
    num_users: int | None = None
    num_items: int | None = None
    has: tuple[str, ...] = ()
    archive: str | None = None
    folder: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    home: str | None = None
    may_change: bool = False

    @property
    def url(self) -> str | None:
        """Where the archive is downloaded: GroupLens' server, or what `RECFLOW_MIRROR` names in its place."""
        if self.archive is None:
            return None
        return (os.environ.get("RECFLOW_MIRROR") or SERVER).rstrip("/") + "/" + self.archive

    @property
    def folders(self) -> tuple[str, ...]:
        """What its folder under `RECFLOW_DATA_DIR` may be called."""
        return (self.name,) if self.folder is None else (self.name, self.folder)


def data_dir() -> Path | None:
    """The folder that `RECFLOW_DATA_DIR` names; None where it is not set.

    Raises:
        RecflowError: If it is no folder.
    """
    given = os.environ.get("RECFLOW_DATA_DIR")
    if not given:
        return None
    root = Path(given).expanduser()
    if not root.is_dir():
        raise RecflowError(
            f"RECFLOW_DATA_DIR is {given!r}, which is no folder; expected one that holds folders such as ml-1m/"
        )
    return root


def look(dataset: Dataset, cache: Path) -> tuple[Source, Path | None]:
    """Tell where a dataset would come from, without fetching it.

    Args:
        dataset: Which one.
        cache: The cache's folder.

    Returns:
        The source, and the folder or the archive where there is one.

    Raises:
        RecflowError: If `RECFLOW_DATA_DIR` is no folder.
    """
    if root := data_dir():
        for folder in dataset.folders:
            if (root / folder).is_dir():
                return "RECFLOW_DATA_DIR", root / folder
        if dataset.archive and (root / dataset.archive).is_file():
            return "RECFLOW_DATA_DIR", root / dataset.archive
    if dataset.archive is None:
        return "by hand", None
    kept = cache / "archives" / dataset.archive
    return ("cached", kept) if kept.is_file() else ("download", None)


def find(dataset: Dataset, cache: Path) -> tuple[Source, Path, tuple[str, ...]]:
    """Have a dataset's files at hand, downloaded, verified and unpacked where that has not been done.

    Args:
        dataset: Which one.
        cache: The cache's folder.

    Returns:
        Where it comes from, its unpacked folder, and what is to be said about that, one line each.

    Raises:
        RecflowError: If the files cannot be had or kept, or are not what was published.
    """
    source, place = look(dataset, cache)
    if source == "RECFLOW_DATA_DIR" and place is not None:
        if place.is_file():
            return source, *_unpack(dataset, place, cache)
        counts = "by its counts, not" if dataset.num_ratings else "neither by counts nor"
        return source, place, (f"{dataset.name}: read from a folder, checked {counts} by checksum",)
    if dataset.archive is None:
        raise RecflowError(
            f"{dataset.name} {_sought()}is not downloaded by recflow: its authors publish it at {dataset.home}; put a "
            f"folder {dataset.name} with {', '.join(dataset.files.needed)} where RECFLOW_DATA_DIR points"
        )
    if place is not None:
        try:
            return source, *_unpack(dataset, place, cache)
        except _DamagedArchiveError as error:  # it was whole when it was kept: the disk has lost it
            _log.warning("%s: fetched again", error)
    return "download", *_download(dataset, cache / "archives" / dataset.archive, cache)


def _sought() -> str:
    given = os.environ.get("RECFLOW_DATA_DIR")
    return f"is not under RECFLOW_DATA_DIR ({given}) and " if given else ""


def _download(dataset: Dataset, kept: Path, cache: Path) -> tuple[Path, tuple[str, ...]]:
    import pooch  # it brings requests along, which only a download needs

    _log.info("downloading %s", dataset.url)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
            archive = Path(temporary) / kept.name
            pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty())(dataset.url, str(archive), None)
            found = _unpack(dataset, archive, cache, source=dataset.url)
            archive.replace(kept)
            return found
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, those about the URL ValueErrors
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; requests' have no number
            raise _not_kept(dataset, cache, error) from None
        raise RecflowError(
            f"{dataset.name} {_sought()}cannot be downloaded from {dataset.url}: {_reason(error)}; three other ways: "
            f"put the folder {dataset.name} or {dataset.archive} where RECFLOW_DATA_DIR points, set RECFLOW_MIRROR to "
            "the address of a server that has the archive, or use --data sample"
        ) from None  # its reason is told; the HTTP stack of it is eighty lines in a notebook


def _not_kept(dataset: Dataset, cache: Path, error: OSError) -> RecflowError:
    return RecflowError(
        f"{dataset.name} cannot be kept in {cache}: {error.strerror or error}; make room there, or set "
        "RECFLOW_CACHE_DIR to a folder that has it"
    )


def _reason(error: Exception) -> str:
    """One line for what requests tells in many."""
    kinds = {
        "SSLError": "the server's TLS certificate is not accepted",
        "ConnectTimeout": "the server did not answer within 30 seconds",
        "ReadTimeout": "the server stopped answering",
        "ProxyError": "the proxy could not be reached",
        "ConnectionError": "there is no connection to the server",
    }
    return kinds.get(type(error).__name__) or " ".join(str(error).split())[:200]


class _DamagedArchiveError(RecflowError):
    """An archive that is not what was published, so that a kept one is fetched again."""


def _unpack(dataset: Dataset, archive: Path, cache: Path, source: str | None = None) -> tuple[Path, tuple[str, ...]]:
    """Verify the archive and lay the files that the parser reads into the cache, under the archive's checksum."""
    source = source or str(archive)
    sha256, notices = _verify(dataset, archive, source)
    final = cache / "unpacked" / f"{dataset.name}-{sha256[:12]}"
    try:
        with zipfile.ZipFile(archive) as members:
            wanted = _wanted(dataset, members, source)
            if final.is_dir():  # asked first: what another process renames into place after this is whole
                if all((final / name).is_file() for name in wanted.values()):
                    return final, notices
                shutil.rmtree(final, ignore_errors=True)
            with written_beside(final) as folder:
                for member, name in wanted.items():
                    with members.open(member) as packed, (folder / name).open("wb") as plain:
                        shutil.copyfileobj(packed, plain)
    except OSError as error:
        if error.errno is not None:
            raise _not_kept(dataset, cache, error) from None
        raise _DamagedArchiveError(f"{source} cannot be unpacked, it is cut short or damaged: {error}") from error
    except _BROKEN_ZIP as error:
        raise _DamagedArchiveError(f"{source} cannot be unpacked, it is cut short or damaged: {error}") from error
    return final, notices


def _verify(dataset: Dataset, archive: Path, source: str) -> tuple[str, tuple[str, ...]]:
    """The archive's SHA-256, and what is to be said of it."""
    try:
        with archive.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        kind, expected, given = "sha256", dataset.sha256, sha256
        if dataset.sha256 is None and dataset.md5 is not None:
            with archive.open("rb") as stream:
                given = hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
            kind, expected = "md5", dataset.md5
    except OSError as error:
        raise RecflowError(f"{archive} cannot be read: {error.strerror or error}") from error
    if expected in (None, given):
        return sha256, ()
    message = f"{source} has {kind} {given}, expected {expected}"
    if dataset.may_change:
        return sha256, (f"{message}: {dataset.name} may have been replaced by its publisher",)
    raise _DamagedArchiveError(f"{message}: it is damaged or not {dataset.name} as published; it is not used, nor kept")


def _wanted(dataset: Dataset, members: zipfile.ZipFile, source: str) -> dict[str, str]:
    """The members that the parser reads, and what each file is called when unpacked."""
    present = set(members.namelist())
    for member in present:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member:
            raise _DamagedArchiveError(f"{source} holds {member!r}, a path outside its folder; it is not unpacked")
    folder = dataset.folder or dataset.name
    for name in dataset.files.needed:
        if f"{folder}/{name}" not in present:
            raise _DamagedArchiveError(
                f"{source} lacks the file {folder}/{name}, expected {', '.join(dataset.files.needed)} in {folder}/"
            )
    return {f"{folder}/{name}": name for name in dataset.files.all if f"{folder}/{name}" in present}
