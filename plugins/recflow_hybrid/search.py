"""Where to look for the hyper-parameters of an ensemble; give finished runs as parts, or each trial fits them anew."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "model.fusion": CategoricalDistribution(("rrf", "weighted", "learned")),
    "model.rrf_k": FloatDistribution(1.0, 1000.0, log=True),
}
