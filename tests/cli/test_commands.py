"""The commands as people type them."""

import re
import signal
import subprocess
import sys
import time

import pytest

from recflow.cli import main

SMALL = ["--data", "sample:ratings=6000", "--model.embedding_dim", "8", "--trainer.max_epochs", "3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def fitted(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--plugin", "lightgcn", *SMALL, "--name", "first"]) == 0
    return folder / "runs" / "lightgcn" / "sample" / "first"


@pytest.fixture
def recflow(folder, fitted, monkeypatch, capsys):
    """Run a command in the folder that has a run; gives its exit code, output and error output."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")  # no title is broken over two lines

    def call(*args):
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class TestFit:
    def test_it_prints_a_table_beside_the_baselines_and_the_next_step(self, recflow):
        code, out, _ = recflow("fit", "--plugin", "lightgcn", *SMALL)
        assert code == 0
        for word in ("ndcg@10", "lightgcn", "popularity", "random", "full ranking", "recflow recommend --run"):
            assert word in out
        assert "the embedded sample" in out

    def test_no_test_leaves_the_table_out(self, recflow):
        code, out, _ = recflow("fit", "--plugin", "popularity", "--data", "sample:ratings=6000", "--no-test")
        assert code == 0
        assert "popularity  " not in out

    def test_print_config_prints_what_config_reads_back(self, recflow, folder):
        done = subprocess.run(
            [sys.executable, "-m", "recflow", "fit", "--plugin", "lightgcn", *SMALL, "--print_config"],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
        )
        (folder / "printed.yaml").write_text(done.stdout)
        code, out, _ = recflow("fit", "--config", "printed.yaml", "--trainer.max_epochs", "1", "--name", "printed")
        assert code == 0
        assert "best epoch 1 of 1 by" in out


class TestOtherCommands:
    def test_test_measures_what_fit_recorded(self, recflow, fitted):
        code, out, _ = recflow("test", "--run", str(fitted))
        assert code == 0
        rows = [line.split()[-5:] for line in out.splitlines() if line.startswith(("lightgcn", "as recorded"))]
        assert rows[0] == rows[1]

    def test_recommend_knows_users_and_histories(self, recflow, fitted):
        code, out, _ = recflow("recommend", "--run", str(fitted), "--user", "42", "-k", "3")
        assert code == 0
        assert "for user 42 (known user)" in out
        title = re.search(r"1 +\d+ +(.+? \(\d{4}\))", out)[1]
        code, out, _ = recflow("recommend", "--run", str(fitted), "--like", f"{title}=5", "-k", "3")
        assert code == 0
        assert "(fold-in)" in out

    def test_similar_takes_a_title_or_an_id(self, recflow, fitted):
        code, out, _ = recflow("similar", "--run", str(fitted), "--item", "1", "-k", "3")
        assert code == 0
        title = re.search(r"like (.+ \(\d{4}\))", out)[1]
        assert recflow("similar", "--run", str(fitted), "--item", title.upper(), "-k", "3")[1] == out

    def test_without_a_run_the_newest_is_taken_and_named(self, recflow):
        code, out, _ = recflow("recommend", "--user", "1")
        assert code == 0
        assert out.startswith("run runs/")

    def test_plugins_lists_and_shows(self, recflow):
        code, out, _ = recflow("plugins")
        assert code == 0
        assert all(name in out for name in ("bias-mf", "ease", "lightgcn", "popularity", "random"))
        code, out, _ = recflow("plugins", "lightgcn")
        assert code == 0
        assert "--model.num_layers = 3" in out
        assert "1 … 4" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fti"], "did you mean 'fit'"),
        (["fit"], None),
        (["fit", "--plugin", "lightgnc"], "did you mean 'lightgcn'"),
        (["fit", "--plugn", "lightgcn"], "did you mean --plugin by --plugn?"),
        (["fit", "--plugin", "lightgcn", "--model.num_layer", "2"], "did you mean --model.num_layers"),
        (["fit", "--plugin", "lightgcn", "--model.num_layers", "two"], "model.num_layers: expected int, got two"),
        (["fit", "--plugin", "lightgcn", "--model.num_layers", "0"], "num_layers must be at least 1, got 0"),
        (["fit", "--plugin", "lightgcn", "--data", "ml-10k"], "ml-1"),
        (["fit", "--plugin", "lightgcn", "--data.split", "temporl"], "expected one of 'ratio'"),
        (["fit", "--plugin", "lightgcn", "--data.batch_size", "0"], "batch_size must be at least 1, got 0"),
        (["fit", "--plugin", "lightgcn", "--data.relevant_from", "6"], "relevant_from"),
        (["fit", "--plugin", "lightgcn", "--data.drop_below", "9"], "9"),
        (["fit", "--plugin", "lightgcn", "--data.split", "files"], "fold"),
        (["fit", "--plugin", "lightgcn", "--metrics.ks", "[0]"], "at least 1"),
        (["fit", "--plugin", "lightgcn", "--monitor", "val/ndgc@10"], "did you mean val/ndcg@10"),
        (["fit", "--plugin", "lightgcn", "--patience", "0"], "patience must be at least 1"),
        (["fit", "--plugin", "lightgcn", "--name", "a/b"], "a run's name"),
        (["fit", "--plugin", "lightgcn", "--trainer.accelerator", "gpu"], "gpu"),
        (["fit", "--plugin", "lightgcn", "--trainer.max_epochs", "0"], "no epoch was trained"),
        (["fit", "--plugin", "lightgcn", "--trainer.fast_dev_run", "true"], "fast_dev_run keeps no checkpoint"),
        (["fit", "--plugin", "ease", "--trainer.devices", "2", "--trainer.accelerator", "cpu"], "runs in one process"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["fit", "--data", "ml-100k"], "no plugin is named"),
        (["fit", "--resume", "nowhere"], "nowhere is no run"),
        (["fit", "--resume"], "--resume expects a run folder"),
        (["recommend"], "give --user id"),
        (["recommend", "--usr", "42"], "unrecognized arguments: --usr 42"),
        (["fit", "--plugin", "lightgcn", "--lr", "0.1"], "did you mean --model.lr"),
        (
            ["fit", "--plugin", "lightgcn", "--runs_dir", "runs/lightgcn/sample/first/config.yaml/x"],
            "choose another --runs_dir",
        ),
        (["recommend", "--user", "987654"], "there is no user '987654'"),
        (["recommend", "--user", "1", "-k", "0"], "k must be at least 1"),
        (["recommend", "--user", "1", "-k", "ten"], "invalid int value"),
        (["recommend", "--like", "No Such Film"], "there is no item 'no such film'"),
        (["recommend", "--like", "1=99"], "a rating must be from"),
        (["recommend", "--like", "1=good"], "title=stars"),
        (["recommend", "--run", "nowhere", "--user", "1"], "nowhere is no run"),
        (["similar", "--item", "No Such Film"], "there is no item"),
        (["plugins", "lightgnc"], "did you mean 'lightgcn'"),
        (["serve", "--run", "nowhere"], "nowhere is no run"),
    ],
)
def test_a_mistake_is_told_on_one_line_with_exit_code_2(recflow, fitted, folder, args, said):
    before = set((folder / "runs").glob("*/*/*"))
    code, _, err = recflow(*args)
    if said is None:
        assert code == 0  # `recflow fit` alone explains itself
        return
    assert code == 2
    assert err.startswith("recflow: error: ")
    assert err.count("\n") == 1
    assert said in err.lower()
    assert set((folder / "runs").glob("*/*/*")) == before, "a mistake left a run folder behind"


class TestStart:
    def test_help_is_there_at_once(self):
        best = min(_seconds("--help") for _ in range(5))
        assert best < 0.4

    def test_the_help_names_every_command(self, capsys):
        assert main([]) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in ("fit", "test", "recommend", "similar", "plugins", "serve"))

    def test_recommend_imports_neither_lightning_nor_the_metrics(self, fitted):
        code = (
            "import sys; from recflow.cli import main; "
            f"assert main(['recommend', '--run', {str(fitted)!r}, '--user', '1']) == 0; "
            "print([m for m in ('lightning', 'torchmetrics', 'optuna', 'matplotlib', 'polars') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


def _seconds(*args):
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "recflow", *args], capture_output=True, check=True)
    return time.perf_counter() - started


def test_ctrl_c_leaves_a_run_that_can_go_on(folder):
    command = [sys.executable, "-m", "recflow", "fit", "--plugin", "lightgcn", "--name", "interrupted"]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = folder / "runs" / "lightgcn" / "sample" / "interrupted" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 60
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "go on by: recflow fit --resume runs/lightgcn/sample/interrupted" in out
    assert err.strip() == "recflow: interrupted"
