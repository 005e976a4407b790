"""How often items are recommended against how popular they were: does a model show more than what everybody knows?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from recflow.plots.style import BLUE, GREY, ORANGE, picture

_NEVER = 0.4  # where a logarithmic axis shows its zero
_SEED = 0


def plot_exposure(
    path: Path, per_item: pl.DataFrame, k: int, title: str, model: str, beside: str = "popularity"
) -> None:
    """Draw a dot an item on logarithmic axes; items that are never recommended lie on a strip below.

    Args:
        path: Where the PNG goes.
        per_item: ``training``, ``exposure@k`` and, if it was measured, ``exposure@k_{beside}``.
        k: Places of a list that count.
        title: Line above.
        model: The model's name.
        beside: Another model, whose dots are drawn beneath.
    """
    training = per_item["training"].to_numpy()
    own = per_item[f"exposure@{k}"].to_numpy()
    other = per_item[f"exposure@{k}_{beside}"].to_numpy() if f"exposure@{k}_{beside}" in per_item.columns else None
    largest = max(own.max(), 1 if other is None else other.max())
    with picture(path, title, size=(8, 5.6)) as (axes,):
        axes.set_xscale("log")
        axes.set_yscale("log")
        random = np.random.default_rng(_SEED)
        if other is not None:
            some = other > 0
            axes.scatter(training[some], other[some], s=26, marker="s", color=ORANGE, alpha=0.75, linewidths=0,
                         label=f"{beside} ({some.sum():,} items recommended)")  # fmt: skip
        never = own == 0
        x = np.where(training > 0, training, _NEVER)
        axes.scatter(x[~never], own[~never], s=14, color=BLUE, alpha=0.55, linewidths=0,
                     label=f"{model} ({(~never).sum():,} items recommended)")  # fmt: skip
        strip = _NEVER * random.uniform(0.85, 1.18, never.sum())
        axes.scatter(x[never], strip, s=6, color=GREY, alpha=0.35, linewidths=0,
                     label=f"never recommended ({never.sum():,} of {len(own):,} items)")  # fmt: skip
        line = np.array([max(1, training.min()), max(2, training.max())], dtype=float)
        axes.plot(line, line * own.sum() / training.sum(), color="black", linewidth=1, linestyle="--",
                  label="in proportion to popularity")  # fmt: skip
        axes.axhline(own.sum() / len(own), color="black", linewidth=1, linestyle=":", label="every item alike")
        axes.set_ylim(_NEVER * 0.7, largest * 1.6)
        _ticks(axes.yaxis, largest, zero=True)
        _ticks(axes.xaxis, training.max(), zero=bool((training == 0).any()))
        axes.set_xlabel("popularity: training interactions of the item")
        axes.set_ylabel(f"times in a top-{k} list")
        axes.grid()
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=10)


def _ticks(axis: object, largest: float, zero: bool) -> None:
    powers = [10.0**power for power in range(int(np.log10(max(largest, 1))) + 1)]
    places = [_NEVER, *powers] if zero else powers
    names = [*(["0"] if zero else []), *(f"{power:,.0f}" for power in powers)]
    axis.set_major_locator(FixedLocator(places))  # type: ignore[attr-defined]
    axis.set_major_formatter(FixedFormatter(names))  # type: ignore[attr-defined]
    axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]
