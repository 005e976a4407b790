"""Pictures of a leaderboard: values with their intervals, what they cost, and which differences can be told."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from recflow.evaluation.leaderboard import Leaderboard
from recflow.evaluation.significance import LEVEL
from recflow.runs import lower_is_better

_BEST, _TIED, _OTHER, _FAINT = "#0b6e99", "#7fb4cc", "#8a8f98", "#e8eaed"


def draw_intervals(board: Leaderboard) -> Figure:
    """The chief metric of every model with its interval; whoever ties with the best has the best's colour, lighter."""
    rows = board.finished[::-1]
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(rows)), dpi=130, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        value, colour = row.means[board.metric], _colour(board, row.name)
        ends = board.intervals[row.name].get(board.metric)
        if ends is not None:
            axes.plot(ends, (place, place), color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
        for run in row.runs if len(row.runs) > 1 else ():
            axes.plot(run.metrics["test"][board.metric], place, "|", color=colour, markersize=9)
        axes.plot(value, place, "o", color=colour, markersize=6)
        axes.annotate(
            f"{value:.4f}",
            (max(value, *(ends or (value,))), place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color="#444",
        )
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.12)
    better = "lower" if lower_is_better(board.metric) else "higher"
    axes.set_xlabel(
        f"{board.metric} on the test part ({better} is better); bars: {LEVEL:.0%} intervals over users"
        + ("; ticks: single seeds" if any(len(row.runs) > 1 for row in rows) else "")
    )
    _plain(axes)
    axes.grid(axis="x", alpha=0.25)
    figure.suptitle(f"{board.header['dataset']}: {board.metric}")
    return figure


def draw_costs(board: Leaderboard) -> Figure:
    """The chief metric against seconds of training, on a logarithmic axis."""
    figure = Figure(figsize=(8, 4.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    points = sorted((max(row.train_seconds, 1e-3), row.means[board.metric], row.name) for row in board.finished)
    for seconds, value, name in points:
        axes.plot(seconds, value, "o", color=_colour(board, name), markersize=7)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.12)
    _label_apart(axes, figure, points)
    axes.set_xlabel("seconds of training, a run")
    axes.set_ylabel(board.metric)
    _plain(axes)
    axes.grid(alpha=0.25)
    figure.suptitle(f"{board.header['dataset']}: what {board.metric} costs")
    return figure


def draw_differences(board: Leaderboard) -> Figure:
    """A matrix: is the row's model better than the column's, and with which corrected p-value."""
    names = [row.name for row in board.finished]
    size = len(names)
    figure = Figure(figsize=(max(5.0, 2.2 + 0.62 * size), 1.9 + 0.42 * size), dpi=130, layout="constrained")
    axes = figure.subplots()
    shades = np.full((size, size), np.nan)
    for (a, b), found in board.differences.items():
        row, column = names.index(a), names.index(b)
        shades[row, column] = 1.0 if found.told else 0.3
        shown = "<.001" if found.p < 0.001 else f"{found.p:.3f}".lstrip("0")
        axes.text(column, row, shown, ha="center", va="center", fontsize=7, color="white" if found.told else "#444")
    colours = LinearSegmentedColormap.from_list("told", [_FAINT, _BEST])
    axes.imshow(np.ma.masked_invalid(shades), cmap=colours, vmin=0.3, vmax=1.0, aspect="auto")
    axes.set_xticks(range(1, size), names[1:], rotation=40, ha="right")
    axes.set_yticks(range(size - 1), names[:-1])
    axes.set_xlim(0.5, size - 0.5)
    axes.set_ylim(size - 1.5, -0.5)
    _plain(axes)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.suptitle(
        f"Is the row better than the column in {board.metric}?\nDark: yes; p-values after Holm", fontsize=10
    )
    return figure


def _colour(board: Leaderboard, name: str) -> str:
    best = board.finished[0].name
    if name == best:
        return _BEST
    found = board.differences.get((best, name))
    return _TIED if found is not None and not found.told else _OTHER


def _label_apart(axes: Axes, figure: Figure, points: list[tuple[float, float, str]]) -> None:
    """Names beside their points, moved up or down where two would lie upon each other."""
    figure.canvas.draw()
    taken: list[tuple[float, float, float]] = []
    for seconds, value, name in points:
        x, y = axes.transData.transform((seconds, value))
        shift = 0.0
        while any(
            abs(y + shift - other) < 17 and x < right and x + 9.5 * len(name) + 14 > left
            for left, right, other in taken
        ):
            shift = -shift if shift > 0 else -shift + 9
        taken.append((x, x + 9.5 * len(name) + 14, y + shift))
        axes.annotate(
            name,
            (seconds, value),
            xytext=(7, shift * 72 / figure.dpi),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
