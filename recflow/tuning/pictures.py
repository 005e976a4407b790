"""Optuna's own pictures of a study, as PNG files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from recflow.tuning.space import decode
from recflow.tuning.study import Study

HISTORY, IMPORTANCE, SLICE, PARALLEL, FRONT = (
    "history.png",
    "importance.png",
    "slice.png",
    "parallel-coordinate.png",
    "pareto-front.png",
)


def draw_pictures(study: Study, trials: Sequence[FrozenTrial]) -> list[str]:
    """Draw what can be drawn of a study; with fewer than two finished trials there is nothing to compare.

    Returns:
        The files' names; ``NAME-2.png`` and so on are of further objectives.
    """
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as pictures

    plt.switch_backend("agg")
    plan = study.plan
    shown = _legible(study, trials)
    if sum(trial.state == TrialState.COMPLETE for trial in trials) < 2:
        return []
    drawn: list[str] = []

    def keep(name: str, draw: Callable[[], Any], width: float, height: float, turned: bool = False) -> None:
        try:
            made = draw()
        except (ValueError, RuntimeError, ZeroDivisionError):  # such as importances where all trials are equal
            return
        axes = made.ravel() if hasattr(made, "ravel") else [made]
        figure = axes[0].figure
        figure.set_size_inches(width, height)
        _darken(figure, turned)
        for panel in axes:
            _thin_out(panel)
        if name.startswith(PARALLEL.removesuffix(".png")):
            _set_apart(figure, shown)
        figure.savefig(study.folder / name, dpi=120, bbox_inches="tight")
        drawn.append(name)

    keys = len(plan.search)
    with warnings.catch_warnings(), plt.rc_context():
        warnings.simplefilter("ignore")
        for place, objective in enumerate(plan.objectives):
            about: dict[str, Any] = {"target_name": objective}
            if len(plan.objectives) > 1:
                about["target"] = _value(place)
            for name, draw, width, height in (
                (HISTORY, pictures.plot_optimization_history, 9, 4.5),
                (IMPORTANCE, pictures.plot_param_importances, 9, 1.5 + 0.5 * keys),
                (SLICE, pictures.plot_slice, max(6, 3.2 * keys), 4.5),
                (PARALLEL, pictures.plot_parallel_coordinate, 4 + 2 * keys, 5),
            ):
                keep(
                    name if place == 0 else name.replace(".png", f"-{place + 1}.png"),
                    partial(draw, shown, **about),
                    width,
                    height,
                    turned=name == PARALLEL and "target" in about and plan.directions[place] == "maximize",
                )
        if len(plan.objectives) in (2, 3):
            front = partial(pictures.plot_pareto_front, shown, target_names=list(plan.objectives))
            keep(FRONT, front, 8, 5.5)
    plt.close("all")
    return drawn


def _thin_out(panel: Axes) -> None:
    """Matplotlib labels so many points of a short logarithmic axis that they lie upon each other."""
    if panel.get_xscale() == "log":
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.tick_params(axis="x", labelrotation=45)


def _set_apart(figure: Figure, study: optuna.Study) -> None:
    """The labels of parallel coordinates stand among the lines, and whole numbers have no halves."""
    first, _, *others = figure.axes
    first.grid(visible=False, axis="y")
    drawn = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[0].distributions
    for name, axes in zip([label.get_text() for label in first.get_xticklabels()][1:], others, strict=True):
        axes.grid(visible=False)
        if axes.get_yscale() == "log":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        elif isinstance(drawn.get(name), optuna.distributions.IntDistribution):
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        for label in axes.get_yticklabels():
            label.set_bbox({"facecolor": first.get_facecolor(), "edgecolor": "none", "alpha": 0.85, "pad": 1})


def _darken(figure: Figure, turned: bool = False) -> None:
    """Optuna's palest blue, which marks the worst trials or the first, cannot be told from the background.

    Of one of several objectives it takes the least for the best, so that its scale is to be turned.
    """
    blues = colormaps["Blues"](np.linspace(0.3, 1, 256))
    for axes in figure.axes:
        for drawn in axes.collections:
            if drawn.get_array() is not None and drawn.get_cmap().name.startswith("Blues"):
                shades = blues[::-1] if drawn.get_cmap().name.endswith("_r") != turned else blues
                drawn.set_cmap(ListedColormap(shades))


def _legible(study: Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """The study with keys and choices as people write them, without what is still to come."""
    plan = study.plan
    legible = optuna.create_study(directions=plan.directions)
    legible.set_metric_names(list(plan.objectives))
    for trial in trials:
        if not trial.state.is_finished():
            continue
        distributions: dict[str, Any] = {}
        params: dict[str, Any] = {}
        for key, value in trial.params.items():
            name, each = key.removeprefix("model."), trial.distributions[key]
            if isinstance(each, optuna.distributions.CategoricalDistribution):
                each = optuna.distributions.CategoricalDistribution([_text(choice) for choice in each.choices])
                value = _text(value)
            distributions[name], params[name] = each, value
        legible.add_trial(
            optuna.create_trial(
                state=trial.state,
                values=trial.values,
                params=params,
                distributions=distributions,
                intermediate_values=trial.intermediate_values,
            )
        )
    return legible


def _text(choice: Any) -> Any:
    choice = decode(choice)
    return choice if isinstance(choice, int | float | str) and not isinstance(choice, bool) else str(choice)


def _value(place: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[place])
