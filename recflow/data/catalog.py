"""Named datasets: where each comes from, what vouches for it, and the tables parsed from it, kept as Parquet.

A dataset is looked for under `RECFLOW_DATA_DIR` (a folder or the archive), then in the cache, then downloaded; nothing
else ever takes its place. Any other folder of a known form can be read by name from there, or by its path.
"""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from recflow.data import movielens, published, sample
from recflow.data.archives import Dataset, data_dir, find, look
from recflow.data.archives import Source as Source
from recflow.data.cache import default_cache, parsed
from recflow.data.interactions import RawData
from recflow.data.rating_files import SourceFiles, content_hash
from recflow.errors import RecflowError

_KEEP_SAMPLES_FROM = 1_000_000  # ratings; smaller samples are made faster than they are read
_NO_REDISTRIBUTION = "GroupLens: research use; no redistribution without separate permission"
_REDISTRIBUTION = "GroupLens: research use; may be redistributed under the same conditions"
_MOVIELENS = ("times", "titles", "years", "genres")


def _movielens(name: str, summary: str, files: SourceFiles, parse: Callable[..., RawData], **known: Any) -> Dataset:
    known = {"has": _MOVIELENS, "licence": _NO_REDISTRIBUTION, **known}
    return Dataset(name, summary, partial(parse, name=name), files, archive=f"{name}.zip", **known)


def _csv_release(name: str, summary: str, **known: Any) -> Dataset:
    known = {"has": (*_MOVIELENS, "tags", "links"), **known}
    return _movielens(name, summary, movielens.CSV_FILES, movielens.parse_csv_release, **known)


DATASETS: dict[str, Dataset] = {
    entry.name: entry
    for entry in (
        _csv_release(
            "ml-latest-small",
            "MovieLens, small and recent: 100,836 ratings in half stars, 610 users, 9,724 films rated",
            num_ratings=100_836,
            num_users=610,
            num_items=9_742,
            sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            licence=_REDISTRIBUTION,
            may_change=True,
        ),
        _movielens(
            "ml-100k",
            "MovieLens 100K: 100,000 ratings, 943 users with features, 1,682 films, five given folds",
            movielens.ML_100K_FILES,
            movielens.parse_ml_100k,
            num_ratings=100_000,
            num_users=943,
            num_items=1_682,
            has=(*_MOVIELENS, "release dates", "users' features", "folds"),
            size=4_924_029,
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            md5="0e33842e24a9c977be4e0107933c0723",
        ),
        _movielens(
            "ml-1m",
            "MovieLens 1M: 1,000,209 ratings, 6,040 users with features, 3,706 films rated",
            movielens.ML_1M_FILES,
            movielens.parse_ml_1m,
            num_ratings=1_000_209,
            num_users=6_040,
            num_items=3_883,
            has=(*_MOVIELENS, "users' features"),
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            md5="c4d9eecfca2ab87c1945afe126590906",
        ),
        _movielens(
            "ml-10m",
            "MovieLens 10M: 10,000,054 ratings in half stars, 69,878 users, 10,677 films rated",
            movielens.ML_10M_FILES,
            movielens.parse_ml_10m,
            num_ratings=10_000_054,
            num_users=69_878,
            num_items=10_681,
            has=(*_MOVIELENS, "tags"),
            folder="ml-10M100K",
            md5="ce571fd55effeba0271552578f2648bd",
        ),
        _csv_release(
            "ml-20m",
            "MovieLens 20M: 20,000,263 ratings in half stars, 138,493 users, 27,278 films",
            num_ratings=20_000_263,
            num_users=138_493,
            num_items=27_278,
            size=198_702_078,
            sha256="96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            md5="cd245b17a1ae2cc31bb14903e1204af3",
        ),
        _csv_release(
            "ml-25m",
            "MovieLens 25M: 25,000,095 ratings in half stars, 162,541 users, 62,423 films",
            num_ratings=25_000_095,
            num_users=162_541,
            num_items=62_423,
            size=261_978_986,
            sha256="8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
            md5="6b51fb2759a8657d3bfcbfc42b592ada",
        ),
        _csv_release(
            "ml-32m",
            "MovieLens 32M: 32,000,204 ratings in half stars, 200,948 users, 87,585 films",
            num_ratings=32_000_204,
            num_users=200_948,
            num_items=87_585,
            size=238_950_008,
            sha256="e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
            md5="d472be332d4daa821edc399621853b57",
        ),
        _csv_release(
            "ml-latest",
            "MovieLens, all that is published now: some 30 million ratings in half stars, replaced from time to time",
            licence=_REDISTRIBUTION,
            may_change=True,
        ),
        Dataset(
            "gowalla",
            "Gowalla as LightGCN's paper has it: 1,027,370 check-ins, 29,858 users, 40,981 places, given folds",
            partial(published.parse_lightgcn, name="gowalla"),
            published.LIGHTGCN_FILES,
            num_ratings=1_027_370,
            num_users=29_858,
            num_items=40_981,
            has=("folds",),
            home="github.com/kuandeng/LightGCN (Data/gowalla)",
            licence="as its authors publish it; see their repository",
        ),
        Dataset(
            "ncf-ml-1m",
            "MovieLens 1M as NCF's paper has it: leave-one-out, each test item against 99 given negatives",
            partial(published.parse_ncf, name="ncf-ml-1m", stem="ml-1m"),
            published.ncf_files("ml-1m"),
            num_ratings=1_000_209,
            num_users=6_040,
            num_items=3_706,
            has=("times", "folds", "negatives"),
            home="github.com/hexiangnan/neural_collaborative_filtering (Data)",
            licence=_NO_REDISTRIBUTION,
        ),
    )
}


class Found(NamedTuple):
    """Where a dataset is.

    Attributes:
        source: Where it has come from; ``download`` if that was done just now.
        folder: Its unpacked files; None for the sample, which has none.
        notices: What is to be said about that, one line each.
    """

    source: Source
    folder: Path | None
    notices: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The datasets that `load_raw` knows by name; the sample takes a size too, ``sample:ratings=1000000``."""
    return (sample.NAME, *DATASETS)


def load_raw(name: str, *, cache_dir: Path | None = None) -> RawData:
    """Load a named dataset, downloading and parsing it only where that has not been done.

    Args:
        name: One of `names`, ``sample:ratings=N``, or the name of a folder under `RECFLOW_DATA_DIR`, see `load_path`.
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
    if _is_sample(name):
        return _load_sample(name, cache)
    dataset = _entry(name)
    if isinstance(dataset, Path):
        return load_path(dataset, cache_dir=cache)
    _, folder, notices = find(dataset, cache)
    sha256 = content_hash(folder, dataset.files.present(folder))
    raw = parsed(cache, name, sha256, lambda: dataset.parser(folder))
    return replace(raw, notices=(*notices, *_check_count(dataset, raw), *raw.notices))


def load_path(path: Path, name: str | None = None, *, cache_dir: Path | None = None) -> RawData:
    """Load a folder by its path, in any of the forms that `published` knows; parsed tables are kept.

    Args:
        path: The folder.
        name: What the dataset is called, by default like the folder; where the folder holds several
            ``NAME.train.rating``, the one that is meant.
        cache_dir: As for `load_raw`.

    Returns:
        The dataset in its own ids, with a notice that nothing vouches for its contents.

    Raises:
        RecflowError: If there is no such folder, its form is not known, or a file is missing or malformed.
    """
    form, called = published.form_of(path, name), name or path.resolve().name
    sha256 = content_hash(path, form.files.present(path))
    raw = parsed(cache_dir or default_cache(), called, sha256, lambda: form.parse(path, called))
    notice = f"{called}: read as {form.describe} from a folder, checked neither by counts nor by checksum"
    return replace(raw, notices=(notice, *raw.notices))


def available(name: str, *, cache_dir: Path | None = None) -> Source:
    """Tell where `load_raw` would take a dataset from, without doing so.

    Args:
        name: As for `load_raw`.
        cache_dir: As for `load_raw`.

    Returns:
        ``embedded``: the sample. ``RECFLOW_DATA_DIR``: a folder or archive there. ``cached``: downloaded before.
        ``download``: it would be downloaded now. ``by hand``: it must be put under `RECFLOW_DATA_DIR` first.

    Raises:
        RecflowError: If the name is unknown, or `RECFLOW_DATA_DIR` is no folder.

    Example:
        >>> available("sample")
        'embedded'
    """
    if _is_sample(name):
        return "embedded"
    dataset = _entry(name)
    return "RECFLOW_DATA_DIR" if isinstance(dataset, Path) else look(dataset, cache_dir or default_cache())[0]


def download(name: str, *, cache_dir: Path | None = None) -> Found:
    """Make sure that a dataset is at hand, downloaded, verified and unpacked; nothing is parsed.

    Args:
        name: As for `load_raw`.
        cache_dir: As for `load_raw`.

    Returns:
        Where it is and what was done: ``download`` says that it has been downloaded now. What lies under
        `RECFLOW_DATA_DIR` is not downloaded, since a download would never be read.

    Raises:
        RecflowError: If the name is unknown, the data cannot be had, or they are not what was published.
    """
    if _is_sample(name):
        return Found("embedded", None)
    dataset = _entry(name)
    if isinstance(dataset, Path):
        return Found("RECFLOW_DATA_DIR", dataset)
    return Found(*find(dataset, cache_dir or default_cache()))


def _is_sample(name: str) -> bool:
    return name.partition(":")[0] == sample.NAME


def _entry(name: str) -> Dataset | Path:
    """The catalogue's entry, or a folder of that name under `RECFLOW_DATA_DIR`."""
    if name in DATASETS:
        return DATASETS[name]
    root = data_dir()
    is_plain = name == PurePosixPath(name).name and not name.startswith(".") and name != ""
    if root and is_plain and (root / name).is_dir():
        published.form_of(root / name)  # a folder without a form is told by what is in it, not by its name
        return root / name
    close = get_close_matches(name, names(), n=2)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise RecflowError(
        f"dataset {name!r} is unknown, expected one of {', '.join(names())} or a folder under RECFLOW_DATA_DIR{hint}"
    )


def _load_sample(name: str, cache: Path) -> RawData:
    if name == sample.NAME:
        return sample.generate()
    count = name.removeprefix(f"{sample.NAME}:ratings=").replace("_", "")
    if not (count.isascii() and count.isdigit()) or int(count) < 1:
        raise RecflowError(f"dataset {name!r} given, expected {sample.NAME} or {sample.NAME}:ratings=N with N from 1")
    if int(count) < _KEEP_SAMPLES_FROM:
        return sample.generate(int(count))
    return parsed(cache, sample.NAME, sample.content_hash(int(count)), lambda: sample.generate(int(count)))


def _check_count(dataset: Dataset, raw: RawData) -> tuple[str, ...]:
    if dataset.num_ratings is None:
        replaced = "GroupLens replaces this dataset from time to time"
        return (f"{dataset.name}: {replaced}; the sha256 of its files here is {raw.sha256}: note it with your results",)
    if dataset.num_ratings == raw.ratings.height:
        return ()
    message = f"{dataset.name} has {raw.ratings.height:,} ratings here, expected {dataset.num_ratings:,} as published"
    if not dataset.may_change:
        raise RecflowError(f"{message}; the file is cut short or another release")
    return (f"{message}; GroupLens replaces this dataset from time to time",)
