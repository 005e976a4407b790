"""Cross-validation as one command: every fold tested once, means and deviations, no work done twice."""

import json
import os
import statistics

import polars as pl
import pytest

import recflow
from recflow.cli import main
from recflow.errors import RecflowError
from recflow.runs import newest_run

DATA = {"name": "sample:ratings=3000", "folds": 3}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return recflow.cross_validate("bias-mf", data=DATA, trainer={"max_epochs": 3}, runs_dir=str(root), name="cv")


def test_every_fold_is_a_whole_run_of_its_own(done):
    assert [run.path.name for run in done.runs] == ["fold-1", "fold-2", "fold-3"]
    assert [run.config["data"]["fold"] for run in done.runs] == [1, 2, 3]
    assert all(run.finished for run in done.runs)
    assert done.runs[1].recommend(user=1, k=3).height == 3


def test_the_folds_test_every_rating_once(done):
    tested = [run.metrics["header"]["interactions"]["test"] for run in done.runs]
    assert tested == [1000, 1000, 1000]
    assert "k-fold, part 2 of 3 tested" in done.runs[1].metrics["header"]["split"]


def test_means_and_deviations_are_those_of_the_folds(done):
    values = [run.metrics["test"]["rmse"] for run in done.runs]
    assert len(set(values)) == 3
    assert done.means["bias-mf"]["rmse"] == pytest.approx(statistics.fmean(values))
    assert done.deviations["bias-mf"]["rmse"] == pytest.approx(statistics.stdev(values))
    popular = [run.metrics["baselines"]["popularity"]["ndcg@10"] for run in done.runs]
    assert done.means["popularity"]["ndcg@10"] == pytest.approx(statistics.fmean(popular))
    written = json.loads((done.path / "cross_validation.json").read_text())
    assert written["mean"] == done.means["bias-mf"]
    assert written["folds"] == ["fold-1", "fold-2", "fold-3"]


def test_one_fold_can_be_fitted_alone_to_the_same_numbers(done, tmp_path):
    alone = recflow.fit("bias-mf", data={**DATA, "fold": 2}, trainer={"max_epochs": 3}, runs_dir=str(tmp_path))
    assert alone.metrics["test"] == done.runs[1].metrics["test"]


def test_a_broken_cross_validation_goes_on_where_it_was(done, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--plugin", "bias-mf", "--data", DATA["name"], "--data.folds", "3", "--trainer.max_epochs", "3"]
    from recflow.training import folds

    real = folds.run_fit

    def breaks_in_the_second(configuration, resumed, console, folder):
        if folder.name == "fold-2":
            raise KeyboardInterrupt
        return real(configuration, resumed, console, folder)

    monkeypatch.setattr(folds, "run_fit", breaks_in_the_second)
    assert main([*arguments, "--name", "broken"]) == 130
    assert "recflow fit --resume runs/bias-mf/sample/broken" in capsys.readouterr().out
    first = tmp_path / "runs/bias-mf/sample/broken/fold-1/metrics.json"
    written = first.stat().st_mtime_ns
    monkeypatch.setattr(folds, "run_fit", real)
    assert main(["fit", "--resume", "runs/bias-mf/sample/broken"]) == 0
    assert first.stat().st_mtime_ns == written
    summary = json.loads((tmp_path / "runs/bias-mf/sample/broken/cross_validation.json").read_text())
    assert summary["mean"]["rmse"] == pytest.approx(done.means["bias-mf"]["rmse"])
    assert "mean ± standard deviation over 3 folds" in capsys.readouterr().out
    assert newest_run("runs").path.name == "fold-3"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"folds": 1}, "data.folds must be at least 2, got 1"),
        ({"folds": 3, "split": "ratio"}, "data.folds goes with split k-fold or files, got split ratio"),
        ({"split": "k-fold"}, "Split k-fold needs data.folds"),
        ({"folds": 3, "split": "files"}, "brings no folds|brings 0 folds"),
    ],
)
def test_folds_that_cannot_be_are_refused_and_leave_nothing(data, message, tmp_path):
    with pytest.raises(RecflowError, match=message):
        recflow.cross_validate("popularity", data={"name": "sample", **data}, runs_dir=str(tmp_path))
    assert not list(tmp_path.glob("*/*/*"))


def test_fit_points_to_cross_validate(tmp_path):
    with pytest.raises(RecflowError, match=r"use recflow\.cross_validate"):
        recflow.fit("popularity", data=DATA, runs_dir=str(tmp_path))


@pytest.mark.data
def test_the_given_folds_of_ml_100k_are_u1_to_u5(tmp_path):
    data = {"name": "ml-100k", "split": "files", "folds": 5, "val_fraction": 0.0}
    done = recflow.cross_validate("popularity", data=data, runs_dir=str(tmp_path))
    for fold, run in enumerate(done.runs, start=1):
        path = f"{os.environ['RECFLOW_DATA_DIR']}/ml-100k/u{fold}.test"
        schema = {"user": pl.Int64, "item": pl.Int64, "rating": pl.Int64, "time": pl.Int64}
        given = pl.read_csv(path, separator="\t", has_header=False, schema=schema)
        assert run.metrics["header"]["interactions"]["test"] == given.height == 20_000
        assert run.metrics["test_users"] == given["user"].n_unique()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": {"devices": 2}}, "one process"),
        ({"init_from": "runs/some"}, "start from scratch"),
    ],
)
def test_folds_take_neither_processes_nor_a_start(settings, message, tmp_path):
    with pytest.raises(RecflowError, match=message):
        recflow.cross_validate("lightgcn", data=DATA, runs_dir=str(tmp_path), **settings)
    assert not list(tmp_path.glob("*/*/*"))


def test_a_cross_validation_cannot_be_changed_on_its_way(done):
    with pytest.raises(RecflowError, match=r"goes on as it was begun; got --trainer\.max_epochs=9"):
        recflow.cross_validate(resume=done.path, trainer={"max_epochs": 9})
