"""What is done to Optuna's pictures."""

import matplotlib.pyplot as plt
import optuna
from optuna.visualization import matplotlib as pictures

from recflow.tuning.pictures import _darken, _set_apart
from recflow.tuning.storage import quiet_optuna


def test_parallel_coordinates_are_legible(recwarn):
    plt.switch_backend("agg")
    with quiet_optuna():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-1, log=True) + trial.suggest_int("n", 1, 3), 9)
        figure = pictures.plot_parallel_coordinate(study).figure
        _set_apart(figure, study)
    _, _, rates, layers = figure.axes
    figure.canvas.draw()
    assert [label.get_text() for label in layers.get_yticklabels()] == ["1", "2", "3"]
    assert "0.001" in [label.get_text() for label in rates.get_yticklabels()]
    assert all(label.get_bbox_patch() is not None for axes in (rates, layers) for label in axes.get_yticklabels())
    plt.close(figure)


def test_the_best_is_dark_also_of_one_of_several_objectives():
    for name, turned in (("Blues", False), ("Blues_r", True)):  # the latter is Optuna's choice where there are several
        figure, axes = plt.subplots()
        points = axes.scatter([0, 1], [0, 1], c=[0, 1], cmap=name)
        _darken(figure, turned)
        worst, best = points.get_cmap()([0.0, 1.0])[:, :3].sum(axis=1)
        plt.close(figure)
        assert best < worst
