"""The MovieLens parsers, on tiny files in the original formats and, where they are at hand, on the real ones."""

import os
import tempfile
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data import movielens
from recflow.data.interactions import build_interactions
from recflow.data.movielens import parse_csv_release, parse_ml_1m, parse_ml_10m, parse_ml_100k
from recflow.data.rating_files import Scale, read_ratings
from recflow.errors import RecflowError
from tests.data.releases import write

GENRES = ["unknown", "Action", "Animation", "Drama"]


@pytest.fixture
def ml_100k(tmp_path):
    ratings = ["1\t10\t5\t100", "1\t20\t3\t101", "2\t10\t4\t102", "2\t30\t1\t103", "3\t20\t2\t104"]
    write(tmp_path, "u.data", ratings)
    for fold, row in enumerate(ratings, start=1):
        write(tmp_path, f"u{fold}.test", [row])
    write(tmp_path, "u.genre", [f"{name}|{number}" for number, name in enumerate(GENRES)] + [""])
    items = [
        "10|Délicatessen (1991)|01-Jan-1992||http://x|0|1|0|1",
        "20|Land Before Time III (V)|4-Feb-1995||http://y|0|0|1|0",
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
def ml_10m(tmp_path):
    write(tmp_path, "ratings.dat", ["1::122::5::838985046", "1::185::3.5::838983525", "7::122::0.5::868245777"])
    movies = [b"122::Boomerang (1992)::Comedy|Romance", "185::Misérables, Les (1995)::Drama".encode("latin-1")]
    movies += ["200::Amélie (2001)::(no genres listed)".encode(), b"201::Two::Colons (2002)::Drama"]
    (tmp_path / "movies.dat").write_bytes(b"\n".join([*movies, b""]))
    tags = ["7::122::excellent!::1215184630", "7::185::a :: b::c::1188263867", "9::122::José::1215184631"]
    write(tmp_path, "tags.dat", tags, encoding="utf-8")
    return tmp_path


class TestMl100k:
    def test_it_gives_ratings_with_folds_films_and_people(self, ml_100k):
        raw = parse_ml_100k(ml_100k)
        assert raw.ratings.rows()[3] == (2, 30, 1.0, 103, 4)
        schema = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64, "fold": pl.Int8}
        assert raw.ratings.schema == schema
        assert raw.items.rows() == [
            (10, "Délicatessen (1991)", 1991, ["Action", "Drama"], date(1992, 1, 1)),
            (20, "Land Before Time III (V)", 1995, ["Animation"], date(1995, 2, 4)),
            (30, "unknown", None, [], None),
        ]
        assert raw.users.rows()[1] == (2, 53, "F", "other", "V3N4P")
        assert raw.users["zip_code"][2] == "02154"
        assert (raw.name, raw.notices) == ("ml-100k", ())
        assert build_interactions(raw).items.schema["released"] == pl.Date

    def test_without_all_five_folds_it_has_none_and_says_so(self, ml_100k):
        whole = parse_ml_100k(ml_100k)
        (ml_100k / "u5.test").unlink()
        raw = parse_ml_100k(ml_100k)
        assert "fold" not in raw.ratings.columns
        assert "without its five folds" in raw.notices[0]
        assert raw.sha256 != whole.sha256

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("1\t10\t5\t100", "1 are repeated, 1 of u.data are in none"),
            ("9\t10\t5\t100", "0 are repeated, 1 of u.data are in none"),
        ],
    )
    def test_folds_that_do_not_partition_the_ratings_are_refused(self, ml_100k, row, message):
        write(ml_100k, "u5.test", [row])
        with pytest.raises(RecflowError, match=message):
            parse_ml_100k(ml_100k)

    @pytest.mark.parametrize(
        ("name", "line", "message"),
        [
            ("u.item", "1|T|1995-01-01||u|0|1|0|1", r"u\.item, line 1: '1995-01-01' given, expected a date such as"),
            ("u.item", "1|T|31-Feb-1995||u|0|1|0|1", r"u\.item, line 1: '31-Feb-1995' given, expected a date"),
            ("u.item", "1|T|||u|0|2|0|1", r"u\.item, line 1: '0\|2\|0\|1' given, expected a 0 or 1"),
            ("u.item", "1|T|||u|0|1|0", r"u\.item, line 1: .* expected 9 fields"),
            ("u.item", "0|T|||u|0|1|0|1", r"u\.item, line 1: '0' given, expected a whole number from 1"),
            ("u.user", "1|-3|M|writer|02154", r"u\.user, line 1: '-3' given, expected a whole number from 0"),
            ("u.user", "1|99999999999|M|writer|02154", r"u\.user, line 1: '99999999999' given, expected"),
            ("u.user", "1,24,M,writer,02154", r"u\.user, line 1: .* expected 5 fields between '\|'"),
        ],
    )
    def test_a_malformed_film_or_user_is_named_with_its_file_and_line(self, ml_100k, name, line, message):
        write(ml_100k, name, [line])
        with pytest.raises(RecflowError, match=message):
            parse_ml_100k(ml_100k)

    @pytest.mark.parametrize("name", [*movielens.ML_100K_FILES.needed, "u3.test"])
    @pytest.mark.parametrize("content", [b"", b"\n\n"])
    def test_an_empty_file_is_refused_in_one_line(self, ml_100k, name, content):
        (ml_100k / name).write_bytes(content)
        with pytest.raises(RecflowError, match=name if name != "u.genre" or not content else "u.item") as caught:
            parse_ml_100k(ml_100k)
        assert "\n" not in str(caught.value)


class TestMl1m:
    def test_it_is_read_with_its_double_colons_and_latin_1(self, ml_1m):
        raw = parse_ml_1m(ml_1m)
        assert raw.ratings.rows() == [(1, 1193, 5.0, 978300760), (1, 661, 3.0, 978302109), (2, 661, 4.0, 978298413)]
        assert raw.items.rows()[0] == (661, "Misérables, Les (1995)", 1995, ["Drama", "Musical"])
        assert raw.items["title"][1] == "Cuckoo: 2 (1975)"
        assert raw.users.rows() == [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "02460-1234")]
        assert raw.users.schema["age"] == pl.Int32

    def test_crlf_does_not_matter(self, ml_1m):
        expected = parse_ml_1m(ml_1m)
        for name in movielens.ML_1M_FILES.needed:
            write(ml_1m, name, (ml_1m / name).read_text(encoding="latin-1").splitlines(), end="\r\n")
        raw = parse_ml_1m(ml_1m)
        for table in ("ratings", "items", "users"):
            assert getattr(raw, table).equals(getattr(expected, table))
        assert raw.sha256 != expected.sha256

    def test_the_hash_covers_every_file_read(self, ml_1m):
        before = parse_ml_1m(ml_1m).sha256
        write(ml_1m, "users.dat", ["1::F::1::10::48067", "2::F::56::16::02460-1234"])
        assert parse_ml_1m(ml_1m).sha256 != before

    @pytest.mark.parametrize(
        ("name", "line", "message"),
        [
            ("movies.dat", "5::Title", r"movies\.dat, line 1: '5::Title' given, expected 3 fields"),
            ("movies.dat", "x::Title::Drama", r"movies\.dat, line 1: 'x' given, expected a whole number"),
            ("movies.dat", "-1::Title::Drama", r"movies\.dat, line 1: '-1' given, expected a whole number from 1"),
            ("users.dat", "1::F::one::10::48067", r"users\.dat, line 1: 'one' given, expected a whole number"),
            ("users.dat", "0::F::1::10::48067", r"users\.dat, line 1: '0' given, expected a whole number from 1"),
        ],
    )
    def test_a_malformed_film_or_user_is_named_with_its_file_and_line(self, ml_1m, name, line, message):
        write(ml_1m, name, [line])
        with pytest.raises(RecflowError, match=message):
            parse_ml_1m(ml_1m)

    def test_half_stars_are_no_ratings_of_it(self, ml_1m):
        write(ml_1m, "ratings.dat", ["1::1193::5::978300760", "1::661::3.5::978302109"])
        with pytest.raises(RecflowError, match=r"ratings\.dat, line 2: .* expected a rating from 1 to 5 in steps of 1"):
            parse_ml_1m(ml_1m)

    def test_a_missing_file_is_named(self, ml_1m):
        (ml_1m / "users.dat").unlink()
        with pytest.raises(RecflowError, match=r"lacks the file users\.dat"):
            parse_ml_1m(ml_1m)

    def test_rows_that_are_given_twice_are_kept(self, ml_1m):
        write(ml_1m, "ratings.dat", ["1::661::5::9", "1::661::5::9", "1::661::4::8"])
        raw = parse_ml_1m(ml_1m)
        assert raw.ratings.height == 3
        assert "2 duplicated" in build_interactions(raw).notices[0]


class TestMl10m:
    def test_it_is_read_with_half_stars_and_tags_and_either_encoding(self, ml_10m):
        raw = parse_ml_10m(ml_10m)
        assert raw.ratings.rows() == [(1, 122, 5.0, 838985046), (1, 185, 3.5, 838983525), (7, 122, 0.5, 868245777)]
        assert raw.items.rows() == [
            (122, "Boomerang (1992)", 1992, ["Comedy", "Romance"]),
            (185, "Misérables, Les (1995)", 1995, ["Drama"]),
            (200, "Amélie (2001)", 2001, []),
            (201, "Two::Colons (2002)", 2002, ["Drama"]),
        ]
        assert raw.tags.rows() == [
            (7, 122, "excellent!", 1215184630),
            (7, 185, "a :: b::c", 1188263867),
            (9, 122, "José", 1215184631),
        ]
        assert raw.users["user_id"].to_list() == [1, 7]

    def test_tags_are_optional_and_hashed(self, ml_10m):
        whole = parse_ml_10m(ml_10m)
        (ml_10m / "tags.dat").unlink()
        raw = parse_ml_10m(ml_10m)
        assert raw.tags.is_empty()
        assert raw.tags.schema == whole.tags.schema
        assert raw.sha256 != whole.sha256

    @pytest.mark.parametrize(
        "line", ["7::122::1215184630", "x::122::t::1", "7::0::t::1", "7::1::t::soon", "7::1::t::-1"]
    )
    def test_a_malformed_tag_is_named_with_its_line(self, ml_10m, line):
        write(ml_10m, "tags.dat", ["7::122::fine::1", line])
        with pytest.raises(RecflowError, match=r"tags\.dat, line 2: "):
            parse_ml_10m(ml_10m)


class TestRatings:
    @pytest.mark.parametrize(
        "line",
        [
            "1::x::3::4",
            "1::2::3",
            "1::2::3::4::5",
            "1:y:2::3::4",
            "1:true:2::3::4",
            "1::2::nan::4",
            "1::2::inf::4",
            "",
            "1::2::3::",
        ],
    )
    def test_a_malformed_rating_is_named_with_its_file_and_line(self, ml_1m, line):
        write(ml_1m, "ratings.dat", ["1::1193::5::978300760", line, "2::661::4::978298413"])
        message = r"ratings\.dat, line 2: .* expected 'user::item::rating::time'"
        with pytest.raises(RecflowError, match=message) as caught:
            parse_ml_1m(ml_1m)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("1,2,3,4,5", "'user,item,rating,time' in numbers"),
            ("1\t2\t3\t4", "'user,item,rating,time' in numbers"),
            ("1,2,-inf,4", "'user,item,rating,time' in numbers"),
            ("1,2,3,1.5", "'user,item,rating,time' in numbers"),
            ("1,2,\xff,4", "'user,item,rating,time' in numbers"),
            ("1_0,2,3,4", "'user,item,rating,time' in numbers"),
            ("1,99999999999999999999,3,4", "'user,item,rating,time' in numbers"),
            ("0,2,3,4", "ids from 1"),
            ("1,-2,3,4", "ids from 1"),
            ("1,2,3,-1", "a time from 0"),
            ("1,2,0,4", "a rating from 0.5 to 5 in steps of 0.5"),
            ("1,2,5.5,4", "a rating from 0.5 to 5 in steps of 0.5"),
            ("1,2,3.25,4", "a rating from 0.5 to 5 in steps of 0.5"),
        ],
    )
    @pytest.mark.parametrize("place", [0, 1, 4])
    def test_the_first_wrong_line_is_named_and_what_it_should_be(self, tmp_path, line, expected, place):
        lines = ["1,2,3.5,4"] * 4
        lines.insert(place, line)
        write(tmp_path, "ratings", [*lines, "also wrong"])
        with pytest.raises(RecflowError) as caught:
            read_ratings(tmp_path / "ratings", ",", scale=Scale(0.5, 5, 0.5))
        assert f"ratings, line {place + 1}: {line!r} given, expected {expected}" in str(caught.value)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(1, 2**62), st.integers(1, 99), st.integers(1, 10), st.integers(0, 2**40)), min_size=1
        ),
        st.sampled_from([",", "\t", "::"]),
        st.sampled_from(["\n", "\r\n"]),
        st.booleans(),
    )
    def test_what_is_written_is_read_back_in_order(self, rows, separator, end, ended):
        text = end.join(separator.join(map(str, (u, i, r / 2, t))) for u, i, r, t in rows) + end * ended
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ratings"
            path.write_bytes(text.encode())
            read = read_ratings(path, separator, scale=movielens.HALF_STARS)
        assert read.rows() == [(user, item, rating / 2, time) for user, item, rating, time in rows]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "parser", "drop_below", "expected"),
    [
        # RecBole's table says 6,040 and 3,629 for the last row: it counts its padding user and item
        ("ml-100k", parse_ml_100k, None, (943, 1_682, 100_000)),
        ("ml-latest-small", parse_csv_release, None, (610, 9_724, 100_836)),
        ("ml-1m", parse_ml_1m, None, (6_040, 3_706, 1_000_209)),
        ("ml-1m", parse_ml_1m, 3, (6_039, 3_628, 836_478)),
    ],
)
def test_the_published_files_have_their_published_counts(name, parser, drop_below, expected):
    folder = Path(os.environ["RECFLOW_DATA_DIR"]) / name
    if not folder.is_dir():
        pytest.skip(f"RECFLOW_DATA_DIR has no {name}/")
    raw = parser(folder, name)
    data = build_interactions(raw, drop_below=drop_below)
    assert (data.num_users, data.num_items, data.table.height) == expected
    assert data.dropped.height == (163_515 if drop_below else 0)
    assert data.items["title"][0] == "Toy Story (1995)"
    if name == "ml-100k":
        assert data.table["fold"].value_counts().sort("fold")["count"].to_list() == [20_000] * 5
        assert data.users["occupation"].n_unique() == 21
        assert raw.items["released"].null_count() == 1
    if name == "ml-latest-small":
        assert raw.tags.height == 3_683
        assert raw.items["imdb_id"].null_count() == 0
        assert raw.items["tmdb_id"].null_count() == 8
