"""The one fit, end to end, on a small sample."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import torch
from rich.console import Console

import recflow
from recflow.data.dataset import config_of, prepare
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.runs import lower_is_better

SMALL = "sample:ratings=6000"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(root):
    return recflow.fit(
        "lightgcn",
        data=SMALL,
        model={"embedding_dim": 16},
        trainer={"max_epochs": 12},
        name="first",
        runs_dir=str(root),
    )


def fit_again(root, **settings):
    return recflow.fit("lightgcn", data=SMALL, model={"embedding_dim": 16}, runs_dir=str(root), **settings)


def without_times(metrics):
    kept = {name: value for name, value in metrics.items() if "seconds" not in name}
    return json.dumps(kept, sort_keys=True)


class TestRunFolder:
    def test_it_is_complete(self, run):
        assert {path.name for path in run.path.iterdir()} == {
            "bundle", "checkpoints", "config.yaml", "curves.png", "header.json", "history.csv", "metrics.json",
            "per_item.parquet", "per_user.parquet", "plots", "tensorboard", "user_groups.parquet",
        }  # fmt: skip
        assert {path.name for path in (run.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
        assert (run.path / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_its_header_says_how_the_numbers_came_about(self, run):
        header = run.metrics["header"]
        assert header["dataset"] == "sample"
        assert len(header["sha256"]) == 64
        assert header["seed"] == 42
        assert header["device"] == "cpu"
        assert header["split"].startswith("ratio 8:1:1")
        assert header["relevance"] == "every interaction"
        assert header["versions"]["torch"] == torch.__version__
        assert sum(header["interactions"].values()) == 6000

    def test_its_history_has_every_epoch_with_losses_and_metrics(self, run):
        rows = list(csv.DictReader((run.path / "history.csv").open()))
        assert [int(float(row["epoch"])) for row in rows] == list(range(1, 13))
        assert all(float(row["train/loss"]) > 0 and float(row["val/loss"]) > 0 for row in rows)
        assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
        best = max(rows, key=lambda row: float(row["val/ndcg@10"]))
        assert int(float(best["epoch"])) == run.metrics["best_epoch"]
        assert run.metrics["val"]["ndcg@10"] == pytest.approx(float(best["val/ndcg@10"]))

    def test_per_user_values_average_to_the_metrics(self, run):
        per_user = pl.read_parquet(run.path / "per_user.parquet")
        assert len(per_user) == run.metrics["test_users"]
        for name in ("ndcg@10", "recall@20", "hit@5", "mrr@10", "map@10", "precision@5"):
            assert per_user[name].mean() == pytest.approx(run.metrics["test"][name], abs=1e-9)

    def test_every_checkpoint_loads_without_pickle(self, run):
        for path in (run.path / "checkpoints").iterdir():
            loaded = torch.load(path, weights_only=True)
            assert loaded["hyper_parameters"]["embedding_dim"] == 16

    def test_tensorboard_has_curves_hyper_parameters_and_the_projector(self, run):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.path / "tensorboard"))
        events.Reload()
        scalars = events.Tags()["scalars"]
        assert {"train/loss", "val/loss", "val/ndcg@10", "val/recall@20", "test/ndcg@10"} <= set(scalars)
        assert len(events.Scalars("val/ndcg@10")) == 12
        metadata = next((run.path / "tensorboard").glob("**/metadata.tsv")).read_text().splitlines()
        assert metadata[0] == "title\tyear\tgenres"
        assert len(metadata) == run.metrics["header"]["items"] + 1
        assert "hparams" in str(events.summary_metadata) or events.PluginTagToContent("hparams")

    def test_a_rerun_from_its_own_config_gives_the_same_numbers(self, run, root):
        again = recflow.fit(config=run.path / "config.yaml", name="again")
        assert without_times(again.metrics) == without_times(run.metrics)

    def test_another_seed_gives_other_numbers_on_the_same_split(self, run, root):
        other = fit_again(root, seed=7, trainer={"max_epochs": 12})
        assert other.metrics["test"] != run.metrics["test"]
        assert other.metrics["header"]["split"] == run.metrics["header"]["split"]
        assert other.metrics["baselines"]["popularity"] == run.metrics["baselines"]["popularity"]

    def test_the_bundle_ranks_as_was_measured(self, run):
        from recflow.data.dataset import config_of, prepare

        data = prepare(config_of(run.config["data"]))
        measured = evaluate(run.recommender.ranker, data, "test", "ranking", MetricsConfig(ks=(5, 10, 20)))
        assert measured.metrics == pytest.approx(run.metrics["test"], abs=1e-9)

    def test_what_a_filter_has_dropped_is_known_but_not_liked(self, root):
        run = recflow.fit("ease", data={"name": SMALL, "drop_below": 4.0}, runs_dir=str(root), name="disliked")
        about, recommender = run.recommender.about, run.recommender
        assert about["rating_scale"] == [0.5, 5.0]
        assert about["relevant_from"] == 4.0
        items, ratings = recommender.bundle.histories.of(recommender.catalog.user(42))
        assert float(ratings.min()) < 4.0 <= float(ratings.max())
        disliked = {item.title for item in recommender.catalog.items(items[ratings < 4.0].tolist())}
        reasons = run.recommend(user=42, k=20, reasons=True)["because"].explode().to_list()
        assert reasons
        assert not disliked & set(reasons)

    def test_what_a_user_has_rated_is_never_recommended(self, run):
        from recflow.data.dataset import config_of, prepare

        data = prepare(config_of({**run.config["data"], "drop_below": 4.0}))
        fitted = recflow.fit(
            "popularity", data={"name": SMALL, "drop_below": 4.0}, runs_dir=str(run.path.parents[2]), name="dropped"
        )
        everything = prepare(config_of(run.config["data"])).interactions
        for user in data.interactions.users["user_id"].to_list()[:20]:
            index = everything.users["user_id"].to_list().index(user)
            items = everything.table.filter(pl.col("user") == index)["item"]
            rated = set(everything.items["item_id"].gather(items).to_list())
            assert not rated & set(fitted.recommend(user=user, k=500)["item_id"].to_list())


class TestRun:
    def test_it_recommends_to_a_known_user_as_a_frame(self, run):
        frame = run.recommend(user=42, k=10)
        assert frame.columns == ["rank", "item_id", "title", "year", "genres", "score"]
        assert frame["rank"].to_list() == list(range(1, 11))
        assert frame["score"].is_sorted(descending=True)

    def test_it_recommends_from_liked_titles_and_says_why(self, run):
        title = run.recommend(user=1, k=1)["title"][0]
        frame = run.recommend(like=[title], k=5, reasons=True)
        assert title not in frame["title"].to_list()
        assert frame["because"].to_list() == [[title]] * 5

    def test_it_lists_similar_items(self, run):
        item = run.recommend(user=1, k=1)["item_id"][0]
        assert item not in run.similar(item, k=5)["item_id"].to_list()

    def test_it_wants_a_user_or_a_history_and_not_both(self, run):
        for wrong in ({}, {"user": 1, "like": ["x"]}):
            with pytest.raises(RecflowError, match="either a user id or a list"):
                run.recommend(**wrong)

    def test_it_opens_again_from_its_folder(self, run):
        opened = recflow.load_run(run.path)
        assert opened.recommend(user=42).equals(run.recommend(user=42))


class TestChoices:
    def test_a_run_can_leave_the_test_part_unread(self, root):
        run = fit_again(root, trainer={"max_epochs": 1}, test=False)
        assert "test" not in run.metrics
        assert "baselines" not in run.metrics
        assert not (run.path / "per_user.parquet").exists()
        assert run.recommend(user=1)["rank"].len() == 10

    def test_training_stops_when_the_named_metric_no_longer_improves(self, root):
        run = fit_again(root, trainer={"max_epochs": 60}, monitor="val/coverage@10", patience=2)
        rows = pl.read_csv(run.path / "history.csv")
        values = rows["val/coverage@10"].to_list()
        best = max(range(len(values)), key=values.__getitem__)
        assert len(values) == best + 3 < 60
        assert run.metrics["best_epoch"] == best + 1
        assert run.metrics["monitor"] == "val/coverage@10"

    def test_errors_and_inequality_are_better_low_and_all_else_high(self):
        assert lower_is_better("val/rmse")
        assert lower_is_better("val/loss")
        assert not lower_is_better("val/recall@20")

    def test_any_optimizer_of_torch_can_be_configured(self, root):
        run = fit_again(root, trainer={"max_epochs": 2}, optimizer="torch.optim.SGD", **{"optimizer.lr": 0.0})
        losses = pl.read_csv(run.path / "history.csv")["val/loss"].to_list()
        assert losses[0] == losses[1]  # a learning rate of nought moves nothing: the configured one was used

    def test_a_configured_optimizer_is_said_to_stand_in_for_the_model_s_own(self, root):
        console = Console(file=io.StringIO(), width=200)
        fit_again(root, trainer={"max_epochs": 1}, optimizer="torch.optim.SGD", console=console)
        assert (
            "--optimizer stands in for the model's own steps: its lr counts, model.lr does not"
            in console.file.getvalue()
        )

    def test_a_closed_form_takes_no_optimizer(self, root):
        with pytest.raises(RecflowError, match="bias-mf is solved in closed form, without an optimizer"):
            recflow.fit("bias-mf", data=SMALL, optimizer="torch.optim.Adam", runs_dir=str(root))

    def test_without_a_validation_part_the_last_epoch_is_chosen(self, root, tmp_path):
        run = recflow.fit(
            "bias-mf", data={"name": SMALL, "ratios": [0.9, 0.0, 0.1]}, trainer={"max_epochs": 3}, runs_dir=str(root)
        )
        assert run.metrics["best_epoch"] == 3
        assert 0.5 < run.metrics["test"]["rmse"] < 1.2

    def test_the_exact_auc_is_measured_on_request(self, root):
        run = fit_again(root, trainer={"max_epochs": 1}, metrics={"auc": True, "ks": [10]})
        assert 0.5 < run.metrics["test"]["auc"] < 1
        assert 0.45 < run.metrics["baselines"]["random"]["auc"] < 0.55

    def test_a_rating_model_is_chosen_by_its_error(self, root):
        run = recflow.fit("bias-mf", data=SMALL, trainer={"max_epochs": 5}, runs_dir=str(root))
        rows = pl.read_csv(run.path / "history.csv")
        assert run.metrics["best_epoch"] == rows["val/rmse"].arg_min() + 1
        assert {"rmse", "mae", "mse", "ndcg@10"} <= run.metrics["test"].keys()
        assert run.metrics["test"]["rmse"] < run.metrics["baselines"]["mean rating"]["rmse"]
        assert run.metrics["test"]["mse"] == pytest.approx(run.metrics["test"]["rmse"] ** 2)

    def test_a_model_that_diverges_says_so_and_leaves_no_empty_run(self, root):
        with pytest.raises(RecflowError, match="diverged"):
            fit_again(root, **{"model.lr": 1e30}, name="diverged", trainer={"max_epochs": 3})
        assert not (root / "lightgcn" / "sample" / "diverged").exists()

    def test_a_name_is_taken_once(self, run, root):
        with pytest.raises(RecflowError, match="there already"):
            fit_again(root, name="first", trainer={"max_epochs": 1})


_CHILD = """
import sys, recflow
recflow.fit("lightgcn", data="{data}", model={{"embedding_dim": 16}}, trainer={{"max_epochs": 40}}, patience=40,
            name="killed", runs_dir=sys.argv[1])
"""


class TestResume:
    def test_killed_in_the_middle_and_resumed_it_ends_as_an_unbroken_run(self, tmp_path):
        whole = fit_again(tmp_path / "a", trainer={"max_epochs": 40}, patience=40, name="killed")
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD.format(data=SMALL), str(tmp_path / "b")], env={**os.environ}
        )
        folder = tmp_path / "b" / "lightgcn" / "sample" / "killed"
        deadline = time.monotonic() + 60
        while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "the child ended before it could be killed"
        assert not (folder / "metrics.json").exists()

        resumed = recflow.fit(resume=folder)
        history = pl.read_csv(folder / "history.csv")
        assert history["epoch"].to_list() == list(range(1, 41))
        assert without_times(resumed.metrics) == without_times(whole.metrics)
        differing = [
            name
            for name in history.columns
            if name != "seconds" and not history[name].equals(pl.read_csv(whole.path / "history.csv")[name])
        ]
        assert not differing

    def test_a_finished_run_is_not_resumed_unless_it_may_go_further(self, tmp_path):
        run = fit_again(tmp_path, trainer={"max_epochs": 3}, name="short")
        with pytest.raises(RecflowError, match="has finished"):
            recflow.fit(resume=run.path)
        with pytest.raises(RecflowError, match="has trained 3 epochs"):
            recflow.fit(resume=run.path, trainer={"max_epochs": 2})
        assert run.finished  # and nothing was touched
        assert recflow.load_run(run.path).config["trainer"]["max_epochs"] == 3
        longer = recflow.fit(resume=run.path, trainer={"max_epochs": 6})
        assert longer.metrics["epochs"] == 6
        whole = fit_again(tmp_path, trainer={"max_epochs": 6}, name="whole")
        assert longer.metrics["test"] == whole.metrics["test"]

    def test_a_resumed_run_keeps_its_configuration(self, tmp_path):
        run = fit_again(tmp_path, trainer={"max_epochs": 1}, name="short")
        with pytest.raises(RecflowError, match="keeps its configuration"):
            recflow.fit(resume=run.path, model={"num_layers": 1})


def test_a_rating_model_reports_its_error_on_the_training_rows(root):
    run = recflow.fit("bias-mf", data=SMALL, trainer={"max_epochs": 2}, runs_dir=str(root))
    train, ranker = prepare(config_of(run.config["data"])).train, run.recommender.ranker
    errors = ranker.predict(train.users, train.items) - train.ratings
    assert run.metrics["train"]["rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-5)
    assert run.metrics["train"]["mae"] == pytest.approx(float(errors.abs().mean()), rel=1e-5)
    assert run.metrics["train"]["rmse"] < run.metrics["test"]["rmse"]


def test_the_last_checkpoint_is_the_last_epoch_s_whether_it_was_the_best_or_not(tmp_path):
    run = recflow.fit(
        "lightgcn", data="sample", model={"lr": 0.5}, trainer={"max_epochs": 6}, runs_dir=str(tmp_path), test=False
    )
    best, last = (
        torch.load(run.path / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"] + 1
        for name in ("best", "last")
    )
    assert last == 6
    assert best == run.metrics["best_epoch"] < 6
    assert {path.name for path in (run.path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
