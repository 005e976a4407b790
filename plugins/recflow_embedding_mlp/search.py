"""Where to look for embedding-mlp's hyper-parameters."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "model.embedding_dim": IntDistribution(8, 64, log=True),
    "model.reg": FloatDistribution(0.3, 10.0, log=True),
    "model.reg_bias": FloatDistribution(0.1, 10.0, log=True),
    "model.reg_history": FloatDistribution(0.5, 50.0, log=True),
    "model.reg_exponent": FloatDistribution(0.0, 1.0),
    "model.reg_features": FloatDistribution(1e-3, 1.0, log=True),
    "model.reg_network": FloatDistribution(1e-3, 1.0, log=True),
    "model.dropout": FloatDistribution(0.0, 0.7),
    "model.history": CategoricalDistribution([True, False]),
    "model.lr": FloatDistribution(1e-3, 2e-2, log=True),
}
