"""Comparisons: what is fitted, what is taken as it is, what the table says, and what is refused."""

import json
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

import recflow
from recflow.cli import main
from recflow.errors import RecflowError
from recflow.evaluation.compare import compare, compare_runs
from recflow.evaluation.leaderboard import _differences
from recflow.evaluation.publish import publish
from recflow.evaluation.significance import PerUser

DATA = "sample:ratings=4000"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    settings = {"trainer": {"max_epochs": 3}}
    return compare(["bpr-mf", "ease"], DATA, seeds=[1, 2], name="first", runs_dir=root, **settings)


def test_popularity_random_and_item_knn_stand_beside(done):
    assert {row.name for row in done.leaderboard.finished} == {"bpr-mf", "ease", "popularity", "random", "item-knn"}
    assert all(row.seeds == [1, 2] for row in done.leaderboard.finished)


def test_rows_are_ordered_and_averaged_over_the_seeds(done):
    values = [row.means["ndcg@10"] for row in done.leaderboard.finished]
    assert values == sorted(values, reverse=True)
    row = next(row for row in done.leaderboard.finished if row.name == "bpr-mf")
    each = [run.metrics["test"]["ndcg@10"] for run in row.runs]
    assert each[0] != each[1]
    assert row.means["ndcg@10"] == pytest.approx(statistics.fmean(each))
    assert row.deviations["ndcg@10"] == pytest.approx(statistics.stdev(each))


def test_intervals_hold_the_values_and_coverage_has_none(done):
    for row in done.leaderboard.finished:
        for name in ("ndcg@10", "recall@5", "mrr@20"):
            low, high = done.leaderboard.intervals[row.name][name]
            assert low < row.means[name] < high
        assert "coverage@10" in row.means
        assert "coverage@10" not in done.leaderboard.intervals[row.name]


def test_differences_are_those_of_the_users_own_values(done):
    board = done.leaderboard
    found = board.differences["ease", "random"]
    assert found.told
    assert found.p < 0.01
    a, b = (next(row for row in board.finished if row.name == name) for name in ("ease", "random"))
    assert found.by == pytest.approx(a.means["ndcg@10"] - b.means["ndcg@10"])
    assert board.differences.keys() == {
        (a.name, b.name) for place, a in enumerate(board.finished) for b in board.finished[place + 1 :]
    }


def test_two_models_that_are_all_but_equal_cannot_be_told_apart(done, tmp_path):
    twin = recflow.fit("ease", DATA, model={"reg": 250.001}, seed=1, runs_dir=str(tmp_path))
    board = compare_runs([done.path / "ease-1", twin.path, done.path / "random-1"])
    a, b = (row.name for row in board.finished[:2])
    assert board.differences[a, b].p == 1.0
    assert f"No difference in ndcg@10 can be told between {a} and {b} (p = 1.000)." in board.sentences()
    assert "One seed each" in board.sentences()[-1]


def test_runs_that_differ_by_their_seed_are_one_row(done):
    twins = compare_runs([done.path / "ease-1", done.path / "ease-2", done.path / "random-1", done.path / "random-2"])
    assert [row.seeds for row in twins.finished] == [[1, 2], [1, 2]]
    assert "One seed each" not in " ".join(twins.sentences())


def test_users_whom_only_one_model_has_a_value_for_do_not_count():
    known = PerUser.mean(np.array([0.1, 0.2, np.nan, 0.4]))
    other = PerUser.mean(np.array([0.3, np.nan, 0.9, 0.1]))
    assert _differences(known, other) == pytest.approx([-0.2, 0.0, 0.0, 0.3])
    twice = PerUser(np.array([0.2, 0.2]), np.array([2.0, 1.0]))  # two runs: a user's mean counts
    assert _differences(twice, PerUser.mean(np.array([0.1, 0.1]))) == pytest.approx([0.0, 0.1])


def test_a_part_of_another_version_is_not_taken(done, tmp_path):
    folder = tmp_path / "compare" / "first"
    shutil.copytree(done.path / "popularity-1", folder / "popularity-1")
    content = json.loads((folder / "popularity-1/metrics.json").read_text())
    content["header"]["versions"]["recflow"] = "0.0.1"
    (folder / "popularity-1/metrics.json").write_text(json.dumps(content))
    with pytest.raises(RecflowError, match=r"recflow 0\.0\.1"):
        compare(["popularity"], DATA, [1], name="first", runs_dir=tmp_path, baselines=False, trainer={"max_epochs": 3})


def test_models_without_the_metric_stand_below_and_are_not_tested(tmp_path):
    settings = {"runs_dir": tmp_path, "trainer": {"max_epochs": 2}, "metric": "rmse"}
    board = compare(["bias-only", "bias-mf"], DATA, [1], **settings).leaderboard
    assert {row.name for row in board.ranked} == {"bias-only", "bias-mf", "item-knn-rating"}
    assert [row.name for row in board.finished[:3]] == [row.name for row in board.ranked]
    assert len(board.differences) == 3
    assert publish(board, tmp_path / "out")[0].is_file()


def test_what_is_finished_is_not_fitted_again_and_what_is_missing_is(done, tmp_path, monkeypatch):
    import shutil

    folder = tmp_path / "compare" / "first"
    shutil.copytree(done.path, folder)
    shutil.rmtree(folder / "bpr-mf-2")
    from recflow.evaluation import parts

    fitted = []
    real = parts.run_fit
    monkeypatch.setattr(parts, "run_fit", lambda *args: (fitted.append(args[3]), real(*args))[1])
    again = compare(["bpr-mf", "ease"], DATA, [1, 2], name="first", runs_dir=tmp_path, trainer={"max_epochs": 3})
    assert fitted == [folder / "bpr-mf-2"]
    before, after = ({row.name: row.means for row in made.leaderboard.finished} for made in (done, again))
    assert before == after  # and to the same numbers


def test_other_settings_under_the_same_name_are_refused(done):
    with pytest.raises(RecflowError, match="fitted with other settings"):
        compare(
            ["bpr-mf"],
            DATA,
            [1],
            name="first",
            runs_dir=done.path.parents[1],
            baselines=False,
            trainer={"max_epochs": 2},
        )


def test_a_failing_model_is_one_failed_row(tmp_path, monkeypatch):
    from recflow_item_item.linear_autoencoder import EASE

    def explode(self):
        raise FloatingPointError("no inverse")

    monkeypatch.setattr(EASE, "sweep", explode)
    board = compare(["ease", "popularity"], DATA, [1], runs_dir=tmp_path, baselines=False).leaderboard
    assert [row.name for row in board.finished] == ["popularity"]
    assert [row.name for row in board.failed] == ["ease"]
    assert "FloatingPointError: no inverse" in board.failed[0].problem
    story = next((tmp_path / "compare").rglob("*.error.txt")).read_text()
    assert "Traceback" in story
    assert "no inverse" in story


def test_files_say_what_the_table_says(done, tmp_path):
    written = publish(done.leaderboard, tmp_path)
    assert {path.name for path in written} == {
        *(f"leaderboard.{end}" for end in ("html", "md", "csv", "parquet")),
        *("intervals.png", "costs.png", "differences.png"),
    }
    table = pl.read_parquet(tmp_path / "leaderboard.parquet")
    row = done.leaderboard.finished[0]
    line = table.filter((pl.col("model") == row.name) & (pl.col("metric") == "ndcg@10")).to_dicts()[0]
    assert line["value"] == row.means["ndcg@10"]
    assert (line["low"], line["high"]) == done.leaderboard.intervals[row.name]["ndcg@10"]
    assert pl.read_csv(tmp_path / "leaderboard.csv").height == table.height
    page = (tmp_path / "leaderboard.html").read_text()
    assert f"{row.means['ndcg@10']:.4f}" in page
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")  # nothing is loaded from anywhere
    assert row.name in (tmp_path / "leaderboard.md").read_text()


class TestRefusals:
    def test_rows_of_different_rows(self, done, tmp_path):
        other = recflow.fit("popularity", data={"name": DATA, "seed": 5}, runs_dir=str(tmp_path))
        with pytest.raises(RecflowError, match="not of the same split"):
            compare_runs([done.path / "ease-1", other.path])

    def test_different_cut_offs(self, done, tmp_path):
        other = recflow.fit("popularity", data=DATA, metrics={"ks": [10]}, runs_dir=str(tmp_path))
        with pytest.raises(RecflowError, match="not of the same cut-offs"):
            compare_runs([done.path / "ease-1", other.path])

    def test_runs_that_were_not_tested(self, tmp_path):
        run = recflow.fit("popularity", data=DATA, test=False, runs_dir=str(tmp_path))
        with pytest.raises(RecflowError, match="--no-test"):
            compare_runs([run.path])

    def test_different_numbers_of_seeds(self, done):
        with pytest.raises(RecflowError, match="2 runs"):
            compare_runs([done.path / "ease-1", done.path / "ease-2", done.path / "random-1"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "either --plugins"),
            (["--plugins", "eese"], "ease"),
            (["--plugins", "ease", "--runs", "a"], "either --plugins"),
            (["--plugins", "ease", "--seeds", "1,x"], "whole numbers"),
            (["--plugins", "ease", "--seeds", "1,1"], "different whole numbers"),
            (["--plugins", "ease,ease"], "named twice"),
            (["--plugins", ","], "Name the models"),
            (["--plugins", "ease", "--name", "../x"], "name is made of"),
            (["--plugins", "ease", "--model.rag", "3"], "rag"),
            (["--plugins", "ease", "--seeds"], "expected one argument"),
            (["--plugins", "no.yaml"], "cannot be read"),
            (["--plugins", "ease", "--data", "ml-1x"], "ml-1"),
            (["--plugins", "ease", "stray"], "stray"),
            (["--runs", "nowhere"], "nowhere"),
            (["--plugins", "ease", "--plugin", "random"], "use --plugins"),
            (["--plugins", "ease", "--seed", "3"], "use --seeds"),
            (["--plugins", "ease", "--config", "x.yaml"], "use --plugins FILE.yaml"),
            (["--plugins", "ease", "--test", "false"], "no --test"),
            (["--plugins", "ease", "--no-test"], "leave out --no-test"),
            (["--plugins", "ease", "--data.folds", "3"], "leave out --data.folds"),
            (["--plugins", "ease", "--metric", "ndgc@10"], "did you mean ndcg@10"),
            (["--plugins", "ease", "--runs_dir", "/proc/none"], "cannot be made"),
            (["--plugins", "ease", "--out", "/proc/none"], "cannot be made"),
            (["--plugins", "ease,ials", "--model.alpha", "3"], "ease: "),
        ],
    )
    def test_mistakes_are_one_line_and_leave_nothing(self, arguments, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["compare", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert message in said
        assert not list(tmp_path.iterdir())

    def test_an_unknown_metric(self, done):
        with pytest.raises(RecflowError, match=r"No model has ndcg@11; there are: .*ndcg@10"):
            compare_runs([done.path / "ease-1", done.path / "random-1"], metric="ndcg@11")
        with pytest.raises(RecflowError, match="no mean over users"):
            compare_runs([done.path / "ease-1", done.path / "random-1"], metric="coverage@10")


def test_each_seed_may_split_anew(tmp_path):
    board = compare(["popularity"], DATA, [1, 2], runs_dir=tmp_path, baselines=False, resplit=True).leaderboard
    splits = {run.metrics["header"]["split"] for run in board.finished[0].runs}
    assert len(splits) == 2
    assert "1 more split" in " ".join(board.protocol())
    again = compare(["popularity"], DATA, [1, 2], runs_dir=tmp_path, baselines=False, resplit=True).leaderboard
    assert again.finished[0].means == board.finished[0].means


def test_rating_models_are_compared_by_their_errors(tmp_path):
    board = compare(
        ["bias-mf", "bias-only"], DATA, [1], runs_dir=tmp_path, baselines=False, trainer={"max_epochs": 3}
    ).leaderboard
    assert board.metric == "rmse"
    assert [row.means["rmse"] for row in board.finished] == sorted(row.means["rmse"] for row in board.finished)
    low, high = board.intervals["bias-mf"]["rmse"]
    assert low < next(row for row in board.finished if row.name == "bias-mf").means["rmse"] < high
    row = board.finished[0]
    kept = row.per_user(row.users)["rmse"]
    assert kept.value == pytest.approx(row.means["rmse"], rel=1e-5)
    assert np.isfinite(next(iter(board.differences.values())).p)


def test_models_of_ratings_beside_baselines_are_ordered_by_their_errors(tmp_path):
    board = compare(["bias-only"], DATA, [1], runs_dir=tmp_path, trainer={"max_epochs": 2}).leaderboard
    assert board.metric == "rmse"
    assert {"popularity", "random", "item-knn"} == {row.name for row in board.finished[len(board.ranked) :]}


def test_the_recipe_of_a_dataset_is_taken_and_named(tmp_path, monkeypatch):
    from recflow.evaluation import compare as module

    recipe = tmp_path / "sample.yaml"
    recipe.write_text("plugin: ease\nmodel:\n  reg: 123.0\ndata:\n  batch_size: 77\n", encoding="utf-8")
    monkeypatch.setattr(module, "find_recipe", lambda plugin, dataset: recipe if plugin == "ease" else None)
    board = compare(["ease"], DATA, [1], runs_dir=tmp_path, baselines=False).leaderboard
    run = board.finished[0].runs[0]
    assert run.config["model"]["reg"] == 123.0
    assert run.config["data"]["batch_size"] == 77
    assert board.finished[0].recipe == "ease/sample.yaml"
    changed = compare(["ease"], DATA, [1], name="c", runs_dir=tmp_path, baselines=False, **{"model.reg": 7}).leaderboard
    assert changed.finished[0].recipe == "ease/sample.yaml, model.reg 7"
    plain = compare(["ease"], DATA, [1], name="plain", runs_dir=tmp_path, baselines=False, recipes=False).leaderboard
    assert plain.finished[0].runs[0].config["model"]["reg"] != 123.0
    assert json.loads((run.path / "metrics.json").read_text())["plugin"] == "ease"


def test_a_killed_comparison_goes_on_to_the_numbers_of_an_unbroken_one(tmp_path):
    arguments = [
        "--plugins",
        "bpr-mf",
        "--data",
        DATA,
        "--no-baselines",
        "--trainer.max_epochs",
        "60",
        "--patience",
        "60",
    ]
    command = [sys.executable, "-m", "recflow", "compare", *arguments, "--seeds", "1"]
    process = subprocess.Popen([*command, "--name", "broken"], cwd=tmp_path, stdout=subprocess.DEVNULL)
    last = tmp_path / "runs/compare/broken/bpr-mf-1/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    folder = last.parents[1]
    assert last.is_file()
    assert not (folder / "metrics.json").exists()
    settings = {"trainer": {"max_epochs": 60}, "patience": 60, "baselines": False, "runs_dir": tmp_path / "runs"}
    went_on = compare(["bpr-mf"], DATA, [1], name="broken", **settings).leaderboard.finished[0]
    unbroken = compare(["bpr-mf"], DATA, [1], name="whole", **settings).leaderboard.finished[0]
    assert went_on.runs[0].path == folder
    assert went_on.means == unbroken.means
    assert len(pl.read_csv(folder / "history.csv")) == 60
