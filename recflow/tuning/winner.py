"""Which trial has won."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

RULE = (
    "of the Pareto front, the trial nearest to the best value of every objective at once, each objective scaled to 0 … "
    "1 over the front; the earlier of equals"
)


def front(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> list[FrozenTrial]:
    """The finished trials that no other is better than in one objective and as good in all; the best, if there is one.

    Of trials that are equal in everything the first alone is named. They are sorted by the first objective, best first.
    """
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    costs = {trial.number: _costs(trial, directions) for trial in finished}
    kept = [
        trial
        for trial in finished
        if not any(
            costs[other.number] != costs[trial.number]
            and all(theirs <= ours for theirs, ours in zip(costs[other.number], costs[trial.number], strict=True))
            for other in finished
        )
    ]
    first = {costs[trial.number]: trial for trial in reversed(kept)}
    return sorted(first.values(), key=lambda trial: (costs[trial.number], trial.number))


def choose_winner(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]) -> FrozenTrial | None:
    """The best trial; with several objectives the one that :data:`RULE` picks. None if no trial was completed."""
    candidates = front(trials, directions)
    if not candidates:
        return None
    costs = [_costs(trial, directions) for trial in candidates]
    columns = [(min(column), max(column)) for column in zip(*costs, strict=True)]
    distances = [
        math.hypot(
            *(
                (cost - low) / (high - low) if high > low else 0.0
                for cost, (low, high) in zip(each, columns, strict=True)
            )
        )
        for each in costs
    ]
    return min(zip(distances, candidates, strict=True), key=lambda pair: (pair[0], pair[1].number))[1]


def _costs(trial: FrozenTrial, directions: Sequence[StudyDirection]) -> tuple[float, ...]:
    """The objectives' values, the smaller the better."""
    return tuple(
        value if direction == StudyDirection.MINIMIZE else -value
        for value, direction in zip(trial.values, directions, strict=True)
    )
