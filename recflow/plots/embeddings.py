"""A map of items in two dimensions, coloured by genre, the best-known ones named."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from recflow.plots.style import picture

# Okabe & Ito's colours, of which each has a marker of its own too: neither eyes nor printers need tell hues apart
_LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"),
          ("#000000", "X"))  # fmt: skip
COLOURED = len(_LOOKS)
_OTHER = ("#b5b9bf", "o")
_NAMED, _TRIED, _LETTERS = 32, 250, 30
_OFFSETS = ((7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (0, -7, "center", "top"))


def plot_embeddings(path: Path, places: pl.DataFrame, title: str) -> None:
    """Draw a marker an item, and the names of the most popular ones where there is room.

    Args:
        path: Where the PNG goes.
        places: ``x``, ``y``, ``genre`` (null where there is none), ``title`` and ``training``: its popularity.
        title: Line above.
    """
    genres = places["genre"].drop_nulls().value_counts().sort("count", "genre", descending=[True, False])["genre"]
    looks = dict(zip(genres, _LOOKS, strict=False))
    with picture(path, title, size=(11, 8.5)) as (axes,):
        groups = [(genre, places.filter(pl.col("genre") == genre), look) for genre, look in looks.items()]
        rest = places.filter(~pl.col("genre").is_in(list(looks)) | pl.col("genre").is_null())
        if rest.height:
            groups.insert(0, ("other" if looks else "items", rest, _OTHER))
        for genre, own, (colour, marker) in groups:
            axes.scatter(own["x"], own["y"], s=22, color=colour, marker=marker, alpha=0.65, linewidths=0, label=genre)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([])
        axes.set_xlabel("near each other: similar vectors; the axes have no unit")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.margins(0.03)
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda place: labels[place] == "other")
        axes.figure.legend(
            [handles[place] for place in order],
            [labels[place] for place in order],
            loc="outside lower center",
            ncols=len(labels),
            markerscale=1.6,
            handletextpad=0.1,
            columnspacing=1.2,
        )
        _name(axes, places.sort("training", descending=True).head(_TRIED))


def _name(axes: Axes, places: pl.DataFrame) -> None:
    """Write titles where none covers another, the best known first."""
    figure = axes.figure
    canvas = FigureCanvasAgg(figure)  # type: ignore[arg-type]
    figure.draw_without_rendering()  # type: ignore[union-attr]  # places the axes
    renderer, room = canvas.get_renderer(), axes.get_window_extent()  # type: ignore[no-untyped-call]
    points = axes.transData.transform(places.select("x", "y").to_numpy())
    taken: list[Bbox] = []
    for (x, y, title), (left, bottom) in zip(places.select("x", "y", "title").iter_rows(), points, strict=True):
        if len(taken) == _NAMED:
            break
        title = re.sub(r" \(\d{4}\)$", "", title)  # the year
        short = title if len(title) <= _LETTERS else f"{title[: _LETTERS - 1]}…"
        for dx, dy, across, along in _OFFSETS:
            text = axes.annotate(short, (x, y), (dx, dy), textcoords="offset points", ha=across, va=along, fontsize=8.5)
            box = text.get_window_extent(renderer)
            mark = Bbox.from_bounds(left - 4, bottom - 4, 8, 8)
            grown = Bbox.union([box, mark]).padded(3)
            inside = box.x0 > room.x0 and box.x1 < room.x1 and box.y0 > room.y0 and box.y1 < room.y1
            if inside and not any(grown.overlaps(other) for other in taken):
                taken.append(grown)
                _stand_out(text)
                axes.scatter([x], [y], s=34, facecolors="none", edgecolors="black", linewidths=0.9, zorder=3)
                break
            text.remove()


def _stand_out(text: Annotation) -> None:
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.6, foreground="white")])
    text.set_zorder(4)
