"""Where to look for the hyper-parameters of NeuMF and its halves."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

_SHARED = {
    "model.loss": CategoricalDistribution(("bce", "bpr")),
    "model.num_negatives": IntDistribution(1, 8),
    "model.reg": FloatDistribution(1e-6, 1e-1, log=True),
    "model.lr": FloatDistribution(2e-4, 5e-3, log=True),
}
_PRODUCT = {"model.embedding_dim": IntDistribution(8, 128, log=True)}
_NETWORK = {
    "model.mlp_dim": IntDistribution(16, 128, log=True),
    "model.dropout": FloatDistribution(0.0, 0.5),
}

GMF_SPACE = {**_PRODUCT, **_SHARED}
MLP_SPACE = {**_NETWORK, **_SHARED}
NCF_SPACE = {**_PRODUCT, **_NETWORK, **_SHARED}
