"""Where to look for the hyper-parameters."""

from optuna.distributions import FloatDistribution

SPACE = {"model.half_life": FloatDistribution(1.0, 3650.0, log=True)}
