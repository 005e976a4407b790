"""`recflow runs`: made-up run folders, read as a person reads them."""

import json
import os
import re
import time
from pathlib import Path

import pytest
import yaml

from recflow.cli import main
from recflow.errors import RecflowError
from recflow.runs import Run, find_runs, load_run, newest_run

HEADER = {
    "dataset": "toys",
    "sha256": "0123456789abcdef",
    "users": 3,
    "items": 8,
    "filter": "none",
    "split": "ratio 8:1:1",
    "relevance": "every interaction",
    "candidates": "full ranking",
    "seed": 42,
    "versions": {"recflow": "0.1.0"},
}
SPREAD = {f"{name}@10": 0.25 for name in ("recall", "hit", "mrr", "coverage")}
DAY = 86400.0


def make(
    root: Path,
    name: str,
    plugin="lightgcn",
    *,
    val=0.2,
    test=0.1,
    header=None,
    finished=True,
    config=None,
    monitor="val/ndcg@10",
    age=2 * DAY,
) -> Path:
    """A run folder `plugin/toys/name` with a checkpoint of 1,000 bytes, untouched for `age` seconds."""
    path = root / plugin / "toys" / name
    (path / "checkpoints").mkdir(parents=True)
    for checkpoint in ("best", "last"):
        (path / "checkpoints" / f"{checkpoint}.ckpt").write_bytes(bytes(500))
    (path / "bundle").mkdir()
    (path / "bundle" / "weights").write_bytes(bytes(100))
    settings = {"plugin": plugin, "seed": 42, "model": {"num_layers": 3, "lr": 0.01}, "data": {"name": "toys"}}
    (path / "config.yaml").write_text(yaml.safe_dump({**settings, **(config or {}), "name": name}, sort_keys=False))
    metric = monitor.removeprefix("val/")
    content = {
        "plugin": plugin,
        "monitor": monitor,
        "best_epoch": 3,
        "epochs": 7,
        "train_seconds": 1.5,
        "parameters": 1234,
        "header": HEADER | (header or {}),
        "val": {"ndcg@10": 0.2, **SPREAD, metric: val},
        "test": {"ndcg@10": test, **SPREAD},
        "test_users": 3,
        "baselines": {"popularity": {"ndcg@10": 0.05, **SPREAD}},
    }
    if finished:
        (path / "metrics.json").write_text(json.dumps(content))
    backdate(path, age)
    return path


def make_folds(root: Path, name="cv", *, done=True) -> Path:
    path = root / "lightgcn" / "toys" / name
    for fold in (1, 2, 3):
        made = make(root, f"{name}/fold-{fold}", finished=done or fold == 1)
        assert made.parent == path
    (path / "config.yaml").write_text("plugin: lightgcn\n")
    if done:
        content = {
            "plugin": "lightgcn",
            "folds": ["fold-1", "fold-2", "fold-3"],
            "mean": {"ndcg@10": 0.3125, "recall@10": 0.5},
            "sd": {"ndcg@10": 0.0078125, "recall@10": 0.01},
            "header": HEADER | {"split": "3 folds"},
        }
        (path / "cross_validation.json").write_text(json.dumps(content))
    backdate(path, 2 * DAY)
    return path


def backdate(path: Path, age: float) -> None:
    then = time.time() - age
    for found in (*path.rglob("*"), path):
        os.utime(found, (then, then))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def runs(root, capsys):
    """Run `recflow runs …`; gives what it printed, and checks its exit code."""

    def call(*args, code=0):
        capsys.readouterr()
        assert main(["runs", *args]) == code
        captured = capsys.readouterr()
        if code:
            assert captured.err.startswith("recflow: error: ")
            assert captured.err.count("\n") == 1
        return captured.err if code else captured.out

    return call


def row(out: str, name: str) -> list[str]:
    return next(line.split() for line in out.splitlines() if line.startswith(name))


class TestFinding:
    def test_finds_runs_and_folds_but_neither_their_folder_nor_hidden_ones(self, root):
        plain, folds = make(root, "a"), make_folds(root)
        make(root, ".b.deleted")
        (root / "lightgcn" / "toys" / "notes").mkdir()
        assert [run.path for run in find_runs(root)] == [plain, *(folds / f"fold-{number}" for number in (1, 2, 3))]

    def test_the_newest_run_may_be_a_fold(self, root):
        assert newest_run(root) is None
        plain, folds = make(root, "a"), make_folds(root)
        os.utime(folds / "fold-2" / "metrics.json")
        assert newest_run(root).path == folds / "fold-2"
        os.utime(plain / "metrics.json", (time.time() + 9, time.time() + 9))
        assert newest_run(root).path == plain

    def test_parts_of_a_comparison_are_the_newest_only_where_there_is_nothing_else(self, root):
        part = make(root, "ease-1", plugin="compare", age=0)
        assert newest_run(root).path == part
        alone = make(root, "a", age=5 * DAY)
        assert newest_run(root).path == alone

    def test_the_newest_run_is_a_finished_one(self, root):
        make(root, "a", age=5 * DAY)
        make(root, "b", finished=False, age=0)
        assert newest_run(root).path.name == "a"

    @pytest.mark.parametrize("content", ["{", "[1]", "null", "\x00"])
    @pytest.mark.parametrize("name", ["config.yaml", "metrics.json"])
    def test_a_damaged_file_is_named(self, root, name, content):
        path = make(root, "a")
        (path / name).write_text(content)
        run = load_run(path)
        with pytest.raises(RecflowError, match=name):
            _ = run.config if name == "config.yaml" else run.metrics

    def test_the_folder_of_a_cross_validation_does_not_recommend(self, root):
        with pytest.raises(RecflowError, match=r"name one, such as .*fold-1"):
            Run(make_folds(root)).require_finished()


class TestList:
    @pytest.mark.parametrize("width", [50, 60, 80, 100, 140])
    def test_a_narrow_terminal_drops_columns_and_never_cuts_a_name_or_a_number(self, root, runs, monkeypatch, width):
        name = "a-run-of-a-long-name"
        make(root, name)
        make(root, "short", plugin="ease", monitor="val/recall@10")
        monkeypatch.setenv("COLUMNS", str(width))
        out = runs("list")
        table = [line.rstrip() for line in out.splitlines() if line.startswith(("run ", "lightgcn", "ease"))]
        assert max(map(len, table)) <= width
        assert "ndcg@10" in table[0]
        assert ("ended" in table[0]) == (width >= 100)
        assert any(line.startswith(f"lightgcn/toys/{name}  ") for line in table)
        assert "relevant: every interaction" in out

    def test_runs_that_were_not_tested_are_listed(self, root, runs):
        path = make(root, "untested")
        content = json.loads((path / "metrics.json").read_text())
        del content["test"]
        (path / "metrics.json").write_text(json.dumps(content))
        assert row(runs("list"), "lightgcn/toys/untested")[-2:] == ["0.2000", "1.5"]

    def test_each_run_is_a_row_with_its_epochs_metrics_and_seconds(self, runs, root):
        make(root, "a", val=0.2222, test=0.1111)
        cells = row(runs("list"), "lightgcn/toys/a")
        assert cells[-5:] == ["3/7", "0.2222", "0.1111", "0.2500", "1.5"]
        assert "val/ndcg@10" in runs("list")

    def test_numbers_that_may_not_be_compared_stand_in_tables_of_their_own(self, runs, root):
        make(root, "a")
        make(root, "b", header={"split": "temporal 8:1:1"})
        make(root, "c", header={"sha256": "fedcba"})
        make(root, "d", header={"seed": 43})
        tables = [table for table in runs("list").split("\n\n") if "lightgcn/toys" in table]
        assert sorted(sorted(re.findall(r"toys/(\w)", table)) for table in tables) == [["a", "d"], ["b"], ["c"]]
        assert "may not be compared" in runs("list")

    def test_one_table_needs_no_warning(self, runs, root):
        make(root, "a")
        make(root, "b")
        assert "may not be compared" not in runs("list")

    def test_the_newest_stands_first_unless_sorted(self, runs, root):
        for name, test, age in (("a", 0.1, 3), ("b", 0.3, 2), ("c", 0.2, 1)):
            make(root, name, test=test, val=-test, age=age * DAY)

        def order(*args):
            return "".join(re.findall(r"toys/(\w)", runs("list", *args)))

        assert order() == "cba"
        assert order("--sort", "ndcg@10") == "bca"
        assert order("--sort", "val/ndcg@10") == "acb"

    def test_errors_are_sorted_from_the_smallest(self, runs, root):
        for name, error in (("a", 0.9), ("b", 0.7), ("c", 0.8)):
            make(root, name, "bias-mf", monitor="val/rmse", val=error)
        assert re.findall(r"toys/(\w)", runs("list", "--sort", "val/rmse")) == ["b", "c", "a"]

    def test_several_monitors_are_named_beside_their_values(self, runs, root):
        make(root, "a", "bias-mf", monitor="val/rmse", val=0.75)
        make(root, "b", val=0.125)
        out = runs("list")
        assert "rmse 0.7500" in out
        assert "ndcg@10 0.1250" in out

    def test_a_cross_validation_is_one_row_with_means_and_deviations(self, runs, root):
        make_folds(root)
        out = runs("list")
        assert "3 folds" in out
        assert "0.3125 ± 0.0078" in out
        assert "fold-1" not in out
        assert row(out, "lightgcn/toys/cv")[-1] == "4.5"

    def test_what_is_broken_off_says_how_to_go_on(self, runs, root):
        make(root, "a", finished=False)
        make(root, "b", finished=False, age=60)
        make_folds(root, done=False)
        out = runs("list")
        states = {line.split()[0]: line for line in out.splitlines() if line.startswith("lightgcn/toys/")}
        assert states["lightgcn/toys/a"].rstrip().endswith("broken off")
        assert "still training, or broken off just now" in states["lightgcn/toys/b"]
        assert "broken off after 1 fold" in states["lightgcn/toys/cv"]
        assert "go on by: recflow fit --resume runs/RUN" in out

    @pytest.mark.parametrize(
        "content",
        ['{"header"', "[]", "{}", '{"header": 3}', '{"header": {}, "monitor": "val/x", "val": {"x": "y"}}'],
    )
    def test_a_damaged_run_is_one_row_that_says_so(self, runs, root, content):
        (make(root, "a") / "metrics.json").write_text(content)
        make(root, "b")
        out = runs("list")
        assert re.search(r"toys/a .*damaged: ", out)
        assert row(out, "lightgcn/toys/b")[-1] == "1.5"

    def test_a_metric_that_is_no_number_makes_a_run_damaged(self, runs, root):
        path = make(root, "a")
        content = json.loads((path / "metrics.json").read_text())
        content["test"]["mrr@10"] = "high"
        (path / "metrics.json").write_text(json.dumps(content))
        assert re.search(r"toys/a .*damaged: metrics.json", runs("list"))

    def test_a_damaged_cross_validation_is_one_row(self, runs, root):
        (make_folds(root) / "cross_validation.json").write_text("{")
        assert re.search(r"toys/cv .*damaged: ", runs("list"))

    def test_plugin_and_data_choose(self, runs, root):
        make(root, "a")
        make(root, "b", "ease", header={"dataset": "games"})
        assert "ease" not in runs("list", "--plugin", "lightgcn")
        assert "lightgcn/" not in runs("list", "--data", "games")
        assert "there are: ease, lightgcn" in runs("list", "--plugin", "eas", code=2)
        assert "there are: games, toys" in runs("list", "--data", "toy", code=2)
        assert "did you mean ndcg@10?" in runs("list", "--sort", "ndgc@10", code=2)

    def test_an_empty_folder_says_how_to_begin_and_none_is_a_mistake(self, runs):
        assert "recflow fit --plugin lightgcn" in runs("list")
        assert "There is no folder nowhere" in runs("list", "--runs_dir", "nowhere", code=2)


class TestShow:
    def test_it_shows_configuration_metrics_baselines_and_files(self, runs, root):
        make(root, "a")
        out = runs("show", "lightgcn/toys/a")
        assert out == runs("show", "runs/lightgcn/toys/a")
        for said in (
            "best epoch 3 of 7 by val/ndcg@10",
            "num_layers 3, lr 0.01",
            "recflow 0.1.0",
            "ratio 8:1:1",
            "recflow serve --run runs/lightgcn/toys/a",
        ):
            assert said in out
        assert row(out, "checkpoints/") == ["checkpoints/", "1.0", "kB"]
        assert row(out, "popularity")[1] == "0.0500"
        assert [line.split()[1] for line in out.splitlines() if line.startswith("lightgcn ")][1:] == [
            "0.2000",
            "0.1000",
        ]

    def test_an_unfinished_run_says_how_to_go_on(self, runs, root):
        make(root, "a", finished=False)
        assert "recflow fit --resume runs/lightgcn/toys/a" in runs("show", "lightgcn/toys/a")

    def test_a_cross_validation_shows_means_and_its_folds(self, runs, root):
        make_folds(root)
        out = runs("show", "lightgcn/toys/cv")
        assert "0.3125 ± 0.0078" in out
        assert "recflow runs show runs/lightgcn/toys/cv/fold-2" in out

    def test_what_is_no_run_or_damaged_is_a_mistake(self, runs, root):
        path = make(root, "a")
        assert "nowhere is no run" in runs("show", "nowhere", code=2)
        (path / "metrics.json").write_text("{}")
        assert "is damaged" in runs("show", "lightgcn/toys/a", code=2)


class TestDiff:
    def test_settings_and_metrics_stand_side_by_side(self, runs, root):
        make(root, "a", test=0.125)
        make(root, "b", test=0.25, config={"model": {"num_layers": 2, "lr": 0.01}})
        out = runs("diff", "lightgcn/toys/a", "lightgcn/toys/b")
        assert row(out, "model.num_layers") == ["model.num_layers", "3", "2"]
        assert "model.lr" not in out
        assert "circumstances: no difference" in out
        assert row(out[out.index("test part") :], "ndcg@10") == ["ndcg@10", "0.1250", "0.2500", "+0.1250", "+100.0%"]

    @pytest.mark.parametrize("name", ["sha256", "filter", "split", "relevance", "candidates"])
    def test_numbers_of_other_protocols_are_not_put_side_by_side(self, runs, root, name):
        make(root, "a")
        make(root, "b", header={name: "another"})
        out = runs("diff", "lightgcn/toys/a", "lightgcn/toys/b")
        assert f"cannot be compared: they are not of the same {name}." in out
        assert "test part" not in out
        assert row(out, name)[-1] == "another"

    def test_a_seed_makes_numbers_differ_not_incomparable(self, runs, root):
        make(root, "a")
        make(root, "b", header={"seed": 7, "versions": {"recflow": "9"}})
        out = runs("diff", "lightgcn/toys/a", "lightgcn/toys/b")
        assert row(out, "seed") == ["seed", "42", "7"]
        assert row(out, "versions.recflow") == ["versions.recflow", "0.1.0", "9"]
        assert "test part" in out

    def test_an_unfinished_run_has_a_configuration_to_compare(self, runs, root):
        make(root, "a")
        make(root, "b", finished=False, config={"seed": 3})
        out = runs("diff", "lightgcn/toys/a", "lightgcn/toys/b")
        assert row(out, "seed") == ["seed", "42", "3"]
        assert "runs/lightgcn/toys/b has not finished" in out


def left(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("*/*/*/config.yaml"))


class TestClean:
    def test_without_a_selection_it_refuses(self, runs):
        assert "Say what may go" in runs("clean", code=2)
        assert "Say what may go" in runs("clean", "--yes", code=2)
        assert "not both" in runs("clean", "--broken", "--checkpoints", code=2)
        assert "such as 7d, got '7'" in runs("clean", "--older-than", "7", code=2)
        assert "at least 1" in runs("clean", "--keep-best", "0", code=2)

    def test_without_a_terminal_and_without_yes_it_only_shows(self, runs, root):
        make(root, "a", finished=False)
        out = runs("clean", "--broken")
        assert "Nothing was deleted: add --yes to delete 1 run" in out
        assert left(root) == ["a"]

    @pytest.mark.parametrize(("answer", "gone"), [("y", True), ("yes", True), ("n", False), ("", False), ("a", False)])
    def test_at_a_terminal_it_asks(self, runs, root, monkeypatch, answer, gone):
        make(root, "a", finished=False)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda *_: answer)
        runs("clean", "--broken")
        assert left(root) == ([] if gone else ["a"])

    def test_broken_takes_what_is_unfinished_or_damaged_and_not_still_training(self, runs, root):
        make(root, "finished")
        make(root, "unfinished", finished=False)
        (make(root, "damaged") / "metrics.json").write_text("{")
        make(root, "training", finished=False, age=60)
        out = runs("clean", "--broken", "--yes")
        assert left(root) == ["finished", "training"]
        assert "left alone" in out
        runs("clean", "--broken", "--older-than", "0m", "--yes")
        assert left(root) == ["finished"]

    def test_no_selection_takes_what_may_be_training_unasked(self, runs, root):
        make(root, "training", finished=False, age=60)
        make(root, "old", age=9 * DAY)
        runs("clean", "--older-than", "7d", "--yes")
        assert left(root) == ["training"]

    def test_conditions_must_all_fit(self, runs, root):
        make(root, "new", finished=False)
        make(root, "old", finished=False, age=9 * DAY)
        make(root, "old-finished", age=9 * DAY)
        runs("clean", "--broken", "--older-than", "1w", "--yes")
        assert left(root) == ["new", "old-finished"]

    def test_the_best_are_kept_by_validation_for_each_model_and_protocol(self, runs, root):
        for name, val, test in (("a", 0.3, 0.1), ("b", 0.1, 0.9), ("c", 0.2, 0.5)):
            make(root, name, val=val, test=test)
        make(root, "other-split", val=0.01, header={"split": "temporal"})
        make(root, "other-model", "ease", val=0.01)
        for name, error in (("low", 0.7), ("high", 0.9)):
            make(root, name, "bias-mf", monitor="val/rmse", val=error)
        make(root, "unfinished", finished=False)
        make_folds(root)
        runs("clean", "--keep-best", "1", "--yes")
        assert left(root) == ["a", "cv", "low", "other-model", "other-split", "unfinished"]

    def test_checkpoints_go_and_all_else_stays(self, runs, root):
        path, folds = make(root, "a"), make_folds(root)
        unfinished = make(root, "b", finished=False)
        other = path / "checkpoints" / "epoch=3.ckpt"
        other.write_text("mine")
        before = {found for found in root.rglob("*") if found.is_file()}
        out = runs("clean", "--checkpoints", "--yes")
        gone = before - {found for found in root.rglob("*") if found.is_file()}
        assert gone == {
            made / "checkpoints" / f"{name}.ckpt"
            for made in (path, *(folds / f"fold-{number}" for number in (1, 2, 3)))
            for name in ("best", "last")
        }
        assert (unfinished / "checkpoints" / "last.ckpt").is_file()
        assert "Deleted the checkpoints of 2 runs, 4.0 kB." in out
        assert "Nothing fits" in runs("clean", "--checkpoints", "--yes")

    def test_nothing_but_runs_is_ever_touched(self, runs, root):
        make(root, "a")
        make_folds(root)
        mine = [
            root / "notes.txt",
            root / "lightgcn" / "toys" / "no-run" / "data.csv",
            root / "lightgcn" / "toys" / "x",
        ]
        mine.append(root / "lightgcn" / "toys" / "cv" / "my-plot.png")
        for path in mine:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
        runs("clean", "--older-than", "0m", "--yes")
        assert sorted(path for path in root.rglob("*") if path.is_file()) == sorted(mine)

    def test_a_link_out_of_the_folder_is_not_followed(self, runs, root, tmp_path):
        elsewhere = make(tmp_path / "elsewhere", "precious")
        (root / "lightgcn").symlink_to(elsewhere.parents[1])
        assert "Nothing fits" in runs("clean", "--older-than", "0m", "--yes")
        assert (elsewhere / "config.yaml").is_file()

    def test_folders_left_empty_vanish_but_for_the_root(self, runs, root):
        make(root, "a")
        make_folds(root)
        runs("clean", "--older-than", "1d", "--yes")
        assert list(root.iterdir()) == []

    def test_it_says_what_it_frees(self, runs, root):
        path = make(root, "a")
        size = sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
        assert f"Deleted 1 run, {size / 1000:.1f} kB." in runs("clean", "--older-than", "1d", "--yes")
