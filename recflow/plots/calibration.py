"""Predicted beside given ratings: whether 4 promised stars are 4 stars, and how many were promised what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.ticker import FuncFormatter

from recflow.plots.style import BLUE, GREY, ORANGE, picture


def plot_calibration(path: Path, bins: pl.DataFrame, title: str) -> None:
    """Draw each bin's mean rating over its mean prediction, with the mean's 95 % interval, and the counts below.

    Args:
        path: Where the PNG goes.
        bins: ``predicted``, ``rating``, ``sd`` and ``ratings``: see
            :meth:`recflow.metrics.predictions.Predictions.calibration`.
        title: Line above.
    """
    predicted, rating, spread, count = (bins[name].to_numpy() for name in ("predicted", "rating", "sd", "ratings"))
    low, high = min(predicted.min(), rating.min()) - 0.15, max(predicted.max(), rating.max()) + 0.15
    off = float(np.abs(predicted - rating) @ count / count.sum())
    with picture(path, title, (2, 1), (7, 6.4), sharex=True, height_ratios=[3.4, 1]) as (axes, below):
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="perfectly calibrated")
        axes.errorbar(
            predicted, rating, 1.96 * spread / np.sqrt(count), fmt="o", markersize=5, color=BLUE, ecolor=BLUE,
            elinewidth=1.2, label="mean rating given, 95 % interval",
        )  # fmt: skip
        mean = float(rating @ count / count.sum())
        axes.axhline(mean, color=ORANGE, linewidth=1, linestyle=":", label=f"mean of all: {mean:.2f}")
        axes.text(0.98, 0.04, f"off by {off:.3f} stars on average", transform=axes.transAxes, ha="right")
        axes.set_ylabel("mean rating given (stars)")
        axes.set_ylim(low, high)
        axes.legend(loc="upper left")
        axes.grid()
        width = 0.85 * (np.diff(predicted).mean() if len(predicted) > 1 else 0.2)
        below.bar(predicted, count, width, color=BLUE)
        below.set_ylabel("ratings")
        below.set_xlabel("predicted rating (stars), in bins")
        below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        below.set_xlim(low, high)
        below.grid(axis="y")
