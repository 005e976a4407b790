"""A metric by group: a panel for each grouping, with how many users each group has."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from recflow.plots.style import BLUE, GREY, picture

_NAMES = {"activity": "training interactions", "age": "age (years)", "item popularity": "popularity of the item"}


def plot_groups(path: Path, groups: Mapping[str, Any], metrics: Mapping[str, str], title: str) -> None:
    """Draw horizontal bars, groups in their order from above; pale and starred where a group is small.

    Args:
        path: Where the PNG goes.
        groups: By grouping, what :func:`recflow.metrics.groups.table` says.
        metrics: Which metric to draw of each grouping.
        title: Line above.
    """
    columns = 1 if len(groups) == 1 else 2
    rows = ceil(len(groups) / columns)
    sizes = [len(content["groups"]) for content in groups.values()]
    tallest = [max(sizes[row * columns : (row + 1) * columns]) for row in range(rows)]
    size = (5.4 * columns, 0.6 + sum(1.1 + 0.34 * most for most in tallest))
    if any(row["small"] for content in groups.values() for row in content["groups"]):
        title += " (* few users)"
    with picture(path, title, (rows, columns), size, height_ratios=[2 + most for most in tallest]) as panels:
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        for panel, (grouping, content) in zip(panels, groups.items(), strict=False):
            _bars(panel, grouping, content, metrics[grouping])
        for row, most in enumerate(tallest):
            for panel in panels[row * columns : (row + 1) * columns]:
                panel.set_ylim(most - 0.4, -0.6)  # bars as thick as the neighbour's


def _bars(axes: Axes, grouping: str, content: Mapping[str, Any], metric: str) -> None:
    rows = [row for row in content["groups"] if metric in row["metrics"]]
    values = [row["metrics"][metric] for row in rows]
    colours = ["#a9cfdd" if row["small"] else BLUE for row in rows]
    places = range(len(rows))
    axes.barh(places, values, 0.72, color=colours)
    names = [f"{row['group']}{'*' if row['small'] else ''}" for row in rows]
    axes.set_yticks(places, names)
    top = max([*values, 0.0]) or 1.0
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        axes.text(value + 0.02 * top, place, f"{value:.3f}", va="center", fontsize=10)
        axes.text(1.0, place, f"{row['users']:,} users", va="center", ha="right", fontsize=9, color=GREY,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_xlim(0, 1.75 * top)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= 1.2 * top])
    unit = " (stars)" if metric in ("rmse", "mae") else ""
    axes.set_xlabel(f"{metric}{unit}")
    gap = content["gap"].get(metric)
    name = _NAMES.get(grouping, grouping)
    axes.set_title(f"by {name}" + ("" if gap is None else f": gap {gap:.3f}"), fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
