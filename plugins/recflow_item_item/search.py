"""Where to look for the hyper-parameters of item–item models."""

from optuna.distributions import FloatDistribution

EASE_SPACE = {"model.reg": FloatDistribution(1.0, 10_000.0, log=True)}
