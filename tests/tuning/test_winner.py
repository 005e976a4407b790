"""Which trial wins."""

from itertools import product

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from recflow.tuning.winner import choose_winner, front

UP, DOWN = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE


def trials(*values, state=TrialState.COMPLETE):
    made = [optuna.create_trial(state=state, values=list(each)) for each in values]
    for number, trial in enumerate(made):
        trial.number = number
    return made


def test_the_best_value_wins_and_the_earlier_of_equals():
    assert choose_winner(trials([0.1], [0.3], [0.3]), [UP]).number == 1
    assert choose_winner(trials([0.3], [0.1], [0.1]), [DOWN]).number == 1


def test_only_finished_trials_win():
    pruned = trials([0.9], state=TrialState.PRUNED)
    assert choose_winner(pruned, [UP]) is None
    assert choose_winner([*pruned, trials([0.0], [0.2])[1]], [UP]).number == 1


def test_the_front_is_what_nothing_is_better_than():
    points = [[a / 7 % 1, b / 5 % 1] for a, b in product(range(0, 30, 4), range(0, 30, 7))]
    found = {trial.number for trial in front(trials(*points), [UP, DOWN])}
    for number, (up, down) in enumerate(points):
        beaten = any(u >= up and d <= down and (u, d) != (up, down) for u, d in points)
        first = points.index([up, down]) == number
        assert (number in found) == (not beaten and first)


def test_of_a_front_the_trial_nearest_to_the_ideal_wins_whatever_the_units():
    ends_and_a_good_middle = [[1.0, 0.0], [0.0, 100.0], [0.8, 70.0], [0.4, 80.0]]
    assert choose_winner(trials(*ends_and_a_good_middle), [UP, UP]).number == 2
    in_other_units = [[value * 1000, -other / 7] for value, other in ends_and_a_good_middle]
    assert choose_winner(trials(*in_other_units), [UP, DOWN]).number == 2
