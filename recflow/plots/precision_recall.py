"""Precision against recall as a list grows place by place, the model's beside that of simpler ones."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recflow.plots.style import BLUE, GREY, ORANGE, picture

_MARKED = (1, 5, 10, 20, 50, 100)
_LINES = ({"color": BLUE, "linewidth": 2.2}, {"color": ORANGE, "linewidth": 1.6}, {"color": GREY, "linewidth": 1.2})


def plot_precision_recall(path: Path, curves: pl.DataFrame, title: str) -> None:
    """Draw one curve a model, from list length 1 at its upper left on.

    Args:
        path: Where the PNG goes.
        curves: ``model``, ``k``, ``precision`` and ``recall``; the first model is what the picture is about.
        title: Line above.
    """
    last = int(curves["k"].max())  # type: ignore[arg-type]  # polars: any literal, here Int64
    with picture(path, title, size=(8, 5)) as (axes,):
        names = curves["model"].unique(maintain_order=True).to_list()
        for number, name in reversed([*enumerate(names)]):
            own = curves.filter(pl.col("model") == name)
            line = _LINES[min(number, len(_LINES) - 1)]
            axes.plot(own["recall"], own["precision"], label=name, **line)  # type: ignore[arg-type]
            marked = own.filter(pl.col("k").is_in([*_MARKED, last]))
            axes.scatter(marked["recall"], marked["precision"], color=line["color"], s=22, zorder=3)
            if number == 0:
                for k, recall, precision in marked.select("k", "recall", "precision").iter_rows():
                    axes.annotate(
                        f"k = {k}", (recall, precision), xytext=(6, 5), textcoords="offset points", fontsize=10
                    )
        axes.set_xlabel("recall@k: share of a user's relevant items found, mean over users")
        axes.set_ylabel("precision@k: share of k places that are relevant")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.1, y=0.12)
        axes.grid()
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1])
