"""Indexes in the service: which models get one, what is logged, and what `models` says."""

import logging
import sys

import pytest
import torch
from fastapi.testclient import TestClient

from recflow.ranking import shortlist as shortlisting
from recflow.ranking.rankers import ItemItemRanker
from recflow.ranking.recommender import Recommender
from recflow.serving.app import make_app
from recflow.serving.indexes import build_indexes
from recflow.serving.models import Models, Served
from tests.serving.made_up import NUM_ITEMS, NUM_USERS, make_bundle


@pytest.fixture
def models(bundle, tmp_path):
    weights = torch.randn(NUM_ITEMS, NUM_ITEMS, generator=torch.Generator().manual_seed(0))
    history = torch.arange(NUM_USERS + 1), torch.arange(NUM_USERS)
    other = make_bundle(tmp_path / "other", seed=1, plugin="ease", ranker=ItemItemRanker(weights, *history))
    return Models([Served("lightgcn", Recommender.load(bundle)), Served("ease", Recommender.load(other))])


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "recflow.serving")
    return lambda: [(record.levelname, record.getMessage(), record.entry) for record in caplog.records]


def test_small_catalogues_have_none(models, events):
    build_indexes(models)
    assert events() == []
    assert models.default.recommender.shortlists == {}


def test_large_ones_have_one_for_lists_and_one_for_similar_items(models, events):
    client = TestClient(make_app(models))
    before = client.get("/api/models").json()["models"]
    build_indexes(models, least_items=NUM_ITEMS)
    (lists, similar, other) = events()
    for (level, event, entry), endpoint in ((lists, "recommend"), (similar, "similar")):
        assert (level, event) == ("INFO", "index ready")
        assert (
            entry.items() >= {"model": "lightgcn", "items": NUM_ITEMS, "endpoint": endpoint, "recall@10": 1.0}.items()
        )
        assert entry["seconds"] >= 0
    assert other[:2] == ("INFO", "no index: the model's scores are no inner products, all items are scored")
    after = client.get("/api/models").json()["models"]
    assert [one["index"] for one in before] == [{}, {}]
    assert after[0]["index"] == {name: {"recall": 1.0, "candidates": 500} for name in ("recommend", "similar")}
    assert after[1]["index"] == {}
    assert len(client.get("/api/recommend?user_id=3&top_k=10").json()["recommendations"]) == 10


def test_without_faiss_all_items_are_scored_and_the_log_says_what_to_install(models, events, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    expected = models.default.recommender.recommend(3)
    build_indexes(models, least_items=NUM_ITEMS)
    (level, event, entry), _ = events()
    assert level == "WARNING"
    assert event == "no index: all items are scored. An index needs its package: pip install 'recflow[index]'."
    assert entry == {"model": "lightgcn", "items": NUM_ITEMS}
    assert models.default.recommender.recommend(3) == expected


def test_an_index_that_finds_too_little_is_left_out_and_the_log_says_so(models, events, monkeypatch):
    for name, value in {"_FEW": 1, "_CANDIDATES": (1,), "_PER_PLACE": 0}.items():
        monkeypatch.setattr(shortlisting, name, value)
    build_indexes(models, least_items=NUM_ITEMS)
    level, event, entry = events()[0]
    assert (level, event) == ("WARNING", "no index: its recall is below 0.99, all items are scored")
    assert entry["recall@10"] < 0.99
    assert TestClient(make_app(models)).get("/api/models").json()["models"][0]["index"] == {}
