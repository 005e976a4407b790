"""The MovieLens parsers, on tiny files in the original formats and, where they are at hand, on the real ones."""

import os
from pathlib import Path

import polars as pl
import pytest

from recflow.data import movielens
from recflow.data.interactions import build_interactions
from recflow.errors import RecflowError

GENRES = ["unknown", "Action", "Animation", "Drama"]


@pytest.fixture(autouse=True)
def short_files(monkeypatch, request):
    """The tiny files have few rows; the real ones keep their published counts."""
    if request.node.get_closest_marker("data") is None:
        monkeypatch.setattr(movielens, "NUM_RATINGS", {"ml-100k": 5, "ml-1m": 3, "ml-latest-small": 3, "ml-25m": 3})


def write(folder: Path, name: str, lines, *, end="\n", encoding="latin-1"):
    (folder / name).write_bytes(end.join([*lines, ""]).encode(encoding))


@pytest.fixture
def ml_100k(tmp_path):
    ratings = ["1\t10\t5\t100", "1\t20\t3\t101", "2\t10\t4\t102", "2\t30\t1\t103", "3\t20\t2\t104"]
    write(tmp_path, "u.data", ratings)
    for fold, row in enumerate(ratings, start=1):
        write(tmp_path, f"u{fold}.test", [row])
    write(tmp_path, "u.genre", [f"{name}|{number}" for number, name in enumerate(GENRES)] + [""])
    items = [
        "10|Délicatessen (1991)|01-Jan-1992||http://x|0|1|0|1",
        "20|Land Before Time III (V)|01-Feb-1995||http://y|0|0|1|0",
        "30|unknown||||1|0|0|0",
    ]
    write(tmp_path, "u.item", items)
    write(tmp_path, "u.user", ["1|24|M|technician|85711", "2|53|F|other|V3N4P", "3|23|M|writer|02154"])
    return tmp_path


@pytest.fixture
def ml_1m(tmp_path):
    write(tmp_path, "ratings.dat", ["1::1193::5::978300760", "1::661::3::978302109", "2::661::4::978298413"])
    write(tmp_path, "movies.dat", ["661::Misérables, Les (1995)::Drama|Musical", "1193::Cuckoo: 2 (1975)::Drama"])
    write(tmp_path, "users.dat", ["1::F::1::10::48067", "2::M::56::16::02460-1234"])
    return tmp_path


@pytest.fixture
def csv_release(tmp_path):
    ratings = ["userId,movieId,rating,timestamp", "1,1,4.0,964982703", "1,29,0.5,964981247", "2,1,3.5,1445714835"]
    write(tmp_path, "ratings.csv", ratings, end="\r\n", encoding="utf-8")
    movies = [
        "movieId,title,genres",
        "1,Toy Story (1995),Adventure|Animation",
        '29,"City, The (Cité, La) (1995) ",(no genres listed)',
        '30,"11\'09""01 - September 11",Drama',
    ]
    write(tmp_path, "movies.csv", movies, end="\r\n", encoding="utf-8")
    return tmp_path


def test_ml_100k_gives_ratings_with_folds_films_and_people(ml_100k):
    raw = movielens.parse_ml_100k(ml_100k)
    assert raw.ratings.rows()[3] == (2, 30, 1.0, 103, 4)
    schema = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64, "fold": pl.Int8}
    assert raw.ratings.schema == schema
    assert raw.items.rows() == [
        (10, "Délicatessen (1991)", 1991, ["Action", "Drama"]),
        (20, "Land Before Time III (V)", 1995, ["Animation"]),
        (30, "unknown", None, []),
    ]
    assert raw.users.rows()[1] == (2, 53, "F", "other", "V3N4P")
    assert raw.users["zip_code"][2] == "02154"
    assert raw.notices == ()
    build_interactions(raw)


def test_ml_100k_without_all_five_folds_has_none_and_says_so(ml_100k):
    whole = movielens.parse_ml_100k(ml_100k)
    (ml_100k / "u5.test").unlink()
    raw = movielens.parse_ml_100k(ml_100k)
    assert "fold" not in raw.ratings.columns
    assert "without its five folds" in raw.notices[0]
    assert raw.sha256 != whole.sha256


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("u5.test", "1\t10\t5\t100", "1 are repeated, 1 of u.data are in none"),
        ("u5.test", "9\t10\t5\t100", "0 are repeated, 1 of u.data are in none"),
    ],
)
def test_folds_that_do_not_partition_the_ratings_are_refused(ml_100k, name, row, message):
    write(ml_100k, name, [row])
    with pytest.raises(RecflowError, match=message):
        movielens.parse_ml_100k(ml_100k)


def test_ml_1m_is_read_with_its_double_colons_and_latin_1(ml_1m):
    raw = movielens.parse_ml_1m(ml_1m)
    assert raw.ratings.rows() == [(1, 1193, 5.0, 978300760), (1, 661, 3.0, 978302109), (2, 661, 4.0, 978298413)]
    assert raw.items.rows()[0] == (661, "Misérables, Les (1995)", 1995, ["Drama", "Musical"])
    assert raw.items["title"][1] == "Cuckoo: 2 (1975)"
    assert raw.users.rows() == [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "02460-1234")]
    assert raw.users.schema["age"] == pl.Int32


def test_a_csv_release_is_read_with_its_quotes_and_line_ends(csv_release):
    raw = movielens.parse_ml_latest_small(csv_release)
    assert raw.ratings.rows() == [(1, 1, 4.0, 964982703), (1, 29, 0.5, 964981247), (2, 1, 3.5, 1445714835)]
    assert raw.items.rows() == [
        (1, "Toy Story (1995)", 1995, ["Adventure", "Animation"]),
        (29, "City, The (Cité, La) (1995) ", 1995, []),
        (30, "11'09\"01 - September 11", None, ["Drama"]),
    ]
    assert raw.users.to_dict(as_series=False) == {"user_id": [1, 2]}
    assert (raw.name, raw.notices) == ("ml-latest-small", ())


@pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig")])
def test_line_ends_and_byte_order_marks_do_not_matter(csv_release, end, encoding):
    expected = movielens.parse_ml_latest_small(csv_release)
    for name in movielens.CSV_FILES:
        lines = (csv_release / name).read_text(encoding="utf-8").splitlines()
        write(csv_release, name, lines, end=end, encoding=encoding)
    raw = movielens.parse_ml_latest_small(csv_release)
    assert raw.ratings.equals(expected.ratings)
    assert raw.items.equals(expected.items)


def test_crlf_does_not_matter_in_the_older_formats(ml_1m):
    expected = movielens.parse_ml_1m(ml_1m)
    for name in movielens.ML_1M_FILES:
        write(ml_1m, name, (ml_1m / name).read_text(encoding="latin-1").splitlines(), end="\r\n")
    raw = movielens.parse_ml_1m(ml_1m)
    for table in ("ratings", "items", "users"):
        assert getattr(raw, table).equals(getattr(expected, table))
    assert raw.sha256 != expected.sha256


def test_the_hash_covers_every_file_read(ml_1m):
    before = movielens.parse_ml_1m(ml_1m).sha256
    write(ml_1m, "users.dat", ["1::F::1::10::48067", "2::F::56::16::02460-1234"])
    assert movielens.parse_ml_1m(ml_1m).sha256 != before


def test_another_number_of_ratings_is_refused_unless_the_dataset_may_change(csv_release, monkeypatch):
    monkeypatch.setitem(movielens.NUM_RATINGS, "ml-latest-small", 4)
    monkeypatch.setitem(movielens.NUM_RATINGS, "ml-25m", 4)
    assert "3 ratings here, expected 4" in movielens.parse_ml_latest_small(csv_release).notices[0]
    with pytest.raises(RecflowError, match="ml-25m has 3 ratings here, expected 4"):
        movielens.parse_csv_release(csv_release, "ml-25m")


@pytest.mark.parametrize(
    "line", ["1::x::3::4", "1::2::3", "1::2::3::4::5", "1:y:2::3::4", "1::2::nan::4", "", "1::2::3::"]
)
def test_a_malformed_rating_is_named_with_its_file_and_line(ml_1m, line):
    write(ml_1m, "ratings.dat", ["1::1193::5::978300760", line, "2::661::4::978298413"])
    with pytest.raises(RecflowError, match=r"ratings\.dat, line 2: .* expected 'user::item::rating::time'") as caught:
        movielens.parse_ml_1m(ml_1m)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("movies.dat", "5::Title", r"movies\.dat, line 1: '5::Title' given, expected 3 fields"),
        ("movies.dat", "x::Title::Drama", r"movies\.dat, line 1: 'x' given, expected a whole number"),
        ("users.dat", "1::F::one::10::48067", r"users\.dat, line 1: 'one' given, expected a whole number"),
    ],
)
def test_a_malformed_film_or_user_is_named_with_its_file_and_line(ml_1m, name, line, message):
    write(ml_1m, name, [line])
    with pytest.raises(RecflowError, match=message):
        movielens.parse_ml_1m(ml_1m)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("ratings.csv", ["user,item,rating,time", "1,2,3,4"], r"ratings\.csv, line 1: .* expected the header 'userId,"),
        ("ratings.csv", ["userId,movieId,rating,timestamp", "1,2,3,4", "1,2,3,x"], r"ratings\.csv, line 3: '1,2,3,x'"),
        ("movies.csv", ["id,title,genres", "1,x,y"], r"movies\.csv, line 1: .* expected the header"),
        ("movies.csv", ["movieId,title,genres", "1,x"], r"movies\.csv, line 2: 2 fields given"),
        ("movies.csv", ["movieId,title,genres", '1,"x,y'], r"movies\.csv, after line 2: .* expected CSV"),
        ("movies.csv", ["movieId,title,genres", "1,\xe9,y"], r"movies\.csv, .* expected CSV in UTF-8"),
    ],
)
def test_a_malformed_csv_is_named_with_its_line(csv_release, name, lines, message):
    write(csv_release, name, lines)
    with pytest.raises(RecflowError, match=message):
        movielens.parse_ml_latest_small(csv_release)


@pytest.mark.parametrize("content", [b"", b"\n", b"userId,movieId,rating,timestamp\n"])
def test_an_empty_file_is_refused_in_one_line(csv_release, monkeypatch, content):
    (csv_release / "ratings.csv").write_bytes(content)
    with pytest.raises(RecflowError) as caught:
        movielens.parse_csv_release(csv_release, "ml-25m")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(ml_1m):
    (ml_1m / "users.dat").unlink()
    with pytest.raises(RecflowError, match=r"lacks the file users\.dat"):
        movielens.parse_ml_1m(ml_1m)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "parser", "drop_below", "expected"),
    [
        # RecBole's table says 6,040 and 3,629 for the last row: it counts its padding user and item
        ("ml-100k", movielens.parse_ml_100k, None, (943, 1_682, 100_000)),
        ("ml-latest-small", movielens.parse_ml_latest_small, None, (610, 9_724, 100_836)),
        ("ml-1m", movielens.parse_ml_1m, None, (6_040, 3_706, 1_000_209)),
        ("ml-1m", movielens.parse_ml_1m, 3, (6_039, 3_628, 836_478)),
    ],
)
def test_the_published_files_have_their_published_counts(name, parser, drop_below, expected):
    folder = Path(os.environ.get("RECFLOW_DATA_DIR", "")) / name
    if "RECFLOW_DATA_DIR" not in os.environ or not folder.is_dir():
        pytest.skip(f"RECFLOW_DATA_DIR has no {name}/")
    data = build_interactions(parser(folder), drop_below=drop_below)
    assert (data.num_users, data.num_items, data.table.height) == expected
    assert data.dropped.height == (163_515 if drop_below else 0)
    assert data.items["title"][0] == "Toy Story (1995)"
    if name == "ml-100k":
        assert data.table["fold"].value_counts().sort("fold")["count"].to_list() == [20_000] * 5
        assert data.users["occupation"].n_unique() == 21
