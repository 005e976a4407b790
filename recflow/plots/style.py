"""One look for all pictures: a title that says what is shown, quiet axes, colours that colour-blind eyes tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recflow.atomic import replacing

BLUE, ORANGE, GREY = "#0b6e99", "#e08e2b", "#5f6670"
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,  # a genre's dollars are no formula
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
}


@contextmanager
def picture(
    path: Path, title: str, shape: tuple[int, int] = (1, 1), size: tuple[float, float] = (8, 4.5), **layout: Any
) -> Iterator[Sequence[Axes]]:
    """Make a picture and, when the block ends, save it.

    Args:
        path: Where the PNG goes.
        title: Line above the panels: what is shown, of which model and data.
        shape: Rows and columns of panels.
        size: Width and height in inches.
        layout: Handed to ``Figure.subplots``.

    Yields:
        The panels, row by row.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        yield list(figure.subplots(*shape, squeeze=False, **layout).flat)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        with replacing(path) as scratch:
            figure.savefig(scratch)
