"""``recflow runs show``: one run on one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from recflow.cli.runs_list import chief_metrics, plain_table, when
from recflow.cli.tables import beyond_table, groups_table, metrics_table
from recflow.errors import RecflowError
from recflow.pictures import shown_groups
from recflow.runs import CROSS_VALIDATION, METRICS, Run, read_mapping

_SETTINGS = ("model", "data", "optimizer", "metrics")
_STEMS = ("rmse", "mae", "ndcg", "recall", "hit")  # with their deviations, as many as a line holds


def show_run(console: Console, path: Path) -> None:
    """Print a run's circumstances, configuration, metrics and files, and what can be done with it.

    Raises:
        RecflowError: If its files cannot be read.
    """
    try:
        if (path / CROSS_VALIDATION).is_file():
            _show_folds(console, path)
        else:
            _show(console, Run(path))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RecflowError(f"{path} is damaged: {type(error).__name__}: {error}; fit the model again.") from error


def described(header: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A header's entries as people read them; what is nested stands on one line."""
    for name, value in header.items():
        if isinstance(value, Mapping):
            yield name, ", ".join(f"{key} {_number(inner)}" for key, inner in value.items())
        elif value is not None:
            yield name, _number(value) if name in {"users", "items"} else str(value)


def _show(console: Console, run: Run) -> None:
    config = run.config
    metrics = run.metrics if run.finished else {}
    console.print(f"[bold]{escape(str(config['plugin']))}[/] in {escape(str(run.path))}", soft_wrap=True)
    if run.finished:
        ended = when((run.path / METRICS).stat().st_mtime)
        by = f"by {metrics['monitor']}" if metrics["val"] else "(no validation part)"
        console.print(
            f"ended {ended}; best epoch {metrics['best_epoch']} of {metrics['epochs']} {by}; "
            f"trained in {metrics['train_seconds']:,.1f} s; {metrics['parameters']:,} parameters",
            markup=False,
        )
    if "weights" in metrics:  # of an ensemble's parts
        shares = ", ".join(f"{part} {weight:.3f}" for part, weight in metrics["weights"].items())
        console.print(f"weights: {shares}", markup=False, highlight=False)
    _print_pairs(console, "circumstances", dict(described(metrics["header"] if run.finished else {})))
    sections = {name: config[name] for name in _SETTINGS if config.get(name)}
    settings = {name: ", ".join(f"{key} {_plain(value)}" for key, value in flat(sections[name])) for name in sections}
    chosen = {"seed": config.get("seed"), "max_epochs": config.get("trainer", {}).get("max_epochs")}
    _print_pairs(
        console, "configuration", {**settings, **{name: str(v) for name, v in chosen.items() if v is not None}}
    )
    if metrics.get("val"):
        _print_metrics(console, {metrics["plugin"]: metrics["val"]}, "validation part")
    if "test" in metrics:
        rows = {metrics["plugin"]: metrics["test"], **metrics["baselines"]}
        _print_metrics(console, rows, f"test part, {metrics['test_users']:,} users")
        if (table := beyond_table(rows, "beyond accuracy")) is not None:
            console.print()
            console.print(table)
    if shown := shown_groups(metrics):
        console.print()
        console.print(groups_table(metrics["groups"], shown, "test part by group"))
        if any(row["small"] for content in metrics["groups"].values() for row in content["groups"]):
            console.print("[dim]* few users: a group that counts neither for the gap nor as the worst[/]")
    _print_pairs(console, "files", {name: decimal(size) for name, size in _files(run.path)})
    if not run.finished:
        console.print("\nThe run has not finished; next:")
        console.print(f"  recflow fit --resume {run.path}", markup=False, soft_wrap=True)
        return
    console.print("\nNext:")
    for command in ("recommend --user ID", "recommend --users all --out all.parquet", "serve", "test"):
        name, _, rest = command.partition(" ")
        console.print(f"  recflow {name} --run {run.path} {rest}".rstrip(), markup=False, soft_wrap=True)
    console.print(f"  recflow runs plot {run.path}", markup=False, soft_wrap=True)


def _show_folds(console: Console, path: Path) -> None:
    content = read_mapping(path / CROSS_VALIDATION)
    folds = len(content["folds"])
    console.print(
        f"[bold]{escape(str(content['plugin']))}[/] in {escape(str(path))}: cross-validation, {folds} folds",
        soft_wrap=True,
    )
    _print_pairs(console, "circumstances", dict(described(content["header"])))
    rows = {content["plugin"]: content, **content.get("baselines", {})}
    names = chief_metrics(content["mean"], _STEMS)
    table = plain_table("[bold]test parts, mean ± standard deviation over the folds[/]")
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    for model, row in rows.items():
        cells = (f"{row['mean'][name]:.4f} ± {row['sd'][name]:.4f}" if name in row["mean"] else "n/a" for name in names)
        table.add_row(escape(model), *cells)
    console.print()
    console.print(table)
    console.print("\nNext:")
    for fold in content["folds"]:
        console.print(f"  recflow runs show {path / fold}", markup=False, soft_wrap=True)


def _print_metrics(console: Console, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    console.print()
    console.print(metrics_table(rows, title))


def _print_pairs(console: Console, title: str, pairs: Mapping[str, str]) -> None:
    if not pairs:
        return
    table = plain_table(f"[bold]{title}[/]", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(escape(name), escape(value))
    console.print()
    console.print(table)


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings, by their dotted names.

    >>> dict(flat({"model": {"lr": 0.1, "layers": {"sizes": [8]}}}))
    {'model.lr': 0.1, 'model.layers.sizes': [8]}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield f"{path.name}/", sum(found.stat().st_size for found in path.rglob("*") if found.is_file())
        else:
            yield path.name, path.stat().st_size


def _number(value: Any) -> str:
    if isinstance(value, Mapping):
        return " and ".join(f"{_number(inner)} {name}" for name, inner in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
