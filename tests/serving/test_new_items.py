"""A movie that nobody has rated, asked of a model that learns from features."""

import pytest
import torch
from fastapi.testclient import TestClient

import recflow
from recflow.data.dataset import DataConfig, prepare
from recflow.errors import RecflowError
from recflow.ranking.newcomers import Newcomer
from recflow.serving.app import make_app
from recflow.serving.models import Models


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"runs_dir": str(tmp_path_factory.mktemp("runs")), "plots": False, "loggers": []}
    return recflow.fit("graphsage-bpr", data="sample", trainer={"max_epochs": 2}, **settings)


@pytest.fixture(scope="module")
def client(run):
    return TestClient(make_app(Models.load([run.path / "bundle"])))


def test_its_features_are_encoded_as_those_the_model_was_fitted_on(run):
    data, bundle = prepare(DataConfig(name="sample")), run.recommender.bundle
    items = run.recommender.catalog.items(range(0, data.num_items, 50))
    for item in items:
        expected = bundle.ranker.new_item(data.item_features.values[item.item])
        vector = Newcomer(bundle, [genre.upper() for genre in item.genres], item.year).vector
        torch.testing.assert_close(vector, expected)


def test_the_service_names_what_is_like_it_and_scores_it(client, run):
    body = {"title": "Brand New", "genres": ["Comedy", "Drama"], "year": 1999, "user_id": 42, "top_k": 5}
    answer = client.post("/new_item", json=body).json()
    assert answer["title"] == "Brand New"
    assert len(answer["similar"]) == 5
    newcomer = Newcomer(run.recommender.bundle, ["Comedy", "Drama"], 1999)
    assert answer["score"] == pytest.approx(newcomer.score(run.recommender.catalog.user(42)))
    assert client.get("/api/models").json()["models"][0]["new_items"] is True


@pytest.mark.parametrize(
    ("body", "reason"),
    [({"genres": ["Opera"]}, "without a genre 'Opera'"), ({"title": "Alone"}, "needs a genre, or a year")],
)
def test_what_the_model_cannot_place_is_refused(client, body, reason):
    response = client.post("/new_item", json=body)
    assert response.status_code == 422
    assert reason in response.json()["error"]


def test_a_bundle_that_names_no_features_is_refused(run, monkeypatch):
    monkeypatch.delitem(run.recommender.bundle.about, "item_features")
    with pytest.raises(RecflowError, match="does not name its features"):
        run.recommender.new_item(["Comedy"])
