"""``recflow runs diff``: two runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from recflow.cli.runs_list import plain_table
from recflow.cli.runs_show import flat
from recflow.errors import RecflowError
from recflow.runs import COMPARABLE, CROSS_VALIDATION, Run, read_mapping

_NOT_OF_THE_MODEL = {"name", "runs_dir"}


def diff_runs(console: Console, a: Path, b: Path) -> None:
    """Print what differs between two runs, and their metrics where these may be compared.

    Raises:
        RecflowError: If a file cannot be read.
    """
    configs = [_config(path) for path in (a, b)]
    contents = [_content(path) for path in (a, b)]
    try:
        headers = [dict(flat(content["header"])) if content else {} for content in contents]
        console.print(f"A  {a}\nB  {b}", markup=False, soft_wrap=True)
        _print_differences(console, "configuration", *configs)
        for path, content in zip((a, b), contents, strict=True):
            if not content:
                console.print(f"\n{path} has not finished: there are no metrics to compare.", markup=False)
        if not all(contents):
            return
        _print_differences(console, "circumstances", *headers)
        differing = [name for name in COMPARABLE if headers[0].get(name) != headers[1].get(name)]
        if differing:
            console.print(
                f"\nThe metrics of A and B cannot be compared: they are not of the same {', '.join(differing)}.",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
            return
        for part in ("val", "test"):
            _print_metrics(console, part, *(content.get(part, {}) for content in contents))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecflowError(f"{a} or {b} is damaged: {type(error).__name__}: {error}; see recflow runs list.") from error


def _config(path: Path) -> dict[str, Any]:
    return {name: value for name, value in flat(Run(path).config) if name not in _NOT_OF_THE_MODEL}


def _content(path: Path) -> dict[str, Any]:
    """The metrics of a run, or a cross-validation's means in their place; empty if it has not finished."""
    if (path / CROSS_VALIDATION).is_file():
        content = read_mapping(path / CROSS_VALIDATION)
        return {"header": content.get("header"), "test": content.get("mean")}
    return Run(path).metrics if Run(path).finished else {}


def _print_differences(console: Console, title: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    console.print()
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    if not names:
        console.print(f"[bold]{title}[/]: no difference")
        return
    table = plain_table(f"[bold]{title}[/]")
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("A", overflow="fold")
    table.add_column("B", overflow="fold")
    for name in names:
        table.add_row(
            escape(name), *(escape(str(side[name])) if side.get(name) is not None else "–" for side in (a, b))
        )
    console.print(table)


def _print_metrics(console: Console, part: str, a: Mapping[str, float], b: Mapping[str, float]) -> None:
    names = [name for name in a if name in b]
    if not names:
        return
    table = plain_table(f"[bold]{'validation' if part == 'val' else part} part[/]")
    table.add_column("", no_wrap=True)
    for name in ("A", "B", "B - A", "in %"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        change = b[name] - a[name]
        percent = f"{change / abs(a[name]):+.1%}" if a[name] else ""
        table.add_row(escape(name), f"{a[name]:.4f}", f"{b[name]:.4f}", f"{change:+.4f}", percent)
    console.print()
    console.print(table)
