"""Several processes: one run folder, one process's metrics to the last bit, one process's training."""

import csv
import subprocess
import sys

import polars as pl
import pytest
import torch

import recflow
from recflow.data.dataset import config_of, prepare
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig, evaluate

SETTINGS = ["--plugin", "lightgcn", "--data", "sample:ratings=6000", "--trainer.max_epochs", "4"]
SETTINGS += ["--model.embedding_dim", "16", "--data.batch_size", "500", "--trainer.accelerator", "cpu"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def fit(root, name, *settings):
    command = [sys.executable, "-m", "recflow", "fit", *SETTINGS, "--runs_dir", str(root), "--name", name, *settings]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, settings in (("one", []), ("two", TWO)):
        done = fit(root, name, *settings)
        assert done.returncode == 0, done.stderr
        if settings:
            (root / "output.txt").write_text(done.stdout)
    folder = root / "lightgcn" / "sample"
    return recflow.load_run(folder / "one"), recflow.load_run(folder / "two"), root


def test_two_processes_leave_one_run(runs):
    _, two, root = runs
    assert sorted(path.name for path in two.path.parent.iterdir()) == ["one", "two"]
    assert {path.name for path in two.path.iterdir()} == {
        "bundle", "checkpoints", "config.yaml", "curves.png", "header.json", "history.csv", "metrics.json",
        "per_item.parquet", "per_user.parquet", "plots", "tensorboard", "user_groups.parquet",
    }  # fmt: skip
    assert (root / "output.txt").read_text().count("test part of sample") == 1


def test_two_processes_train_as_one_does(runs):
    one, two, _ = runs
    histories = [list(csv.DictReader((run.path / "history.csv").open())) for run in (one, two)]
    for alone, shared in zip(*histories, strict=True):
        assert float(shared["train/loss"]) == pytest.approx(float(alone["train/loss"]), rel=1e-4)
        assert float(shared["val/loss"]) == pytest.approx(float(alone["val/loss"]), rel=1e-4)
    factors = [run.recommender.ranker.item_factors for run in (one, two)]
    torch.testing.assert_close(factors[0], factors[1], rtol=1e-2, atol=2e-5)


def test_what_two_processes_measure_is_what_one_measures_to_the_last_bit(runs):
    _, two, _ = runs
    data = prepare(config_of(two.config["data"]))
    alone = evaluate(two.recommender.ranker, data, "test", "ranking", MetricsConfig(), keep_per_user=True)
    assert alone.metrics == two.metrics["test"]
    assert {"coverage@10", "gini@10", "ndcg@10"} <= alone.metrics.keys()
    assert (alone.users, alone.skipped) == (two.metrics["test_users"], two.metrics["test_users_without_relevant"])
    assert alone.per_user.equals(pl.read_parquet(two.path / "per_user.parquet"))


def test_the_validation_of_two_processes_is_that_of_one(runs):
    _, two, _ = runs
    data = prepare(config_of(two.config["data"]))
    alone = evaluate(two.recommender.ranker, data, "val", "ranking", MetricsConfig())
    measured = two.metrics["val"]
    for name, value in alone.metrics.items():
        assert measured[name] == pytest.approx(value, abs=1e-6)  # Lightning logs in single precision


def test_a_closed_form_model_says_that_it_runs_in_one(tmp_path):
    with pytest.raises(RecflowError, match="ease is solved, not trained by gradients: it runs in one process"):
        recflow.fit("ease", trainer={"devices": 2, "accelerator": "cpu", "strategy": "ddp"}, runs_dir=str(tmp_path))
    assert not list(tmp_path.glob("*/*/*"))


def test_processes_that_could_not_return_their_model_are_refused(tmp_path):
    trainer = {"devices": 2, "accelerator": "cpu", "strategy": "ddp_spawn"}
    with pytest.raises(RecflowError, match=r"by --trainer\.strategy ddp"):
        recflow.fit("lightgcn", trainer=trainer, runs_dir=str(tmp_path))
    assert not list(tmp_path.glob("*/*/*"))


def test_a_mistake_is_told_once_by_two_processes(tmp_path):
    done = fit(tmp_path, "wrong", *TWO, "--model.num_layers", "0")
    assert done.returncode == 2
    assert done.stderr.count("recflow: error") == 1
