"""What no table of ratings may hold, each refused in one line that names its place."""

import csv
import gzip
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data.tables import Columns, load_table
from recflow.errors import RecflowError
from tests.data.own_tables import HEADER, LINES, ROWS, parquet


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
            (
                gzip.compress(b"user,item\n" + b"1,2\n" * 99, mtime=0)[:-9],
                "my.csv cannot be read, it is damaged or cut short",
            ),
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
