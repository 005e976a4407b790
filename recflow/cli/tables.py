"""Tables as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recflow.ranking.recommender import Recommendation

_ERRORS = ("rmse", "mae")
_BEYOND = ("coverage", "gini", "arp", "novelty", "diversity", "miscalibration", "serendipity")
_SHORT = {"miscalibration": "miscal.", "serendipity": "serend."}  # seven columns fit 80 letters
_GROUPS_WIDTH = 44
_SHOWN = ("ndcg", "recall", "hit", "mrr", "coverage")  # the others stand in metrics.json


def metrics_table(
    rows: Mapping[str, Mapping[str, float]],
    title: str,
    deviations: Mapping[str, Mapping[str, float]] | None = None,
    protocol: str = "",
) -> Table:
    """One row a model: rating errors, then the chief ranking metrics at one cut-off, the best value of each in bold.

    Args:
        rows: Metrics by model; the first row is the model that the table is about.
        title: Line above the table.
        deviations: Standard deviations of the same, to be shown under them.
        protocol: What the names of a sampled protocol's metrics end with, such as ``_neg99``; those of full ranking if
            empty.
    """
    first = next(iter(rows.values()))
    cutoffs = sorted({int(found[1]) for name in first if (found := re.search(rf"@(\d+){protocol}$", name))})
    k = 10 if 10 in cutoffs else cutoffs[0]
    wanted = [f"{name}@{k}{protocol}" for name in _SHOWN]
    if not protocol:
        wanted = [name for name in first if name in _ERRORS or name == "auc"] + wanted
    names = [name for name in wanted if name in first]
    table = _table(title)
    table.add_column("model", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    best = {name: _best(name, [row[name] for row in rows.values() if name in row]) for name in names}
    for model, row in rows.items():
        spread = (deviations or {}).get(model, {})
        cells = [_cell(row.get(name), spread.get(name), row.get(name) == best[name]) for name in names]
        table.add_row(model, *cells)
    return table


def print_metrics(
    console: Console,
    rows: Mapping[str, Mapping[str, float]],
    title: str,
    deviations: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print the table of full ranking and, where there are any, one of each sampled protocol; see `metrics_table`."""
    console.print(metrics_table(rows, title, deviations))
    for protocol in sorted({found[0] for name in next(iter(rows.values())) if (found := re.search(r"_neg\d+$", name))}):
        sampled = f"the same items ranked among {protocol.removeprefix('_neg')} given candidates a user; never to be "
        console.print(metrics_table(rows, f"{sampled}compared with full ranking", deviations, protocol))


def beyond_table(rows: Mapping[str, Mapping[str, float]], title: str) -> Table | None:
    """One row a model: what its lists are like, beside how accurate they are; see docs/metrics.md.

    Args:
        rows: Metrics by model; the first row is the model that the table is about.
        title: Line above the table.

    Returns:
        The table; None where nothing of it was measured.
    """
    first = next(iter(rows.values()))
    cutoffs = sorted({int(found[1]) for name in first if (found := re.fullmatch(r"arp@(\d+)", name))})
    if not cutoffs:
        return None
    k = 10 if 10 in cutoffs else cutoffs[0]
    names = [name for name in _BEYOND if f"{name}@{k}" in first]
    table = _table(f"{title} @{k}")
    table.add_column("model", no_wrap=True)
    for name in names:
        table.add_column(_SHORT.get(name, name), justify="right", no_wrap=True)
    for model, row in rows.items():
        if f"arp@{k}" in row:
            table.add_row(model, *(_beyond_cell(name, row.get(f"{name}@{k}")) for name in names))
    return table


def groups_table(groups: Mapping[str, Any], metrics: Mapping[str, str], title: str) -> Table:
    """One row a grouping: each group's value, the worst in bold, and the gap.

    Args:
        groups: What ``metrics.json`` says under ``"groups"``.
        metrics: Which metric to show of each grouping.
        title: Line above the table.
    """
    table = _table(title)
    for name in ("by", "metric", "groups, worst in bold", "gap"):
        table.add_column(name, justify="right" if name == "gap" else "left", overflow="fold")
    for grouping, content in groups.items():
        metric = metrics[grouping]
        worst, gap = content["worst"].get(metric), content["gap"].get(metric)
        cells = {
            # no break inside a cell: a value stands beside its group
            row["group"]: f"{row['group']}{'*' if row['small'] else ''} {row['metrics'][metric]:.3f}".replace(
                " ", "\u00a0"
            )
            for row in content["groups"]
            if metric in row["metrics"]
        }
        shown = escape("\n".join(wrap(", ".join(cells.values()), _GROUPS_WIDTH, break_on_hyphens=False)))
        if worst in cells:
            shown = shown.replace(escape(cells[worst]), f"[bold]{escape(cells[worst])}[/]", 1)
        table.add_row(grouping, metric, shown, "n/a" if gap is None else f"{gap:.3f}")
    return table


def print_recommendations(
    console: Console, recommendations: Sequence[Recommendation], title: str, reasons: bool = False
) -> None:
    """Print a ranked list: rank, title, genres, score and, if asked, why."""
    table = _table(escape(title))
    table.add_column("#", justify="right", style="dim")
    table.add_column("id", justify="right", style="dim")
    table.add_column("title", overflow="fold")
    table.add_column("genres", style="cyan", overflow="fold")
    table.add_column("score", justify="right")
    if reasons:
        table.add_column("because you liked", style="dim", overflow="fold")
    for rank, found in enumerate(recommendations, start=1):
        why = [escape("; ".join(found.because))] if reasons else []
        table.add_row(
            str(rank),
            str(found.item.item_id),
            escape(found.item.title),
            escape(", ".join(found.item.genres)),
            f"{found.score:.3f}",
            *why,
        )
    console.print(table)


def _cell(value: float | None, deviation: float | None, is_best: bool) -> str:
    if value is None:
        return "n/a"
    shown = f"[bold]{value:.4f}[/]" if is_best else f"{value:.4f}"
    return shown if deviation is None else f"{shown}\n[dim]±{deviation:.4f}[/]"


def _beyond_cell(name: str, value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:,.1f}" if name == "arp" else f"{value:.3f}"


def _best(name: str, values: Iterable[float]) -> float:
    return min(values) if name in _ERRORS else max(values)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))
