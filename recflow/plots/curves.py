"""Learning curves: the loss and the monitored metric over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from recflow.plots.style import BLUE, GREY, picture

_COLOURS = {"train": GREY, "val": BLUE, "best": "#d1495b"}


def plot_curves(path: Path, epochs: Sequence[Mapping[str, float]], monitor: str, title: str, best: int | None) -> None:
    """Draw the loss and the monitored metric over the epochs.

    Args:
        path: Where the PNG goes.
        epochs: One mapping an epoch, as :class:`~recflow.training.callbacks.History` keeps them.
        monitor: The metric of the second panel.
        title: Line above the panels.
        best: The epoch that was chosen, marked in both panels.
    """
    with picture(path, title, (1, 2), (10, 4)) as panels:
        for panel, names, label in (
            (panels[0], ("train/loss", "val/loss"), "loss"),
            (panels[1], (monitor,), monitor.replace("val/", "validation ")),
        ):
            for name in names:
                points = [(row["epoch"], row[name]) for row in epochs if name in row]
                if points:
                    part = name.partition("/")[0]
                    marker = "o" if len(points) < 25 else None
                    panel.plot(
                        *zip(*points, strict=True), color=_COLOURS[part], marker=marker, markersize=3, label=part
                    )
            if best is not None and panel.lines:
                panel.axvline(best, color=_COLOURS["best"], linewidth=1, linestyle=":", label=f"chosen: epoch {best}")
            panel.set_xlabel("epoch")
            panel.set_ylabel(label, labelpad=8)
            panel.grid(alpha=0.25)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if panel.lines:
                panel.legend()
            else:
                panel.text(0.5, 0.5, "not measured", ha="center", va="center", transform=panel.transAxes, color=GREY)
