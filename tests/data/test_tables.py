"""Own tables of ratings: ids, times and folds as they are read, and the cache's key."""

import csv
import os
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recflow.data import movielens
from recflow.data.interactions import build_interactions
from recflow.data.tables import Columns, load_table
from tests.data.own_tables import HEADER, LINES, parquet


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
