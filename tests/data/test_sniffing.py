"""What a table's file may look like: separators, headers, names of columns and quotes."""

import gzip

import polars as pl
import pytest

from recflow.data.interactions import build_interactions
from recflow.data.sniffing import open_table
from recflow.data.tables import Columns
from tests.data.own_tables import HEADER, LINES, ROWS, parquet


class TestForms:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "\n".join([HEADER, *LINES])),
            ("a.csv", "\r\n".join([HEADER, *LINES, ""])),
            ("a.csv", b"\xef\xbb\xbf" + "\n".join([HEADER, *LINES]).encode()),
            ("a.tsv", "\n".join([HEADER, *LINES]).replace(",", "\t")),
            ("a.txt", "\n".join(LINES).replace(",", ";")),
            ("a.txt", "\n".join(LINES).replace(",", "|")),
            ("a.dat", "\n".join(LINES).replace(",", "::")),
            ("a.dat", "\n".join(LINES).replace(",", " ")),
            ("a.dat", "\n".join(f"  {line}  " for line in LINES).replace(",", "   ")),
            ("a.csv", "\n\n" + "\n".join([HEADER, *LINES, "", ""])),
            ("a.csv", "\n".join([HEADER, LINES[0], "", *LINES[1:]])),
            ("a.csv", "\n".join([HEADER, *LINES]).replace(",", ", ")),
            ("a.csv", "\n".join('"' + line.replace(",", '","') + '"' for line in [HEADER, *LINES])),
            ("a.csv.gz", gzip.compress("\n".join([HEADER, *LINES]).encode(), mtime=0)),
            ("a.dat", gzip.compress("\n".join(LINES).replace(",", "::").encode(), mtime=0)),
            ("a.table", "\n".join([HEADER, *LINES])),
            ("a[1].csv", "\n".join([HEADER, *LINES])),
            (
                "a.inter",
                "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "\n".join(LINES).replace(",", "\t"),
            ),
            ("a.parquet", parquet(pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row"))),
            ("a.dat", parquet(pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row"))),
        ],
    )
    def test_each_known_form_gives_the_same_table(self, load, name, content):
        raw = load(content, name=name)
        assert raw.ratings.rows() == ROWS
        assert raw.ratings.schema == {
            "user_id": pl.Int64,
            "item_id": pl.Int64,
            "rating": pl.Float32,
            "time": pl.Int64,
        }
        assert (raw.has_ratings, raw.has_times) == (True, True)
        assert raw.items.rows() == [(10,), (20,)]
        assert raw.users.rows() == [(1,), (2,)]
        assert raw.name == name.partition(".")[0]
        assert build_interactions(raw).num_users == 2

    def test_columns_of_any_name_are_asked_for(self, load):
        lines = ["when;stars;film;member", *(";".join(line.split(",")[::-1]) for line in LINES)]
        raw = load(lines, Columns(user="member", item="film", rating="stars", time="when"))
        assert raw.ratings.rows() == ROWS

    @pytest.mark.parametrize(
        "header", ["User ID,MOVIE-ID,Stars,Date", "customer,asin,overall,unixReviewTime", "uid,isbn,rate,ts"]
    )
    def test_usual_names_are_found_however_they_are_spelt_and_said(self, load, header):
        raw = load([header, *LINES])
        assert raw.ratings.rows() == ROWS
        assert all(name in raw.notices[0] for name in header.split(","))

    def test_the_better_of_two_usual_names_is_taken(self, load):
        raw = load(["username,user_id,item,movie_title", "ann,1,10,x"])
        assert raw.ratings.row(0)[:2] == (1, 10)

    def test_without_a_header_the_order_counts_and_is_said(self, load):
        raw = load(["1,10", "2,20"])
        assert raw.ratings.rows() == [(1, 10, 1.0, 0), (2, 20, 1.0, 0)]
        assert (raw.has_ratings, raw.has_times) == (False, False)
        assert raw.notices == (
            "my.csv: no header, so the columns are user, item, no ratings (each counts as 1), no times",
        )

    def test_a_header_is_known_by_standing_over_numbers(self, tmp_path):
        (tmp_path / "a.csv").write_text("a,b,c\nx,10,5\n")
        assert open_table(tmp_path / "a.csv").names == ("a", "b", "c")
        (tmp_path / "b.csv").write_text("a,b,5\nx,10,5\n")
        assert not open_table(tmp_path / "b.csv").has_header

    def test_quoted_fields_may_hold_separators_quotes_and_line_feeds(self, load):
        raw = load('user,item,note\n"a,b","x ""y""","two\nlines"\nc,z,\n')
        assert raw.ratings.select("user_id", "item_id").rows() == [("a,b", 'x "y"'), ("c", "z")]

    def test_a_quote_inside_unquoted_fields_is_a_character(self, load):
        raw = load(["user,item", '1,19" rack', "2,plain"])
        assert raw.ratings["item_id"].to_list() == ['19" rack', "plain"]

    def test_the_separator_is_not_mistaken_for_one_inside_fields(self, load):
        raw = load(["1\tx,y\t3", "2\tz,w\t4"], name="b.txt")
        assert raw.ratings["item_id"].to_list() == ["x,y", "z,w"]
        raw = load(["1,10,3,2020-01-01 00:00:01", "2,10,4,2020-01-01 00:00:02"], name="c.txt")
        assert raw.ratings["time"].to_list() == [1577836801, 1577836802]
