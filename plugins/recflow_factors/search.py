"""Where to look for the hyper-parameters of factor models."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

IALS_SPACE = {
    "model.embedding_dim": IntDistribution(16, 256, log=True),
    "model.reg": FloatDistribution(1e-4, 1e-1, log=True),
    "model.alpha": FloatDistribution(1e-2, 1.0, log=True),
}

BPR_MF_SPACE = {
    "model.embedding_dim": IntDistribution(16, 256, log=True),
    "model.loss": CategoricalDistribution(("bpr", "bce")),
    "model.num_negatives": IntDistribution(1, 8),
    "model.reg": FloatDistribution(1e-4, 1e-1, log=True),
    "model.lr": FloatDistribution(5e-4, 1e-2, log=True),
}
