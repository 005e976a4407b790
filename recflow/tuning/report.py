"""What a study leaves as files: the table of its trials, its summary, and the winner's configuration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import yaml
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from recflow.runs import Run
from recflow.tuning.plan import Plan
from recflow.tuning.space import decode, describe
from recflow.tuning.study import Study
from recflow.tuning.trial_queue import REASON
from recflow.tuning.trials import UNTUNED
from recflow.tuning.winner import RULE, front

TRIALS, BEST_CONFIG = "trials.csv", "best.yaml"


def trials_frame(plan: Plan, trials: Sequence[FrozenTrial]) -> pl.DataFrame:
    """The trials as a table: a row a trial."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        "state": [trial.state.name for trial in trials],
    }
    for place, name in enumerate(plan.objectives):
        columns[name] = [trial.values[place] if trial.values else None for trial in trials]
    for key in plan.search:
        columns[key] = _of_one_kind([decode(trial.params.get(key)) for trial in trials])
    for name in ("best_epoch", "epochs", "seconds"):
        columns[name] = [trial.user_attrs.get(name) for trial in trials]
    columns["untuned"] = [UNTUNED in trial.user_attrs for trial in trials]
    columns[REASON] = [trial.user_attrs.get(REASON) for trial in trials]
    return pl.DataFrame(columns)


def write_trials(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """Write ``trials.csv``."""
    Run(study.folder).write_text(TRIALS, trials_frame(study.plan, trials).write_csv())


def summary(plan: Plan, trials: Sequence[FrozenTrial], winner: FrozenTrial | None) -> dict[str, Any]:
    """The content of ``study.json``."""
    content: dict[str, Any] = {
        "plugin": plan.plugin,
        "dataset": plan.dataset,
        "sha256": plan.sha256,
        "objectives": list(plan.objectives),
        "sampler": plan.sampler,
        "pruner": plan.pruner,
        "seed": plan.seed,
        "space": {key: describe(distribution) for key, distribution in plan.space.items()},
        "untuned": {key: decode(value) for key, value in plan.untuned.items()},
        "trials": dict(Counter(trial.state.name for trial in trials)),
        "seconds": sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in trials),
    }
    if winner is not None:
        content["best"] = _one(plan, winner)
    if len(plan.objectives) > 1:
        content["rule"] = RULE
        content["front"] = [_one(plan, trial) for trial in front(trials, _directions(plan))]
    return content


def write_best_config(study: Study, winner: FrozenTrial) -> None:
    """Write ``best.yaml``: ``recflow fit --config`` repeats the winner, and tests it."""
    config = yaml.safe_load(study.plan.base)
    for key, value in winner.params.items():
        _put(config, key.split("."), decode(value))
    config["test"] = True
    measured = ", ".join(
        f"{name} {value:.4f}" for name, value in zip(study.plan.objectives, winner.values or [], strict=True)
    )
    head = f"# Trial {winner.number} of the study {study.plan.name}: {measured}\n"
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    Run(study.folder).write_text(BEST_CONFIG, head + text)


def shown(values: Mapping[str, Any], plan: Plan) -> str:
    """Drawn values on one line, without the model's prefix."""
    parts = []
    for key, value in values.items():
        value = decode(value)
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        if isinstance(plan.space.get(key), CategoricalDistribution):
            text = str(value)
        parts.append(f"{key.removeprefix('model.')} {text}")
    return ", ".join(parts)


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Values that a column can hold: lists, and choices of several kinds, as text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return [None if value is None else float(value) for value in values] if kinds == {int, float} else values
    return [None if value is None else str(value) for value in values]


def _one(plan: Plan, trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number,
        **dict(zip(plan.objectives, trial.values or [], strict=True)),
        "values": {key: decode(value) for key, value in trial.params.items()},
    }


def _directions(plan: Plan) -> list[Any]:
    from optuna.study import StudyDirection

    return [StudyDirection[direction.upper()] for direction in plan.directions]


def _put(config: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        config = config.setdefault(name, {})
    config[path[-1]] = value
