"""A study from its plan to its tested winner, on a small sample."""

import csv
import io
import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import yaml
from optuna.trial import TrialState
from rich.console import Console

import recflow
from recflow.data.dataset import config_of, prepare
from recflow.data.sample import generate
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig, evaluate
from recflow.tuning.course import carry_out
from recflow.tuning.finish import _promote, finish, write_down_broken_off
from recflow.tuning.plan import configure_on, make_plan
from recflow.tuning.run import Crew, losers, prepared_data, run_here
from recflow.tuning.storage import quiet_optuna
from recflow.tuning.study import begin_study, open_study
from recflow.tuning.trials import UNTUNED, strip, trial_folder
from recflow.tuning.winner import front

SMALL = "--data=sample:ratings=3000"
LEARNS = ("--model.embedding_dim=8", "--patience=99")
BY_RATE = {"model": {"lr": ["1e-2", "1e-6"], "embedding_dim": None, "num_layers": None, "reg": None}}


@pytest.fixture(autouse=True)
def _quiet():
    with quiet_optuna():
        yield


def begun(root, plugin, *args, trials=None, where=None, **about):
    plan, data = make_plan([f"--plugin={plugin}", SMALL, f"--runs_dir={root}", "--plots=false", *args], **about)
    return begin_study(plan, root, where, trials), data


def run_study(root, plugin, *args, trials=3, where=None, timeout=None, console=None, **about):
    return carry_out(*begun(root, plugin, *args, trials=trials, where=where, **about), timeout=timeout, console=console)


def trials_of(study, data):
    """Run what waits, without the end."""
    run_here(study, data, float("inf"), lambda: None)
    return study.trials


def interrupted(*_):
    raise KeyboardInterrupt


def drawn(trials):
    return [(trial.state, trial.values, trial.params) for trial in trials]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(root):
    return recflow.tune("ease", data={"name": "sample:ratings=3000"}, trials=5, runs_dir=root)


class TestFinished:
    def test_its_folder_is_complete(self, finished):
        names = {path.name for path in finished.path.iterdir() if not path.name.startswith(".")}
        pictures = {"history.png", "importance.png", "slice.png", "parallel-coordinate.png"}
        tables = {"trials.csv", "study.json", "best.yaml", "base.yaml", "journal.log"}
        assert names == pictures | tables | {"best", "default", "trials", "tensorboard"}
        assert all((finished.path / name).read_bytes().startswith(b"\x89PNG") for name in pictures)

    def test_the_first_trial_is_the_untuned_model_and_the_winner_is_the_best(self, finished):
        untuned = finished.counted[0]
        assert UNTUNED in untuned.user_attrs
        assert untuned.params == {"model.reg": 250.0}
        assert len(finished.counted) == 5
        assert finished.winner.value == max(trial.value for trial in finished.counted)
        assert finished.best.metrics["val"]["ndcg@10"] == finished.winner.value
        assert finished.default.metrics["val"]["ndcg@10"] == untuned.value

    def test_the_test_part_is_read_for_the_winner_and_the_untuned_model_alone(self, finished):
        assert "test" in finished.best.metrics
        assert "test" in finished.default.metrics
        for trial in finished.counted:
            metrics = json.loads((finished.path / "trials" / f"{trial.number:04d}" / "metrics.json").read_text())
            assert "test" not in metrics
        assert finished.tested == (finished.winner.number,)

    def test_the_winners_run_is_as_a_fit_would_have_left_it(self, finished, root):
        again = recflow.fit(config=finished.path / "best.yaml", runs_dir=str(root), name="again")
        assert again.metrics["test"] == finished.best.metrics["test"]
        assert again.metrics["val"] == finished.best.metrics["val"]
        files = {path.name for path in again.path.iterdir()}
        assert {path.name for path in finished.best.path.iterdir()} == files
        assert set(finished.best.metrics) == set(again.metrics)
        assert finished.best.config["test"] is True
        assert len(finished.best.recommend(user=1, k=5)) == 5
        data = prepare(config_of(finished.best.config["data"]))
        measured = evaluate(finished.best.recommender.ranker, data, "test", "ranking", MetricsConfig())
        assert measured.metrics["ndcg@10"] == finished.best.metrics["test"]["ndcg@10"]
        assert finished.best.recommender.about["metrics"] == finished.best.metrics["test"]

    def test_losers_keep_their_numbers_and_lose_their_weights(self, finished):
        for trial in finished.counted[1:]:
            own = finished.path / "trials" / f"{trial.number:04d}"
            kept = trial.number == finished.winner.number
            assert (own / "history.csv").is_file()
            assert (own / "bundle").is_dir() == (own / "checkpoints").is_dir() == kept

    def test_the_table_of_trials_has_them_all(self, finished):
        rows = list(csv.DictReader((finished.path / "trials.csv").open()))
        assert [float(row["model.reg"]) for row in rows] == [trial.params["model.reg"] for trial in finished.counted]
        assert [float(row["val/ndcg@10"]) for row in rows] == [trial.value for trial in finished.counted]
        assert [row["untuned"] for row in rows] == ["true", "false", "false", "false", "false"]
        summary = json.loads((finished.path / "study.json").read_text())
        assert summary["trials"] == {"COMPLETE": 5}
        assert summary["best"]["values"] == finished.winner.params

    def test_tensorboards_hparams_tab_has_every_trial(self, finished):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import plugin_data_pb2

        for trial in finished.counted:
            events = EventAccumulator(str(finished.path / "tensorboard" / f"trial-{trial.number:04d}"))
            events.Reload()
            assert events.Scalars("val/ndcg@10")[0].value == pytest.approx(trial.value)
            start = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
            session = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info
            assert session.hparams["model.reg"].number_value == trial.params["model.reg"]

    def test_the_winner_is_the_newest_run(self, finished, root):
        from recflow.runs import find_runs

        assert {run.path for run in find_runs(root)} >= {finished.best.path, finished.default.path}

    def test_same_seed_one_worker_same_study_though_it_ended_in_between(self, finished, tmp_path):
        first = run_study(tmp_path, "ease")
        study = open_study("ease-sample", tmp_path)
        study.more(2)
        going_on = carry_out(study, prepared_data(study))
        assert drawn(going_on.counted) == drawn(finished.counted)
        assert going_on.tested[-1] == finished.winner.number
        assert going_on.tested[0] == first.winner.number
        again = recflow.tune(resume="ease-sample", runs_dir=tmp_path)
        assert again.tested == going_on.tested, "nothing was left to run, and the test part is not read again"

    def test_another_seed_another_study(self, finished, tmp_path):
        assert drawn(trials_of(*begun(tmp_path, "ease", "--seed=7", trials=2)))[1:] != drawn(finished.counted)[1:2]

    def test_of_two_that_end_a_study_the_second_waits_and_finds_it_done(self, tmp_path, monkeypatch):
        study, data = begun(tmp_path, "ease", trials=2)
        trials_of(study, data)
        made = []

        def promote(*args):
            made.append(args[3])
            time.sleep(0.3)
            return _promote(*args)

        monkeypatch.setattr("recflow.tuning.finish._promote", promote)
        with ThreadPoolExecutor(2) as pool:
            ends = list(pool.map(lambda _: finish(open_study("ease-sample", tmp_path), data), range(2)))
        assert made == ["default", "best"]
        assert ends[0].best.metrics == ends[1].best.metrics
        with study.lock():
            write_down_broken_off(study)
            waits = threading.Thread(target=lambda: open_study("ease-sample", tmp_path).more(1))
            waits.start()
            time.sleep(0.3)
            assert study.queue.unfinished() == 0
        waits.join()
        assert study.queue.unfinished() == 1

    def test_a_winner_is_counted_as_tested_though_the_end_was_killed(self, finished, tmp_path, monkeypatch):
        folder = tmp_path / "tune" / "ease-sample"
        shutil.copytree(finished.path, folder)
        study = open_study("ease-sample", tmp_path)
        taken = study.queue.storage.create_new_trial(study.queue.study_id)
        study.storage.set_trial_state_values(taken, TrialState.COMPLETE, [finished.winner.value + 1])
        data = prepared_data(study)

        with monkeypatch.context() as killed:
            killed.setattr("recflow.tuning.finish._promote", interrupted)
            with pytest.raises(KeyboardInterrupt):
                finish(study, data)
        write_down_broken_off(study)
        kept = json.loads((folder / "study.json").read_text())
        assert (kept["tested"], kept["promoted"]) == ([finished.winner.number, 5], finished.winner.number)
        promoted = []
        with monkeypatch.context() as patch:
            patch.setattr("recflow.tuning.finish._promote", lambda *args: promoted.append(args[2].number))
            assert finish(study, data).tested == (finished.winner.number, 5)
        assert promoted == [5]

    def test_other_data_are_refused_and_the_study_stays_as_it_was(self, tmp_path):
        table = tmp_path / "own.csv"
        ratings = generate(2000).ratings
        ratings.write_csv(table)
        found = recflow.tune("ease", data=str(table), trials=1, runs_dir=tmp_path, plots=False)
        before = (found.path / "journal.log").read_bytes()
        ratings[:-1].write_csv(table)
        with pytest.raises(RecflowError, match="is no longer what the study ease-own was begun on"):
            recflow.tune(resume=found.path, trials=3)
        assert (found.path / "journal.log").read_bytes() == before

    def test_a_name_is_taken_once(self, finished, root):
        with pytest.raises(RecflowError, match="--resume ease-sample"):
            run_study(root, "ease")


class TestTrials:
    def test_of_a_trial_that_diverges_the_reason_says_so(self, tmp_path):
        search = {"model": {"lr": ["1e30"], "embedding_dim": None, "num_layers": None, "reg": None}}
        about = {"search": search, "objectives": ["val/loss"], "trials": 1}
        (trial,) = trials_of(*begun(tmp_path, "lightgcn", "--model.embedding_dim=8", **about))
        assert trial.state == TrialState.FAIL
        assert "val/loss is not a number: training has diverged" in trial.user_attrs["reason"]

    def test_a_hopeless_trial_is_pruned_and_leaves_nothing(self, tmp_path):
        study, data = begun(tmp_path, "lightgcn", *LEARNS, "--trainer.max_epochs=4", trials=1, search=BY_RATE)
        for rate in (1e-2, 1e-2, 1e-2, 1e-2, 1e-6):
            study.queue.add({"model.lr": rate})
        trials = trials_of(study, data)
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED]
        assert len(trials[5].intermediate_values) < 4
        assert [trial_folder(study.folder, number).exists() for number in range(6)] == [True] * 5 + [False]

    def test_hyperband_prunes_by_brackets_but_neither_the_untuned_model_nor_a_last_epoch(self, tmp_path):
        about = {"search": BY_RATE, "pruner": "hyperband", "name": "h"}  # Optuna picks brackets by name and number
        study, data = begun(
            tmp_path, "lightgcn", *LEARNS, "--data.batch_size=256", "--trainer.max_epochs=9", trials=1, **about
        )
        good, hopeless = {"model.lr": 1e-2}, {"model.lr": 1e-6}
        for values in (good, good, hopeless, good, hopeless, hopeless):
            study.queue.add(values)
        study.queue.add(hopeless, **{UNTUNED: True})
        study.queue.add(hopeless)
        complete = (TrialState.COMPLETE, 9)
        assert [(trial.state, trial.last_step) for trial in trials_of(study, data)] == [
            complete,
            complete,
            complete,
            (TrialState.PRUNED, 3),  # of the second bracket
            complete,
            (TrialState.PRUNED, 1),  # of the first
            complete,  # of the third, which would prune at the last epoch
            complete,  # of the second, but the untuned model
            (TrialState.PRUNED, 1),
        ]

    def test_a_failing_trial_tells_why_and_the_study_goes_on(self, tmp_path):
        shown = Console(record=True, width=160, file=io.StringIO())
        done = run_study(
            tmp_path, "item-knn", sampler="grid", trials=None, console=shown,
            search={"model.num_neighbours": [5, -1], "model.shrink": None, "model.weighting": None},
        )  # fmt: skip
        failed = [trial for trial in done.counted if trial.state == TrialState.FAIL]
        assert [trial.params["model.num_neighbours"] for trial in failed] == [-1]
        assert "num_neighbours" in failed[0].user_attrs["reason"]
        assert done.winner.params["model.num_neighbours"] == 5
        text = shown.export_text()
        assert "FAIL" in text
        assert failed[0].user_attrs["reason"] in " ".join(text.split())

    def test_a_study_without_a_finished_trial_says_why(self, tmp_path):
        search = {"model.num_neighbours": [-1, -2], "model.shrink": None, "model.weighting": None}
        with pytest.raises(
            RecflowError, match=r"No trial of item-knn-sample came to its end; the last one: .*num_neigh"
        ):
            run_study(tmp_path, "item-knn", sampler="grid", trials=None, search=search)

    def test_a_model_outside_the_space_is_fitted_beside_and_lists_are_kept(self, tmp_path):
        search = {
            "model": {"hidden": [[8, 4], [8]], "mlp_dim": 8, "embedding_dim": 8, "num_negatives": None, "loss": None}
        }
        search["model"] |= {"reg": None, "lr": None, "dropout": None}
        done = run_study(tmp_path, "ncf", "--trainer.max_epochs=1", sampler="grid", trials=None, search=search)
        assert [trial.params["model.hidden"] for trial in done.counted] == ["json:[8, 4]", "json:[8]"]
        assert done.best.config["model"]["hidden"] == yaml.safe_load(done.winner.params["model.hidden"][5:])
        assert done.default.config["model"]["hidden"] not in ([8, 4], [8])
        assert "test" in done.default.metrics

    def test_the_batch_size_varies_without_preparing_the_data_again(self, tmp_path, monkeypatch):
        import recflow.data.datamodule as datamodule

        prepared = []
        monkeypatch.setattr(datamodule, "prepare", lambda config: prepared.append(config) or prepare(config))
        search = {"data.batch_size": [256, 512], **dict.fromkeys(("model.lr", "model.reg", "model.num_layers"))}
        about = {"sampler": "grid", "search": {**search, "model.embedding_dim": 8}}
        study, data = begun(tmp_path, "lightgcn", "--trainer.max_epochs=1", **about)
        trials_of(study, data)
        assert len(prepared) == 1
        runs = [recflow.Run(trial_folder(study.folder, number)) for number in range(2)]
        assert [run.config["data"]["batch_size"] for run in runs] == [256, 512]
        assert runs[0].metrics["val"] != runs[1].metrics["val"]

    def test_a_fixed_batch_size_is_the_one_that_is_trained_with_here_and_by_workers(self, tmp_path):
        args = ["--plugin=lightgcn", SMALL, f"--runs_dir={tmp_path}", "--data.batch_size=512"]
        plan, data = make_plan(args, search={"data.batch_size": 64})
        assert (data.batch_size, data.config.batch_size) == (64, 64)
        study = begin_study(plan, tmp_path, None, 1)
        assert prepared_data(study).batch_size == yaml.safe_load(plan.base)["data"]["batch_size"] == 64
        again = configure_on(data, [f"--config={study.folder / 'base.yaml'}", "--data.batch_size=32"])
        assert again.datamodule.dataset.batch_size == again.config["data"]["batch_size"] == 32
        assert data.batch_size == 64

    def test_a_trial_that_begins_while_losers_are_stripped_keeps_its_checkpoints(self, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        study = begin_study(plan, tmp_path, None, 4)
        for value in (0.1, 0.2, 0.3):
            taken = study.queue.take()
            study.storage.set_trial_state_values(taken, TrialState.COMPLETE, [value])
        folders = [trial_folder(study.folder, number) / "checkpoints" for number in range(4)]
        for folder in folders[:3]:
            folder.mkdir(parents=True)

        def front_while_a_trial_begins(*args):
            study.queue.take()
            folders[3].mkdir(parents=True)
            return front(*args)

        monkeypatch.setattr("recflow.tuning.run.front", front_while_a_trial_begins)
        strip(study.folder, losers(study))
        assert [folder.is_dir() for folder in folders] == [True, False, True, True], "untuned, best, running"

    def test_cmaes_draws_the_same_from_the_same_seed(self, tmp_path):
        about = {"sampler": "cmaes", "trials": 3, "search": {"model.embedding_dim": 4}}
        one_epoch = ("bias-mf", "--trainer.max_epochs=1")
        once, again = (trials_of(*begun(tmp_path / part, *one_epoch, **about)) for part in "ab")
        assert drawn(once) == drawn(again)
        assert len({tuple(trial.params.values()) for trial in once}) == 3


class TestSeveralObjectives:
    def test_there_is_a_front_with_a_winner_on_it_and_nothing_is_pruned(self, tmp_path):
        done = run_study(tmp_path, "ease", "--plots=true", objectives=["val/ndcg@10", "val/coverage@10"])
        assert done.plan.pruner == "none"
        assert all(trial.state == TrialState.COMPLETE and len(trial.values) == 2 for trial in done.counted)
        assert (done.path / "pareto-front.png").is_file()
        assert (done.path / "importance-2.png").is_file()
        summary = json.loads((done.path / "study.json").read_text())
        assert done.winner.number in [trial["trial"] for trial in summary["front"]]
        assert summary["rule"].startswith("of the Pareto front")
        measured = done.best.metrics["val"]
        assert done.winner.values == [measured["ndcg@10"], measured["coverage@10"]]
        with pytest.raises(RecflowError, match="Optuna prunes no trial with several"):
            run_study(tmp_path, "ease", objectives=["val/ndcg@10", "val/coverage@10"], pruner="median", name="x")


class TestWorkers:
    def test_a_study_in_memory_leaves_its_files(self, tmp_path):
        done = run_study(tmp_path, "ease", trials=2, where="memory")
        assert len(list(csv.DictReader((done.path / "trials.csv").open()))) == 2
        with pytest.raises(RecflowError, match="was kept in memory"):
            open_study("ease-sample", tmp_path)

    def test_no_trial_begins_when_time_is_up(self, tmp_path):
        done = run_study(tmp_path, "ease", trials=None, timeout=0.5)
        assert 1 <= len(done.counted) < 10
        assert all(trial.state == TrialState.COMPLETE for trial in done.counted)

    def test_no_more_workers_are_started_than_there_are_trials(self, tmp_path, monkeypatch):
        crews = []
        monkeypatch.setattr(Crew, "run", lambda self, after: crews.append(self.jobs))
        study, data = begun(tmp_path, "ease", trials=2)
        with pytest.raises(RecflowError, match="No trial of ease-sample came to its end"):
            carry_out(study, data, jobs=8)
        assert crews == [2]

    def test_workers_that_die_before_they_take_a_trial_are_not_replaced_for_ever(self, tmp_path, monkeypatch):
        plan, _ = make_plan(["--plugin=ease", SMALL, f"--runs_dir={tmp_path}"])
        study = begin_study(plan, tmp_path, None, 2)
        begun = []

        def start(self, number):
            begun.append(number)
            with self._log(number).open("ab") as log:
                command = ["sh", "-c", "echo out of breath; kill -9 $$"]
                return subprocess.Popen(command, stdout=log)

        monkeypatch.setattr(Crew, "_start", start)
        with pytest.raises(RecflowError, match=r"3 workers .* by signal 9; .* last words: out of breath \("):
            Crew(study, 1, time.time() + 30).run(lambda: None)
        assert len(begun) == 3
        assert study.queue.unfinished() == 2


def test_a_winner_that_another_machine_ran_is_fitted_again_here(tmp_path):
    where = f"sqlite:///{tmp_path}/shared.db"
    there = run_study(tmp_path / "there", "ease", trials=2, where=where)
    here = recflow.tune(resume="ease-sample", runs_dir=tmp_path / "here", storage=where)
    assert here.path == tmp_path / "here" / "tune" / "ease-sample"
    assert here.best.metrics["test"] == there.best.metrics["test"]
    assert torch.load(here.best.path / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 0
    shutil.rmtree(tmp_path / "there")


def test_trials_that_a_shorter_budget_leaves_out_are_counted(tmp_path):
    plan, _ = make_plan(["--plugin=ease", "--data=sample:ratings=600"])
    study = begin_study(plan, tmp_path, None, 5)
    assert study.more(2) == 3
    assert study.more(4) == 0
    assert study.queue.unfinished() == 4
