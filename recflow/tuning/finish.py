"""The end of a study: its winner becomes a complete run, beside the untuned model, and both are tested."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import polars as pl
from filelock import Timeout
from optuna.trial import FrozenTrial, TrialState

from recflow import registry
from recflow.data.dataset import Dataset
from recflow.errors import RecflowError
from recflow.runs import METRICS, Run, read_mapping
from recflow.training.measure import add_test
from recflow.tuning.boards import log_missing
from recflow.tuning.pictures import draw_pictures
from recflow.tuning.plan import Plan
from recflow.tuning.report import summary, trials_frame, write_best_config, write_trials
from recflow.tuning.run import losers
from recflow.tuning.storage import quiet_optuna
from recflow.tuning.study import STUDY, Study
from recflow.tuning.trials import UNTUNED, fit_with, strip, trial_folder
from recflow.tuning.winner import choose_winner

BEST, DEFAULT = "best", "default"


@dataclass(frozen=True)
class Tuned:
    """What a study has come to.

    Args:
        kept: The study, where it is kept.
        counted: Optuna's trials, but those that were broken off and are tried again under another number.
        winner: The best of them.
        best: The winner's run, tested.
        default: The untuned model's run, tested; None if it could not be fitted.
        tested: The winners for whom the test part has been read so far, this one included: more than one if the study
            went on after an end.
    """

    kept: Study = field(repr=False)
    counted: list[FrozenTrial] = field(repr=False)
    winner: FrozenTrial = field(repr=False)
    best: Run
    default: Run | None
    tested: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The study's folder, ``runs/tune/NAME``."""
        return self.kept.folder

    @property
    def plan(self) -> Plan:
        """What it was about."""
        return self.kept.plan

    @property
    def trials(self) -> pl.DataFrame:
        """A row a trial: state, objectives, values, epochs, seconds and, if it failed, why; as in ``trials.csv``."""
        return trials_frame(self.plan, self.counted)

    @property
    def study(self) -> optuna.Study:
        """Optuna's own study, for its pictures and whatever else it knows."""
        with quiet_optuna():
            return self.kept.optuna()

    @property
    def untuned_won(self) -> bool:
        """Whether no trial was better than the untuned model."""
        return UNTUNED in self.winner.user_attrs


def finish(study: Study, data: Dataset) -> Tuned:
    """Test the winner and the untuned model, and write all files; one process at a time.

    Raises:
        RecflowError: If no trial came to its end.
    """
    with study.lock():
        return _finish(study, data)


def write_down_broken_off(study: Study) -> None:
    """Write what is known of a study that was interrupted, unless another process is about to."""
    with suppress(Timeout), study.lock().acquire(timeout=0):
        write_down(study, pictures=False)


def _finish(study: Study, data: Dataset) -> Tuned:
    trials = study.trials
    winner = choose_winner(trials, study.optuna().directions)
    if winner is None:
        reasons = [
            trial.user_attrs["reason"] for trial in trials if trial.state == TrialState.FAIL and trial.user_attrs
        ]
        why = f"; the last one: {reasons[-1]}" if reasons else ""
        write_down(study, pictures=False)
        raise RecflowError(f"No trial of {study.plan.name} came to its end{why}")
    default = _default_run(study, data, trials)
    tested = tuple(_kept(study)["tested"])
    if _kept(study)["promoted"] != winner.number or not Run(study.folder / BEST).finished:
        tested = (*(number for number in tested if number != winner.number), winner.number)
        write_down(study, pictures=False, tested=list(tested))  # first: what is read counts, even if we are killed now
        _promote(study, data, winner, BEST)
    if not study.plan.keep_checkpoints:
        strip(study.folder, losers(study))
    write_best_config(study, winner)
    log_missing(study.folder, trials, study.plan)
    best = Run(study.folder / BEST)
    write_down(study, pictures=best.config["plots"], promoted=winner.number)
    (best.path / METRICS).touch()  # the newest run is the one that was looked for
    return Tuned(study, trials, winner, best, default, tested)


def write_down(study: Study, *, pictures: bool, **known: Any) -> None:
    """Write what is known now: the table of trials, the summary and, if wished, the pictures.

    Args:
        study: The study.
        pictures: Whether to draw them.
        known: What has become of the winners: those ``tested``, and the one ``promoted``, whose run is in ``best/``.
    """
    trials = study.trials
    winner = choose_winner(trials, study.optuna().directions)
    write_trials(study, trials)
    if winner is not None:
        write_best_config(study, winner)
    study.write(**summary(study.plan, trials, winner), **{**_kept(study), **known})
    if pictures:
        draw_pictures(study, trials)


def _kept(study: Study) -> dict[str, Any]:
    kept = read_mapping(study.folder / STUDY)
    return {"tested": kept.get("tested", []), "promoted": kept.get("promoted")}


def _default_run(study: Study, data: Dataset, trials: list[FrozenTrial]) -> Run | None:
    """The untuned model's run: a trial's, or one beside them where the space does not hold its values."""
    run = Run(study.folder / DEFAULT)
    if run.finished:
        return run
    of_trial = next((trial for trial in trials if UNTUNED in trial.user_attrs), None)
    if of_trial is not None:
        if of_trial.state != TrialState.COMPLETE:
            return None
        return _promote(study, data, of_trial, DEFAULT)
    try:
        begun = study.folder / f".{DEFAULT}"
        shutil.rmtree(begun, ignore_errors=True)
        fitted = fit_with({}, study.plan, data, study.folder, begun)
    except RecflowError:
        return None
    add_test(fitted, data, registry.load(study.plan.plugin))
    begun.rename(run.path)
    return run


def _promote(study: Study, data: Dataset, trial: FrozenTrial, name: str) -> Run:
    """Copy a trial's run, and read the test part for it; one that was run on another machine is fitted again here."""
    begun, final = study.folder / f".{name}", study.folder / name
    shutil.rmtree(begun, ignore_errors=True)
    source = trial_folder(study.folder, trial.number)
    if (source / METRICS).is_file() and (source / "bundle").is_dir():
        shutil.copytree(source, begun)
    else:
        fit_with(trial.params, study.plan, data, study.folder, begun)
    add_test(Run(begun), data, registry.load(study.plan.plugin))
    shutil.rmtree(final, ignore_errors=True)
    begun.rename(final)
    return Run(final)
