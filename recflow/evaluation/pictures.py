"""Pictures of a leaderboard: values with their intervals, what they cost, and which differences can be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from recflow.evaluation.leaderboard import Leaderboard
from recflow.evaluation.significance import LEVEL
from recflow.plots.style import BLUE, GREY, picture
from recflow.runs import lower_is_better

_TIED, _OTHER, _FAINT = "#7fb4cc", "#9aa0a8", "#e8eaed"


def plot_intervals(path: Path, board: Leaderboard) -> None:
    """Draw the chief metric of every model with its interval; whoever ties with the best has its colour, lighter."""
    rows, title = board.ranked[::-1], f"{board.header['dataset']}: {board.metric} on the test part"
    with picture(path, title, size=(8, 1.4 + 0.36 * len(rows))) as (axes,):
        for place, row in enumerate(rows):
            value, colour = row.means[board.metric], _colour(board, row.name)
            ends = board.intervals[row.name].get(board.metric, (value, value))
            axes.plot(ends, (place, place), color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            for run in row.runs if len(row.runs) > 1 else ():
                axes.plot(run.metrics["test"][board.metric], place, "|", color=colour, markersize=9)
            axes.plot(value, place, "o", color=colour, markersize=6)
            _beside(axes, f"{value:.4f}", (max(value, *ends), place), (8, 0))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.margins(x=0.12)
        axes.grid(axis="x")
        better = "lower" if lower_is_better(board.metric) else "higher"
        several = any(len(row.runs) > 1 for row in rows)
        ticks = "; ticks: single seeds" if several else ""
        axes.set_xlabel(f"{board.metric}, {better} is better; bars: {LEVEL:.0%} intervals over users{ticks}")


def plot_costs(path: Path, board: Leaderboard) -> None:
    """Draw the chief metric against seconds of training, on a logarithmic axis."""
    points = sorted((max(row.train_seconds, 1e-3), row.means[board.metric], row.name) for row in board.ranked)
    with picture(path, f"{board.header['dataset']}: what {board.metric} costs") as (axes,):
        for seconds, value, name in points:
            axes.plot(seconds, value, "o", color=_colour(board, name), markersize=7)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
        axes.margins(x=0.15, y=0.12)
        axes.grid()
        axes.set_xlabel("seconds of training, a run")
        axes.set_ylabel(board.metric)
        _label_apart(axes, points)


def plot_differences(path: Path, board: Leaderboard) -> None:
    """Draw a matrix: is the row's model better than the column's, and with which corrected p-value."""
    names = [row.name for row in board.ranked]
    size = len(names)
    shades = np.full((size, size), np.nan)
    title = f"Is the row's {board.metric} better than the column's?"
    with picture(path, title, size=(max(6.0, 2.4 + 0.62 * size), 2.1 + 0.42 * size)) as (axes,):
        for (a, b), found in board.differences.items():
            row, column = names.index(a), names.index(b)
            shades[row, column] = found.told
            shown = "<.001" if found.p < 0.001 else f"{found.p:.3f}".lstrip("0")
            axes.text(
                column, row, shown, ha="center", va="center", fontsize=8, color="white" if found.told else "black"
            )
        colours = LinearSegmentedColormap.from_list("told", [_FAINT, BLUE])
        axes.imshow(np.ma.masked_invalid(shades), cmap=colours, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(1, size), names[1:], rotation=40, ha="right")
        axes.set_yticks(range(size - 1), names[:-1])
        axes.set_xlim(0.5, size - 0.5)
        axes.set_ylim(size - 1.5, -0.5)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel("dark: yes, p < .05 after Holm's correction; light: no difference can be told", fontsize=9)


def _colour(board: Leaderboard, name: str) -> str:
    best = board.ranked[0].name
    found = board.differences.get((best, name))
    if name == best:
        return BLUE
    return _OTHER if found is None or found.told else _TIED


def _label_apart(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Names beside their points: where there is room, on neither a point nor another name."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.canvas.draw()
    places = [axes.transData.transform((seconds, value)) for seconds, value, _ in points]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    for (x, y), (seconds, value, name) in zip(places, points, strict=True):
        width, height = 11 * len(name), 20
        sides = [(12, 0), (-12 - width, 0), (-width / 2, 22), (-width / 2, -22), (12, 22), (12, -22)]
        sides += [(-12 - width, 22), (-12 - width, -22), *((12, 22 * step) for step in (2, -2, 3, -3, 4, -4))]
        boxes = [(x + dx, y + dy - height / 2, x + dx + width, y + dy + height / 2) for dx, dy in sides]
        free = [place for place, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        _beside(axes, name, (seconds, value), (sides[chosen][0] * 72 / figure.dpi, sides[chosen][1] * 72 / figure.dpi))


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _beside(axes: Axes, text: str, point: tuple[float, float], points_away: tuple[float, float]) -> None:
    axes.annotate(text, point, xytext=points_away, textcoords="offset points", va="center", fontsize=9, color=GREY)
