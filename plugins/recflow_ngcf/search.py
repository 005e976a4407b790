"""Where to look for NGCF's hyper-parameters."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "model.embedding_dim": CategoricalDistribution((32, 64, 128)),
    "model.message_dropout": FloatDistribution(0.0, 0.5),
    "model.node_dropout": FloatDistribution(0.0, 0.5),
    "model.reg": FloatDistribution(1e-6, 1e-2, log=True),
    "model.lr": FloatDistribution(2e-4, 5e-3, log=True),
}
