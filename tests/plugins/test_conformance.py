"""Every model that comes with recflow passes the kit."""

from recflow.testing import ModelConformance


class TestLightGCN(ModelConformance):
    plugin = "lightgcn"
    settings = {"lr": 0.05}
    epochs = 20


class TestPopularity(ModelConformance):
    plugin = "popularity"
    personalised = False


class TestRandom(ModelConformance):
    plugin = "random"
    personalised = False


class TestEASE(ModelConformance):
    plugin = "ease"
    settings = {"reg": 1.0}


class TestBiasMF(ModelConformance):
    plugin = "bias-mf"
    settings = {"embedding_dim": 4, "reg": 0.5}


class TestIterativeRatingModel(ModelConformance):
    """The third base, which no model that comes with recflow stands on yet."""

    plugin = "sgd-mf"
    epochs = 60
