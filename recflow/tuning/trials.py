"""One trial: a fit that never reads the test part, watched after each epoch."""

from __future__ import annotations

import copy
import shutil
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.runs import Run
from recflow.training.fit import run_fit
from recflow.training.interrupts import stop_if_interrupted
from recflow.tuning.plan import Plan, as_arguments, configure_on
from recflow.tuning.space import decode
from recflow.tuning.trial_queue import REASON

BASE = "base.yaml"  # in the study's folder: the configuration that all trials share
UNTUNED = "untuned"  # marks the trial of the values without tuning

_WEIGHTS = ("checkpoints", "bundle")


class Watch(pl.Callback):
    """Reports the first objective after each epoch, and ends a trial that Optuna's pruner thinks hopeless.

    Args:
        trial: The trial.
        objective: The metric to report.
        reports: Whether to report it.
        prunes: Whether the trial may be ended.
    """

    def __init__(self, trial: optuna.Trial, objective: str, *, reports: bool, prunes: bool) -> None:
        self.trial, self.objective, self.reports, self.prunes = trial, objective, reports, prunes

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and ask."""
        stop_if_interrupted()
        value = trainer.callback_metrics.get(self.objective)
        if value is None or not self.reports:
            return
        epoch = trainer.current_epoch + 1
        self.trial.report(float(value), epoch)
        last = epoch == trainer.max_epochs  # then there is nothing left to save
        if self.prunes and not last and self.trial.should_prune():
            raise optuna.TrialPruned(f"hopeless after epoch {epoch}")


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's run goes."""
    return folder / "trials" / f"{number:04d}"


def run_trial(study: optuna.Study, trial: optuna.Trial, plan: Plan, data: Dataset, folder: Path) -> None:
    """Carry one trial out and tell the study how it ended.

    Args:
        study: The study.
        trial: The trial, RUNNING.
        plan: What the study is about.
        data: The prepared data.
        folder: The study's folder.
    """
    own = trial_folder(folder, trial.number)
    shutil.rmtree(own, ignore_errors=True)
    try:
        started = time.perf_counter()
        state, values = TrialState.FAIL, None
        try:
            run = _fit(trial, plan, data, folder, own)
            values = [_value(run, name) for name in plan.objectives]
            state = TrialState.COMPLETE
            for name in ("best_epoch", "epochs"):
                trial.set_user_attr(name, run.metrics[name])
        except optuna.TrialPruned as pruned:
            state = TrialState.PRUNED
            trial.set_user_attr(REASON, str(pruned))
        except UpdateFinishedTrialError:
            raise
        except Exception as error:  # whatever a model raises is that trial's failure, not the study's
            trial.set_user_attr(REASON, _reason(error))
            if not isinstance(error, RecflowError):
                own.parent.mkdir(parents=True, exist_ok=True)
                own.with_name(f"{own.name}-error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        trial.set_user_attr("seconds", round(time.perf_counter() - started, 3))
        study.tell(trial, values, state)
    except (UpdateFinishedTrialError, ValueError) as late:
        if _state(study, trial.number) == TrialState.RUNNING:
            raise
        del late  # it was taken for dead, and is being tried again elsewhere
        shutil.rmtree(own, ignore_errors=True)
        return
    if state != TrialState.COMPLETE and not plan.keep_checkpoints:
        shutil.rmtree(own, ignore_errors=True)


def fit_with(
    values: Mapping[str, Any], plan: Plan, data: Dataset, folder: Path, own: Path, *callbacks: pl.Callback
) -> Run:
    """Fit what the plan is about, with some values of the search space, without reading the test part.

    Args:
        values: By key, as storages keep them.
        plan: What the study is about.
        data: The prepared data.
        folder: The study's folder.
        own: The run's.
        callbacks: See :func:`recflow.fit`.
    """
    chosen = {key: decode(value) for key, value in values.items()}
    args = [f"--config={folder / BASE}", "--test=false", *as_arguments(chosen)]
    configuration = configure_on(data, args)
    # the study has events of its own, and the winner's are written with its test metrics
    loggers = [name for name in configuration.config["loggers"] if name != "tensorboard"]
    with_loggers = copy.deepcopy(configuration.config["loggers"])
    configuration.config["loggers"] = loggers
    run = run_fit(configuration, None, Console(quiet=True), own, callbacks, curves=False)
    configuration.config["loggers"] = with_loggers
    run.write_text("config.yaml", configuration.dump())
    return run


def strip(folder: Path, numbers: Iterable[int]) -> None:
    """Take the weights of some trials: numbers, settings and curves stay."""
    for number in numbers:
        for name in _WEIGHTS:
            shutil.rmtree(trial_folder(folder, number) / name, ignore_errors=True)


def draw(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    """Let the sampler draw one value."""
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(key, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _fit(trial: optuna.Trial, plan: Plan, data: Dataset, folder: Path, own: Path) -> Run:
    values = {key: draw(trial, key, distribution) for key, distribution in plan.space.items()}
    prunes = plan.pruner != "none" and UNTUNED not in trial.user_attrs
    reports = len(plan.objectives) == 1  # Optuna takes no reports of trials with several objectives
    return fit_with(values, plan, data, folder, own, Watch(trial, plan.objectives[0], reports=reports, prunes=prunes))


def _value(run: Run, objective: str) -> float:
    name = objective.removeprefix("val/")
    if name not in run.metrics["val"]:
        raise RecflowError(f"{objective} is not a number at the best epoch.")
    return float(run.metrics["val"][name])


def _state(study: optuna.Study, number: int) -> TrialState:
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    return trials[number].state


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, RecflowError) else f"{type(error).__name__}: {text}"
