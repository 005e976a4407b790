"""From a run into the model store, and what the service makes of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recflow.cli import main
from recflow.errors import RecflowError
from recflow.ranking.bundle import load_bundle
from recflow.runs import load_run
from recflow.serving import store
from recflow.serving.app import make_app
from recflow.serving.card import model_card
from recflow.serving.models import WITHOUT_HISTORIES, Models
from recflow.serving.sources import BUNDLE, find_bundles, join
from tests.serving.made_up import make_bundle


def package(capsys, *argv):
    assert main(["package", *argv]) == 0
    said = capsys.readouterr().out
    return re.search(r"^(\S+:\S+): ", said, re.MULTILINE)[1], said


def refused(capsys, *argv):
    assert main(["package", *argv]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    return error


def test_what_is_packaged_is_what_was_measured(finished, capsys):
    tag, said = package(capsys, "--run", str(finished))
    folder = store.find(tag)
    assert f"RECFLOW_BUNDLE={tag} bentoml serve" in said
    assert load_bundle(folder).about == load_bundle(finished / "bundle").about
    for file in (finished / "bundle").iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes() or file.name == "bundle.json"
    card = (folder / "README.md").read_text()
    for told in (
        "# lightgcn on made-up",
        "ratio 8:1:1",
        "| popularity | 0.1250 | **0.7500** |",
        "**0.2500**",
        "licence",
    ):
        assert told in card
    assert "embedding_dim: 8" in card
    assert "holds what every user of the data has rated" in card


class TestWithoutHistories:
    @pytest.fixture
    def folder(self, finished, capsys):
        tag, _ = package(capsys, "--run", str(finished), "--without-histories", "--name", "slim")
        assert tag.startswith("slim:")
        return store.find(tag)

    def test_no_rating_is_left_and_the_card_and_every_answer_say_so(self, folder):
        assert not (folder / "histories.safetensors").exists()
        assert WITHOUT_HISTORIES in (folder / "README.md").read_text()
        client = TestClient(make_app(Models.load([folder])))
        assert client.get("/api/models").json()["models"][0]["notes"] == [WITHOUT_HISTORIES]
        answer = client.get("/api/recommend?user_id=3&top_k=60&reasons=true").json()
        assert answer["notes"] == [WITHOUT_HISTORIES]
        assert len(answer["recommendations"]) == 60  # nothing is known to be seen
        assert not any(found["because"] for found in answer["recommendations"])
        assert client.post("/recommend", json={"history": [{"item": 105}]}).json()["notes"] == []

    def test_whom_the_model_was_not_trained_on_gets_what_is_popular(self, tmp_path, capsys):
        import torch

        run = tmp_path / "run"
        make_bundle(run / "bundle", seed=0, untrained=torch.tensor([2]))
        target = tmp_path / "copy"
        target.mkdir()
        from recflow.ranking.bundle import copy_bundle

        copy_bundle(run / "bundle", target, histories=False)
        client = TestClient(make_app(Models.load([target])))
        assert client.get("/api/recommend?user_id=3").json()["path"] == "popular"
        assert client.get("/api/recommend?user_id=4").json()["path"] == "known user"

    def test_a_model_made_of_histories_is_refused(self, tmp_path, finished, capsys):
        import torch

        from recflow.ranking.rankers import ItemItemRanker

        run = tmp_path / "run"
        shutil.copytree(finished, run)
        ranker = ItemItemRanker(torch.zeros(60, 60), torch.arange(21), torch.zeros(20, dtype=torch.int64))
        make_bundle(run / "bundle", seed=0, ranker=ranker)
        assert "cannot be left out" in refused(capsys, "--run", str(run), "--without-histories")


class TestRefusals:
    def test_a_run_that_was_changed(self, finished, tmp_path, capsys):
        shutil.copytree(finished, tmp_path / "run")
        (tmp_path / "run" / "bundle" / "weights.safetensors").write_bytes(b"half")
        assert "was changed or cut short" in refused(capsys, "--run", str(tmp_path / "run"))

    def test_a_name_that_is_no_tag(self, finished, capsys):
        assert "'No Name'" in refused(capsys, "--run", str(finished), "--name", "No Name")

    def test_a_study_without_a_best_run(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert "has no best run" in refused(capsys, "--study", "mine")

    def test_both_a_run_and_a_study(self, capsys):
        assert "not both" in refused(capsys, "--run", "a", "--study", "b")


def test_in_a_checkout_it_says_how_to_make_an_image(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "make image" not in package(capsys, "--run", str(finished))[1]
    (tmp_path / "bentofile.yaml").touch()
    assert "make image" in package(capsys, "--run", str(finished))[1]
    assert (
        "make image" not in package(capsys, "--run", str(finished), "--name", "other")[1]
    )  # it takes recflow's latest


def test_a_studys_best_run_is_packaged(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "runs/tune/mine/best")
    monkeypatch.chdir(tmp_path)
    _, said = package(capsys, "--study", "mine", "--name", "tuned")
    assert "from runs/tune/mine/best" in said


def test_a_card_of_a_run_that_was_not_tested_says_so(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    metrics = json.loads((finished / "metrics.json").read_text())
    metrics["val"] = metrics.pop("test")
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    card = model_card(load_run(tmp_path / "run"), summary="A model", paper="", licence="")
    assert "It was not tested" in card
    assert "popularity" not in card  # whose numbers are of the test part


class TestSources:
    """``RECFLOW_BUNDLE`` wins over the store, and the store over the newest run."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_paths_and_tags_side_by_side(self, finished, bundle, monkeypatch, capsys):
        tag, _ = package(capsys, "--run", str(finished), "--name", "side")
        expected = [finished / "bundle", bundle]
        for separator in (",", ", ", os.pathsep):
            monkeypatch.setenv(BUNDLE, f"{finished}{separator}{bundle}")
            assert find_bundles()[0] == expected
        monkeypatch.setenv(BUNDLE, f"{tag},{bundle}")
        assert find_bundles()[0] == [store.find(tag), bundle]
        monkeypatch.setenv(BUNDLE, join([Path("with, comma"), bundle]))
        Path("with, comma").mkdir()
        assert find_bundles()[0] == [Path("with, comma").resolve(), bundle.resolve()]

    @pytest.mark.parametrize("name", ["nowhere", "recflow:nothing", "/no/where"])
    def test_what_is_not_there_is_named(self, monkeypatch, name):
        monkeypatch.setenv(BUNDLE, name)
        with pytest.raises(RecflowError, match=f"names '{name}'"):
            find_bundles()

    def test_the_store_wins_over_the_newest_run(self, finished, capsys, monkeypatch):
        shutil.copytree(finished, "runs/lightgcn/made-up/a")
        tag, _ = package(capsys, "--run", str(finished))
        monkeypatch.delenv(BUNDLE, raising=False)
        folders, why = find_bundles()
        assert folders == [store.find(tag)]
        assert tag in why

    def test_the_newest_run_where_nothing_was_packaged(self, finished, tmp_path):
        shutil.copytree(finished, "runs/lightgcn/made-up/a")
        program = "from recflow.serving.sources import find_bundles; print(find_bundles()[0][0])"
        environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "empty")}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "runs/lightgcn/made-up/a/bundle"


def test_models_of_one_plugin_are_told_apart_by_their_folders(tmp_path):
    folders = [make_bundle(tmp_path / name / "bundle", seed=0) for name in ("a", "b")]
    assert [served.name for served in Models.load(folders)] == ["lightgcn@a", "lightgcn@b"]
