"""`recflow data` as people type it."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest

from recflow.cli import main
from recflow.data import catalog, sample
from recflow.data.catalog import load_raw
from recflow.data.dataset import DataConfig, prepare

SMALL = "sample:ratings=3000"


@pytest.fixture
def recflow(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; gives its exit code, output and error output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("RECFLOW_DATA_DIR", raising=False)

    def call(*args):
        capsys.readouterr()
        code = main(["data", *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def row(out, name):
    """The words of the line that begins with a name."""
    return next(line.split() for line in out.splitlines() if f"{line} ".startswith(f"{name} "))


def write_csv(path, count=200):
    rows = [f"m{n % 20},f{n % 31},{n % 9 / 2 + 1},{1_000_000_000 + n * 86400}" for n in range(count)]
    path.write_text("\n".join(["member,film,stars,when", *rows]) + "\n")
    return path


class TestList:
    def test_every_dataset_has_its_line_and_its_licence(self, recflow):
        code, out, _ = recflow("list")
        assert code == 0
        for name in catalog.names():
            assert row(out, name)[0] == name
        assert all(dataset.licence in out for dataset in catalog.DATASETS.values())
        assert "--data my.csv" in out

    def test_the_samples_sizes_are_those_of_the_sample(self, recflow):
        _, out, _ = recflow("list")
        raw = sample.generate()
        sizes = [raw.ratings.height, raw.ratings["user_id"].n_unique(), raw.items.height]
        assert row(out, "sample")[1:4] == [f"{size:,}" for size in sizes]

    def test_it_says_where_each_is(self, recflow, tmp_path, monkeypatch):
        for folder in ("ml-100k", "yelp", "notes"):
            (tmp_path / "here" / folder).mkdir(parents=True)
        for file in ("train.txt", "test.txt"):
            (tmp_path / "here" / "yelp" / file).write_text("0 1 2\n")
        (tmp_path / "here" / "a.txt").write_text("")
        monkeypatch.setenv("RECFLOW_CACHE_DIR", str(tmp_path / "cache"))
        (tmp_path / "cache" / "archives").mkdir(parents=True)
        (tmp_path / "cache" / "archives" / "ml-1m.zip").write_bytes(b"")
        monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path / "here"))
        _, out, _ = recflow("list")
        assert "embedded" in row(out, "sample")
        assert "data folder" in " ".join(row(out, "ml-100k"))
        assert "cache" in row(out, "ml-1m")
        assert "download" in row(out, "ml-20m")
        assert "by hand" in " ".join(row(out, "gowalla"))
        assert row(out, "yelp") == ["yelp", "data", "folder", "LightGCN", "(train.txt,", "test.txt)"]
        assert "notes" not in out
        assert str(tmp_path / "here") in out

    def test_it_is_there_at_once_and_without_torch(self):
        code = (
            "import sys; from recflow.cli import main; assert main(['data', 'list']) == 0; "
            "print([m for m in ('torch', 'lightning', 'matplotlib', 'jsonargparse') if m in sys.modules])"
        )
        seconds = []
        for _ in range(3):
            before = os.times()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            after = os.times()  # of the processor, not of the clock: tests run side by side
            seconds.append(sum(after[2:4]) - sum(before[2:4]))
            assert done.stdout.splitlines()[-1] == "[]"
        assert min(seconds) <= 0.5


class TestDescribe:
    def test_the_tables_hold_the_numbers_of_the_split_in_force(self, recflow, tmp_path):
        code, out, _ = recflow("describe", SMALL, "--data.drop_below", "3", "--data.relevant_from", "4")
        assert code == 0
        data = prepare(DataConfig(name=SMALL, drop_below=3, relevant_from=4))
        header = data.header()
        assert f"{data.interactions.table.height:,} by {data.num_users:,} users of {data.num_items:,} items" in out
        assert header["filter"] in out
        assert header["split"] in out
        shown = row(out, "test")
        assert shown[1] == f"{header['interactions']['test']:,}"
        assert shown[4] == f"{len(data.relevant('test').users):,}"
        assert shown[7] == str(header["cold"]["test"]["users"])
        assert "--out FOLDER" in out
        assert list(tmp_path.iterdir()) == []

    def test_out_holds_the_numbers_and_the_pictures(self, recflow, tmp_path):
        code, out, _ = recflow("describe", SMALL, "--out", "seen", "--data.split", "leave-one-out")
        assert code == 0
        files = sorted(path.name for path in (tmp_path / "seen").iterdir())
        assert files == ["describe.json", "genres.png", "ratings.png", "skew.png", "time.png", "years.png"]
        assert all(name in out for name in files)
        numbers = json.loads((tmp_path / "seen" / "describe.json").read_text(encoding="utf-8"))
        assert numbers["ratings"] == numbers["source"]["ratings"] == 3000
        assert numbers["split"]["describe"].startswith("leave-one-out")
        code, out, err = recflow("describe", SMALL, "--out", "seen")
        assert (code, out) == (2, "")  # told before the work is done
        assert "exists already" in err
        assert recflow("describe", SMALL, "--out", "seen", "--overwrite")[0] == 0

    def test_a_file_of_ones_own_is_named_by_its_columns(self, recflow, tmp_path):
        write_csv(tmp_path / "my.csv")
        columns = ["--data.user", "member", "--data.item", "film", "--data.rating", "stars", "--data.time", "when"]
        code, out, _ = recflow("describe", "my.csv", *columns)
        assert code == 0
        assert "200 by 20 users of 31 items" in out
        assert "2001-09-09 to 2002-03-27" in out

    def test_dataset_and_setting_may_be_spelt_as_in_fit(self, recflow):
        expected = recflow("describe", SMALL)
        assert recflow("describe", "--data", SMALL) == expected
        assert recflow("describe", f"--data={SMALL}") == expected

    def test_users_held_out_whole_are_explained(self, recflow):
        code, out, _ = recflow("describe", SMALL, "--data.split", "users")
        assert code == 0
        assert "fold_in" in out
        held_out = row(out, "test")
        assert held_out[6:8] == [held_out[4], "(100"]  # every one of its users is cold
        assert "known by their fold_in rows" in out


class TestExport:
    def test_the_files_are_the_split_that_fit_would_use(self, recflow, tmp_path):
        code, out, _ = recflow("export", SMALL, "--out", "sub/out", "--data.drop_below", "3", "--data.seed", "7")
        assert code == 0
        data = prepare(DataConfig(name=SMALL, drop_below=3, seed=7))
        header = json.loads((tmp_path / "sub" / "out" / "header.json").read_text())
        assert header == data.header()
        rated = load_raw(SMALL).ratings.select("user_id", "item_id", "rating", "time")
        parts = [pl.read_parquet(tmp_path / "sub" / "out" / f"{part}.parquet") for part in ("train", "val", "test")]
        assert [part.height for part in parts] == [header["interactions"][part] for part in ("train", "val", "test")]
        wanted = rated.filter(pl.col("rating") >= 3)
        assert pl.concat(parts).sort("user_id", "item_id").equals(wanted.sort("user_id", "item_id"))
        assert all(f"{name}.parquet" in out for name in ("train", "val", "test", "items", "users"))

    def test_exported_csv_can_be_described_as_ones_own_data(self, recflow):
        assert recflow("export", SMALL, "--out", "out", "--format", "csv")[0] == 0
        code, out, _ = recflow("describe", "out/train.csv", "--data.items", "out/items.csv")
        assert code == 0
        train = prepare(DataConfig(name=SMALL)).parts.train
        assert f"{train.height:,} by" in out
        assert "genres" in out

    def test_recbole_files_come_with_the_settings_to_read_them(self, recflow, tmp_path):
        code, out, _ = recflow("export", SMALL, "--out", "sample", "--format", "recbole")
        assert code == 0
        assert f"dataset: sample, data_path: {tmp_path}, benchmark_filename: [train, valid, test]\n" in out
        assert (tmp_path / "sample" / "sample.valid.inter").is_file()
        assert "once the folder is called sample" in recflow("export", SMALL, "--out", "x", "--format", "recbole")[1]


class TestDownload:
    def test_the_sample_needs_none_and_the_next_step_is_told(self, recflow):
        code, out, _ = recflow("download", "sample")
        assert code == 0
        assert "embedded" in out
        assert "recflow fit --plugin lightgcn --data sample" in out

    def test_what_lies_in_the_data_folder_is_named_with_its_licence(self, recflow, tmp_path, monkeypatch):
        (tmp_path / "ml-1m").mkdir()
        monkeypatch.setenv("RECFLOW_DATA_DIR", str(tmp_path))
        code, out, _ = recflow("download", "ml-1m")
        assert code == 0
        assert str(tmp_path / "ml-1m") in out
        assert f"licence: {catalog.DATASETS['ml-1m'].licence}" in out

    def test_a_misspelt_name_is_told_before_anything_is_fetched(self, recflow, monkeypatch):
        monkeypatch.setattr(catalog, "download", lambda name: pytest.fail(f"{name} was fetched"))
        code, _, err = recflow("download", "ml-100k", "ml-10k")
        assert code == 2
        assert "'ml-10k' is unknown" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["descrbe"], "did you mean 'describe'"),
        (["xyz"], "expected one of list, describe, download, export"),
        (["list", "ml-1m"], "unrecognized arguments: ml-1m"),
        (["describe"], "recflow data describe needs a dataset"),
        (["describe", "ml-10k"], "did you mean"),
        (["describe", "nowhere.csv"], "nowhere.csv"),
        (["describe", "./nowhere"], "nowhere"),
        (["describe", SMALL, "--data.splt", "ratio"], "did you mean --data.split"),
        (["describe", SMALL, "--data.split", "temprl"], "expected one of 'ratio'"),
        (["describe", SMALL, "--data.fold", "x"], "data.fold"),
        (["describe", SMALL, "--data.drop_below", "9"], "9"),
        (["describe", SMALL, "--data.user", "x"], "data.user"),
        (["describe", SMALL, "more"], "unrecognized arguments: more"),
        (["describe", SMALL, "--data.name", "ml-1m"], "unrecognized arguments: --data.name"),
        (["describe", SMALL, "--out", "file"], "file exists already"),
        (["export", SMALL], "needs a folder to write into: --out folder"),
        (["export", SMALL, "--out", "x", "--format", "json"], "expected one of parquet, csv, recbole"),
        (["export", SMALL, "--out", "."], "exists already"),
        (["export", SMALL, "--out", ".", "--overwrite"], "holds no header.json"),
        (["export", SMALL, "--out", "file/x"], "cannot be written"),
        (["export", SMALL, "--out", "x", "--format", "recbole", "--data.split", "users"], "no users held out whole"),
        (["download"], "the following arguments are required: name"),
        (["download", "gowalla"], "github.com"),
    ],
)
def test_a_mistake_is_told_on_one_line_with_exit_code_2(recflow, tmp_path, args, said):
    (tmp_path / "file").write_text("mine")
    code, out, err = recflow(*args)
    assert (code, out) == (2, "")
    assert err.startswith("recflow: error: ")
    assert err.count("\n") == 1
    assert said in err.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class TestHelp:
    def test_the_command_alone_explains_itself(self, recflow):
        code, out, _ = recflow()
        assert code == 0
        assert all(name in out for name in ("list", "describe", "download", "export", "examples"))

    @pytest.mark.parametrize("command", ["list", "describe", "download", "export"])
    def test_every_command_has_help_of_its_own(self, recflow, capsys, command):
        with pytest.raises(SystemExit) as stopped:
            recflow(command, "--help")
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert f"recflow data {command}" in out
        if command in ("describe", "export"):
            assert all(f"--data.{name}" in out for name in ("split", "drop_below", "user", "k_core"))
            assert "--data.name" not in out
            assert "--data CONFIG" not in out
