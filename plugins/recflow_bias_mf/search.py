"""Where to look for bias-mf's hyper-parameters."""

from optuna.distributions import FloatDistribution, IntDistribution

SPACE = {
    "model.embedding_dim": IntDistribution(8, 128, log=True),
    "model.reg": FloatDistribution(1e-2, 30.0, log=True),
    "model.reg_bias": FloatDistribution(1e-2, 30.0, log=True),
    "model.reg_exponent": FloatDistribution(0.0, 1.0),
}
