"""Where to look for the hyper-parameters of models of biases and factors."""

from optuna.distributions import FloatDistribution, IntDistribution

SPACE = {
    "model.embedding_dim": IntDistribution(8, 128, log=True),
    "model.reg": FloatDistribution(1e-2, 30.0, log=True),
    "model.reg_bias": FloatDistribution(1e-2, 30.0, log=True),
    "model.reg_exponent": FloatDistribution(0.0, 1.0),
}

BIAS_ONLY_SPACE = {
    "model.reg_user": FloatDistribution(0.1, 50.0, log=True),
    "model.reg_item": FloatDistribution(0.1, 50.0, log=True),
}

FEATURES_SPACE = {
    "model.embedding_dim": IntDistribution(4, 32, log=True),
    "model.reg_features": FloatDistribution(0.5, 200.0, log=True),
    "model.reg_implicit": FloatDistribution(2.0, 500.0, log=True),
}

SVD_SPACE = {
    "model.embedding_dim": IntDistribution(10, 200, log=True),
    "model.reg": FloatDistribution(5e-3, 0.2, log=True),
    "model.lr": FloatDistribution(1e-3, 2e-2, log=True),
}
