"""Named datasets: where each comes from, how it is verified, and the tables parsed from it, kept as Parquet.

A dataset is looked for under `RECFLOW_DATA_DIR` (a folder or the archive), then in the cache, then downloaded; nothing
else ever takes its place.
"""

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath

from recflow.data import movielens, sample
from recflow.data.cache import default_cache, parsed, written_beside
from recflow.data.interactions import RawData
from recflow.errors import RecflowError

SERVER = "https://files.grouplens.org/datasets/movielens/"
_KEEP_SAMPLES_FROM = 1_000_000  # ratings; smaller samples are made faster than they are read

_log = logging.getLogger(__name__)
_NO_REDISTRIBUTION = "GroupLens: research use; no redistribution without separate permission"
_REDISTRIBUTION = "GroupLens: research use; may be redistributed under the same conditions"


@dataclass(frozen=True)
class Dataset:
    """A published dataset.

    Attributes:
        name: What it is called here and what its folder under `RECFLOW_DATA_DIR` is called.
        summary: One line about it.
        archive: File name of the archive, on the server and under `RECFLOW_DATA_DIR`.
        folder: The folder inside the archive.
        parser: Reads the unpacked folder.
        files: What the parser needs.
        optional: What it reads too, where all of them are there.
        sha256: Of the archive.
        md5: Of the archive, where GroupLens' own is known; to be compared by hand, since `sha256` decides.
        licence: One line about what may be done with the data.
        may_change: Whether another checksum or length is a notice instead of an error.
    """

    name: str
    summary: str
    archive: str
    folder: str
    parser: Callable[[Path], RawData]
    files: tuple[str, ...]
    sha256: str
    md5: str | None = None
    licence: str = _NO_REDISTRIBUTION
    optional: tuple[str, ...] = ()
    may_change: bool = False

    @property
    def url(self) -> str:
        """Where the archive is downloaded: GroupLens' server, or what `RECFLOW_MIRROR` names in its place."""
        return (os.environ.get("RECFLOW_MIRROR") or SERVER).rstrip("/") + "/" + self.archive


def _csv_release(name: str, summary: str, sha256: str, md5: str) -> Dataset:
    parser = partial(movielens.parse_csv_release, name=name)
    return Dataset(name, summary, f"{name}.zip", name, parser, movielens.CSV_FILES, sha256, md5)


DATASETS: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        Dataset(
            name="ml-latest-small",
            summary="MovieLens, small and recent: 100,836 ratings in half stars, 610 users, 9,724 films",
            archive="ml-latest-small.zip",
            folder="ml-latest-small",
            parser=movielens.parse_ml_latest_small,
            files=movielens.CSV_FILES,
            sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            licence=_REDISTRIBUTION,
            may_change=True,
        ),
        Dataset(
            name="ml-100k",
            summary="MovieLens 100K: 100,000 ratings, 943 users with features, 1,682 films, five given folds",
            archive="ml-100k.zip",
            folder="ml-100k",
            parser=movielens.parse_ml_100k,
            files=movielens.ML_100K_FILES,
            optional=movielens.ML_100K_FOLDS,
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            md5="0e33842e24a9c977be4e0107933c0723",
        ),
        Dataset(
            name="ml-1m",
            summary="MovieLens 1M: 1,000,209 ratings, 6,040 users with features, 3,706 films",
            archive="ml-1m.zip",
            folder="ml-1m",
            parser=movielens.parse_ml_1m,
            files=movielens.ML_1M_FILES,
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            md5="c4d9eecfca2ab87c1945afe126590906",
        ),
        _csv_release(
            "ml-20m",
            "MovieLens 20M: 20,000,263 ratings in half stars, 138,493 users",
            "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            "cd245b17a1ae2cc31bb14903e1204af3",
        ),
        _csv_release(
            "ml-25m",
            "MovieLens 25M: 25,000,095 ratings in half stars, 162,541 users",
            "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            "6b51fb2759a8657d3bfcbfc42b592ada",
        ),
        _csv_release(
            "ml-32m",
            "MovieLens 32M: 32,000,204 ratings in half stars, 200,948 users",
            "e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            "d472be332d4daa821edc399621853b57",
        ),
    )
}


def names() -> tuple[str, ...]:
    """The datasets that `load_raw` knows; the sample takes a size too, ``sample:ratings=1000000``."""
    return (sample.NAME, *DATASETS)


def load_raw(name: str, *, cache_dir: Path | None = None) -> RawData:
    """Load a named dataset, downloading and parsing it only where that has not been done.

    Args:
        name: One of `names`, or ``sample:ratings=N``.
        cache_dir: Where downloads and parsed tables are kept; by default `RECFLOW_CACHE_DIR`, else ``recflow`` in
            `XDG_CACHE_HOME`, else ``~/.cache/recflow``.

    Returns:
        The dataset in its own ids, with notices about how it was come by.

    Raises:
        RecflowError: If the name is unknown, the data cannot be had, or they are not what was published.

    Example:
        >>> load_raw("sample:ratings=500").ratings.height
        500
    """
    cache = cache_dir or default_cache()
    if name.partition(":")[0] == sample.NAME:
        return _load_sample(name, cache)
    dataset = DATASETS.get(name)
    if dataset is None:
        close = get_close_matches(name, names(), n=2)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise RecflowError(f"dataset {name!r} is unknown, expected one of {', '.join(names())}{hint}")
    folder, notices = _find(dataset, cache)
    sha256 = movielens.content_hash(folder, _files_in(dataset, folder))
    raw = parsed(cache, name, sha256, lambda: dataset.parser(folder))
    return replace(raw, notices=(*notices, *raw.notices))


def _load_sample(name: str, cache: Path) -> RawData:
    if name == sample.NAME:
        return sample.generate()
    count = name.removeprefix(f"{sample.NAME}:ratings=").replace("_", "")
    if not (count.isascii() and count.isdigit()) or int(count) < 1:
        raise RecflowError(f"dataset {name!r} given, expected {sample.NAME} or {sample.NAME}:ratings=N with N from 1")
    if int(count) < _KEEP_SAMPLES_FROM:
        return sample.generate(int(count))
    return parsed(cache, sample.NAME, sample.content_hash(int(count)), lambda: sample.generate(int(count)))


def _files_in(dataset: Dataset, folder: Path) -> tuple[str, ...]:
    """What the parser will read: the optional files count only where all of them are there."""
    complete = all((folder / name).is_file() for name in dataset.optional)
    return dataset.files + (dataset.optional if complete else ())


def _find(dataset: Dataset, cache: Path) -> tuple[Path, tuple[str, ...]]:
    """The dataset's unpacked folder, wherever it comes from, and what is to be said about that."""
    kept = cache / "archives" / dataset.archive
    if given := os.environ.get("RECFLOW_DATA_DIR"):
        root = Path(given).expanduser()
        if not root.is_dir():
            raise RecflowError(
                f"RECFLOW_DATA_DIR is {given!r}, which is no folder; expected one that holds {dataset.name}/"
            )
        if (root / dataset.name).is_dir():
            notice = f"{dataset.name}: read from a folder, checked by its counts, not by checksum"
            return root / dataset.name, (notice,)
        if (root / dataset.archive).is_file():
            return _unpack(dataset, root / dataset.archive, cache)
    if kept.is_file():
        try:
            return _unpack(dataset, kept, cache)
        except RecflowError as error:  # it was whole when it was kept: the disk has lost it, so it is fetched again
            _log.warning("%s", error)
    return _download(dataset, kept, cache)


def _download(dataset: Dataset, kept: Path, cache: Path) -> tuple[Path, tuple[str, ...]]:
    import pooch  # it brings requests along, which only a download needs

    _log.info("downloading %s", dataset.url)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
            archive = Path(temporary) / dataset.archive
            pooch.HTTPDownloader(timeout=30, progressbar=sys.stderr.isatty())(dataset.url, str(archive), None)
            found = _unpack(dataset, archive, cache, source=dataset.url)
            archive.replace(kept)
            return found
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, those about the URL ValueErrors
        given = os.environ.get("RECFLOW_DATA_DIR")
        sought = f"is not under RECFLOW_DATA_DIR ({given}) and " if given else ""
        raise RecflowError(
            f"{dataset.name} {sought}cannot be downloaded from {dataset.url}: {_reason(error)}; three other ways: put "
            f"the folder {dataset.name} or {dataset.archive} where RECFLOW_DATA_DIR points, set RECFLOW_MIRROR to the "
            "address of a server that has the archive, or use --data sample"
        ) from None  # its reason is told; the HTTP stack of it is eighty lines in a notebook


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


def _unpack(dataset: Dataset, archive: Path, cache: Path, source: str = "") -> tuple[Path, tuple[str, ...]]:
    """Verify the archive and lay the files that the parser reads into the cache, under the archive's checksum."""
    source = source or str(archive)
    with archive.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    notices: tuple[str, ...] = ()
    if sha256 != dataset.sha256:
        message = f"{source} has sha256 {sha256}, expected {dataset.sha256}"
        if not dataset.may_change:
            raise RecflowError(f"{message}: it is damaged or not {dataset.name} as published; it is not used, nor kept")
        notices = (f"{message}: {dataset.name} may have been replaced by its publisher",)
    final = cache / "unpacked" / f"{dataset.name}-{sha256[:12]}"
    if final.is_dir():  # asked first: what another process renames into place after this is whole
        if all((final / name).is_file() for name in dataset.files):
            return final, notices
        shutil.rmtree(final, ignore_errors=True)
    try:
        with written_beside(final) as folder, zipfile.ZipFile(archive) as members:
            _extract(dataset, members, folder, source)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RecflowError(f"{source} cannot be unpacked, it is cut short or damaged: {error}") from error
    except OSError as error:
        raise RecflowError(f"{source} cannot be unpacked into {final}: {error.strerror or error}") from error
    return final, notices


def _extract(dataset: Dataset, members: zipfile.ZipFile, folder: Path, source: str) -> None:
    present = set(members.namelist())
    for member in present:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member:
            raise RecflowError(f"{source} holds {member!r}, a path outside its folder; it is not unpacked")
    for name in dataset.files + dataset.optional:
        member = f"{dataset.folder}/{name}"
        if member in present:
            with members.open(member) as packed, (folder / name).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        elif name in dataset.files:
            raise RecflowError(
                f"{source} lacks the file {member}, expected {', '.join(dataset.files)} in {dataset.folder}/"
            )
