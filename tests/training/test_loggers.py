"""Every logger that can be named, run once for real."""

import csv

import pytest

import recflow
from recflow.errors import RecflowError


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logged")
    run = recflow.fit(
        "lightgcn",
        data="sample:ratings=3000",
        trainer={"max_epochs": 3},
        loggers=["tensorboard", "csv", "mlflow", "wandb"],
        runs_dir=str(folder),
        name="all",
    )
    return folder, run


def test_the_csv_logger_writes_every_epoch_and_the_test_metrics(logged):
    _, run = logged
    with (run.path / "csv" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len([row for row in rows if row["val/ndcg@10"]]) == 3
    assert [float(row["test/ndcg@10"]) for row in rows if row["test/ndcg@10"]] == [
        pytest.approx(run.metrics["test"]["ndcg@10"])
    ]


def test_mlflow_files_the_run_with_settings_and_metrics(logged):
    from mlflow import MlflowClient

    folder, run = logged
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lightgcn")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "all"
    assert found.info.status == "FINISHED"
    assert found.data.metrics["test/ndcg10"] == pytest.approx(run.metrics["test"]["ndcg@10"])
    assert found.data.params["embedding_dim"] == "64"
    assert len(client.get_metric_history(found.info.run_id, "val/ndcg10")) == 3


def test_wandb_keeps_the_run_offline(logged):
    _, run = logged
    (record,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert record.stat().st_size > 1000


def test_tensorboard_is_written_as_ever(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, run = logged
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert len(events.Scalars("val/ndcg@10")) == 3


@pytest.mark.parametrize("loggers", [["csv", "csv"], ["paper"]])
def test_loggers_must_be_distinct_and_known(loggers, tmp_path):
    with pytest.raises(RecflowError, match="loggers"):
        recflow.fit("popularity", loggers=loggers, runs_dir=str(tmp_path))
    assert not list(tmp_path.glob("*/*/*"))
