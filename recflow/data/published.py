"""Folders in the forms that papers publish their data in, recognised by the files in them.

LightGCN    `train.txt` and `test.txt`, a user and then its items in each line: pairs without ratings and times
NCF         `NAME.train.rating`, `NAME.test.rating` and `NAME.test.negative`: one tested item per user, and the items it
            is ranked against
MovieLens   four forms, see `movielens`

Published test rows have fold 1, training rows none; a pair in both is tested and not trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from recflow.data import movielens
from recflow.data.interactions import PAIR_COLUMNS, RATING_COLUMNS, RawData
from recflow.data.rating_files import SourceFiles, content_hash, read_ratings, refuse_empty
from recflow.errors import RecflowError

LIGHTGCN_FILES = SourceFiles(("train.txt", "test.txt"))
_TRAIN, _TEST, _NEGATIVES = ".train.rating", ".test.rating", ".test.negative"


@dataclass(frozen=True)
class Form:
    """A form that a folder can have.

    Attributes:
        describe: What it is, in a few words.
        files: What is read of the folder.
        parse: Reads the folder and calls the dataset by the name given; looks at no count.
    """

    describe: str
    files: SourceFiles
    parse: Callable[[Path, str], RawData]


def form_of(folder: Path, name: str | None = None) -> Form:
    """Recognise a folder's form by its files.

    Args:
        folder: A folder with a dataset in it.
        name: Which one is meant where there are several ``NAME.train.rating``.

    Returns:
        The form. `ratings.dat` is MovieLens 1M's with a `users.dat` beside it, else MovieLens 10M's.

    Raises:
        RecflowError: If there is no such folder, it cannot be read, or it has none of the forms known or several.
    """
    if not folder.is_dir():
        raise RecflowError(f"{folder} is no folder, expected one with a dataset's files in it")
    try:
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise RecflowError(f"{folder} cannot be read: {error.strerror or error}") from error
    found = []
    if "u.data" in there:
        found.append(Form("MovieLens 100K (u.data)", movielens.ML_100K_FILES, movielens.parse_ml_100k))
    if {"ratings.dat", "users.dat"} <= there:
        found.append(Form("MovieLens 1M (ratings.dat, users.dat)", movielens.ML_1M_FILES, movielens.parse_ml_1m))
    elif "ratings.dat" in there:
        found.append(Form("MovieLens 10M (ratings.dat)", movielens.ML_10M_FILES, movielens.parse_ml_10m))
    if "ratings.csv" in there:
        found.append(Form("MovieLens CSV (ratings.csv)", movielens.CSV_FILES, movielens.parse_csv_release))
    if there.issuperset(LIGHTGCN_FILES.needed):
        found.append(Form("LightGCN (train.txt, test.txt)", LIGHTGCN_FILES, parse_lightgcn))
    if stems := sorted(file.removesuffix(_TRAIN) for file in there if file.endswith(_TRAIN)):
        stem = _chosen(folder, stems, name)
        found.append(Form(f"NCF ({stem}{_TRAIN})", ncf_files(stem), partial(parse_ncf, stem=stem)))
    if len(found) == 1:
        return found[0]
    if found:
        raise RecflowError(
            f"{folder} has several forms at once, {', '.join(form.describe for form in found)}; keep one in it"
        )
    raise RecflowError(
        f"{folder} has no form that is known, expected u.data (MovieLens 100K), ratings.dat with movies.dat (1M, 10M), "
        f"ratings.csv with movies.csv (later releases), train.txt with test.txt (LightGCN) or NAME{_TRAIN} with "
        f"NAME{_TEST} and NAME{_NEGATIVES} (NCF)"
    )


def load_folder(folder: Path, name: str | None = None) -> RawData:
    """Read a folder of any known form, wherever its data come from: no count or checksum is asked of it.

    Args:
        folder: The folder.
        name: What the dataset is called, by default like the folder; where the folder holds several
            ``NAME.train.rating``, the one that is meant.

    Returns:
        The dataset in its own ids.

    Raises:
        RecflowError: If the form is not known, or a file is missing or malformed.
    """
    return form_of(folder, name).parse(folder, name or folder.resolve().name)


def parse_lightgcn(folder: Path, name: str) -> RawData:
    """Read the form of LightGCN's authors, and of NGCF's before them.

    He et al., SIGIR 2020, https://arxiv.org/abs/2002.02126. A line is ``user item item …``; a user may have no items.

    Args:
        folder: Where `train.txt` and `test.txt` lie; `user_list.txt` and `item_list.txt` are not read.
        name: What the dataset is called.

    Returns:
        Ratings of 1 at time 0, test rows with fold 1; of users and items only the ids are known.

    Raises:
        RecflowError: If a file is missing, empty or malformed.
    """
    sha256 = content_hash(folder, LIGHTGCN_FILES.needed)
    parts, users = [], []
    for file in LIGHTGCN_FILES.needed:
        pairs, known = _read_item_lists(folder / file)
        parts.append(pairs.with_columns(pl.lit(1.0, pl.Float32).alias("rating"), pl.lit(0, pl.Int64).alias("time")))
        users.append(known)
    ratings, notices = _with_fold(name, *parts)
    items = ratings.select(pl.col("item_id").unique().sort())
    known_users = pl.concat(users).unique().sort().to_frame("user_id")
    return RawData(name, sha256, ratings, items, known_users, notices, has_ratings=False, has_times=False)


def ncf_files(stem: str) -> SourceFiles:
    """The files of a dataset in NCF's form, whose names all begin with `stem`."""
    return SourceFiles((f"{stem}{_TRAIN}", f"{stem}{_TEST}", f"{stem}{_NEGATIVES}"))


def parse_ncf(folder: Path, name: str, stem: str) -> RawData:
    """Read the form of NCF's authors: leave-one-out, each tested item ranked against given ones.

    He et al., WWW 2017, https://arxiv.org/abs/1708.05031. Ratings are ``user item rating time`` between tabs, the time
    being absent in some; negatives are ``(user,item)`` and the items it is ranked against, line by line as the test
    ratings are.

    Args:
        folder: Where the three files lie.
        name: What the dataset is called.
        stem: What the names of the three files begin with, such as ``ml-1m``.

    Returns:
        Ratings, test rows with fold 1; negatives, but for those that are the user's own tested item. ``has_ratings`` is
        false where every rating is 1, ``has_times`` where every time is 0 or absent.

    Raises:
        RecflowError: If a file is missing, empty or malformed, or the test files do not agree.
    """
    files = ncf_files(stem)
    sha256 = content_hash(folder, files.needed)
    train_path, test_path, negative_path = (folder / file for file in files.needed)
    train, test = _read_ncf_ratings(train_path), _read_ncf_ratings(test_path)
    _check_tested(test_path, test, train)
    given = _read_negatives(negative_path, test_path, test)
    negatives = given.join(test, on=PAIR_COLUMNS, how="anti")
    ratings, notices = _with_fold(name, train, test)
    if own := given.height - negatives.height:
        notice = f"{name}: {own:,} of the {given.height:,} published negatives are the user's own tested item: left out"
        notices = (*notices, notice)
    items = pl.concat([ratings["item_id"], negatives["item_id"]]).unique().sort().to_frame()
    return RawData(
        name,
        sha256,
        ratings,
        items,
        ratings.select(pl.col("user_id").unique().sort()),
        notices,
        negatives=negatives,
        has_ratings=bool((ratings["rating"] != 1).any()),
        has_times=bool((ratings["time"] != 0).any()),
    )


def _chosen(folder: Path, stems: list[str], name: str | None) -> str:
    if name in stems:
        return name
    if len(stems) > 1:
        raise RecflowError(
            f"{folder} holds several datasets, {', '.join(stems)}, expected one; name the one that is meant, or keep "
            "its files in a folder of their own"
        )
    return stems[0]


def _with_fold(name: str, train: pl.DataFrame, test: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Both parts in one table, and what is to be said of pairs that are in both.

    Their training copies go, whatever the times say: else the latest of the two would be kept, and where it is the
    training row, a published test row would be lost.
    """
    tested = test.select(*PAIR_COLUMNS, pl.lit(value=True).alias("tested")).unique()
    marked = train.join(tested, on=PAIR_COLUMNS, how="left", maintain_order="left")
    kept = marked.filter(pl.col("tested").is_null()).drop("tested")
    ratings = pl.concat(
        [
            kept.select(*RATING_COLUMNS, pl.lit(None, pl.Int8).alias("fold")),
            test.select(*RATING_COLUMNS, pl.lit(1, pl.Int8).alias("fold")),
        ]
    )
    both = train.height - kept.height
    return ratings, (f"{name}: {both:,} training rows are also test rows, and are left out of training",) * bool(both)


def _read_item_lists(path: Path) -> tuple[pl.DataFrame, pl.Series]:
    """The (user, item) pairs of ``user item item …``, and every user, those without items included."""
    refuse_empty(path)
    lines = _lines(path).with_columns(pl.col("line").str.extract_all(r"\S+"))
    users = lines.select("number", _id(pl.col("line").list.first()).alias("user_id"), pl.col("line").list.first())
    _refuse(path, users.filter(pl.col("user_id").is_null()), "a user and its items as whole numbers from 0")
    items = lines.select("number", users["user_id"], pl.col("line").list.slice(1)).explode("line").drop_nulls("line")
    pairs = items.with_columns(_id(pl.col("line")).alias("item_id"))
    _refuse(path, pairs.filter(pl.col("item_id").is_null()), "a user and its items as whole numbers from 0")
    if pairs.is_empty():
        raise RecflowError(f"{path} holds no interaction, expected lines of a user and its items")
    return pairs.select(PAIR_COLUMNS), users["user_id"]


def _read_ncf_ratings(path: Path) -> pl.DataFrame:
    refuse_empty(path)
    with path.open("rb") as stream:
        timed = stream.readline().count(b"\t") != len(RATING_COLUMNS) - 2
    ratings = read_ratings(path, "\t", columns=RATING_COLUMNS if timed else RATING_COLUMNS[:-1], first_id=0)
    return ratings if timed else ratings.with_columns(pl.lit(0, pl.Int64).alias("time"))


def _check_tested(path: Path, test: pl.DataFrame, train: pl.DataFrame) -> None:
    """Each tested user once, and known from training: row n is the file's line n, no line being passed over."""
    again = (~test["user_id"].is_first_distinct()).arg_true()
    if len(again):
        raise RecflowError(
            f"{path}, line {again[0] + 1}: user {test['user_id'][again[0]]} given again, expected each user once"
        )
    unknown = (~test["user_id"].is_in(train["user_id"].unique().implode())).arg_true()
    if len(unknown):
        raise RecflowError(
            f"{path}, line {unknown[0] + 1}: user {test['user_id'][unknown[0]]} given, expected one with training rows"
        )


def _read_negatives(path: Path, test_path: Path, test: pl.DataFrame) -> pl.DataFrame:
    refuse_empty(path)
    fields = _lines(path).with_columns(pl.col("line").str.split("\t"))
    head = pl.col("line").list.first()
    pair = head.str.extract_groups(r"^\((\d+),(\d+)\)$").struct
    tested = fields.select("number", head, _id(pair.field("1")).alias("user_id"), _id(pair.field("2")).alias("item_id"))
    malformed = tested.filter(pl.any_horizontal(pl.col(PAIR_COLUMNS).is_null(), fields["line"].list.len() < 2))
    _refuse(path, malformed, "'(user,item)' and then items between tabs")
    both = min(tested.height, test.height)
    differ = (tested[:both, PAIR_COLUMNS] != test[:both, PAIR_COLUMNS]).select(pl.any_horizontal(pl.all())).to_series()
    if differ.any():
        row = differ.arg_true()[0]
        user, item = test.row(row)[:2]
        raise RecflowError(
            f"{path}, line {tested['number'][row]}: {tested['line'][row]!r} given, expected '({user},{item})' as in "
            f"line {row + 1} of {test_path.name}"
        )
    if tested.height != test.height:
        raise RecflowError(
            f"{path}: {tested.height:,} lines given, expected {test.height:,}, one for each line of {test_path.name}"
        )
    listed = fields.select("number", tested["user_id"], pl.col("line").list.slice(1)).explode("line")
    negatives = listed.with_columns(_id(pl.col("line")).alias("item_id"))
    _refuse(path, negatives.filter(pl.col("item_id").is_null()), "items as whole numbers from 0 after '(user,item)'")
    return negatives.select(PAIR_COLUMNS)


def _lines(path: Path) -> pl.DataFrame:
    """``number``, from 1, and ``line`` of every line that is not blank; bytes beyond ASCII stay, to be refused."""
    text = path.read_bytes().decode("latin-1")
    lines = pl.Series("line", text.split("\n")).str.strip_chars()
    return lines.to_frame().with_row_index("number", offset=1).filter(pl.col("line") != "")


def _id(text: pl.Expr) -> pl.Expr:
    """A whole number from 0; null for anything else."""
    return pl.when(text.str.contains(r"^[0-9]+$")).then(text.cast(pl.Int64, strict=False))


def _refuse(path: Path, wrong: pl.DataFrame, expected: str) -> None:
    if not wrong.is_empty():
        number, line = wrong.row(0, named=True)["number"], wrong["line"][0]
        raise RecflowError(f"{path}, line {number}: {(line or '')[:80]!r} given, expected {expected}")
