"""`recflow tune` as people type it."""

import re
import signal
import subprocess
import sys
import time

import pytest

from recflow.cli import main
from recflow.errors import RecflowError
from recflow.tuning.arguments import read_arguments, seconds

SMALL = ("--data", "sample:ratings=3000", "--plots", "false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    (folder / "search.yaml").write_text(
        "plugin: ease\ndata:\n  name: sample:ratings=3000\nplots: false\n"
        "trials: 9\nsampler: grid\nobjective: val/recall@10\nsearch:\n  model:\n    reg: [50, 1e2]\n"
    )
    (folder / "list.yaml").write_text("- ease\n")
    (folder / "date.yaml").write_text("plugin: ease\ndata: {name: 2024-01-01}\n")
    (folder / "five.yaml").write_text("plugin: ease\nobjective: 5\n")
    (folder / "keys.yaml").write_text("plugin: ease\nmodel: {2024-01-01: 1}\n")
    return folder


@pytest.fixture(scope="module")
def tuned(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["tune", "--config", "search.yaml", "--name", "first"]) == 0
    return folder / "runs" / "tune" / "first"


@pytest.fixture
def recflow(folder, monkeypatch, capsys):
    """Run a command; gives its exit code, output and error output."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*args):
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class TestTune:
    def test_it_prints_each_trial_and_the_winner_beside_the_untuned_model(self, recflow, tuned):
        code, out, _ = recflow("tune", "--config", "search.yaml", "--name", "printed", "--objective", "val/ndcg@10")
        assert code == 0
        lines = out.splitlines()
        assert [line.split()[1:3] for line in lines if line.startswith("trial ")] == [
            ["0", "COMPLETE"], ["1", "COMPLETE"],
        ]  # fmt: skip
        assert any(re.match(r"ease, tuned +0\.\d{4}", line) for line in lines)
        assert any(re.match(r"ease, untuned +0\.\d{4}", line) for line in lines)
        for word in (
            "best of 2 trials (2 finished)",
            "popularity",
            "--resume printed",
            "optuna-dashboard",
            "best.yaml",
        ):
            assert word in out

    def test_the_winner_can_be_fitted_asked_and_tested_again(self, recflow, tuned):
        code, out, _ = recflow("fit", "--config", str(tuned / "best.yaml"), "--name", "again")
        assert code == 0
        fitted = re.search(r"^ease +(0.*)$", out, re.MULTILINE)[1]
        code, out, _ = recflow("test", "--run", str(tuned / "best"))
        assert code == 0
        assert re.search(r"^ease +(0.*)$", out, re.MULTILINE)[1] == fitted
        assert recflow("recommend", "--run", str(tuned / "best"), "--user", "1", "-k", "2")[0] == 0
        assert "tune/first/best" in recflow("runs", "list")[1]

    def test_more_trials_go_on(self, recflow, tuned):
        code, out, _ = recflow("tune", "--resume", "first", "--trials", "2")
        assert code == 0
        assert "best of 2 trials" in out, "the grid had no more"
        recflow("tune", "--plugin", "ease", *SMALL, "--trials", "2", "--name", "more")
        code, out, _ = recflow("tune", "--resume", "runs/tune/more", "--trials", "1")
        assert code == 0
        assert "best of 3 trials" in out
        assert re.findall(r"^trial +(\d+)", out, re.MULTILINE) == ["2"]

    def test_several_objectives_print_the_front_and_the_rule(self, recflow):
        code, out, _ = recflow(
            "tune", "--plugin", "ease", *SMALL, "--trials", "3", "--name", "two", "--objective", "val/ndcg@10",
            "val/coverage@10",
        )  # fmt: skip
        assert code == 0
        assert "no trial is pruned" in out
        assert re.search(r"^ *\* \d+ +0\.\d{4} +0\.\d{4} +reg ", out, re.MULTILINE)
        assert "the winner (*): of the Pareto front, the trial nearest" in out

    def test_objectives_named_one_by_one_are_as_many(self):
        found = read_arguments(["--plugin", "ease", "--objective", "val/ndcg@10", "--objective", "val/coverage@10"])
        assert found.objective == ["val/ndcg@10", "val/coverage@10"]

    def test_cold_users_and_items_are_told_as_a_fit_tells_them(self, recflow):
        told = r"^cold: \d+ users and \d+ items of the test part have no training row$"
        data = ("--data", "sample:ratings=600", "--data.split", "temporal", "--plots", "false")
        _, out, _ = recflow("fit", "--plugin", "ease", *data, "--name", "cold")
        fitted = re.findall(told, out, re.MULTILINE)
        assert len(fitted) == 1
        _, out, _ = recflow("tune", "--plugin", "ease", *data, "--trials", "1", "--name", "cold")
        assert re.findall(told, out, re.MULTILINE) == fitted
        _, out, _ = recflow("tune", "--resume", "cold")
        assert re.findall(told, out, re.MULTILINE) == fitted

    def test_help_explains_the_options(self, recflow):
        code, out, _ = recflow("tune", "--help")
        assert code == 0
        assert all(option in out for option in ("--sampler", "--pruner", "--objective", "--search.KEY", "--resume"))


def test_ctrl_c_keeps_what_is_done_and_the_study_goes_on(recflow, folder):
    command = [sys.executable, "-m", "recflow", "tune", "--plugin", "lightgcn", *SMALL, "--trials", "3"]
    command += ["--search.model.embedding_dim", "4", "--trainer.max_epochs", "60", "--patience", "60", "--name", "c"]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("trial   0"):
            break
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err.strip() == "recflow: interrupted"
    assert "broken off; 1 trials are kept, 2 to go" in out
    assert "go on by: recflow tune --resume c" in out
    study = folder / "runs" / "tune" / "c"
    assert not (study / "best").exists()
    assert (study / "best.yaml").is_file()
    assert (study / "trials.csv").read_text().count("COMPLETE") == 1
    code, out, _ = recflow("tune", "--resume", "c")
    assert code == 0
    assert "best of 3 trials" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--plugin", "lightgnc"], "did you mean 'lightgcn'"),
        (["--plugin", "popularity"], "popularity has nothing to tune"),
        (["--plugin", "random"], "random has nothing to tune"),
        (["--plugin", "ease", "--trials", "0"], "--trials must be at least 1, got 0"),
        (["--plugin", "ease", "--trials", "ten"], "expects a whole number, got 'ten'"),
        (["--plugin", "ease", "--trials"], "--trials expects a value"),
        (["--plugin", "ease", "--timeout", "soon"], "expects a duration such as 90s, 30m or 1h30m, got 'soon'"),
        (["--plugin", "ease", "--timeout", "0s"], "--timeout must be above 0"),
        (["--plugin", "ease", "--jobs", "0"], "--jobs must be at least 1"),
        (["--plugin", "ease", "--trails", "5"], "did you mean --trials"),
        (["--plugin", "ease", "--sampler", "tpee"], "one of tpe, random, grid, cmaes, got 'tpee'"),
        (["--plugin", "ease", "--sampler", "grid"], "a grid over model.reg would be infinite"),
        (["--plugin", "ease", "--sampler", "cmaes"], "needs two ranges or more, got 1"),
        (["--plugin", "ease", "--pruner", "medien"], "one of median, hyperband, none, got 'medien'"),
        (["--plugin", "ease", "--objective", "val/ndgc@10"], "did you mean val/ndcg@10"),
        (["--plugin", "ease", "--objective", "test/ndcg@10"], "is no validation metric"),
        (["--plugin", "ease", "--objective"], "expects one validation metric or more"),
        (["--plugin", "ease", "--objective", "val/map@10,val/mrr@10", "--pruner", "median"], "optuna prunes no trial"),
        (["--plugin", "ease", "--objective", "val/map@10,val/mrr@10", "--sampler", "cmaes"], "one objective"),
        (["--plugin", "ease", "--search.model.regg", "[1, 2]"], "did you mean search.model.reg"),
        (["--plugin", "ease", "--search.model.reg.low", "100000"], "low 100000, high 10000"),
        (["--plugin", "ease", "--search.model.reg", "{low: 1"], "expects yaml"),
        (["--plugin", "ease", "--search", "7"], "distributions by key"),
        (
            ["--plugin", "ease", *SMALL, "--search.model.reg", "[10, much]"],
            "search.model.reg: expected float, got much",
        ),
        (["--plugin", "ease", *SMALL, "--search.model.reg", "[null]"], "search.model.reg: expected float, got none"),
        (["--plugin", "ease", *SMALL, "--no-test"], "leave out --no-test"),
        (["--plugin", "ease", *SMALL, "--trainer.max_epochs", "0"], "max_epochs must be at least 1"),
        (["--plugin"], "--plugin expects a value"),
        (["--plugin", "ease", "--search.model.reg", "5"], "nothing left to tune"),
        (["--plugin", "ease", "--model.regg", "5"], "did you mean --model.reg"),
        (["--plugin", "ease", "--storage", "nonsense"], "expects a database's url"),
        (["--plugin", "ease", "--storage", "oracel://me:secret@host/x"], "'oracel://me@host/x' is no database's url"),
        (["--plugin", "ease", "--storage", "postgresql://me:secret@127.0.0.1:1/x"], "storage postgresql://me@127.0"),
        (["--plugin", "ease", "--storage", "nowhere/study.log"], "there is no folder nowhere"),
        (["--plugin", "ease", "--storage", "memory", "--jobs", "2"], "needs a storage that processes share"),
        (["--plugin", "ease", "--name", "first"], "go on by: recflow tune --resume first"),
        (["--plugin", "ease", "--name", "a/b"], "a study's name"),
        (["--plugin", "ease", "--data.folds", "5"], "choose one by --data.fold 1"),
        (["--plugin", "ease", "--trainer.devices", "2"], "leave out --trainer.devices"),
        (["--plugin", "ease", "--runs_dir", "search.yaml/x"], "cannot be made"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["--config", "list.yaml"], "holds no settings"),
        (["--config", "date.yaml"], "date.yaml holds '2024-01-01', which yaml reads as a date: write it in quotes"),
        (["--config", "keys.yaml"], "keys.yaml holds what is no setting"),
        (["--config", "five.yaml"], "objective expects one validation metric or more, such as val/ndcg@10, got 5"),
        (["--plugin", "ease", "--search.model.reg", "[2024-01-01]"], "search.model.reg holds '2024-01-01'"),
        (["--plugin", "ease", "--search.model.reg", "2024-01-01"], "search.model.reg holds '2024-01-01'"),
        (["--plugin", "ease", "--name", "other"], "holds no study: delete it, or choose another --name"),
        (["--resume", "other"], "no study 'other'"),
        (["--resume", "nothing"], "there is no study 'nothing'"),
        (["--resume", "nothing", "--storage", "sqlite:///none.db"], "no study 'nothing' in sqlite"),
        (["--resume", "first", "--sampler", "random"], "a resumed study keeps what it is about"),
        (["--resume", "first", "--model.reg", "3"], "got --model.reg"),
        (["--data", "ml-100k"], "no plugin is named"),
    ],
)
def test_a_mistake_is_told_on_one_line_and_nothing_is_written(recflow, tuned, folder, args, said):
    (folder / "runs" / "tune" / "other" / "somebody's").mkdir(parents=True, exist_ok=True)
    before = sorted((folder / "runs").rglob("*"))
    code, out, err = recflow("tune", *args)
    assert code == 2
    assert err.startswith("recflow: error: ")
    assert err.count("\n") == 1
    assert said in err.lower()
    assert "secret" not in err + out
    assert sorted((folder / "runs").rglob("*")) == before


class TestArguments:
    def test_what_is_said_later_counts_and_fields_are_said_one_by_one(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        found = read_arguments(
            ["--config", "search.yaml", "--trials=3", "--search.model.lr.low", "1e-3", "--search.model.lr.high=0.1",
             "--model.reg", "-1", "--keep-checkpoints", "--objective", "val/a", "val/b", "--seed", "5"]
        )  # fmt: skip
        assert (found.trials, found.sampler, found.keep_checkpoints) == (3, "grid", True)
        assert found.objective == ["val/a", "val/b"]
        assert found.search == {"model": {"reg": [50, "1e2"]}, "model.lr": {"low": "1e-3", "high": 0.1}}
        assert found.fit[1:-1] == ["--plugin=ease", "--model.reg", "-1", "--seed", "5"]

    @pytest.mark.parametrize(
        ("text", "expected"), [("90", 90), ("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400)]
    )
    def test_durations(self, text, expected):
        assert seconds(text) == expected

    @pytest.mark.parametrize("text", ["", "m", "30 minutes", "-5m", "5mm"])
    def test_what_is_no_duration_is_refused(self, text):
        with pytest.raises(RecflowError, match="--timeout"):
            seconds(text)
