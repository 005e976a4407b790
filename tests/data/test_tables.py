"""Own tables: what files may look like, what is refused and with which line, and frames."""

import csv
import gzip
import io
import os
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data import movielens
from recflow.data.interactions import build_interactions
from recflow.data.sniffing import open_table
from recflow.data.tables import Columns, keep_frame, load_table
from recflow.errors import RecflowError

ROWS = [(1, 10, 5.0, 100), (1, 20, 3.5, 101), (2, 10, 4.0, 102)]
LINES = [f"{user},{item},{rating},{time}" for user, item, rating, time in ROWS]
HEADER = "user_id,item_id,rating,timestamp"


@pytest.fixture
def load(tmp_path):
    """Writes a file and reads it as ratings."""

    def write_and_load(content, *arguments, name="my.csv", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join([*content, ""])
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_table(path, *arguments, cache_dir=tmp_path / "cache", **options)

    return write_and_load


@pytest.fixture
def refused(load, tmp_path):
    """The one line with which a file is refused, without the folder."""

    def message(content, *arguments, **options):
        with pytest.raises(RecflowError) as caught:
            load(content, *arguments, **options)
        text = str(caught.value)
        assert "\n" not in text
        return text.replace(f"{tmp_path}/", "")

    return message


def parquet(frame: pl.DataFrame) -> bytes:
    packed = io.BytesIO()
    frame.write_parquet(packed)
    return packed.getvalue()


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
            ("a.csv.gz", gzip.compress("\n".join([HEADER, *LINES]).encode())),
            ("a.dat", gzip.compress("\n".join(LINES).replace(",", "::").encode())),
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


class TestIds:
    @pytest.mark.parametrize("odd", ["007", "1.0", "+4", "4a", "99999999999999999999", "1e3"])
    def test_one_id_that_is_no_plain_whole_number_makes_the_column_text(self, load, odd):
        lines = [f"{number},{number}" for number in range(1, 400)]  # beyond what is looked at first
        raw = load(["user,item", *lines, f"{odd},5"])
        assert raw.ratings["user_id"].to_list() == [*map(str, range(1, 400)), odd]
        assert raw.ratings["item_id"].dtype == pl.Int64

    def test_in_parquet_the_type_decides(self, load):
        frame = pl.DataFrame({"user": ["1", "2"], "item": [1, 2]}, schema={"user": pl.Categorical, "item": pl.UInt8})
        raw = load(parquet(frame), name="a.parquet")
        assert raw.ratings.rows() == [("1", 1, 1.0, 0), ("2", 2, 1.0, 0)]
        assert raw.ratings.schema["item_id"] == pl.Int64

    def test_float_ids_are_refused_with_the_way_out(self, refused):
        frame = pl.DataFrame({"user": [1.0], "item": [1]})
        assert refused(parquet(frame), name="a.parquet") == (
            "a.parquet: the ids in user are Float64, expected integers or text; cast them to integers, since 1.0 and 1 "
            "would be two ids"
        )


class TestTimes:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("978300760", 978300760),
            ("978300760.9", 978300760),
            ("-0.5", -1),
            ("2000-12-31", 978220800),
            ("2000-12-31T22:12:40", 978300760),
            ("2000-12-31 22:12:40.75", 978300760),
            ("2000-12-31T22:12:40Z", 978300760),
            ("2000-12-31 22:12:40 UTC", 978300760),
            ("2001-01-01 00:12:40+02:00", 978300760),
            ("2001-01-01 00:12:40 +0200", 978300760),
            ("2000/12/31 22:12", 978300720),
            ("1969-12-31 23:59:59.5", -1),
        ],
    )
    def test_written_times_become_unix_seconds(self, load, text, seconds):
        raw = load(["user,item,time", f"1,2,{text}"])
        assert raw.ratings["time"].to_list() == [seconds]
        assert len(raw.notices) == 1

    @pytest.mark.parametrize(
        ("factor", "unit"), [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")]
    )
    def test_smaller_units_are_told_by_size_and_said(self, load, factor, unit):
        raw = load(["user,item,time", f"1,2,{978300760 * factor + 1}", "1,3,0"])
        assert raw.ratings["time"].to_list() == [978300760, 0]
        assert raw.notices[1] == f"my.csv: times are in {unit}, read as whole seconds"

    def test_seconds_among_milliseconds_are_refused(self, refused):
        message = refused(["user,item,time", "1,2,978300760000", "1,3,978300760"])
        assert message.startswith("my.csv, line 3: time is '978300760', expected milliseconds")

    def test_isoformat_is_the_oracle(self, load):
        zones = [None, UTC, timezone(timedelta(hours=-7, minutes=-30))]
        whens = [datetime(1971 + n, 1 + n % 12, 1 + n % 28, n % 24, n % 60, n % 60, n, zones[n % 3]) for n in range(80)]
        raw = load(["user,item,date", *(f"1,{n},{when.isoformat()}" for n, when in enumerate(whens))])
        expected = [int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() // 1) for when in whens]
        assert raw.ratings["time"].to_list() == expected

    @pytest.mark.parametrize(
        "times",
        [
            [date(2000, 12, 31)],
            [datetime(2000, 12, 31)],
            [datetime(2000, 12, 30, 17, tzinfo=timezone(timedelta(hours=-7)))],
            ["2000-12-31"],
            [978220800.0],
        ],
    )
    def test_typed_times_become_unix_seconds(self, load, times):
        raw = load(parquet(pl.DataFrame({"user": [1], "item": [2], "time": times})), name="a.parquet")
        assert raw.ratings["time"].to_list() == [978220800]


class TestFolds:
    def test_a_fold_column_is_kept_where_nothing_and_0_mean_train(self, load):
        raw = load(["user,item,Fold", "1,2,", "1,3,1", "1,4,0", "1,5,2.0"])
        assert raw.ratings["fold"].to_list() == [None, 1, None, 2]
        assert raw.ratings["fold"].dtype == pl.Int8
        assert build_interactions(raw).table["fold"].to_list() == [None, 1, None, 2]

    def test_a_float_fold_with_nan_as_pandas_makes_it_is_understood(self, load):
        frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "fold": [1.0, float("nan")]})
        assert load(parquet(frame), name="a.parquet").ratings["fold"].to_list() == [1, None]

    def test_a_fold_column_without_a_fold_is_left_out_and_that_is_said(self, load):
        raw = load(["user,item,fold", "1,2,0", "1,3,"])
        assert "fold" not in raw.ratings.columns
        assert raw.notices[-1] == "my.csv: 'fold' names no fold in any row and is left out"

    @pytest.mark.parametrize("fold", ["-1", "1.5", "test", "128", "nan"])
    def test_other_folds_are_refused(self, refused, fold):
        message = refused(["user,item,fold", "1,2,1", f"1,3,{fold}"])
        assert message.startswith(f"my.csv, line 3: fold is '{fold}', expected the number of a fold from 1 to 127")


class TestRefusals:
    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ([HEADER, *LINES, ",10,5,1"], "my.csv, line 5: user_id is missing, expected a user id in every row"),
            ([HEADER, *LINES, '"",10,5,1'], "my.csv, line 5: user_id is missing"),
            ([HEADER, *LINES, "NULL,10,5,1"], "my.csv, line 5: user_id is 'NULL', expected a user id in every row"),
            ([HEADER, *LINES, "1,,5,1"], "my.csv, line 5: item_id is missing, expected an item id in every row"),
            ([HEADER, *LINES, "1,10,,1"], "my.csv, line 5: rating is missing, expected a finite number"),
            ([HEADER, *LINES, "1,10,5,"], "my.csv, line 5: timestamp is missing, expected unix seconds"),
            ([HEADER, *LINES, "1,10,good,1"], "my.csv, line 5: rating is 'good', expected a finite number"),
            ([HEADER, *LINES, "1,10,nan,1"], "my.csv, line 5: rating is 'nan', expected a finite number"),
            ([HEADER, *LINES, "1,10,-inf,1"], "my.csv, line 5: rating is '-inf', expected a finite number"),
            ([HEADER, *LINES, "1,10,1e39,1"], "my.csv, line 5: rating is '1e39', expected a finite number"),
            ([HEADER, *LINES, "1,10,5,soon"], "my.csv, line 5: timestamp is 'soon', expected unix seconds"),
            ([HEADER, *LINES, "1,10,5,inf"], "my.csv, line 5: timestamp is 'inf', expected unix seconds"),
            ([HEADER, *LINES, "-1,10,5,1"], "my.csv, line 5: user_id is '-1', expected an id from 0"),
            ([HEADER, *LINES, "1,10,5"], "my.csv, line 5: '1,10,5' has 3 fields between commas, expected 4"),
            ([HEADER, *LINES, "1,10,5,1,"], "my.csv, line 5: '1,10,5,1,' has 5 fields between commas, expected 4"),
            ([HEADER, *LINES, "", ",,,"], "my.csv, line 6: ',,,' holds no values; remove that line"),
            ([HEADER, *LINES, '1,"10" inch,5,1'], "my.csv, line 5: '1,\"10\" inch,5,1' given"),
            ([HEADER, *LINES, '1,"10,5,1'], "my.csv, line 5: '1,\"10,5,1' given"),
            (["a,b,user,user", *LINES], "my.csv, line 1: two columns are called 'user'; rename one of them"),
            (["User,user,item,b", *LINES], "my.csv: 'User' and 'user' are the same name but for its spelling"),
            (["a,b,c,d", *LINES], "my.csv: cannot tell which column is the user and which the item among a, b, c, d"),
            (["a,item,c,d", *LINES], "my.csv: cannot tell which column is the user among a, item, c, d; name them by"),
            (["1,2,3,4,5", "1,2,3,4,5"], "my.csv has 5 columns and no header, its first line is '1,2,3,4,5'"),
            (
                ["rating", "5", "4"],
                "my.csv, line 1: 'rating' is one column, expected at least two between one of: tabs",
            ),
            ([HEADER], "my.csv: there are no rows in it, only column names"),
            ([], "my.csv is empty"),
            (["", "  ", ""], "my.csv is empty"),
            (['{"user": 1, "item": 2}'], "my.csv looks like JSON, HTML or XML"),
            (b"user,item\n1,2\nJos\xe9,3\n", "my.csv, line 3: byte 0xe9 is not UTF-8; convert the file"),
            (b"1,2\n" * 300_000 + b"Jos\xe9,3\n", "my.csv, line 300001: byte 0xe9 is not UTF-8; convert the file"),
            (
                "user,item\n1,2\n".encode("utf-16"),
                "my.csv, line 1: the file is in UTF-16, expected UTF-8; convert it by",
            ),
            (b"PK\x03\x04\x00\x00", "my.csv is no text, it holds zero bytes"),
            (b"user,item\r1,2\r", "my.csv holds no line feed"),
            (b"PAR1 and then nothing", "my.csv cannot be read, it is damaged or cut short"),
            (gzip.compress(b"user,item\n" + b"1,2\n" * 99)[:-9], "my.csv cannot be read, it is damaged or cut short"),
        ],
    )
    def test_bad_input_is_refused_in_one_line_that_names_its_place(self, refused, lines, message):
        assert refused(lines if lines != [] else b"").startswith(message)

    def test_lines_are_counted_as_an_editor_shows_them(self, refused):
        content = '\nuser,item,note,rating\r\n1,2,"a\r\n\r\nb",5\r\n\r\n1,3,"c\r\nd",x\r\n'
        assert refused(content).startswith("my.csv, line 7: rating is 'x'")

    @pytest.mark.parametrize("separator", ["::", "   ", "\t"])
    def test_lines_are_counted_between_other_separators(self, refused, separator):
        message = refused("\n".join([*LINES, "", "1,10,x,5"]).replace(",", separator), name="a.dat")
        assert message.startswith("a.dat, line 5: rating is 'x'")

    def test_a_short_line_is_seen_where_the_last_column_may_be_empty(self, load, refused):
        lines = ["user,item,note", "1,10,", '1,20,"a,b"', "2,10,"]
        assert load(lines).ratings.height == 3
        assert refused([*lines, "2,20"]).startswith("my.csv, line 5: '2,20' has 2 fields")

    def test_a_row_more_fields_than_the_header_is_refused_wherever_it_is_not_read(self, refused):
        assert refused(["user,item,note", "1,10,a,b"]).startswith("my.csv, line 2: '1,10,a,b' has 4 fields")

    def test_quotes_used_in_two_ways_are_refused(self, refused):
        message = refused(["user,item", '"a,b",1', 'c"d,2'])
        assert message.startswith("my.csv, line 3: 'c\"d,2' has a quote inside a field")

    def test_ratings_outside_their_range_are_refused_even_from_the_cache(self, load, refused):
        lines = [HEADER, *LINES, "2,20,9,5"]
        load(lines)
        assert refused(lines, rating_range=(1, 5)) == "my.csv, line 5: rating is '9', expected a rating from 1 to 5"
        assert load(lines, rating_range=(3.5, 9)).ratings.height == 4
        assert refused(lines, rating_range=(5, 1)).startswith("rating_range is (5, 1), expected the lowest")

    def test_parquet_rows_are_named_by_their_number(self, refused):
        frame = pl.DataFrame({"user": [1, 2, None], "item": [1, 2, 3]})
        message = refused(parquet(frame), name="a.parquet")
        assert message == "a.parquet, row 3: user is missing, expected a user id in every row"

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"user": [-4]}, "row 1: user is -4, expected an id from 0"),
            ({"user": [2**63]}, "row 1: user is 9223372036854775808, expected an id below"),
            ({"user": [""]}, "row 1: user is missing"),
            ({"user": [True]}, ": the ids in user are Boolean"),
            ({"rating": [float("nan")]}, "row 1: rating is nan, expected a finite number"),
            ({"rating": ["5"]}, ": the ratings in rating are String"),
            ({"time": [None]}, "row 1: time is missing"),
            ({"time": [True]}, ": the times in time are Boolean"),
            ({"fold": ["train"]}, ": the folds in fold are String"),
        ],
    )
    def test_parquet_columns_of_the_wrong_kind_are_refused(self, refused, columns, message):
        frame = pl.DataFrame({"user": [1], "item": [1], "rating": [1.0], "time": [1], **columns})
        assert message in refused(parquet(frame), name="a.parquet")

    def test_damaged_parquet_is_refused(self, refused):
        packed = parquet(pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row"))
        assert refused(packed[:-20], name="a.parquet").startswith(
            "a.parquet cannot be read, it is damaged or cut short"
        )
        assert refused(parquet(pl.DataFrame({"user": [], "item": []})), name="a.parquet").startswith(
            "a.parquet: there are no rows in it"
        )

    def test_a_missing_file_and_a_folder_are_refused(self, tmp_path):
        with pytest.raises(RecflowError, match=r"no\.csv is not there, expected a file: CSV"):
            load_table(tmp_path / "no.csv")
        with pytest.raises(RecflowError, match="is a folder, expected a file"):
            load_table(tmp_path)

    def test_a_name_that_is_not_there_is_answered_by_those_that_are(self, refused):
        message = refused(["Member,film,3", "1,2,3"], Columns(user="memebr", item="film"))
        assert message == (
            "my.csv has no column 'memebr', asked for as user; expected one of Member, film, 3; did you mean 'Member'?"
        )
        assert refused(LINES, Columns(user="a")).startswith("my.csv has no header, its first line is '1,10,5.0,100'")
        assert "asked for twice" in refused([HEADER, *LINES], Columns(user="user_id", item="user_id"))


class TestFeatures:
    def features(self, load, tmp_path, content, name="items.csv", use="items", ratings=LINES, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else "\n".join([*content, ""]).encode())
        return load(ratings, **{use: path}, **options)

    @pytest.fixture
    def items_of(self, load, tmp_path):
        return lambda *arguments, **options: self.features(load, tmp_path, *arguments, **options).items

    @pytest.fixture
    def no_items_of(self, load, tmp_path):
        def message(*arguments, **options):
            with pytest.raises(RecflowError) as caught:
                self.features(load, tmp_path, *arguments, **options)
            return str(caught.value).replace(f"{tmp_path}/", "")

        return message

    def test_titles_years_and_genres_are_recognised_and_the_rest_is_kept(self, items_of):
        header = "genre,movieId,Name,Release Year,budget,length,zip"
        items = items_of([header, "Drama|Crime ,10,Heat,1995,6e7,170,02154", "(no genres listed),77,Up,,,,"])
        assert items.rows(named=True) == [
            {
                "item_id": 10,
                "title": "Heat",
                "year": 1995,
                "genres": ["Drama", "Crime"],
                "budget": 6e7,
                "length": 170,
                "zip": "02154",
            },
            {"item_id": 77, "title": "Up", "year": None, "genres": [], "budget": None, "length": None, "zip": None},
        ]
        assert items.schema["genres"] == pl.List(pl.String)
        assert items.schema["year"] == pl.Int32

    def test_the_year_stands_at_the_titles_end_where_no_column_has_it(self, items_of):
        items = items_of(["10::Heat (1995)::Crime, Drama", "20::2001 (or so)::"], name="movies.dat")
        assert items.rows() == [(10, "Heat (1995)", 1995, ["Crime", "Drama"]), (20, "2001 (or so)", None, [])]

    def test_recboles_lists_stand_between_spaces(self, items_of):
        items = items_of(
            ["item_id:token\tmovie_title:token_seq\tgenre:token_seq", "10\tHeat\tCrime Drama"], name="a.item"
        )
        assert items.rows() == [(10, "Heat", None, ["Crime", "Drama"])]

    def test_parquet_lists_and_dates_are_taken_as_they_are(self, items_of):
        frame = pl.DataFrame(
            {"item": [10], "title": ["Heat"], "released": [date(1995, 12, 15)], "genres": [["Crime", None]]}
        )
        assert items_of(parquet(frame), name="a.parquet").rows() == [(10, "Heat", 1995, ["Crime"])]

    def test_years_that_cannot_be_read_are_counted_in_a_notice(self, load, tmp_path):
        raw = self.features(load, tmp_path, ["item,title,year", "10,a,soon", "20,b,1999-05-01", "30,c,"])
        assert raw.items["year"].to_list() == [None, 1999, None]
        assert raw.notices[-1] == "items.csv: 1 years cannot be read and count as unknown"

    def test_users_have_features_too(self, load, tmp_path):
        raw = self.features(load, tmp_path, ["member,age,job", "2,30,x", "1,,y"], use="users")
        assert raw.users.rows() == [(2, 30, "x"), (1, None, "y")]
        assert build_interactions(raw).users.rows() == [(1, None, "y"), (2, 30, "x")]

    def test_the_id_column_is_the_one_asked_for_else_the_usual_else_the_first(self, items_of):
        ratings = ["user,film", "1,10"]
        assert items_of(["item,film", "3,10"], ratings=ratings, columns=Columns(item="film"))["item_id"].to_list() == [
            10
        ]
        assert items_of(["x,item", "3,10"], ratings=ratings)["item_id"].to_list() == [10]
        assert items_of(["code,colour", "10,red"], ratings=ratings)["item_id"].to_list() == [10]

    def test_ids_take_the_ratings_kind_where_nothing_is_lost(self, items_of, no_items_of):
        assert items_of(parquet(pl.DataFrame({"item": ["10"], "n": [1]})), name="a.parquet")["item_id"].to_list() == [
            10
        ]
        assert items_of(["item,n", "10,1"], ratings=["1,10", "1,x"])["item_id"].to_list() == ["10"]
        message = no_items_of(["item,n", "10,1", "010,2"])
        assert message == "items.csv, line 3: item is '010', expected a whole number, as the ratings' ids are"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (["item,n", "10,1", "20,2", "10,3"], "items.csv, line 4: item is '10', expected each item once"),
            (["item,n", "10,1", ",2"], "items.csv, line 3: item is missing, expected an item id in every row"),
            (["item,n", "-10,1"], "items.csv, line 2: item is '-10', expected an id from 0"),
            (["movie,item_id,n", "10,1,1"], None),
            (["film,title,Title", "10,1,1"], "items.csv: 'title' and 'Title' are the same name but for its spelling"),
            (["1,2,3,4", "1,2,3,4"], "items.csv has no header, its first line is '1,2,3,4'"),
        ],
    )
    def test_bad_tables_are_refused(self, items_of, no_items_of, content, message):
        if message is None:
            assert items_of(content)["item_id"].to_list() == [1]
        else:
            assert no_items_of(content).startswith(message)

    def test_a_feature_in_the_place_of_the_id_is_refused(self, no_items_of):
        message = no_items_of(["film,item_id", "10,1"], ratings=["user,film", "1,10"], columns=Columns(item="film"))
        assert message == "items.csv: 'film' is taken as item_id, so 'item_id' needs another name; rename it"


class TestCache:
    def test_the_hash_covers_contents_columns_and_what_each_file_is_for(self, load, tmp_path):
        (tmp_path / "t.csv").write_text("user,item,n\n1,10,1\n2,20,2\n")
        lines = ["user,item,b", "1,10,2"]
        variants = [
            load(lines),
            load(lines, Columns(user="b")),
            load([*lines, "1,20,3"]),
            load(lines, items=tmp_path / "t.csv"),
            load(lines, users=tmp_path / "t.csv"),
        ]
        assert len({raw.sha256 for raw in variants}) == len(variants)
        assert variants[1].ratings["user_id"].to_list() == [2]
        assert load(lines).sha256 == variants[0].sha256
        assert load(lines, rating_range=(0, 5)).sha256 == variants[0].sha256

    def test_a_second_reading_comes_from_the_cache_and_is_equal(self, load, monkeypatch):
        first = load([HEADER, *LINES])
        monkeypatch.setattr("recflow.data.tables._parse", None)
        second = load([HEADER, *LINES])
        assert second.ratings.equals(first.ratings)
        assert (second.notices, second.name) == (first.notices, first.name)


FRAME = pl.DataFrame(ROWS, schema=HEADER.split(","), orient="row")


class PandasLikeColumn:
    """What `keep_frame` uses of a pandas Series."""

    def __init__(self, values, dtype):
        self.values = np.array(values, dtype=dtype)
        self.dtype = self.values.dtype

    def isna(self):
        return np.array([value is None or value != value for value in self.values])

    def to_numpy(self, dtype=None, na_value=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def astype(self, dtype):
        return self.values.astype(dtype)


class PandasLikeFrame:
    """What `keep_frame` uses of a pandas DataFrame."""

    iloc = dtypes = None

    def __init__(self, columns):
        self.data = {name: PandasLikeColumn(*column) for name, column in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name):
        return self.data[name]


class TestFrames:
    @pytest.mark.parametrize("frame", [FRAME, FRAME.lazy()])
    def test_a_polars_frame_is_kept_and_read_like_a_file(self, tmp_path, frame):
        path = keep_frame(frame, tmp_path)
        raw = load_table(path, cache_dir=tmp_path)
        assert raw.ratings.rows() == ROWS
        assert raw.name == "frame"

    def test_the_same_contents_give_the_same_file(self, tmp_path):
        path = keep_frame(FRAME, tmp_path)
        assert keep_frame(FRAME.lazy(), tmp_path) == path
        assert keep_frame(FRAME.head(2), tmp_path) != path
        path.write_bytes(b"lost")
        assert pl.read_parquet(keep_frame(FRAME, tmp_path)).equals(FRAME)
        assert not list(tmp_path.glob("frames/.new-*"))

    def test_a_pandas_like_frame_is_kept_and_read_like_a_file(self, tmp_path):
        frame = PandasLikeFrame(
            {
                "user": ((1, 2), "int32"),
                "item": (("a", "b"), object),
                "rating": ((5.0, 3.5), "float64"),
                "time": (("2000-12-31", "2001-01-01"), "datetime64[ns]"),
                "fold": ((1.0, np.nan), "float64"),
            }
        )
        raw = load_table(keep_frame(frame, tmp_path), cache_dir=tmp_path)
        assert raw.ratings.rows() == [(1, "a", 5.0, 978220800, 1), (2, "b", 3.5, 978307200, None)]

    def test_pandas_frames_of_every_kind_of_column_are_kept(self, tmp_path):
        import pandas as pd

        frame = pd.DataFrame(
            {
                "user": pd.array([1, 2, 3], dtype="Int64"),
                "item": pd.Categorical(["a", "b", "a"]),
                "rating": [5.0, 3.5, 1.0],
                "time": pd.to_datetime(["2000-12-31", "2001-01-01", "2001-01-02"]).tz_localize("Europe/Berlin"),
                "fold": [None, 1, 2],
                "genres": [["x"], ["y", "z"], []],
                "note": ["a", None, "c"],
            },
            index=[7, 8, 9],
        )
        kept = keep_frame(frame, tmp_path)
        assert pl.read_parquet(kept)["genres"].to_list() == [["x"], ["y", "z"], []]
        assert pl.read_parquet(kept)["note"].to_list() == ["a", None, "c"]
        raw = load_table(kept, cache_dir=tmp_path)
        assert raw.ratings.rows() == [
            (1, "a", 5.0, 978217200, None),
            (2, "b", 3.5, 978303600, 1),
            (3, "a", 1.0, 978390000, 2),
        ]

    @pytest.mark.parametrize(
        ("frame", "message"),
        [
            ([1, 2], "list given, expected a Polars or pandas DataFrame"),
            (PandasLikeFrame({"a": ((1, "x"), object)}), "column 'a' holds int and str, expected one kind of value"),
            (pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}), "column 'a' holds Python objects"),
        ],
    )
    def test_other_things_are_refused(self, tmp_path, frame, message):
        with pytest.raises(RecflowError, match=message):
            keep_frame(frame, tmp_path)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.sampled_from(',;|\t"\n'), min_size=1)
ID = TEXT.filter(lambda text: not text.startswith(("{", "[", "<")))
WHOLE = st.integers(0, 2**63 - 1)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_written_as_text_comes_back_equal(data, tmp_path_factory):
    separator = data.draw(st.sampled_from([",", "\t", ";", "|", "::", " "]), label="separator")
    quotable = separator not in ("::", " ")  # between these, quotes are characters like others
    user_ids, item_ids = (data.draw(st.sampled_from([WHOLE, ID] if quotable else [WHOLE])) for _ in range(2))
    rating = st.floats(-1e6, 1e6, width=32)
    row = st.tuples(user_ids, item_ids, rating, st.integers(-(10**11), 10**11))
    rows = data.draw(st.lists(row, min_size=1, max_size=20), label="rows")
    header = data.draw(st.booleans(), label="header") or any(isinstance(value, str) for row in rows for value in row)
    end = data.draw(st.sampled_from(["\n", "\r\n"]), label="line end")
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]), label="quoting")

    lines = [HEADER.split(",")] * header + [list(row) for row in rows]
    path = tmp_path_factory.mktemp("written") / "a.txt"
    with path.open("w", encoding="utf-8", newline="") as stream:
        if quotable:
            csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting).writerows(lines)
        else:
            stream.writelines(separator.join(map(str, line)) + end for line in lines)

    ratings = load_table(path, cache_dir=path.parent).ratings
    expected = pl.DataFrame(list(rows), schema=["user_id", "item_id", "rating", "time"], orient="row")
    plain = {
        name: pl.Int64
        if all(text == str(int(text)) if text.isascii() and text.isdigit() else False for text in texts)
        else pl.String
        for name in ("user_id", "item_id")
        for texts in [[str(value) for value in expected[name]]]
    }
    assert ratings.equals(expected.cast({**plain, "rating": pl.Float32, "time": pl.Int64}))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_line_that_is_named_is_the_one_that_was_spoilt(data, tmp_path_factory):
    notes = data.draw(st.lists(st.sampled_from(["", "a", "b\nc", 'd"e', "f,\n\n"]), min_size=1, max_size=12))
    spoilt = data.draw(st.integers(0, len(notes) - 1))
    blank = data.draw(st.sets(st.integers(0, len(notes) - 1)))
    content, expected = io.StringIO(), 0
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["user", "item", "rating", "note"])
    for number, note in enumerate(notes):
        content.write("\n" * (number in blank))
        if number == spoilt:
            expected = content.getvalue().count("\n") + 1
        writer.writerow([number, number, "bad" if number == spoilt else 3, note])
    path = tmp_path_factory.mktemp("spoilt") / "a.csv"
    path.write_text(content.getvalue(), encoding="utf-8", newline="")
    with pytest.raises(RecflowError, match=rf"a\.csv, line {expected}: rating is 'bad'"):
        load_table(path, cache_dir=path.parent)


@pytest.mark.data
def test_movielens_files_read_as_own_tables_are_what_their_parsers_make_of_them(tmp_path):
    folder = Path(os.environ["RECFLOW_DATA_DIR"])
    own = load_table(
        folder / "ml-latest-small" / "ratings.csv", items=folder / "ml-latest-small" / "movies.csv", cache_dir=tmp_path
    )
    parser = movielens.parse_csv_release(folder / "ml-latest-small", "ml-latest-small")
    assert own.ratings.equals(parser.ratings)
    assert own.items.equals(parser.items.select(own.items.columns))
    assert own.users.equals(parser.users)
    for name, parse in (("ml-100k/u.data", movielens.parse_ml_100k), ("ml-1m/ratings.dat", movielens.parse_ml_1m)):
        own = load_table(folder / name, cache_dir=tmp_path)
        assert own.ratings.equals(parse((folder / name).parent).ratings.drop("fold", strict=False))
