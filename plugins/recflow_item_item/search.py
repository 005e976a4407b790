"""Where to look for the hyper-parameters of item–item models."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

EASE_SPACE = {"model.reg": FloatDistribution(1.0, 10_000.0, log=True)}

ITEM_KNN_SPACE = {
    "model.num_neighbours": IntDistribution(5, 1000, log=True),
    "model.shrink": FloatDistribution(1.0, 1000.0, log=True),
    "model.weighting": CategoricalDistribution(("none", "tfidf", "bm25")),
}

ITEM_KNN_RATING_SPACE = {
    "model.num_neighbours": IntDistribution(10, 200, log=True),
    "model.shrink": FloatDistribution(1.0, 1000.0, log=True),
    "model.reg_user": FloatDistribution(0.1, 50.0, log=True),
    "model.reg_item": FloatDistribution(0.1, 50.0, log=True),
}
