"""Where to look for the hyper-parameters of LightGCN and XSimGCL."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SPACE = {
    "model.embedding_dim": CategoricalDistribution((32, 64, 128)),
    "model.num_layers": IntDistribution(1, 4),
    "model.reg": FloatDistribution(1e-6, 1e-2, log=True),
    "model.lr": FloatDistribution(5e-4, 1e-2, log=True),
}

XSIMGCL_SPACE = {
    "model.embedding_dim": CategoricalDistribution((32, 64, 128)),
    "model.num_layers": IntDistribution(1, 4),
    "model.contrast": FloatDistribution(1e-3, 1.0, log=True),
    "model.temperature": FloatDistribution(0.05, 0.5, log=True),
    "model.eps": FloatDistribution(0.01, 0.5, log=True),
    "model.reg": FloatDistribution(1e-6, 1e-2, log=True),
    "model.lr": FloatDistribution(1e-3, 3e-2, log=True),
}
