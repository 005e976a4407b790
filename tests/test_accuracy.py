"""Numbers that must not move by themselves: narrow bands around what the recipes gave on real data."""

from pathlib import Path

import pytest

import recflow

RECIPES = Path(__file__).parents[1] / "experiments"

pytestmark = pytest.mark.data


def test_bias_mf_on_the_first_given_fold(tmp_path):
    run = recflow.fit(config=RECIPES / "bias-mf" / "ml-100k.yaml", data={"fold": 1}, runs_dir=str(tmp_path))
    assert run.metrics["test"]["rmse"] == pytest.approx(0.9208, abs=5e-4)
    assert run.metrics["header"]["interactions"] == {"train": 80_000, "val": 0, "test": 20_000}


def test_ease_on_ml_100k_beats_popularity_by_far(tmp_path):
    run = recflow.fit("ease", data={"name": "ml-100k", "drop_below": 3}, runs_dir=str(tmp_path))
    assert run.metrics["test"]["ndcg@10"] == pytest.approx(0.2908, abs=5e-4)
    assert run.metrics["baselines"]["popularity"]["ndcg@10"] == pytest.approx(0.1204, abs=5e-4)


def test_lightgcn_learns_as_fast_as_it_did(tmp_path):
    run = recflow.fit(config=RECIPES / "lightgcn" / "ml-100k.yaml", trainer={"max_epochs": 60}, runs_dir=str(tmp_path))
    assert run.metrics["val"]["ndcg@10"] == pytest.approx(0.1793, abs=0.006)
