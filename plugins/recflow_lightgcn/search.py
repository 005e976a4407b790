"""Where to look for LightGCN's hyper-parameters."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "model.embedding_dim": CategoricalDistribution((32, 64, 128)),
    "model.num_layers": IntDistribution(1, 4),
    "model.reg": FloatDistribution(1e-6, 1e-2, log=True),
    "model.lr": FloatDistribution(5e-4, 1e-2, log=True),
}
