"""The study for TensorBoard: every trial's curve and, under HPARAMS, its values and results."""

from __future__ import annotations

import shutil
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from recflow.tuning.plan import Plan
from recflow.tuning.space import decode

BOARD = "tensorboard"


def log_trial(folder: Path, trial: FrozenTrial, plan: Plan) -> None:
    """Write a trial's event file, ``tensorboard/trial-0001``; a failed one has none.

    Args:
        folder: The study's folder.
        trial: The trial, finished.
        plan: What the study is about.
    """
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or not trial.values:
        return
    from torch.utils.tensorboard import SummaryWriter

    own = folder / BOARD / f"trial-{trial.number:04d}"
    shutil.rmtree(own, ignore_errors=True)
    values = {key: decode(value) for key, value in trial.params.items()}
    chosen = {
        key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()
    }
    results = dict(zip(plan.objectives, trial.values, strict=True))
    with SummaryWriter(str(own)) as board:
        for epoch, value in sorted(trial.intermediate_values.items()):
            board.add_scalar(f"{plan.objectives[0]} by epoch", value, epoch)
        board.add_hparams(
            {**chosen, "state": trial.state.name.lower()},
            {**results, "seconds": float(trial.user_attrs.get("seconds", 0.0))},
            run_name=".",
        )


def log_missing(folder: Path, trials: list[FrozenTrial], plan: Plan) -> None:
    """Write the event files of trials that other machines ran."""
    for trial in trials:
        if not (folder / BOARD / f"trial-{trial.number:04d}").is_dir():
            log_trial(folder, trial, plan)
