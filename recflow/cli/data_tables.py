"""Datasets as tables on the terminal: the catalogue, and one dataset's description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recflow.data.catalog import DATASETS, Source

_BAR = 36  # characters of the longest bar
_TOP = 10
_SAMPLE = ("40,000", "597", "900", "times, genres; invented")
_SHOWN = ("times", "genres", "tags", "users' features", "folds", "negatives")
_WHERE = {"RECFLOW_DATA_DIR": "data folder", "cached": "cache"}


def print_description(console: Console, description: Mapping[str, Any]) -> None:
    """Print what `recflow.data.describe` found, the source's counts under ``source`` among it."""
    _print_sizes(console, description)
    for table in (
        _ratings(description),
        _quartiles(description),
        _user_features(description["user_features"], description["users"]),
    ):
        if table is not None:
            console.print()
            console.print(table)
    console.print(f"\n[bold]split: {escape(description['split']['describe'])}[/]", soft_wrap=True)
    console.print(_parts(description["split"]["parts"]))
    console.print("[dim]cold: without a training row, and the share of the part's rows that are theirs[/]")
    if "fold_in" in description["split"]["parts"]:
        console.print("[dim]cold users are known by their fold_in rows, which no model is trained on[/]")


def catalogue_table(sources: Mapping[str, Source], others: Mapping[str, str]) -> Table:
    """One row a dataset: sizes, the download's size, where it would come from now, and what it has.

    Args:
        sources: Where each named dataset is, as `recflow.data.catalog.available` tells.
        others: Further folders that can be named, and the form of each.
    """
    table = _table("datasets", "ratings", "users", "items", "zip", first=("name",), left=("where", "what it has"))
    for name, source in sources.items():
        known = DATASETS.get(name)
        where = _WHERE.get(source, source)
        if known is None:
            table.add_row(name, *_SAMPLE[:3], "", where, _SAMPLE[3])
            continue
        counts = (known.num_ratings, known.num_users, known.num_items)
        cells = ["" if count is None else f"{count:,}" for count in counts]
        zipped = "" if known.size is None else size_text(known.size)
        table.add_row(name, *cells, zipped, where, ", ".join(what for what in known.has if what in _SHOWN))
    for name, form in others.items():
        table.add_row(escape(name), "", "", "", "", _WHERE["RECFLOW_DATA_DIR"], escape(form))
    for column in table.columns[:-1]:
        column.no_wrap = True
    return table


def size_text(num_bytes: int) -> str:
    """Bytes as people read them.

    Example:
        >>> size_text(4_924_029)
        '4.92 MB'
    """
    if num_bytes < 1000:
        return f"{num_bytes} B"
    size, unit = num_bytes / 1000, "kB"
    for larger in ("MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"


def _print_sizes(console: Console, description: Mapping[str, Any]) -> None:
    source, rating, time = description["source"], description["rating"], description["time"]
    facts = _facts()
    facts.add_row(
        "ratings",
        f"{description['ratings']:,} by {description['users']:,} users of "
        f"{description['items']:,} items; {_percent(description['density'])} of all pairs",
    )
    read = f"{source['ratings']:,} rows, {source['duplicates']:,} of them duplicates; {source['users']:,} users; "
    read += f"{source['items']:,} items rated of {max(source['items_listed'], source['items']):,} listed"
    facts.add_row("as read", read + (f"; {source['tags']:,} tags" if source["tags"] else ""))
    facts.add_row("filter", escape(description["filter"]))
    if rating is None:
        facts.add_row("scale", "none: every row is an interaction that took place")
    else:
        facts.add_row(
            "scale",
            f"{rating['min']:g} to {rating['max']:g}, {rating['distinct']:,} values; "
            f"mean {rating['mean']:.2f}, standard deviation {rating['sd']:.2f}",
        )
    if time is None:
        facts.add_row("times", "none")
    else:
        facts.add_row("times", f"{time['first']} to {time['last']} (UTC), {time['days']:,.0f} days")
    for side in ("items", "users"):
        share = description[f"share_of_top_{side}"]
        facts.add_row(
            f"top {side}",
            f"the top 1 % have {_percent(share['1 %'])} of the ratings, the top 10 % {_percent(share['10 %'])}",
        )
    if genres := description["genres"]:
        shown = [
            f"{escape(genre['genre'])} {_percent(genre['ratings'] / description['ratings'])}" for genre in genres[:_TOP]
        ]
        more = f"; {len(genres) - _TOP} more" if len(genres) > _TOP else ""
        without = description["items_without_genre"]
        facts.add_row("genres", f"{', '.join(shown)} of ratings{more}; {without:,} items without")
    for notice in description["notices"]:
        facts.add_row("notice", f"[yellow]{escape(notice)}[/]")
    console.print(f"[bold]{escape(description['dataset'])}[/]")
    console.print(facts)


def _ratings(description: Mapping[str, Any]) -> Table | None:
    if description["rating"] is None:
        return None
    bars = description["rating"]["distribution"]
    most = max(bar["ratings"] for bar in bars)
    table = _table("ratings", "rating", "ratings", "share", left=("",))
    for bar in bars:
        label = f"{bar['from']:g}" if bar["from"] == bar["to"] else f"{bar['from']:.4g} to {bar['to']:.4g}"
        drawn = "█" * round(_BAR * bar["ratings"] / most)
        table.add_row(
            label, f"{bar['ratings']:,}", _percent(bar["ratings"] / description["ratings"]), f"[cyan]{drawn}[/]"
        )
    return table


def _quartiles(description: Mapping[str, Any]) -> Table:
    table = _table("spread", "min", "25 %", "median", "75 %", "max", "mean", first=("",))
    rows = {
        "ratings per user": description["ratings_per_user"],
        "ratings per item": description["ratings_per_item"],
        "year of release": description["years"],
        **{f"users' {name}": feature for name, feature in description["user_features"].items() if "median" in feature},
    }
    for name, row in rows.items():
        if row is not None:
            year = name == "year of release"
            cells = [f"{row[key]:.0f}" if year else _number(row[key]) for key in ("min", "q1", "median", "q3", "max")]
            table.add_row(escape(name), *cells, _number(row["mean"]) if "mean" in row else "")
    return table


def _user_features(features: Mapping[str, Mapping[str, Any]], users: int) -> Table | None:
    named = {name: feature for name, feature in features.items() if "values" in feature}
    if not named:
        return None
    table = _table("users", "known", "values", first=("feature",), left=("the commonest",))
    for name, feature in named.items():
        values = sorted(feature["values"].items(), key=lambda pair: -pair[1])
        shown = ", ".join(f"{value} {_percent(count / users)}" for value, count in values[:5])
        table.add_row(escape(name), _percent(feature["known"] / users), f"{feature['distinct']:,}", escape(shown))
    return table


def _parts(parts: Mapping[str, Mapping[str, Any]]) -> Table:
    relevant = ["relevant"] if "relevant" in parts["train"] else []
    cold = ("cold users", "rows", "cold items", "rows")
    table = _table(None, "rows", "share", *relevant, "users", "items", *cold, first=("",))
    for name, part in parts.items():
        cells = [f"{part['rows']:,}", _percent(part["share"])]
        cells += [f"{part[key]:,}" for key in (*relevant, "users", "items")]
        for side in ("cold_users", "cold_items") if name != "train" else ():
            told = part[side]
            cells += [f"{told['count']:,} ({_percent(told['share'])})" if told["count"] else "0"]
            cells += [_percent(told["share_of_rows"]) if told["rows"] else "0"]
        table.add_row(name, *cells)
    return table


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _table(title: str | None, *right: str, first: Sequence[str] = (), left: Sequence[str] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 1),
    )
    for name in first:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    for name in left:
        table.add_column(name, overflow="fold")
    return table


def _number(value: float) -> str:
    """At most one decimal, none where it says nothing."""
    return f"{value:,.1f}".removesuffix(".0")


def _percent(share: float) -> str:
    """Two digits that count, and a small share is not told as none."""
    percent = 100 * share
    if percent and percent < 0.01:
        return "< 0.01 %"
    decimals = 0 if percent >= 9.95 or not percent else 1 if percent >= 0.995 else 2 if percent >= 0.0995 else 3
    return f"{percent:.{decimals}f} %"
