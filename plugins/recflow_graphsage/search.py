"""Where to look for GraphSAGE's hyper-parameters."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

BPR_SPACE = {
    "model.embedding_dim": CategoricalDistribution((16, 32, 64)),
    "model.num_layers": IntDistribution(1, 3),
    "model.hidden": CategoricalDistribution((16, 32, 64)),
    "model.product": CategoricalDistribution([True, False]),
    "model.node_dropout": FloatDistribution(0.0, 0.5),
    "model.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "model.weight_decay": FloatDistribution(1e-7, 1e-3, log=True),
}
RATING_SPACE = BPR_SPACE
