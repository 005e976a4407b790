"""Published protocols: what is shipped is sound, and what is run is judged rightly."""

import json

import polars as pl
import pytest

from recflow import registry
from recflow.cli import main
from recflow.errors import RecflowError
from recflow.evaluation import protocols as module
from recflow.evaluation import selections
from recflow.evaluation.protocols import Protocol, find_protocol, protocols
from recflow.evaluation.reproduce import reproduce
from recflow.evaluation.selections import BY_EPOCH
from recflow.recipes import find_recipe, read_recipe, recipes_folder

RECIPE = "plugin: bias-only\ndata:\n  name: sample:ratings=3000\n  folds: 2\n  val_fraction: 0.0\n"


def protocol(**changes) -> Protocol:
    given = {
        "name": "mine",
        "what": "biases on the sample",
        "paper": "https://a",
        "figures": "https://b",
        "code": "https://c",
        "recipe": "mine.yaml",
        "published": {"rmse": 0.9, "mae": 0.1},
        "tolerance": {"rmse": 0.2},
        "minutes": 1,
        "folds": 2,
    }
    return Protocol(**{**given, **changes})


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr("recflow.evaluation.reproduce.recipes_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", protocols())
def test_what_is_shipped_names_a_recipe_a_model_and_known_metrics(name):
    shipped = find_protocol(name)
    recipe = read_recipe(recipes_folder() / shipped.recipe)
    task = registry.load(recipe["plugin"]).task
    for metric in (*shipped.published, *shipped.tolerance, *shipped.target, *shipped.ours):
        kind = metric.partition("@")[0]
        assert kind in ({"rmse", "mae"} if task == "rating" else {"recall", "ndcg", "mrr", "hit", "precision", "auc"})
    assert shipped.tolerance.keys() <= shipped.published.keys()
    assert shipped.ours.keys() <= set(shipped.metrics)
    assert all(other in protocols() for other in shipped.of.values())
    assert all(link.startswith("https://") for link in (shipped.paper, shipped.code))
    assert shipped.figures.startswith("https://") if shipped.published else shipped.target


@pytest.mark.parametrize("name", protocols())
def test_our_own_figures_are_judged_as_the_results_say(name):
    shipped = find_protocol(name)
    short = {metric for metric, value in shipped.ours.items() if shipped.verdict(metric, value) == "short"}
    assert bool(short) == (name in {"xsimgcl-ml-1m", "ngcf-ml-1m", "mlp-ncf", "neumf-ncf", "neumf-pretrained-ncf"})


def test_a_figure_is_reached_within_tolerance_or_short():
    ranked = protocol(published={"ndcg@10": 0.25}, tolerance={"ndcg@10": 0.01})
    assert [ranked.verdict("ndcg@10", value) for value in (0.25, 0.241, 0.239)] == [
        "reached",
        "within tolerance",
        "short",
    ]
    rated = protocol(published={"rmse": 0.9}, tolerance={})
    assert [rated.verdict("rmse", value) for value in (0.89, 0.901)] == ["reached", "short"]


def test_every_fold_is_run_once_and_judged_by_the_mean(here, monkeypatch):
    monkeypatch.setattr(module, "protocols", lambda: {"mine": protocol()})
    done = reproduce("mine", here / "runs")
    values = [run.metrics["test"]["rmse"] for run in done.runs]
    assert done.measured["rmse"] == pytest.approx(sum(values) / 2)
    assert values[0] != values[1]
    assert done.verdicts.keys() == {"rmse"}  # only what has a tolerance is judged
    written = json.loads((here / "runs/reproduce/mine/reproduction.json").read_text())
    assert written["measured"] == done.measured
    stamps = [(run.path / "metrics.json").stat().st_mtime_ns for run in done.runs]
    again = reproduce("mine", here / "runs")
    assert [(run.path / "metrics.json").stat().st_mtime_ns for run in again.runs] == stamps


def test_runs_that_a_protocol_begins_with_are_made_first(here, monkeypatch):
    (here / "half.yaml").write_text("plugin: gmf\nmodel: {embedding_dim: 4}\ntrainer: {max_epochs: 1}\n")
    (here / "tower.yaml").write_text("plugin: mlp\nmodel: {mlp_dim: 4, hidden: [4]}\ntrainer: {max_epochs: 1}\n")
    (here / "both.yaml").write_text(
        "plugin: ncf\nmodel: {embedding_dim: 4, mlp_dim: 4, hidden: [4]}\ntrainer: {max_epochs: 1}\n"
    )
    of_one = {"folds": 0, "published": {"ndcg@10": 0.0}, "tolerance": {}}
    monkeypatch.setattr(
        module,
        "protocols",
        lambda: {
            "half": protocol(name="half", recipe="half.yaml", **of_one),
            "tower": protocol(name="tower", recipe="tower.yaml", **of_one),
            "both": protocol(
                name="both", recipe="both.yaml", of={"model.gmf_run": "half", "model.mlp_run": "tower"}, **of_one
            ),
        },
    )
    done = reproduce("both", here / "runs")
    assert done.reached
    assert "runs/reproduce/half/seed-42" in done.runs[0].metrics["header"]["pretrained"]


@pytest.fixture
def chosen_there(here, monkeypatch):
    """A protocol whose source chose its epoch on the test part, by hit@10."""
    (here / "both.yaml").write_text(
        "plugin: bpr-mf\ndata: {name: 'sample:ratings=3000'}\nmodel: {embedding_dim: 4}\ntrainer: {max_epochs: 4}\n"
    )
    published = {"hit@10": 0.0, "ndcg@10": 0.0}
    mine = protocol(recipe="both.yaml", folds=0, published=published, tolerance={}, chosen_on="test")
    monkeypatch.setattr(module, "protocols", lambda: {"mine": mine})
    return here


def test_an_epoch_that_the_source_chose_on_test_stands_beside_ours(chosen_there, monkeypatch, capsys):
    done = reproduce("mine", chosen_there / "runs")
    (run,) = done.runs
    epochs = pl.read_csv(run.path / BY_EPOCH)
    assert epochs["epoch"].to_list() == [1, 2, 3, 4]
    ours = epochs.row(run.metrics["best_epoch"] - 1, named=True)  # the very numbers of the test at the end
    assert {name: ours[name] for name in done.measured} == pytest.approx(done.measured, abs=1e-12)
    best = epochs["hit@10"].arg_max()
    assert done.chosen_on_test["epoch"] == best + 1
    assert done.chosen_on_test["hit@10"] == epochs["hit@10"].max()
    assert done.chosen_on_test["ndcg@10"] == epochs["ndcg@10"][best]
    monkeypatch.chdir(chosen_there)
    assert main(["reproduce", "mine"]) == 0
    said = capsys.readouterr().out
    assert f"it would be epoch {best + 1}" in said
    assert f"{epochs['hit@10'].max():.4f}" in said


def test_looking_at_the_test_part_changes_nothing_in_training(chosen_there, monkeypatch):
    watched = reproduce("mine", chosen_there / "watched")
    alone = protocol(recipe="both.yaml", folds=0, published={"hit@10": 0.0}, tolerance={})
    monkeypatch.setattr(module, "protocols", lambda: {"mine": alone})
    unwatched = reproduce("mine", chosen_there / "alone")
    assert unwatched.chosen_on_test == {}
    assert unwatched.runs[0].metrics["test"] == watched.runs[0].metrics["test"]


def test_a_run_that_is_gone_on_with_keeps_the_epochs_before_the_break(chosen_there, monkeypatch):
    whole = reproduce("mine", chosen_there / "whole")
    measure = selections.evaluate
    monkeypatch.setattr(selections, "evaluate", lambda *given: calls.append(1) or broken(*given))
    calls: list[int] = []

    def broken(*given):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*given)

    with pytest.raises(KeyboardInterrupt):
        reproduce("mine", chosen_there / "runs")
    done = reproduce("mine", chosen_there / "runs")
    assert len(calls) == 5  # the third epoch was not kept, so it was trained again
    assert done.chosen_on_test == whole.chosen_on_test
    assert pl.read_csv(done.runs[0].path / BY_EPOCH).equals(pl.read_csv(whole.runs[0].path / BY_EPOCH))


def test_the_exit_code_says_whether_it_was_reached(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    monkeypatch.setattr(module, "protocols", lambda: {"mine": protocol(published={"rmse": 0.1}, tolerance={})})
    assert main(["reproduce", "mine"]) == 1
    said = capsys.readouterr().out
    assert "short" in said
    assert "standard deviations over 2 folds" in said
    assert "intervals" not in said  # over folds there are none
    monkeypatch.setattr(module, "protocols", lambda: {"mine": protocol(published={"rmse": 3.0}, tolerance={})})
    assert main(["reproduce", "mine"]) == 0
    assert "reached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--list"),
        (["lightgcn-ml1m"], "lightgcn-ml-1m"),
        (["x", "--list"], "--list"),
        (["zzz"], "--list shows them"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not list(tmp_path.iterdir())


def test_the_list_names_them_all(capsys):
    assert main(["reproduce", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in protocols())


def test_recipes_are_found_and_read():
    assert find_recipe("lightgcn", "ml-1m") == recipes_folder() / "lightgcn" / "ml-1m.yaml"
    assert find_recipe("lightgcn", "nothing") is None
    with pytest.raises(RecflowError, match="cannot be read"):
        read_recipe(recipes_folder() / "nothing.yaml")
