"""A run on one page."""

import shutil

import pytest

import recflow
from recflow.cli import main
from recflow.evaluation.report import report

DATA = "sample:ratings=4000"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return recflow.fit("bias-mf", DATA, trainer={"max_epochs": 2}, plots=False, runs_dir=str(root))


def test_the_page_has_the_metrics_the_groups_the_pictures_and_loads_nothing(run):
    page = report(run).read_text(encoding="utf-8")
    assert f"{run.metrics['test']['rmse']:.4f}" in page
    assert f"{run.metrics['baselines']['popularity']['ndcg@10']:.4f}" in page
    for found in run.metrics["groups"].values():
        assert found["groups"][0]["group"] in page
    assert "model.embedding_dim" in page
    captions = ("loss and the monitored", "precision against recall", "for whom", "how often items", "given beside")
    assert all(caption in page for caption in captions)
    assert 'src="http' not in page
    assert "href=" not in page


def test_rating_errors_have_intervals(run):
    page = report(run).read_text(encoding="utf-8")
    assert "95% interval" in page
    lead = page.partition("<li>")[2].partition("</li>")[0]
    low, high = (float(part) for part in lead.partition("interval ")[2].partition(")")[0].split(" to "))
    assert low < run.metrics["test"]["rmse"] < high


def test_the_command_takes_the_newest_run_and_refuses_what_it_cannot_report(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 2
    assert "no finished run" in capsys.readouterr().err
    untested = recflow.fit("popularity", DATA, test=False)
    assert main(["report", "--run", str(untested.path)]) == 2
    assert "--no-test" in capsys.readouterr().err
    assert not (untested.path / "report.html").exists()
    shutil.copytree(run.path, tmp_path / "moved")
    (tmp_path / "moved/report.html").unlink(missing_ok=True)
    assert main(["report", "--run", "moved"]) == 0
    assert "moved/report.html" in capsys.readouterr().out
    assert (tmp_path / "moved/report.html").is_file()
