"""The MovieLens releases in CSV: quotes, tags, links, and the line of whatever is malformed."""

import csv
import io
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data import movielens
from recflow.data.movielens import parse_csv_release
from recflow.data.rating_files import csv_lines
from recflow.errors import RecflowError
from tests.data.releases import write

RATINGS_HEADER = "userId,movieId,rating,timestamp"
TAGS_HEADER = "userId,movieId,tag,timestamp"
LINKS_HEADER = "movieId,imdbId,tmdbId"


@pytest.fixture
def csv_release(tmp_path):
    ratings = [RATINGS_HEADER, "1,1,4.0,964982703", "1,29,0.5,964981247", "2,1,3.5,1445714835"]
    write(tmp_path, "ratings.csv", ratings, end="\r\n", encoding="utf-8")
    movies = [
        "movieId,title,genres",
        "1,Toy Story (1995),Adventure|Animation",
        '29,"City, The (Cité, La) (1995) ",(no genres listed)',
        '30,"11\'09""01 - September 11",Drama',
    ]
    write(tmp_path, "movies.csv", movies, end="\r\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def with_extras(csv_release):
    tags = [TAGS_HEADER, "2,1,funny,10", '2,29,"dark, ""noir""",11', "3,29,Ça va,0"]
    write(csv_release, "tags.csv", tags, end="\r\n", encoding="utf-8")
    links = [LINKS_HEADER, "1,0114709,862", "29,10765852,", "77,0000001,5"]
    write(csv_release, "links.csv", links, end="\r\n", encoding="utf-8")
    return csv_release


class TestCsv:
    def test_it_is_read_with_its_quotes_and_line_ends(self, csv_release):
        raw = parse_csv_release(csv_release, "ml-25m")
        assert raw.ratings.rows() == [(1, 1, 4.0, 964982703), (1, 29, 0.5, 964981247), (2, 1, 3.5, 1445714835)]
        assert raw.items.rows() == [
            (1, "Toy Story (1995)", 1995, ["Adventure", "Animation"]),
            (29, "City, The (Cité, La) (1995) ", 1995, []),
            (30, "11'09\"01 - September 11", None, ["Drama"]),
        ]
        assert raw.users.to_dict(as_series=False) == {"user_id": [1, 2]}
        assert raw.tags.is_empty()
        assert (raw.name, raw.notices) == ("ml-25m", ())

    def test_tags_and_links_are_read_where_they_are(self, with_extras):
        raw = parse_csv_release(with_extras, "ml-25m")
        assert raw.tags.rows() == [(2, 1, "funny", 10), (2, 29, 'dark, "noir"', 11), (3, 29, "Ça va", 0)]
        assert raw.items.select("item_id", "imdb_id", "tmdb_id").rows() == [
            (1, "tt0114709", 862),
            (29, "tt10765852", None),
            (30, None, None),
        ]
        assert raw.items.schema["tmdb_id"] == pl.Int64
        assert raw.items["title"][0] == "Toy Story (1995)"

    @pytest.mark.parametrize("absent", ["tags.csv", "links.csv"])
    def test_either_may_be_missing_on_its_own(self, with_extras, absent):
        whole = parse_csv_release(with_extras, "ml-25m")
        (with_extras / absent).unlink()
        raw = parse_csv_release(with_extras, "ml-25m")
        assert raw.tags.is_empty() == (absent == "tags.csv")
        assert ("imdb_id" in raw.items.columns) == (absent == "tags.csv")
        assert raw.sha256 != whole.sha256

    @pytest.mark.parametrize(("end", "encoding"), [("\n", "utf-8"), ("\r\n", "utf-8-sig")])
    def test_line_ends_and_byte_order_marks_do_not_matter(self, with_extras, end, encoding):
        expected = parse_csv_release(with_extras, "ml-25m")
        for name in movielens.CSV_FILES.all:
            lines = (with_extras / name).read_text(encoding="utf-8").splitlines()
            write(with_extras, name, lines, end=end, encoding=encoding)
        raw = parse_csv_release(with_extras, "ml-25m")
        for table in ("ratings", "items", "tags"):
            assert getattr(raw, table).equals(getattr(expected, table))

    @pytest.mark.parametrize(
        ("name", "lines", "message"),
        [
            ("ratings.csv", ["user,item,rating,time", "1,2,3,4"], r"ratings\.csv, line 1: .* the header 'userId,"),
            ("ratings.csv", [RATINGS_HEADER, "1,2,3,4", "1,2,3,x"], r"ratings\.csv, line 3: '1,2,3,x'"),
            ("ratings.csv", [RATINGS_HEADER, "1;2;3;4"], r"ratings\.csv, line 2: '1;2;3;4'"),
            (
                "ratings.csv",
                [RATINGS_HEADER, "1,2,3.7,4"],
                r"line 2: .* expected a rating from 0\.5 to 5 in steps of 0\.5",
            ),
            ("movies.csv", ["id,title,genres", "1,x,y"], r"movies\.csv, line 1: .* expected the header"),
            ("movies.csv", ["movieId,title,genres", "1,x"], r"movies\.csv, line 2: 2 fields given"),
            ("movies.csv", ["movieId,title,genres", "0,x,y"], r"movies\.csv, line 2: '0' given"),
            ("movies.csv", ["movieId,title,genres", '1,"x,y'], r"movies\.csv, after line 2: .* expected CSV"),
            ("movies.csv", ["movieId,title,genres", "1,a,b", "2,\xe9,y"], r"movies\.csv, line 3: .* CSV in UTF-8"),
            ("movies.csv", ["movieId,title,genres"], r"movies\.csv has no rows"),
            ("tags.csv", ["user,movie,tag,time", "1,2,x,4"], r"tags\.csv, line 1: .* expected the header"),
            ("tags.csv", [TAGS_HEADER, "1,2,x"], r"tags\.csv, line 2: 3 fields given"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "1,2,x,y,4"], r"tags\.csv, line 3: 5 fields given"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "1,2,\xe9,4"], r"tags\.csv, line 3: .* CSV in UTF-8"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "0,2,x,4"], r"tags\.csv, line 3: '0' given"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "1,0,x,4"], r"tags\.csv, line 3: '0' given"),
            ("tags.csv", [TAGS_HEADER, '7,9,"x,5', '2,4,aa"b",5', '8,9,,",8'], r"tags\.csv, after line \d: .* CSV"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "1,2,x,-4"], r"tags\.csv, line 3: '-4' given"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", "1,2,x,"], r"tags\.csv, line 3: '' given"),
            ("tags.csv", [TAGS_HEADER, "1,2,x,4", '1,2,"x,4', "1,2,y,4"], r"tags\.csv, after line \d: .* CSV"),
            ("tags.csv", [], r"tags\.csv is empty"),
            ("links.csv", ["movieId,imdbId", "1,2"], r"links\.csv, line 1: .* expected the header"),
            ("links.csv", [LINKS_HEADER, "1,tt0114709,862"], r"links\.csv, line 2: 'tt0114709' given"),
            ("links.csv", [LINKS_HEADER, "1,0114709,862.0"], r"links\.csv, line 2: '862\.0' given"),
            ("links.csv", [], r"links\.csv is empty"),
        ],
    )
    def test_a_malformed_file_is_named_with_its_line(self, csv_release, name, lines, message):
        (csv_release / name).write_bytes("\n".join([*lines, ""] if lines else []).encode("latin-1"))
        with pytest.raises(RecflowError, match=message) as caught:
            parse_csv_release(csv_release, "ml-25m")
        assert "\n" not in str(caught.value)

    def test_no_tags_below_the_header_are_no_error(self, csv_release):
        write(csv_release, "tags.csv", [TAGS_HEADER])
        assert parse_csv_release(csv_release, "ml-25m").tags.is_empty()

    @pytest.mark.parametrize("content", [b"", b"\n", (RATINGS_HEADER + "\n").encode(), RATINGS_HEADER.encode()])
    def test_an_empty_file_is_refused_in_one_line(self, csv_release, content):
        (csv_release / "ratings.csv").write_bytes(content)
        with pytest.raises(RecflowError, match=r"ratings\.csv") as caught:
            parse_csv_release(csv_release, "ml-25m")
        assert "\n" not in str(caught.value)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(1, 2**40),
                st.integers(1, 9),
                st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8)
                | st.text('ab,"\n', max_size=8),
                st.integers(0, 2**40),
            ),
            max_size=8,
        ),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_any_tag_that_is_written_as_csv_is_read_back(self, rows, end):
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, lineterminator=end)
        writer.writerow(TAGS_HEADER.split(","))
        writer.writerows(rows)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tags.csv"
            path.write_bytes(stream.getvalue().encode("utf-8"))
            assert movielens._read_csv_tags(path).rows() == rows

    @settings(max_examples=80, deadline=None)
    @given(st.lists(st.text("ab,\"' ", max_size=6), min_size=1, max_size=5))
    def test_tags_with_stray_quotes_are_read_as_pythons_csv_reads_them(self, tags):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tags.csv"
            path.write_text("\n".join([TAGS_HEADER, *(f"1,2,{tag},3" for tag in tags), ""]))
            try:
                expected = [(int(u), int(i), tag, int(t)) for _, (u, i, tag, t) in csv_lines(path, TAGS_HEADER)]
            except (RecflowError, ValueError):
                return  # malformed: polars is more lenient with text behind a closing quote
            assert movielens._read_csv_tags(path).rows() == expected
