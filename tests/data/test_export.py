"""Exported files, read back: the same rows, in the dataset's own ids, whole or not at all."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from recflow.data.dataset import DataConfig, Dataset
from recflow.data.export import HEADER, export, whole_folder
from recflow.data.interactions import RawData, build_interactions
from recflow.data.splits import Split, split
from recflow.errors import RecflowError

NO_TAGS = pl.DataFrame(schema={"user_id": pl.Int64, "item_id": pl.Int64, "tag": pl.String, "time": pl.Int64})
ITEMS = pl.DataFrame(
    {
        "item_id": [7, 8, 9],
        "title": ['"Heat", (1995)', "Œuvre\tau noir", "a,b|c"],
        "year": [1995, None, 2001],
        "genres": [["Drama", "Science Fiction"], [], ["Film-Noir"]],
    },
    schema_overrides={"year": pl.Int32},
)
ROWS = [(u, i, 0.5 + (u + i) % 9 / 2, 1000 * u + i) for u in (30, 10, 20) for i in (9, 7, 8)]


def make_data(rows=ROWS, items=ITEMS, ids=pl.Int64, parts=None, **kwargs):
    schema = {"user_id": ids, "item_id": ids, "rating": pl.Float32, "time": pl.Int64}
    ratings = pl.DataFrame(rows, schema=schema, orient="row")
    users = pl.DataFrame({"user_id": ratings["user_id"].unique().sort()})
    items = pl.DataFrame({"item_id": ratings["item_id"].unique().sort()}) if items is None else items
    raw = RawData("tiny", "0" * 64, ratings, items, users, **kwargs)
    interactions = build_interactions(raw)
    parts = parts(interactions) if parts else split(interactions, "ratio", ratios=(0.5, 0.25, 0.25))
    return Dataset(interactions, parts, DataConfig())


def in_own_ids(data, table):
    """By joins: another way than the gathering that export does."""
    users = data.interactions.users.select("user_id").with_row_index("user").cast({"user": pl.Int32})
    items = data.interactions.items.select("item_id").with_row_index("item").cast({"item": pl.Int32})
    joined = table.join(users, on="user", maintain_order="left").join(items, on="item", maintain_order="left")
    return joined.select("user_id", "item_id", "rating", "time")


def whole_users(interactions):
    table = interactions.table
    return Split(table[:3], table[3:4], table[6:7], "users", fold_in=pl.concat([table[4:6], table[7:]]))


class TestParquet:
    def test_the_parts_read_back_are_the_split(self, tmp_path):
        data = make_data()
        files = export(data, NO_TAGS, tmp_path / "out", "parquet")
        names = ["header.json", "items.parquet", "test.parquet", "train.parquet", "users.parquet", "val.parquet"]
        assert [file.name for file in files] == names
        for part in ("train", "val", "test"):
            read = pl.read_parquet(tmp_path / "out" / f"{part}.parquet")
            assert_frame_equal(read, in_own_ids(data, getattr(data.parts, part)))
        assert_frame_equal(pl.read_parquet(tmp_path / "out" / "items.parquet"), data.interactions.items)
        assert_frame_equal(pl.read_parquet(tmp_path / "out" / "users.parquet"), data.interactions.users)

    def test_the_header_is_the_datasets(self, tmp_path):
        data = make_data()
        export(data, NO_TAGS, tmp_path / "out", "parquet")
        assert json.loads((tmp_path / "out" / HEADER).read_text()) == data.header()

    def test_users_held_out_whole_come_with_their_known_rows(self, tmp_path):
        data = make_data(parts=whole_users)
        export(data, NO_TAGS, tmp_path / "out", "parquet")
        read = pl.read_parquet(tmp_path / "out" / "fold_in.parquet")
        assert_frame_equal(read, in_own_ids(data, data.parts.fold_in))

    def test_tags_and_negatives_follow_the_ids_that_are_left(self, tmp_path):
        negatives = pl.DataFrame({"user_id": [10, 10, 99], "item_id": [9, 7, 7]})
        tags = pl.DataFrame(
            [(10, 9, "slow", 1), (10, 55, "gone", 2), (77, 9, "gone", 3)], schema=NO_TAGS.schema, orient="row"
        )
        export(make_data(negatives=negatives), tags, tmp_path / "out", "parquet")
        assert pl.read_parquet(tmp_path / "out" / "tags.parquet").rows() == [(10, 9, "slow", 1)]
        assert pl.read_parquet(tmp_path / "out" / "negatives.parquet").rows() == [(10, 7), (10, 9)]

    def test_ratings_and_times_that_are_not_the_datasets_own_are_left_out(self, tmp_path):
        export(make_data(has_ratings=False, has_times=False), NO_TAGS, tmp_path / "out", "parquet")
        assert pl.read_parquet(tmp_path / "out" / "train.parquet").columns == ["user_id", "item_id"]


class TestCsv:
    def test_lists_are_joined_and_everything_else_is_as_it_was(self, tmp_path):
        data = make_data()
        export(data, NO_TAGS, tmp_path / "out", "csv")
        with (tmp_path / "out" / "items.csv").open(encoding="utf-8", newline="") as stream:
            assert list(csv.reader(stream)) == [
                ["item_id", "title", "year", "genres"],
                ["7", '"Heat", (1995)', "1995", "Drama|Science Fiction"],
                ["8", "Œuvre\tau noir", "", ""],
                ["9", "a,b|c", "2001", "Film-Noir"],
            ]
        schema = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64}
        read = pl.read_csv(tmp_path / "out" / "test.csv", schema=schema)
        assert_frame_equal(read, in_own_ids(data, data.parts.test))

    def test_an_entry_that_would_be_cut_in_two_is_refused_and_nothing_stays(self, tmp_path):
        items = ITEMS.with_columns(genres=pl.Series([["a|b"], [], []], dtype=pl.List(pl.String)))
        with pytest.raises(RecflowError, match=r"an entry of genres in items contains '\|'.*use parquet"):
            export(make_data(items=items), NO_TAGS, tmp_path / "out", "csv")
        assert list(tmp_path.iterdir()) == []

    def test_a_column_that_no_text_holds_is_refused(self, tmp_path):
        items = ITEMS.with_columns(made=pl.Series([{"by": "x"}] * 3))
        with pytest.raises(RecflowError, match="made of items is Struct"):
            export(make_data(items=items), NO_TAGS, tmp_path / "out", "csv")


class TestRecBole:
    def test_headers_are_typed_and_parts_are_benchmark_splits(self, tmp_path):
        items = ITEMS.with_columns(
            length=pl.Series([120, 90, None]), vector=pl.Series([[0.5, 1.0]] * 3, dtype=pl.Array(pl.Float32, 2))
        )
        data = make_data(items=items)
        files = export(data, NO_TAGS, tmp_path / "out", "recbole")
        names = ["header.json", "tiny.item", "tiny.test.inter", "tiny.train.inter", "tiny.user", "tiny.valid.inter"]
        assert [file.name for file in files] == names
        lines = (tmp_path / "out" / "tiny.item").read_text(encoding="utf-8").splitlines()
        assert lines == [
            "item_id:token\ttitle:token_seq\tyear:float\tgenres:token_seq\tlength:float\tvector:float_seq",
            '7\t"""Heat"", (1995)"\t1995\tDrama Science_Fiction\t120\t0.5 1.0',
            '8\tŒuvre au noir\t\t""\t90\t0.5 1.0',
            "9\ta,b|c\t2001\tFilm-Noir\t\t0.5 1.0",
        ]
        assert (tmp_path / "out" / "tiny.user").read_text().splitlines() == ["user_id:token", "10", "20", "30"]

    def test_the_parts_read_back_are_the_split(self, tmp_path):
        data = make_data()
        export(data, NO_TAGS, tmp_path / "out", "recbole")
        for file, part in (("train", "train"), ("valid", "val"), ("test", "test")):
            path = tmp_path / "out" / f"tiny.{file}.inter"
            assert path.read_text().partition("\n")[0] == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
            schema = {"user_id": pl.Int64, "item_id": pl.Int64, "rating": pl.Float32, "time": pl.Int64}
            read = pl.read_csv(path, separator="\t", has_header=False, skip_rows=1, schema=schema)
            assert_frame_equal(read, in_own_ids(data, getattr(data.parts, part)))

    def test_users_held_out_whole_are_refused(self, tmp_path):
        with pytest.raises(RecflowError, match="recbole knows no users held out whole"):
            export(make_data(parts=whole_users), NO_TAGS, tmp_path / "out", "recbole")
        assert list(tmp_path.iterdir()) == []


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1, max_size=5)
interactions = st.dictionaries(
    st.tuples(texts, texts), st.tuples(st.floats(-1e6, 1e6, width=32), st.integers(0, 2**40)), min_size=2, max_size=25
)


@given(interactions, st.sampled_from(["parquet", "csv"]))
@settings(deadline=None, max_examples=60)
def test_any_ids_and_ratings_come_back_equal(tmp_path_factory, rows, form):
    data = make_data([(*pair, *told) for pair, told in rows.items()], None, pl.String)
    folder = tmp_path_factory.mktemp("exported") / "out"
    export(data, NO_TAGS.cast({"user_id": pl.String, "item_id": pl.String}), folder, form)
    schema = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "time": pl.Int64}
    for part in ("train", "val", "test"):
        path = folder / f"{part}.{form}"
        read = pl.read_parquet(path) if form == "parquet" else pl.read_csv(path, schema=schema)
        assert_frame_equal(read, in_own_ids(data, getattr(data.parts, part)))


class TestTheFolder:
    def test_an_existing_one_is_refused_and_left_as_it_is(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        with pytest.raises(RecflowError, match=r"exists already.*--overwrite"):
            export(make_data(), NO_TAGS, tmp_path / "out", "csv")
        with pytest.raises(RecflowError, match=r"holds no header\.json.*not overwritten"):
            export(make_data(), NO_TAGS, tmp_path / "out", "csv", overwrite=True)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_overwrite_replaces_an_earlier_export_whole(self, tmp_path):
        export(make_data(), NO_TAGS, tmp_path / "out", "csv")
        files = export(make_data(), NO_TAGS, tmp_path / "out", "parquet", overwrite=True)
        assert not [file for file in files if file.suffix == ".csv"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_file_or_a_link_is_never_replaced(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        for name in ("file", "link"):
            with pytest.raises(RecflowError, match="exists already"):
                export(make_data(), NO_TAGS, tmp_path / name, "csv", overwrite=True)
        assert (tmp_path / "link").is_symlink()

    def test_a_failure_leaves_the_earlier_one_and_nothing_else(self, tmp_path):
        with whole_folder(tmp_path / "out", "mark") as folder:
            (folder / "mark").write_text("first")

        def fail():
            with whole_folder(tmp_path / "out", "mark", overwrite=True) as folder:
                (folder / "mark").write_text("half")
                raise OSError(28, "No space left on device")

        with pytest.raises(RecflowError, match="cannot be written: No space left on device; choose another --out"):
            fail()
        assert (tmp_path / "out" / "mark").read_text() == "first"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_rename_that_fails_puts_the_earlier_one_back(self, tmp_path, monkeypatch):
        export(make_data(), NO_TAGS, tmp_path / "out", "csv")
        rename = Path.rename

        def refuse_new(path, target):
            if path.name == "new":
                raise PermissionError(13, "Permission denied")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", refuse_new)
        with pytest.raises(RecflowError, match="cannot be written: Permission denied"):
            export(make_data(), NO_TAGS, tmp_path / "out", "parquet", overwrite=True)
        assert (tmp_path / "out" / "train.csv").is_file()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_a_parent_that_is_a_file_is_told_on_one_line(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RecflowError, match="cannot be written: ") as told:
            export(make_data(), NO_TAGS, tmp_path / "file" / "out", "csv")
        assert "\n" not in str(told.value)

    def test_an_interrupted_export_leaves_nothing(self, tmp_path):
        code = (
            "import time; from pathlib import Path; from recflow.data.export import whole_folder\n"
            "with whole_folder(Path('out'), 'mark') as folder:\n"
            "    (folder / 'part').write_text('half'); print('ready', flush=True); time.sleep(60)"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=120)
        deadline = time.monotonic() + 5
        while any(tmp_path.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_runs_full_while_polars_writes_is_told_on_one_line(self, tmp_path):
        code = (
            "import resource, signal, sys; from pathlib import Path; import polars as pl\n"
            "from recflow.data.export import whole_folder; from recflow.errors import RecflowError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "table = pl.select(n=pl.int_range(100_000))\n"
            "for write in (table.write_csv, table.write_parquet):\n"
            "    try:\n"
            "        with whole_folder(Path('out'), 'mark') as folder: write(folder / 'table')\n"
            "    except RecflowError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert len(lines) == 2
        assert all("cannot be written: " in line and "File too large" in line for line in lines)
        assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(RecflowError, match="format 'json' is unknown, expected one of parquet, csv, recbole"):
        export(make_data(), NO_TAGS, tmp_path / "out", "json")
