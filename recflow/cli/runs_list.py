"""``recflow runs list``, and the reading of run folders that ``recflow runs clean`` shares."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recflow.errors import RecflowError
from recflow.runs import COMPARABLE, CONFIG, CROSS_VALIDATION, METRICS, Run, find_runs, lower_is_better, read_mapping

State = Literal["finished", "unfinished", "damaged"]

FRESH_SECONDS = 3600.0  # an unfinished run that was written to since then may still be training


@dataclass(frozen=True)
class Entry:
    """A run, or a cross-validation with all of its runs, as far as it can be read.

    Attributes:
        path: Its folder.
        runs: The run itself, or the folds.
        plugin: The model.
        state: Whether the fit came to its end; damaged if its files cannot be read.
        ended: When it ended or, unfinished, was last written to; seconds since 1970.
        problem: What is wrong with a damaged one.
        header: See :attr:`recflow.runs.Run.metrics`.
        monitor: The validation metric that chose the epoch.
        epochs: The best and the last epoch, or the number of folds.
        seconds: Of training.
        val: Validation metrics.
        test: Test metrics; means, if it is a cross-validation.
        deviations: Standard deviations over the folds.
    """

    path: Path
    runs: tuple[Run, ...]
    plugin: str
    state: State
    ended: float
    problem: str = ""
    header: Mapping[str, Any] = field(default_factory=dict)
    monitor: str = ""
    epochs: str = ""
    seconds: float = 0.0
    val: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)

    @property
    def comparable(self) -> tuple[str, ...]:
        """Equal for runs whose numbers may be compared."""
        return tuple(str(self.header.get(name)) for name in COMPARABLE)

    @property
    def fresh(self) -> bool:
        """Whether it has not finished, and may still be training."""
        return self.state == "unfinished" and time.time() - self.ended < FRESH_SECONDS

    def value(self, metric: str) -> float | None:
        """A metric of the test part or, as ``val/…``, of the validation part."""
        return self.val.get(metric.removeprefix("val/")) if metric.startswith("val/") else self.test.get(metric)


def read_entries(root: Path) -> list[Entry]:
    """Every run and cross-validation under a folder, newest first; nothing that is damaged stops it."""
    together: dict[Path, list[Run]] = {}
    for run in find_runs(root):
        is_fold = len(run.path.relative_to(root).parts) > 3
        together.setdefault(run.path.parent if is_fold else run.path, []).append(run)
    entries = [_read(path, runs, root) for path, runs in together.items()]
    return sorted(entries, key=lambda entry: entry.ended, reverse=True)


def chief_metrics(names: Iterable[str], stems: Iterable[str] = ("rmse", "ndcg", "recall")) -> list[str]:
    """The metrics that a narrow table shows: of each kind one, at cut-off 10 or else the smallest.

    >>> chief_metrics(["recall@5", "recall@10", "ndcg@20", "hit@5"])
    ['ndcg@20', 'recall@10']
    """
    names = list(dict.fromkeys(names))
    chosen = []
    for stem in stems:
        cutoffs = [int(found[1]) for name in names if (found := re.fullmatch(rf"{stem}@(\d+)", name))]
        if stem in names:
            chosen.append(stem)
        elif cutoffs:
            chosen.append(f"{stem}@{10 if 10 in cutoffs else min(cutoffs)}")
    return chosen or names[:2]  # a protocol with metrics of its own


def list_runs(console: Console, root: Path, plugin: str | None, data: str | None, sort: str | None) -> None:
    """Print one table for each set of runs whose numbers may be compared, and one for what has not finished.

    Raises:
        RecflowError: If nothing is of that plugin or dataset, or has that metric.
    """
    entries = read_entries(root)
    if not entries:
        console.print(f"There is no run under {root}; make one by: recflow fit --plugin lightgcn", markup=False)
        return
    entries = _only(entries, "plugin", plugin, lambda entry: entry.plugin)
    entries = _only(entries, "dataset", data, lambda entry: _dataset(entry, root))
    if sort is not None:
        entries = _sorted(entries, sort)
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if entry.state == "finished":
            groups.setdefault(entry.comparable, []).append(entry)
    for group in groups.values():
        console.print(_title(group[0].header), soft_wrap=True)
        console.print(_table(console, group, root, sort))
        console.print()
    if rest := [entry for entry in entries if entry.state != "finished"]:
        console.print(_rest_table(rest, root))
        if any(entry.state == "unfinished" for entry in rest):
            console.print(f"go on by: recflow fit --resume {root}/RUN", style="dim", markup=False, soft_wrap=True)
        console.print()
    if len(groups) > 1:
        console.print("[dim]numbers of different tables may not be compared: data, filter or split differ[/]")
    console.print(
        f"names are folders under {root}; next: recflow runs show RUN, recflow runs diff A B",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def when(seconds: float) -> str:
    """A point in time, as short as it can be told: the year only if it is not this one."""
    then = datetime.fromtimestamp(seconds)
    return then.strftime("%m-%d %H:%M" if then.year == datetime.now().year else "%Y-%m-%d")


def _read(path: Path, runs: list[Run], root: Path) -> Entry:
    """Never raises: what cannot be read is what the list is to show."""
    is_one = runs[0].path == path
    plugin = path.relative_to(root).parts[0]
    done = path / (METRICS if is_one else CROSS_VALIDATION)
    if not done.is_file():
        finished = sum(run.finished for run in runs)
        epochs = "" if is_one else f"{finished} fold{'s' * (finished != 1)}"
        try:
            read_mapping(path / CONFIG)
        except RecflowError as error:
            return Entry(path, tuple(runs), plugin, "damaged", _last_change(path), str(error))
        return Entry(path, tuple(runs), plugin, "unfinished", _last_change(path), epochs=epochs)
    ended = done.stat().st_mtime
    try:
        entry = _finished_run(runs[0], plugin, ended) if is_one else _finished_folds(path, runs, plugin, ended)
        list(
            _row(entry, [*entry.test, *(f"val/{name}" for name in entry.val)], 1)
        )  # whatever may be shown has its type
    except RecflowError as error:
        return Entry(path, tuple(runs), plugin, "damaged", ended, str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"{done.name} is damaged: {type(error).__name__}: {error}"
        return Entry(path, tuple(runs), plugin, "damaged", ended, problem)
    return entry


def _finished_run(run: Run, plugin: str, ended: float) -> Entry:
    metrics = run.metrics
    return Entry(
        run.path,
        (run,),
        plugin,
        "finished",
        ended,
        header=dict(metrics["header"]),
        monitor=str(metrics["monitor"]),
        epochs=f"{metrics['best_epoch']}/{metrics['epochs']}",
        seconds=float(metrics["train_seconds"]),
        val=dict(metrics["val"]),
        test=dict(metrics.get("test", {})),
    )


def _finished_folds(path: Path, runs: list[Run], plugin: str, ended: float) -> Entry:
    content = read_mapping(path / CROSS_VALIDATION)
    return Entry(
        path,
        tuple(runs),
        plugin,
        "finished",
        ended,
        header=dict(content["header"]),
        epochs=f"{len(content['folds'])} folds",
        seconds=sum(float(run.metrics["train_seconds"]) for run in runs),
        test=dict(content["mean"]),
        deviations=dict(content["sd"]),
    )


def _last_change(path: Path) -> float:
    return max(found.stat().st_mtime for found in (path, *path.rglob("*")) if found.exists())


def _dataset(entry: Entry, root: Path) -> str:
    return str(entry.header.get("dataset", entry.path.relative_to(root).parts[1]))


def _only(entries: list[Entry], what: str, wanted: str | None, name: Callable[[Entry], str]) -> list[Entry]:
    chosen = [entry for entry in entries if wanted is None or name(entry) == wanted]
    if not chosen:
        there = ", ".join(sorted({name(entry) for entry in entries}))
        raise RecflowError(f"There is no run of the {what} {wanted!r} among these; there are: {there}.")
    return chosen


def _sorted(entries: list[Entry], metric: str) -> list[Entry]:
    if all(entry.value(metric) is None for entry in entries):
        names = sorted({name for entry in entries for name in (*entry.test, *(f"val/{name}" for name in entry.val))})
        close = difflib.get_close_matches(metric, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names) or 'none'}."
        raise RecflowError(f"No run has a metric {metric!r}; {hint}")
    sign = 1 if lower_is_better(metric) else -1
    known = [entry for entry in entries if entry.value(metric) is not None]
    return sorted(known, key=lambda entry: sign * (entry.value(metric) or 0.0)) + [
        entry for entry in entries if entry.value(metric) is None
    ]


def _title(header: Mapping[str, Any]) -> str:
    return (
        f"[bold]{escape(str(header.get('dataset')))}[/] [dim]{escape(str(header.get('sha256'))[:8])}; "
        f"filter {escape(str(header.get('filter')))}; {escape(str(header.get('split')))}; "
        f"relevant: {escape(str(header.get('relevance')))}[/]"
    )


def _table(console: Console, group: list[Entry], root: Path, sort: str | None) -> Table:
    """The group's table, with as many columns as there is room for: the run's name is never cut."""
    monitors = list(dict.fromkeys(entry.monitor for entry in group if entry.monitor))
    names = chief_metrics(name for entry in group for name in entry.test)
    if sort is not None and sort not in names and [sort] != monitors:
        names.append(sort)
    heads = ["ended", "epoch", *(monitors if len(monitors) < 2 else ["validation"]), *names, "s"]
    cells = [list(_row(entry, names, len(monitors))) for entry in group]
    runs = [str(entry.path.relative_to(root)) for entry in group]
    room = console.width - max(map(len, [*runs, "run"]))
    kept = [sort or next(iter(names), "ended")]
    for head in [*names, *monitors[:1], "validation", "ended", "epoch", "s"]:  # what matters most comes first
        if head in heads and head not in kept and _width([*kept, head], heads, cells) <= room:
            kept.append(head)
    table = plain_table()
    table.add_column("run", overflow="fold")
    for head in (shown := [head for head in heads if head in kept]):
        table.add_column(escape(head), justify="right", no_wrap=True, style="dim" if head == "ended" else None)
    for run, row in zip(runs, cells, strict=True):
        table.add_row(escape(run), *(row[heads.index(head)] for head in shown))
    return table


def _width(chosen: Iterable[str], heads: list[str], cells: list[list[str]]) -> int:
    """How many characters some columns take, with the gaps before them."""
    return sum(2 + max(len(head), *(len(row[heads.index(head)]) for row in cells)) for head in chosen)


def _row(entry: Entry, names: Iterable[str], monitors: int) -> Iterator[str]:
    yield from (when(entry.ended), escape(entry.epochs))
    if monitors:
        chosen_by = entry.value(entry.monitor) if entry.monitor else None
        label = f"{entry.monitor.removeprefix('val/')} " if monitors > 1 else ""
        yield "" if chosen_by is None else f"{escape(label)}{chosen_by:.4f}"
    for name in names:
        value, deviation = entry.value(name), entry.deviations.get(name)
        yield "" if value is None else f"{value:.4f}" if deviation is None else f"{value:.4f} ± {deviation:.4f}"
    yield f"{entry.seconds:,.1f}"


def _rest_table(entries: list[Entry], root: Path) -> Table:
    table = plain_table("[bold]not finished[/]")
    table.add_column("run", overflow="fold", min_width=24)
    table.add_column("written to", style="dim", no_wrap=True)
    table.add_column("state", overflow="fold")
    for entry in entries:
        if entry.state == "damaged":
            state = f"[red]damaged[/]: {escape(entry.problem)}"
        else:
            ready = f" after {entry.epochs}" if entry.epochs else ""
            how = "still training, or broken off just now" if entry.fresh else "broken off"
            state = f"{how}{ready}"
        table.add_row(escape(str(entry.path.relative_to(root))), when(entry.ended), state)
    return table


def plain_table(title: str | None = None, **settings: Any) -> Table:
    """A table without lines."""
    looks: dict[str, Any] = {"title_justify": "left", "title_style": "", "box": None, "pad_edge": False}
    return Table(title=title, padding=(0, 1), **looks, **settings)
