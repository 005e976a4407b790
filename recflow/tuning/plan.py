"""What a study is about: kept in its storage, so that any machine that reaches the storage can work on it."""

from __future__ import annotations

import copy
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jsonargparse import ArgumentError
from optuna import Study
from optuna.distributions import distribution_to_json, json_to_distribution

from recflow import registry
from recflow.arguments import one_line
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.runs import lower_is_better
from recflow.training.configuration import FitConfiguration
from recflow.training.fit import check_configuration, configure
from recflow.tuning.samplers import PrunerName, SamplerName, check_sampler
from recflow.tuning.space import Space, change_space, changed_keys, contains, encode, ends, fixed_values
from recflow.tuning.trial_queue import alive, machine

_PLAN, _BEGUN_BY = "recflow", "recflow:begun"


@dataclass(frozen=True)
class Plan:
    """What a study is about.

    Args:
        name: The study's name.
        plugin: The model.
        dataset: The data's name.
        sha256: The data's checksum.
        base: The configuration that all trials share, as YAML.
        objectives: Validation metrics, the first of which prunes.
        sampler: See :func:`~recflow.tuning.samplers.make_sampler`.
        pruner: See :func:`~recflow.tuning.samplers.make_pruner`.
        seed: Of the sampler, and of each fit.
        max_epochs: Of each fit.
        search: Distributions by key, as Optuna's JSON.
        untuned: The values of those keys without tuning.
        keep_checkpoints: Whether all trials keep theirs.
    """

    name: str
    plugin: str
    dataset: str
    sha256: str
    base: str
    objectives: tuple[str, ...]
    sampler: SamplerName
    pruner: PrunerName
    seed: int
    max_epochs: int
    search: dict[str, str]
    untuned: dict[str, Any]
    keep_checkpoints: bool

    @property
    def space(self) -> Space:
        """The search space."""
        return {key: json_to_distribution(text) for key, text in self.search.items()}

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Optuna's word for each objective."""
        return ["minimize" if lower_is_better(name) else "maximize" for name in self.objectives]

    @property
    def outside(self) -> list[str]:
        """Keys whose untuned value the space does not hold: the untuned model can be no trial."""
        return [key for key, each in self.space.items() if not contains(each, self.untuned[key])]

    def keep(self, study: Study) -> None:
        """Write the plan into a study."""
        study.set_user_attr(_PLAN, json.dumps(asdict(self)))


def sign_beginning(study: Study) -> None:
    """Tell who is making a study: until its plan is kept, which comes last, it is half begun."""
    study.set_user_attr(_BEGUN_BY, [machine(), os.getpid()])


def was_broken_off(study: Study) -> bool:
    """Whether a study is half begun, and its process is gone.

    Raises:
        RecflowError: If that cannot be known, or the process is still at it.
    """
    if _PLAN in study.user_attrs:
        return False
    owner = study.user_attrs.get(_BEGUN_BY)
    if owner is None:
        raise RecflowError(
            f"The study {study.study_name!r} was not made by recflow tune: it says nothing of a model; choose "
            "another --name."
        )
    if owner[0] == machine() and not alive(owner[1]):
        return True
    where = owner[0].partition("/")[0]
    raise RecflowError(
        f"The study {study.study_name!r} is being begun by process {owner[1]} on {where}: wait for it and go on by "
        "--resume; if it was killed, choose another --name."
    )


def kept_plan(study: Study) -> Plan:
    """Read a study's plan.

    Raises:
        RecflowError: If the study is none of ours, or half begun.
    """
    if was_broken_off(study):
        raise RecflowError(
            f"The study {study.study_name!r} was killed while it began: begin it again, by the command that it was "
            "begun by."
        )
    content = json.loads(study.user_attrs[_PLAN])
    return Plan(**{**content, "objectives": tuple(content["objectives"])})


def make_plan(
    args: Sequence[str],
    *,
    name: str | None = None,
    objectives: Sequence[str] | None = None,
    sampler: str = "tpe",
    pruner: str | None = None,
    search: Mapping[str, Any] | None = None,
    keep_checkpoints: bool = False,
) -> tuple[Plan, Dataset]:
    """Check everything that can be checked before a study begins; nothing is written.

    Args:
        args: What ``recflow fit`` would be given for the untuned model.
        name: The study's name; by default, plugin and data.
        objectives: Validation metrics; by default, the one that picks the model's best epoch.
        sampler: A sampler's name.
        pruner: A pruner's name; by default, median for one objective and none for several.
        search: Changes to the plugin's space, see :func:`~recflow.tuning.space.change_space`.
        keep_checkpoints: Whether all trials keep theirs.

    Returns:
        The plan, and the data, prepared.

    Raises:
        RecflowError: If anything given cannot be used.
    """
    search = search or {}
    configuration = configure(args)[0]
    spec = configuration.spec
    if configuration.cross_validates:
        raise RecflowError("A study needs one split: data.folds asks for several; choose one by --data.fold 1.")
    if str(configuration.config["trainer"]["devices"]) != "1" or configuration.config["trainer"]["num_nodes"] != 1:
        raise RecflowError("A trial is fitted in one process: leave out --trainer.devices, and give --jobs.")
    space = change_space(
        registry.load_target(spec, "search_space") if spec.search_space else {}, search, _known(configuration)
    )
    _check_kinds(configuration, space, search)
    fixed = as_arguments(fixed_values(search))
    if fixed:
        configuration = configure_on(configuration.datamodule.dataset, [*args, *fixed])
    if not space:
        why = "nothing to tune" if not spec.search_space and not search else "nothing left to tune"
        raise RecflowError(f"{spec.name} has {why}: fit it, or name what to search by --search.KEY '[value, value]'.")
    if configuration.config["trainer"]["max_epochs"] == 0:
        raise RecflowError("trainer.max_epochs must be at least 1, or -1 for no limit, got 0.")
    if not configuration.config["test"]:
        raise RecflowError("A study reads the test part once, for its winner: leave out --no-test, or say --test true.")
    monitor, measured = check_configuration(configuration)
    chosen = tuple(objectives or [monitor])
    _check_objectives(chosen, measured)
    pruner = pruner or ("median" if len(chosen) == 1 else "none")
    check_sampler(sampler, pruner, space, len(chosen))
    data = configuration.datamodule.dataset
    if not len(data.rows["val"].users):
        raise RecflowError(
            f"{data.name} as configured has no validation part, by which trials are compared: give --data.val_fraction "
            "or another --data.split."
        )
    if configuration.config["monitor"] is None:
        configuration.config["monitor"] = chosen[0]
    configuration.config["name"] = None
    return Plan(
        name=_study_name(name, spec.name, data.name),
        plugin=spec.name,
        dataset=data.name,
        sha256=data.header()["sha256"],
        base=configuration.dump(),
        objectives=chosen,
        sampler=sampler,  # type: ignore[arg-type]  # checked above
        pruner=pruner,  # type: ignore[arg-type]
        seed=configuration.config["seed"],
        max_epochs=configuration.config["trainer"]["max_epochs"],
        search={key: distribution_to_json(each) for key, each in space.items()},
        untuned={key: encode(_plain(configuration.config.get(key))) for key in space},
        keep_checkpoints=keep_checkpoints,
    ), data


def configure_on(data: Dataset, args: Sequence[str]) -> FitConfiguration:
    """Configure a fit on data that are prepared already, in batches of the size that its arguments say.

    Raises:
        RecflowError: If an argument is wrong.
    """
    configuration = configure(args, data)[0]
    batch_size = configuration.config["data"]["batch_size"]
    if batch_size != data.batch_size:
        data = copy.copy(data)
        data.config, data.batch_size = replace(data.config, batch_size=batch_size), batch_size
        configuration.datamodule.dataset = data
    return configuration


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Settings by key as a command line has them; null among them is kept."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def _known(configuration: FitConfiguration) -> list[str]:
    return [action.dest for action in configuration.parser._actions if "." in action.dest]


def _check_kinds(configuration: FitConfiguration, space: Space, search: Mapping[str, Any]) -> None:
    """Refuse values that a setting cannot have: each trial that drew one would fail."""
    for key in changed_keys(search):
        for value in ends(space[key]) if key in space else ():
            try:
                configuration.parser.parse_args(as_arguments({key: value}))
            except ArgumentError as error:
                raise RecflowError(f"search.{one_line(str(error), [key])}") from error


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _check_objectives(objectives: Sequence[str], measured: Sequence[str]) -> None:
    for name in objectives:
        if name not in measured:
            close = difflib.get_close_matches(name, measured, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(measured)}."
            raise RecflowError(f"--objective {name!r} is no validation metric; {hint}")
    if len(set(objectives)) < len(objectives):
        raise RecflowError(f"--objective expects distinct metrics, got {' '.join(objectives)}.")


def _study_name(name: str | None, plugin: str, dataset: str) -> str:
    if name is None:
        data = re.sub(r"[^\w.=-]+", "_", dataset).strip("._-") or "data"
        return f"{plugin}-{data}"
    if not re.fullmatch(r"[\w=-][\w.=-]*", name):
        raise RecflowError(f"A study's name is made of letters, digits, '.', '_', '=' and '-', got {name!r}.")
    return name
