"""What may go wrong between a run and what follows it: nothing is lost, and nothing goes on under other data."""

import csv
import json
import shutil

import polars as pl
import pytest

import recflow
from recflow.cli import main
from recflow.data.sample import generate
from recflow.errors import RecflowError

QUICK = {"model": {"embedding_dim": 8}, "data": "sample:ratings=3000"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def fit(root, name, epochs=2, plugin="lightgcn", **settings):
    settings = {**QUICK, **settings} if plugin == "lightgcn" else {"data": QUICK["data"], **settings}
    return recflow.fit(plugin, trainer={"max_epochs": epochs}, runs_dir=str(root), name=name, **settings)


def again(run, epochs, **settings):
    return recflow.fit(resume=run.path, trainer={"max_epochs": epochs}, **settings)


def test_a_finished_run_without_checkpoints_is_refused_and_left_whole(root):
    run = fit(root, "a")
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(RecflowError, match="no checkpoint to go on from"):
        again(run, 4)
    assert recflow.load_run(run.path).recommend(user=1, k=2).height == 2


def test_a_resumed_run_that_fails_at_once_is_not_deleted(root):
    run = fit(root, "a")
    (run.path / "metrics.json").unlink()  # as if it had been killed
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(RecflowError):
        recflow.fit(resume=run.path, trainer={"accelerator": "nosuch"})
    assert (run.path / "bundle").is_dir()


def test_data_that_changed_meanwhile_are_refused(root, tmp_path):
    path = tmp_path / "grow.csv"
    ratings = generate(3_000).ratings
    ratings.write_csv(path)
    run = fit(root, "a", data=str(path))
    ratings.head(2_500).write_csv(path)
    with pytest.raises(RecflowError, match=r"no longer what .* was begun on: sha256"):
        again(run, 4)
    assert run.finished


def test_a_run_that_was_moved_remembers_its_best_epoch(root, tmp_path):
    whole = fit(root, "whole", 30, patience=30)
    part = fit(root, "part", 15, patience=30)
    moved = tmp_path / "elsewhere"
    shutil.move(part.path, moved)
    resumed = again(recflow.load_run(moved), 30)
    assert resumed.metrics["best_epoch"] == whole.metrics["best_epoch"]
    assert resumed.metrics["test"] == whole.metrics["test"]


def test_more_patience_counts_in_a_resumed_run(root):
    run = fit(root, "a", 40, patience=1, model={"embedding_dim": 8, "lr": 0.05})
    stopped = run.metrics["epochs"]
    assert stopped < 40
    assert again(run, 40, patience=40).metrics["epochs"] == 40


def test_a_start_is_not_forgotten_when_killed_before_the_first_checkpoint(root):
    earlier = fit(root, "earlier", 25)
    warm = fit(root, "warm", 1, init_from=earlier.path)
    killed = fit(root, "killed", 1, init_from=earlier.path)
    (killed.path / "metrics.json").unlink()
    shutil.rmtree(killed.path / "checkpoints")
    assert recflow.fit(resume=killed.path).metrics["test"] == warm.metrics["test"]


def test_the_header_names_the_start_and_what_it_knew(root):
    earlier = fit(root, "earlier", 2)
    warm = fit(root, "warm", 2, init_from=earlier.path)
    assert earlier.metrics["header"]["start"] == "scratch"
    tested = warm.metrics["header"]["interactions"]["test"]
    assert warm.metrics["header"]["start"].endswith(f"{tested:,} of {tested:,} test rows were in its data")


def test_a_start_on_another_split_of_the_same_data_is_refused(root):
    earlier = fit(root, "earlier", 2)
    with pytest.raises(RecflowError, match="another split of the same data"):
        fit(root, "warm", 2, init_from=earlier.path, data={"name": QUICK["data"], "seed": 7})


def test_a_name_takes_the_place_of_a_configured_path(root, tmp_path, capsys):
    generate(2_000).ratings.write_csv(tmp_path / "own.csv")
    (tmp_path / "own.yaml").write_text(f"plugin: popularity\ndata:\n  path: {tmp_path / 'own.csv'}\n")
    arguments = ["--config", str(tmp_path / "own.yaml"), "--data", "sample:ratings=1000", "--runs_dir", str(root)]
    assert main(["fit", *arguments]) == 0
    assert "popularity on sample" in capsys.readouterr().out


def test_the_plugin_on_the_command_line_is_the_one_that_is_recorded(root, tmp_path):
    (tmp_path / "e.yaml").write_text("plugin: popularity\n")
    arguments = ["fit", "--plugin", "random", "--config", str(tmp_path / "e.yaml"), "--data", "sample:ratings=1000"]
    assert main([*arguments, "--runs_dir", str(root), "--name", "a"]) == 0
    run = recflow.load_run(root / "random" / "sample" / "a")
    assert (run.config["plugin"], run.metrics["plugin"]) == ("random", "random")


def test_a_file_may_not_change_a_resumed_run(root, tmp_path):
    run = fit(root, "a")
    (tmp_path / "c.yaml").write_text("seed: 7\n")
    assert main(["fit", "--resume", str(run.path), "-c", str(tmp_path / "c.yaml")]) == 2


def test_a_metric_that_nobody_can_be_measured_by_is_refused(root, tmp_path):
    table = generate(3_000).ratings.sort("time")
    late = pl.int_range(pl.len()) >= 2_000
    table.with_columns(rating=pl.when(late).then(1.0).otherwise(5.0)).write_csv(tmp_path / "late.csv")
    with pytest.raises(RecflowError, match=r"val/ndcg@10 is not a number"):
        fit(root, "a", data={"path": str(tmp_path / "late.csv"), "split": "temporal", "relevant_from": 4})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainer": {"max_steps": 5}}, "counted in whole epochs"),
        ({"trainer": {"limit_val_batches": 0}}, "counted in whole epochs"),
        ({"seed": -1}, "seed must be from 0"),
        ({"name": ".hidden"}, "A run's name"),
        ({"data": {"name": "sample", "fold": 3}}, "brings no folds"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings, message, root):
    with pytest.raises(RecflowError, match=message):
        recflow.fit("lightgcn", **{"runs_dir": str(root), **settings})


def test_what_nobody_measures_is_left_out_and_the_files_are_strict_json(root, tmp_path):
    run = fit(root, "a", 1, plugin="popularity", data={"name": QUICK["data"], "ratios": [0.9, 0.1, 0.0]})
    assert "test" not in run.metrics
    for path in (run.path / "metrics.json", run.path / "bundle" / "bundle.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert list(csv.DictReader((run.path / "history.csv").open()))


def test_someone_who_has_rated_everything_stops_no_model(root, tmp_path):
    rows = [(user, item, 5.0, 100 * user + item) for user in range(12) for item in range(10) if user == 0 or item % 3]
    pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "time"], orient="row").write_csv(tmp_path / "own.csv")
    run = fit(root, "a", 1, plugin="popularity", data={"path": str(tmp_path / "own.csv"), "ratios": [0.7, 0.3, 0.0]})
    assert run.finished


def test_a_rating_at_the_end_of_an_uneven_scale_is_accepted(root, tmp_path):
    frame = generate(2_000).ratings.with_columns(rating=pl.col("rating").cast(pl.Float64) + 0.1)
    frame.write_csv(tmp_path / "own.csv")
    run = fit(root, "a", 1, plugin="popularity", data=str(tmp_path / "own.csv"))
    low, high = run.recommender.about["rating_scale"]
    assert (low, high) == (0.6, 5.1)
    item = run.recommender.catalog.item_ids()[0]
    assert run.recommend(like={item: 5.1}, k=1).height == 1
