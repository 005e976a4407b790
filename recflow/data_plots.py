"""Pictures of a dataset: its ratings, its skew, its genres, years, ages and course over time.

One hue for amounts and a second one, told apart by colour-blind eyes too, where two things stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateFormatter, AutoDateLocator
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from recflow.data.interactions import Interactions
from recflow.plots.style import BLUE, ORANGE, picture

_TOP_GENRES = 20
#: Bins of the picture over time, the finest first that makes no more than `_MOST_BINS` of them: days, polars' name.
_BINS = ((1, "1d", "day"), (7, "1w", "week"), (30.4, "1mo", "month"), (91.3, "1q", "quarter"), (365.25, "1y", "year"))
_MOST_BINS = 90


def plot_data(folder: Path, description: Mapping[str, Any], interactions: Interactions) -> list[Path]:
    """Draw what a dataset has: a picture is left out where the dataset lacks what it shows.

    Args:
        folder: Where the PNGs go; it exists.
        description: What :func:`~recflow.data.describe.describe` says of the data.
        interactions: The data.

    Returns:
        The pictures' paths: ``ratings.png``, ``skew.png``, ``genres.png``, ``years.png``, ``ages.png`` and
        ``time.png``.
    """
    name, drawn = interactions.name, []

    def draw(file: str, title: str, *panels: Any, height: float = 4.5) -> None:
        with picture(folder / file, f"{name}: {title}", (1, len(panels)), (8, height)) as axes:
            for panel, paint in zip(axes, panels, strict=True):
                paint(panel)
        drawn.append(folder / file)

    if description["rating"]:
        mean = f"{description['rating']['mean']:.2f} on average"
        draw("ratings.png", f"{description['ratings']:,} ratings, {mean}", lambda axes: _ratings(axes, description))
    draw(
        "skew.png",
        "how unevenly ratings are spread",
        lambda axes: _rank_plot(axes, interactions.table["user"], interactions.num_users, "user", "activity"),
        lambda axes: _rank_plot(axes, interactions.table["item"], interactions.num_items, "item", "popularity"),
    )
    if genres := description["genres"][:_TOP_GENRES]:
        title = "items and ratings by genre" + (f", the {_TOP_GENRES} most rated" if len(genres) == _TOP_GENRES else "")
        height = max(3.0, 1.4 + 0.27 * len(genres))
        draw("genres.png", title, lambda axes: _genres(axes, genres, description), height=height)
    if description["years"]:
        draw(
            "years.png", "items by year of release", lambda axes: _years(axes, interactions.items["year"].drop_nulls())
        )
    if (ages := description["user_features"].get("age")) and ages["known"]:
        draw("ages.png", "users by age", lambda axes: _ages(axes, interactions.users["age"], ages))
    if description["time"] and len(description["time"]["last"]) == len("9999-12-31"):  # dates end there in Matplotlib
        draw("time.png", "ratings over time", lambda axes: _over_time(axes, interactions.table["time"]))
    return drawn


def _ratings(axes: Axes, description: Mapping[str, Any]) -> None:
    bars = description["rating"]["distribution"]
    shares = np.array([bar["ratings"] for bar in bars]) / description["ratings"]
    single = all(bar["from"] == bar["to"] for bar in bars)
    if single:
        labels = [f"{bar['from']:g}" for bar in bars]
        drawn = axes.bar(np.arange(len(bars)), shares, 0.8, color=BLUE)
        axes.bar_label(drawn, [_percent(share) for share in shares], padding=2, fontsize=10 if len(bars) <= 12 else 7)
        axes.set_xticks(np.arange(len(bars)), labels, rotation=0 if len(bars) <= 12 else 45)
    else:
        edges = [bar["from"] for bar in bars] + [bars[-1]["to"]]
        axes.stairs(shares, edges, fill=True, color=BLUE)
    axes.set_xlabel("rating")
    axes.set_ylabel("share of ratings")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.margins(y=0.1)
    axes.grid(axis="y")


def _rank_plot(axes: Axes, column: pl.Series, size: int, one: str, what: str) -> None:
    """Users or items from the most to the least rated, both axes logarithmic; the median and the top tenth marked."""
    counts = np.sort(np.bincount(column.to_numpy(), minlength=size))[::-1]
    rank = np.unique(np.geomspace(1, size, 2000).astype(np.int64))  # as many points as can be seen
    axes.loglog(rank, counts[rank - 1], color=BLUE, linewidth=2)
    tenth = -(-size // 10)
    axes.axvspan(1, tenth, color=ORANGE, alpha=0.18, linewidth=0)
    share = _percent(counts[:tenth].sum() / counts.sum())
    said = f"shaded: the top 10% of {one}s,\n{share} of all ratings\nmedian: {np.median(counts):,g} ratings"
    axes.text(0.04, 0.05, said, transform=axes.transAxes, fontsize=10)
    axes.set_title(f"{one} {what}")
    axes.set_xlabel(f"rank of the {one}, most ratings first")
    axes.set_ylabel(f"ratings of the {one}")
    axes.set_ylim(10 ** np.floor(np.log10(counts[-1])) * 0.8, 10 ** np.ceil(np.log10(counts[0])) * 1.25)
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_power_of_ten))
        axis.set_minor_locator(NullLocator())


def _genres(axes: Axes, genres: Sequence[Mapping[str, Any]], description: Mapping[str, Any]) -> None:
    place = np.arange(len(genres))
    for shift, key, whole, colour in ((-0.2, "ratings", "ratings", BLUE), (0.2, "items", "items", ORANGE)):
        shares = [genre[key] / description[whole] for genre in genres]
        axes.barh(place + shift, shares, 0.4, color=colour, label=f"share of {key}")
    axes.set_yticks(place, [_shortened(genre["genre"]) for genre in genres])
    axes.invert_yaxis()
    axes.set_xlabel("share of all ratings and of all items (one can have several genres)")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _years(axes: Axes, years: pl.Series) -> None:
    released = years.to_numpy()
    first, last = int(released.min()), int(released.max())
    width = -(-(last + 1 - first) // 150)  # one year, unless a strange one stretches the axis
    axes.hist(released, bins=(np.arange(first, last + 1 + width, width) - 0.5).tolist(), color=BLUE)
    _amounts(axes, "year of release", "items a year" if width == 1 else f"items in {width:,} years")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))


def _ages(axes: Axes, ages: pl.Series, summary: Mapping[str, Any]) -> None:
    if "values" in summary:
        groups = summary["values"]
        drawn = axes.bar(list(groups), list(groups.values()), 0.8, color=BLUE)
        axes.bar_label(drawn, [f"{users:,}" for users in groups.values()], padding=2, fontsize=10)
        _amounts(axes, "age group (years)" if ages.dtype.is_numeric() else "age", "users")
        axes.tick_params(axis="x", labelsize=10)
        return
    known = ages.drop_nulls().to_numpy()
    first, last = known.min() // 5 * 5, known.max() // 5 * 5 + 5
    axes.hist(known, bins=min(round((last - first) / 5), 40), range=(first, last), color=BLUE, edgecolor="white")
    _amounts(axes, "age (years)", "users")


def _over_time(axes: Axes, times: pl.Series) -> None:
    span = (int(times.max()) - int(times.min())) / 86_400  # type: ignore[arg-type]  # polars: any literal, here Int64
    _, every, unit = next((bin_ for bin_ in _BINS if span / bin_[0] <= _MOST_BINS), _BINS[-1])
    days = pl.from_epoch(times, time_unit="s").dt.date().value_counts(name="ratings")
    counted = (
        days.group_by(pl.col(times.name).dt.truncate(every))
        .agg(pl.col("ratings").sum())
        .sort(times.name)
        .upsample(times.name, every=every)
        .with_columns(pl.col("ratings").fill_null(0))
    )
    starts = counted[times.name]
    edges: npt.NDArray[Any] = np.append(starts.to_numpy(), starts.dt.offset_by(every).tail(1).to_numpy())
    axes.stairs(counted["ratings"].to_numpy(), edges, fill=True, color=BLUE)
    dates = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(dates)
    axes.xaxis.set_major_formatter(AutoDateFormatter(dates))  # type: ignore[no-untyped-call]
    _amounts(axes, "date (UTC)", f"ratings a {unit}")


def _amounts(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.margins(y=0.1)
    axes.grid(axis="y")


def _thousands(value: float, _: object = None) -> str:
    return f"{value:,.0f}" if value == int(value) else ""


def _power_of_ten(value: float, _: object = None) -> str:
    """Short, since six powers stand side by side: 1, 10, 100, 1k, 10k."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.095 else f"{share:.1%}"


def _shortened(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:23]}…"
