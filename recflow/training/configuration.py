"""The configuration of a fit: files, command line and defaults become one checked whole, through LightningCLI."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from recflow import registry
from recflow.arguments import data_argument, one_line
from recflow.data.datamodule import RecDataModule
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.metrics.evaluate import MetricsConfig
from recflow.spec import ModelSpec
from recflow.training.loggers import LoggerName
from recflow.training.modules import ClosedFormModule, RecModule

_RESUME_MAY_CHANGE = ("--trainer.", "--patience", "--threads")


class FitConfiguration(LightningCLI):
    """Parses a fit's arguments and builds its data and model; the trainer is built once the run folder is known.

    Args:
        spec: The plugin.
        args: Command-line arguments, without ``fit`` itself.
        prepared: The data, where whoever calls has made them ready already: they are not loaded again.
    """

    model: RecModule
    datamodule: RecDataModule

    def __init__(self, spec: ModelSpec, args: Sequence[str], prepared: Dataset | None = None) -> None:
        module = registry.load_target(spec, "module")
        if not (isinstance(module, type) and issubclass(module, RecModule) and module.task == spec.task):
            raise RecflowError(
                f"Plugin {spec.name!r}: {spec.module} must be a RankingModule, RatingModule or ClosedFormModule "
                f"with task = {spec.task!r}."
            )
        self.spec, self.module, self.given, self.prepared = spec, module, args, prepared
        try:
            super().__init__(
                module,
                RecDataModule if prepared is None else type("PreparedData", (RecDataModule,), {"dataset": prepared}),
                save_config_callback=None,
                trainer_defaults={
                    "max_epochs": module.default_max_epochs,
                    "num_sanity_val_steps": 0,
                    "enable_model_summary": False,
                    "enable_progress_bar": False,
                    "log_every_n_steps": 1_000_000_000,
                    "devices": 1,
                },
                seed_everything_default=False,
                parser_kwargs={
                    "exit_on_error": False,
                    "allow_abbrev": False,
                    "description": f"Fit {spec.name}: {spec.summary}.",
                },
                args=_without_program_arguments(args),
                run=False,
                load_from_checkpoint_support=False,
            )
        except ArgumentError as error:
            raise RecflowError(one_line(str(error), [action.dest for action in self.parser._actions])) from error

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """See LightningCLI."""
        return super().init_parser(
            **kwargs, prog=f"recflow fit --plugin {self.spec.name}", usage="%(prog)s [settings]", dump_header=None
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Everything that is neither the model's, the data's nor the trainer's."""
        parser.add_argument("--plugin", type=str, help="The model; `recflow plugins` lists them.")
        parser.add_argument("--seed", type=int, default=42, help="Fixes initialisation, batches and negatives.")
        parser.add_argument("--name", type=str | None, default=None, help="The run's name; by default, the time.")
        parser.add_argument("--runs_dir", type=str, default="runs", help="Where run folders go.")
        parser.add_argument(
            "--monitor",
            type=str | None,
            default=None,
            help=f"The validation metric that picks the best epoch (default: {self.module.monitor}).",
        )
        parser.add_argument(
            "--patience", type=int, default=20, help="Validations without improvement before training stops."
        )
        parser.add_argument(
            "--test", type=bool, default=True, help="Whether to measure the test part; --no-test leaves it unread."
        )
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads (default: one per core). On a busy machine fewer are faster: OpenMP's threads wait by "
            "spinning; OMP_WAIT_POLICY=passive helps, too.",
        )
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="A finished run of the same model to start from, on data that may have grown: users and items that it "
            "knows keep what it had learnt of them.",
        )
        parser.add_argument(
            "--plots", type=bool, default=True, help="Whether to draw pictures of the test; its tables are kept anyway."
        )
        parser.add_argument(
            "--loggers",
            type=list[LoggerName],
            default=["tensorboard"],
            help="Any of tensorboard, csv, mlflow and wandb, such as '[tensorboard, csv]'.",
        )
        parser.add_class_arguments(MetricsConfig, "metrics")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The model's and the data's settings first: Lightning's trainer has a great many."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(self._datamodule_class, "data")
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Sizes flow from the data to the model."""
        for size in ("num_users", "num_items"):
            parser.link_arguments(f"data.{size}", f"model.{size}", apply_on="instantiate")

    def _set_seed(self) -> None:
        """LightningCLI's own seeding is by another key."""
        if not 0 <= self.config["seed"] < 2**32:
            raise RecflowError(f"seed must be from 0 to {2**32 - 1}, got {self.config['seed']}.")
        pl.seed_everything(self.config["seed"], verbose=False)

    @property
    def cross_validates(self) -> bool:
        """Whether this configuration stands for one fit a fold, not for one fit."""
        return self.config["data"]["folds"] is not None and self.config["data"]["fold"] is None

    def first_fold(self) -> FitConfiguration:
        """The configuration of the first fold's fit."""
        return FitConfiguration(self.spec, [*self.given, "--data.fold=1"])

    def instantiate_classes(self) -> None:
        """Build data and model; what they refuse is a mistake in the configuration."""
        if self.cross_validates:
            if self.config["data"]["folds"] < 2:
                raise RecflowError(f"data.folds must be at least 2, got {self.config['data']['folds']}.")
            return
        if self.config.get("optimizer") and issubclass(self.module, ClosedFormModule):
            raise RecflowError(
                f"{self.spec.name} is solved in closed form, without an optimizer: leave out --optimizer."
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will be overridden by.*")
            try:
                super().instantiate_classes()
            except (ValueError, TypeError) as error:
                raise RecflowError(f"The configuration of {self.spec.name} cannot be used: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Wait: the trainer needs the run folder."""
        return None

    def build_trainer(self, **settings: Any) -> pl.Trainer:
        """Make the trainer.

        Args:
            settings: What the configuration does not say: folder, logger, callbacks (added to the configured ones).
        """
        chosen = dict(self.config_init["trainer"])
        callbacks = [*(chosen.pop("callbacks") or []), *settings.pop("callbacks")]
        if chosen.get("logger") is None:
            chosen["logger"] = settings.pop("logger")
        try:
            trainer = pl.Trainer(**{**chosen, **settings, "callbacks": callbacks})
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
            raise RecflowError(f"The trainer cannot be set up: {error}") from error
        if trainer.world_size > 1:
            self._check_processes(trainer)
        return trainer

    def _check_processes(self, trainer: pl.Trainer) -> None:
        if issubclass(self.module, ClosedFormModule):
            raise RecflowError(
                f"{self.spec.name} is solved, not trained by gradients: it runs in one process, "
                f"which uses all CPU cores; leave out --trainer.devices (got {trainer.world_size} processes)."
            )
        launched = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher | None)
        if not (isinstance(trainer.strategy, DDPStrategy) and launched):
            raise RecflowError(
                f"{trainer.world_size} processes train by --trainer.strategy ddp, got {type(trainer.strategy).__name__}"
                f"{'' if launched else ' with processes that would not return their model'}."
            )

    def dump(self) -> str:
        """The resolved configuration as YAML; ``recflow fit --config`` reads it back."""
        return str(self.parser.dump(self.config))


def parse(args: Sequence[str], prepared: Dataset | None = None) -> FitConfiguration:
    """Find the plugin in some arguments, and parse them by its parser; see :class:`FitConfiguration`.

    Raises:
        RecflowError: If an argument or a configuration file is wrong.
    """
    args = [_rewrite(arg) for arg in _named_data(args)]
    name = _plugin_name(args)
    return FitConfiguration(registry.load(name), [*args, f"--plugin={name}"], prepared)


def resume_arguments(config: Path, args: Sequence[str]) -> list[str]:
    """The arguments that continue a run, plus what may be changed on the way.

    Raises:
        RecflowError: If anything else is to be changed.
    """
    wrong = [arg for arg in args if re.match(r"-\D", arg) and not arg.startswith(_RESUME_MAY_CHANGE)]
    if wrong:
        raise RecflowError(
            f"A resumed run keeps its configuration, but for trainer.*, patience and threads; got {' '.join(wrong)}."
        )
    return ["--config", str(config), *args]


def take_resume(args: Sequence[str]) -> tuple[list[str], Path | None]:
    """Take ``--resume RUN`` out of some arguments.

    Returns:
        The other arguments, and the run's folder if one was named.

    Raises:
        RecflowError: If no folder follows.
    """
    rest, resumed = list(args), None
    for place, arg in enumerate(rest):
        if arg == "--resume" or arg.startswith("--resume="):
            value = arg.partition("=")[2] or (rest[place + 1] if place + 1 < len(rest) else "")
            if not value or value.startswith("--"):
                raise RecflowError("--resume expects a run folder, such as --resume runs/lightgcn/ml-1m/first.")
            resumed = Path(value)
            del rest[place : place + (1 if "=" in arg else 2)]
            break
    return rest, resumed


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Write nested settings as command-line arguments: Python and the shell are parsed alike."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and prefix != "model.":  # a hyper-parameter that is a mapping is one value
            yield from flatten(value, f"{prefix}{name}.")
        elif value is not None:
            text = str(value) if isinstance(value, str | Path) else json.dumps(value)
            yield f"--{prefix}{name}={text}"


def _plugin_name(args: Sequence[str]) -> str:
    """The plugin is needed before there is a parser: its class makes the parser."""
    named = _values(args, "--plugin")
    if named:
        return named[-1]
    for path in reversed(_values(args, "--config") + _values(args, "-c")):
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecflowError(f"The configuration file {path} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecflowError(f"The configuration file {path} is not YAML: {' '.join(str(error).split())}") from error
        if isinstance(content, dict) and content.get("plugin"):
            return str(content["plugin"])
    mistyped = difflib.get_close_matches("--plugin", [arg.partition("=")[0] for arg in args], n=1, cutoff=0.8)
    hint = f"did you mean --plugin by {mistyped[0]}? " if mistyped else ""
    raise RecflowError(f"No plugin is named: {hint}give --plugin NAME, one of {', '.join(registry.names())}.")


def _values(args: Sequence[str], option: str) -> list[str]:
    found = []
    for arg, following in pairwise([*args, ""]):
        if arg == option and (not following or following.startswith("--")):
            raise RecflowError(f"{option} expects a value.")
        if arg == option or arg.startswith(f"{option}="):
            found.append(arg.partition("=")[2] if "=" in arg else following)
    return found


def _named_data(args: Sequence[str]) -> Iterator[str]:
    """``--data X`` means ``--data.name X``, or ``--data.path X`` for a file or folder.

    jsonargparse would take X for a configuration file.
    """
    waiting = False
    for arg in args:
        if waiting or arg.startswith("--data="):
            value = arg if waiting else arg.partition("=")[2]
            setting = data_argument(value)
            if setting == "name":
                yield "--data.path=null"  # a configuration file may have one, which a name takes the place of
            yield f"--data.{setting}={value}"
            waiting = False
        elif arg == "--data":
            waiting = True
        else:
            yield arg
    if waiting:
        raise RecflowError("--data expects a dataset's name or a file: recflow data list.")


def _rewrite(arg: str) -> str:
    """The other spellings that people use."""
    arg = re.sub(r"^--init-from(?==|$)", "--init_from", arg)
    return "--test=false" if arg == "--no-test" else arg


def _without_program_arguments(args: Sequence[str]) -> list[str]:
    """LightningCLI warns when it is given arguments while the program has some of its own, as ours always has."""
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    return list(args)
