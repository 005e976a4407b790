"""Who proposes the next trial, and who ends a hopeless one early: Optuna's samplers and pruners by name."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

from recflow.errors import RecflowError
from recflow.tuning.space import Space, grid_points

SamplerName = Literal["tpe", "random", "grid", "cmaes"]
PrunerName = Literal["median", "hyperband", "none"]


def make_sampler(name: SamplerName, seed: int, trial: int) -> BaseSampler:
    """Make the sampler of one trial.

    Each trial's random numbers follow from the seed and its number, so that a study goes on after a break as if there
    had been none, and no two workers draw alike. A grid's trials have all their values already.
    """
    own = int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
    if name == "tpe":
        return TPESampler(seed=own)
    if name == "cmaes":
        independent = RandomSampler(seed=own)
        return CmaEsSampler(seed=own, independent_sampler=independent, warn_independent_sampling=False)
    return RandomSampler(seed=own)


def make_pruner(name: PrunerName, max_epochs: int) -> BasePruner:
    """Make the pruner.

    ``median`` ends a trial whose best epoch so far is worse than the median of the others' at the same epoch, once five
    trials have finished, and in no trial before a tenth of its epochs. ``hyperband`` gives few epochs to many trials
    and all epochs to the best third of the best third of them.
    """
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, max_epochs // 10))
    if name == "hyperband":
        return HyperbandPruner(
            min_resource=max(1, max_epochs // 27), max_resource=max_epochs if max_epochs > 0 else "auto"
        )
    return NopPruner()


def check_sampler(name: str, pruner: str, space: Space, objectives: int) -> None:
    """Refuse what does not go together.

    Raises:
        RecflowError: If a name is unknown, or the sampler or pruner cannot do what is asked.
    """
    if name not in get_args(SamplerName):
        raise RecflowError(f"--sampler expects one of {', '.join(get_args(SamplerName))}, got {name!r}.")
    if pruner not in get_args(PrunerName):
        raise RecflowError(f"--pruner expects one of {', '.join(get_args(PrunerName))}, got {pruner!r}.")
    if objectives > 1 and pruner != "none":
        raise RecflowError(
            f"--pruner {pruner} needs one objective, got {objectives}: Optuna prunes no trial with several."
        )
    if name == "cmaes":
        if objectives > 1:
            raise RecflowError(f"--sampler cmaes needs one objective, got {objectives}: take tpe.")
        ranges = [key for key, each in space.items() if not isinstance(each, CategoricalDistribution)]
        if len(ranges) < 2:
            raise RecflowError(f"--sampler cmaes needs two ranges or more, got {len(ranges)}: take tpe.")
    if name == "grid":
        grid_points(space)
