import json
import shutil

import pytest

from recflow.ranking.recommender import Recommender
from recflow.serving.models import Models, Served
from tests.serving.made_up import HEADER, make_bundle
from tests.serving.processes import free_port


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory):
    """Nothing that a test packages goes into the user's model store, and nothing in that is served."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
        patch.setenv("BENTOML_DO_NOT_TRACK", "True")
        patch.delenv("RECFLOW_BUNDLE", raising=False)
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("run") / "bundle", seed=0)


@pytest.fixture(scope="session")
def recommender(bundle):
    return Recommender.load(bundle)


@pytest.fixture(scope="session")
def models(recommender, tmp_path_factory):
    """Two models side by side."""
    other = Recommender.load(make_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=1, plugin="bpr-mf"))
    return Models([Served("lightgcn", recommender), Served("bpr-mf", other)])


@pytest.fixture(scope="session")
def finished(bundle, tmp_path_factory):
    """A finished run of the bundle."""
    run = tmp_path_factory.mktemp("finished")
    shutil.copytree(bundle, run / "bundle")
    (run / "config.yaml").write_text("model:\n  embedding_dim: 8\n")
    metrics = {"plugin": "lightgcn", "task": "ranking", "header": HEADER, "test": {"ndcg@10": 0.25, "hit@10": 0.5}}
    metrics |= {"baselines": {"popularity": {"ndcg@10": 0.125, "hit@10": 0.75}}, "best_epoch": 3, "epochs": 5}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


@pytest.fixture
def port():
    return free_port()
